//! `assay-gates watch`: a run, live, to its end.

use super::github::{Repository, with_client};
use super::triage::{Format, diagnose_run, show};
use crate::error::{Code, Error, Exit, Result};
use crate::github::rest::{Client, Look, RunTarget, Target};
use crate::report::{self, Follow};
use crate::triage::Rules;
use clap::Args as ClapArgs;
use std::time::Duration;

/// A rate limit ends within the hour.
pub const PATIENCE: Duration = Duration::from_secs(65 * 60);
/// Looks in a row that may fail: ten minutes at the default interval, and more because every look is several tries.
const FAILURES: u32 = 120;

/// Follow a run until it ends; triage it when it is red.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates watch 123456789
  assay-gates watch https://github.com/o/r/actions/runs/123456789

Exit code 0: every selected gate ran and passed. Otherwise that of the failure, as `assay-gates run` gives it.")]
pub struct Args {
    /// Run id or URL
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    repository: Repository,
    #[command(flatten)]
    pace: Pace,
}

/// How often to look.
#[derive(ClapArgs)]
pub struct Pace {
    /// Seconds between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, value_parser = seconds)]
    pub interval: f64,
}

impl Pace {
    /// The pause between two looks.
    #[must_use]
    pub fn pause(&self) -> Duration {
        Duration::from_secs_f64(self.interval)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected seconds, up to 3600".to_owned()),
    }
}

/// Follows it.
pub fn run(args: &Args) -> Result<Exit> {
    let target = match Target::parse(&args.run)? {
        Target::Run(target) => target,
        Target::Path(path) => {
            let what = format!("expected a run id or URL, found {path:?}");
            return Err(Error::new(Code::TriageInput, what).hint(format!("assay-gates triage {path}")));
        }
    };
    let settings = args.repository.settings(&target, PATIENCE)?;
    let workflow = args.repository.workflow.clone();
    with_client(settings, async |client| follow(&client, &target, &workflow, args.pace.pause()).await)
}

/// Follows a run to its end; gives what it ends with.
pub async fn follow(client: &Client, target: &RunTarget, workflow: &str, pause: Duration) -> Result<Exit> {
    let id = target.run.ok_or_else(|| Error::new(Code::TriageInput, "expected a run"))?;
    let view = Follow::new();
    let mut before = Look::default();
    let mut failures = 0;
    let (attempt, conclusion) = loop {
        match look(client, id).await {
            Ok((look, attempt, conclusion)) => {
                failures = 0;
                for line in look.changes_since(&before) {
                    view.change(&line);
                }
                view.now(&look.now());
                before = look;
                if let Some(conclusion) = conclusion {
                    break (attempt, conclusion);
                }
            }
            Err(error) if matches!(error.code(), Code::GithubUnreachable | Code::GithubRateLimited) => {
                failures += 1;
                if failures == 1 {
                    view.change(&format!("no answer, looking again: {error}"));
                }
                if failures >= FAILURES {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
    };
    drop(view);
    let rules = Rules::embedded()?;
    let target = RunTarget { attempt: Some(attempt), job: None, ..target.clone() };
    let diagnosis = diagnose_run(client, &rules, &target, workflow, 10).await?;
    if conclusion == "success" && diagnosis.class == "passed" {
        let gates = diagnosis.evidence.map(|evidence| evidence.value).unwrap_or_default();
        report::data(&format!("passed: {gates}\n"));
        return Ok(Exit::Passed);
    }
    show(&diagnosis, Format::Human)?;
    // A run that isn't green never ends with 0, whatever the rules say.
    Ok(if diagnosis.exit == Exit::Passed { Exit::CaptureIncomplete } else { diagnosis.exit })
}

async fn look(client: &Client, id: u64) -> Result<(Look, u32, Option<String>)> {
    let run = client.run(id, None).await?;
    let attempt = run.run_attempt.unwrap_or(1);
    let jobs = client.jobs(id, attempt).await?;
    let ended = run.status.as_deref() == Some("completed");
    let conclusion = ended.then(|| run.conclusion.clone().unwrap_or_else(|| "unknown".to_owned()));
    Ok((Look::new(&run, &jobs), attempt, conclusion))
}
