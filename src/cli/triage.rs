//! `assay-gates triage`: what failed, the line that decides it, and what to do.

use super::github::{Repository, with_client};
use crate::error::{Code, Error, Exit, Result};
use crate::github::rest::{Client, RunQuery, RunTarget, Target};
use crate::triage::{Diagnosis, Rules, diagnose, drops_view, gather, human, losses, markdown};
use crate::{files, report};
use clap::Args as ClapArgs;
use std::path::Path;
use std::time::Duration;

/// Say what failed in a run, which line decides it, whether a rerun is allowed, and what to do next.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates triage                          the latest run of the gates workflow
  assay-gates triage 123456789 --attempt 1
  assay-gates triage https://github.com/o/r/actions/runs/123456789/job/42
  assay-gates triage pack.zip                 a pack, a proof root, a log, or a zip of logs; needs no token
  assay-gates triage proof --format markdown  a block to paste into an issue

What isn't known reads `unknown`. Exit code 0 says that there is a diagnosis, not that the run was good.")]
pub struct Args {
    /// Run id, URL of a run or job, or a path; without it the latest run
    #[arg(value_name = "RUN|PACK|LOG")]
    target: Option<String>,
    /// Attempt of the run; else its newest
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Earlier runs to look for the same failed steps in
    #[arg(long, value_name = "N", default_value_t = 10)]
    history: u32,
    /// Where records were lost: kernel, reader, spool and filter apart, run by run
    #[arg(long, conflicts_with_all = ["attempt", "format"])]
    drops: bool,
    #[command(flatten)]
    repository: Repository,
    /// What standard output carries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What standard output carries.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub enum Format {
    /// Eight parts for people
    #[default]
    Human,
    /// One JSON object, `assay.gates.triage.v0`
    Json,
    /// A block to paste into an issue
    Markdown,
}

/// Diagnoses.
pub fn run(args: &Args) -> Result<Exit> {
    let rules = Rules::embedded()?;
    let target = match args.target.as_deref().map(Target::parse).transpose()? {
        // A file named like a number is meant when it is there.
        Some(Target::Run(run)) if run.repository.is_none() && is_there(args) => Target::Path(name(args)),
        Some(target) => target,
        None => Target::Run(RunTarget::default()),
    };
    if args.drops {
        report::data(&drops(&target, args)?);
        return Ok(Exit::Passed);
    }
    let diagnosis = match target {
        Target::Path(path) => {
            let path = Path::new(&path);
            if !path.exists() {
                let what =
                    format!("expected a run id, the URL of a run or job, or a path, found {:?}", name(args));
                return Err(Error::new(Code::TriageInput, what).hint("assay-gates triage 123456789"));
            }
            diagnose(&rules, &gather::from_disk(&rules, path)?)?
        }
        Target::Run(run) => of_run(&rules, run, args)?,
    };
    show(&diagnosis, args.format)?;
    Ok(Exit::Passed)
}

fn name(args: &Args) -> String {
    args.target.clone().unwrap_or_default()
}

fn is_there(args: &Args) -> bool {
    args.target.as_ref().is_some_and(|target| Path::new(target).exists())
}

fn of_run(rules: &Rules, mut target: RunTarget, args: &Args) -> Result<Diagnosis> {
    target.attempt = args.attempt.or(target.attempt);
    let settings = args.repository.settings(&target, Duration::from_secs(60))?;
    with_client(settings, async |client| {
        diagnose_run(&client, rules, &target, &args.repository.workflow, args.history).await
    })
}

/// The view of lost records; of a run on GitHub beside those of the last green run.
fn drops(target: &Target, args: &Args) -> Result<String> {
    let read = |path: &Path| -> Result<_> {
        match gather::recognise(path)? {
            gather::OnDisk::ProofRoot => Ok(losses(&mut gather::Tree::open(path)?, "")),
            gather::OnDisk::Pack => Ok(losses(&mut gather::Tree::open(path)?, "payload/")),
            _ => Err(Error::new(Code::TriageInput, "expected a run, a pack or a proof root, found logs")
                .at(path.display())),
        }
    };
    let target = match target {
        Target::Path(path) => return Ok(drops_view(&read(Path::new(path))?, None)),
        Target::Run(target) => target,
    };
    let settings = args.repository.settings(target, Duration::from_secs(60))?;
    with_client(settings, async |client| {
        let scratch =
            tempfile::tempdir().map_err(|error| Error::io("cannot create", &std::env::temp_dir(), error))?;
        let workflow = &args.repository.workflow;
        let latest = |filters| RunQuery { filters, count: 20 };
        let id = match target.run {
            Some(id) => id,
            None => client
                .runs(workflow, &latest(Vec::new()))
                .await?
                .first()
                .map(|run| run.id)
                .unwrap_or_default(),
        };
        let (now, before) = (scratch.path().join("pack.zip"), scratch.path().join("green.zip"));
        client.artifact_of_run(id, gather::PACK_NAME, &now).await?;
        let green = client.runs(workflow, &latest(vec![("status", "success".to_owned())])).await?;
        let green = match green.iter().find(|run| run.id < id) {
            Some(run) => client.artifact_of_run(run.id, gather::PACK_NAME, &before).await.is_ok(),
            None => false,
        };
        let green = if green { Some(read(&before)?) } else { None };
        Ok(drops_view(&read(&now)?, green.as_deref()))
    })
}

/// Gathers and diagnoses a run.
pub async fn diagnose_run(
    client: &Client,
    rules: &Rules,
    target: &RunTarget,
    workflow: &str,
    history: u32,
) -> Result<Diagnosis> {
    let scratch =
        tempfile::tempdir().map_err(|error| Error::io("cannot create", &std::env::temp_dir(), error))?;
    let scope = gather::Scope { workflow: workflow.to_owned(), history };
    let case = gather::from_run(client, rules, target, &scope, scratch.path()).await?;
    diagnose(rules, &case)
}

/// Prints a diagnosis.
pub fn show(diagnosis: &Diagnosis, format: Format) -> Result<()> {
    report::data(&match format {
        Format::Human => human(diagnosis),
        Format::Markdown => markdown(diagnosis),
        Format::Json => files::pretty_sorted(diagnosis)?,
    });
    Ok(())
}
