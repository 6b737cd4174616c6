//! `assay-gates dispatch`: the workflow, started once.

use super::github::{Repository, with_client};
use super::watch::{PATIENCE, Pace, follow};
use crate::error::{Code, Error, Exit, Result};
use crate::github::rest::{Client, Dispatch, RunTarget, Runner, nonce};
use crate::report;
use clap::Args as ClapArgs;
use std::collections::BTreeMap;
use std::time::Duration;

/// Times that the list of runs is asked for ours, and the pause between: two minutes.
const LOOKS: u32 = 40;
const BETWEEN_LOOKS: Duration = Duration::from_secs(3);

/// Start the gates workflow, once and only once, and follow it.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates dispatch --gates all --watch
  assay-gates dispatch --gates kernel-only --ref my-branch

It refuses when no online runner has the label. When GitHub's answer doesn't tell whether the dispatch was taken,
the run is looked for by the nonce in its name; the dispatch is never sent twice.")]
pub struct Args {
    /// Which gates: `all`, or one that may stand alone
    #[arg(long, value_name = "GATES", default_value = "all")]
    gates: String,
    /// Branch or tag; else the default branch
    #[arg(long = "ref", value_name = "REF")]
    reference: Option<String>,
    /// Measure with the installed binary instead of building this commit
    #[arg(long)]
    no_build: bool,
    /// Follow the run to its end, and triage it when it is red
    #[arg(long)]
    watch: bool,
    /// Dispatch although no online runner is known to have the label
    #[arg(long)]
    force: bool,
    /// Label that a runner must have
    #[arg(long, value_name = "LABEL", default_value = "assay-bpf-runner")]
    runner_label: String,
    #[command(flatten)]
    repository: Repository,
    #[command(flatten)]
    pace: Pace,
}

/// Starts it.
pub fn run(args: &Args) -> Result<Exit> {
    let settings = args.repository.settings(&RunTarget::default(), PATIENCE)?;
    with_client(settings, async |client| start(&client, args).await)
}

async fn start(client: &Client, args: &Args) -> Result<Exit> {
    if !args.force {
        runner_is_online(&client.runners().await.map_err(unknown_runners)?, &args.runner_label)?;
    }
    let reference = match &args.reference {
        Some(reference) => reference.clone(),
        None => client.default_branch().await?,
    };
    let inputs = BTreeMap::from([
        ("gates".to_owned(), args.gates.clone()),
        ("build_ebpf".to_owned(), (!args.no_build).to_string()),
    ]);
    let dispatch = Dispatch {
        workflow: args.repository.workflow.clone(),
        reference,
        inputs,
        nonce: nonce()?,
        looks: (LOOKS, args.pace.pause().min(BETWEEN_LOOKS)),
    };
    let id = client.dispatch(&dispatch).await?;
    let run = client.run(id, None).await;
    let url = run.map_or_else(|_| id.to_string(), |run| run.html_url);
    if !args.watch {
        report::data(&format!("{url}\n"));
        report::diagnostic(&format!("  follow it: assay-gates watch {id} --repo {}", client.repository()));
        return Ok(Exit::Passed);
    }
    report::diagnostic(&format!("dispatched {url}"));
    let target = RunTarget { run: Some(id), ..RunTarget::default() };
    follow(client, &target, &args.repository.workflow, args.pace.pause()).await
}

/// Unknown is not online.
fn unknown_runners(error: Error) -> Error {
    let unknown = Error::new(Code::NoRunner, format!("whether a runner is online is not known: {error}"));
    match error.advice() {
        Some(advice) => unknown.hint(format!("{advice}; or dispatch anyway: --force")),
        None => unknown.hint("--force dispatches anyway"),
    }
}

/// GitHub tells labels apart without regard to case.
fn same_label(one: &str, other: &str) -> bool {
    one.to_lowercase() == other.to_lowercase()
}

fn runner_is_online(runners: &[Runner], label: &str) -> Result<()> {
    let labelled: Vec<&Runner> = runners
        .iter()
        .filter(|runner| runner.labels.iter().any(|own| same_label(&own.name, label)))
        .collect();
    if labelled.iter().any(|runner| runner.status == "online") {
        return Ok(());
    }
    let what = match labelled.first() {
        None => format!(
            "expected an online runner labelled {label}, found none with the label among {}",
            runners.len()
        ),
        Some(one) => format!("expected an online runner labelled {label}, found {} {}", one.name, one.status),
    };
    Err(Error::new(Code::NoRunner, what).hint(
        "start the runner's service on the host; runners of the organisation are not listed here: --force",
    ))
}
