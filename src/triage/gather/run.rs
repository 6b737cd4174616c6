//! A run on GitHub to a [`Case`]: its records, its pack, its logs, the last green run, the runs before.
//!
//! Only the run itself must be there. Everything else that can't be had is named among what was missing, with the
//! permission that it needs.

use super::{add_job_log, add_logs, add_pack, api};
use crate::error::{Code, Error, Result};
use crate::github::rest::{Client, Job, Run, RunQuery, RunTarget};
use crate::triage::diagnose::ENVIRONMENT;
use crate::triage::facts::{Case, Changed, Environment, History, Subject};
use crate::triage::rules::Rules;
use std::path::Path;

/// Commits that are listed.
const COMMITS: usize = 10;

/// What to look at beyond the run itself.
#[derive(Clone, Debug)]
pub struct Scope {
    /// File name of the workflow, for a run that isn't named.
    pub workflow: String,
    /// Earlier runs to compare with.
    pub history: u32,
}

/// Gathers everything that is known of the run.
///
/// # Errors
/// What [`Client::get`] fails with for the run and its jobs; `GithubNotFound` when the workflow never ran.
pub async fn from_run(
    client: &Client,
    rules: &Rules,
    target: &RunTarget,
    scope: &Scope,
    scratch: &Path,
) -> Result<Case> {
    let run = find(client, target, scope).await?;
    let mut case = Case { source: format!("run {}", run.id), ..Case::default() };
    case.repository = Some(client.repository().to_owned());
    case.subject = Subject::Run;
    api::add_run(&mut case, &run);
    let attempt = target.attempt.or(run.run_attempt).unwrap_or(1);
    case.attempt = Some(attempt);
    let all = client.jobs(run.id, attempt).await?;
    let jobs: Vec<Job> = all.into_iter().filter(|job| target.job.is_none_or(|id| id == job.id)).collect();
    if let (Some(id), true) = (target.job, jobs.is_empty()) {
        return Err(Error::new(
            Code::GithubNotFound,
            format!("run {} has no job {id} in attempt {attempt}", run.id),
        ));
    }
    api::add_jobs(&mut case, &jobs);
    annotations(client, &jobs, &mut case).await;
    pack(client, rules, &run, &mut case, &scratch.join("pack.zip")).await;
    if run.conclusion.as_deref() != Some("success") {
        logs(client, rules, &run, attempt, &jobs, &mut case, scratch).await;
    }
    api::conclude_green(&mut case, &run, &jobs);
    let workflow = workflow_of(&run).unwrap_or(&scope.workflow).to_owned();
    match before(client, &run, &workflow, scope.history.max(1)).await {
        Ok(before) => {
            if run.conclusion.as_deref() != Some("success") {
                changed(client, rules, &run, &workflow, &mut case, scratch).await;
            }
            case.history = history(client, &jobs, &before, scope.history, &mut case.missing).await;
        }
        Err(error) => case.missing.push(format!("earlier runs: {error}{}", advice(&error))),
    }
    Ok(case)
}

async fn find(client: &Client, target: &RunTarget, scope: &Scope) -> Result<Run> {
    if let Some(id) = target.run {
        return client.run(id, target.attempt).await;
    }
    let newest = client.runs(&scope.workflow, &RunQuery { count: 1, ..RunQuery::default() }).await?;
    newest.into_iter().next().ok_or_else(|| {
        Error::new(
            Code::GithubNotFound,
            format!("{} has never run in {}", scope.workflow, client.repository()),
        )
        .hint("assay-gates dispatch --gates all --watch")
    })
}

/// `gates.yml` of `.github/workflows/gates.yml@refs/heads/main`.
fn workflow_of(run: &Run) -> Option<&str> {
    let path = run.path.as_deref()?.split('@').next()?;
    path.rsplit('/').next().filter(|name| !name.is_empty())
}

async fn annotations(client: &Client, jobs: &[Job], case: &mut Case) {
    for job in jobs.iter().filter(|job| job.conclusion.as_deref() != Some("success")) {
        match client.annotations(job.id).await {
            Ok(found) => api::add_annotations(case, job, &found),
            Err(error) => {
                case.missing.push(format!("annotations of job {}: {error}{}", job.name, advice(&error)))
            }
        }
    }
}

async fn pack(client: &Client, rules: &Rules, run: &Run, case: &mut Case, to: &Path) {
    let artifacts = match client.artifacts(run.id).await {
        Ok(artifacts) => artifacts,
        Err(error) => return case.missing.push(format!("artifacts: {error}{}", advice(&error))),
    };
    let Some(pack) = api::add_artifacts(case, run, &artifacts) else { return };
    let fetched = match client.artifact_zip(pack, to).await {
        Ok(_) => add_pack(rules, to, case),
        Err(error) => Err(error),
    };
    if let Err(error) = fetched {
        case.missing.push(format!("pack {}: {error}{}", pack.name, advice(&error)));
    }
}

/// The zip of all logs; where that can't be had or read, each failed job's own.
async fn logs(
    client: &Client,
    rules: &Rules,
    run: &Run,
    attempt: u32,
    jobs: &[Job],
    case: &mut Case,
    scratch: &Path,
) {
    let zip = scratch.join("logs.zip");
    let before = case.missing.len();
    let whole = match client.log_zip(run.id, attempt, &zip).await {
        Ok(_) => add_logs(rules, &zip, case),
        Err(error) => Err(error),
    };
    if whole.is_ok() && case.missing.len() == before {
        return;
    }
    let why = whole.err().map(|error| format!("{error}{}", advice(&error)));
    let ended =
        |job: &&Job| job.conclusion.as_deref().is_some_and(|end| end != "success" && end != "skipped");
    let mut lacking = Vec::new();
    for job in jobs.iter().filter(ended) {
        let file = scratch.join(format!("job-{}.txt", job.id));
        let got = match client.job_log(job.id, &file).await {
            Ok(_) => add_job_log(rules, &job.name, &file, case),
            Err(error) => Err(error),
        };
        match got {
            Ok(()) => case.missing.retain(|missing| !missing.starts_with(&format!("log {}/", job.name))),
            Err(error) => lacking.push(format!("log of job {}: {error}{}", job.name, advice(&error))),
        }
    }
    if let (Some(why), false) = (why, lacking.is_empty()) {
        case.missing.push(format!("log zip: {why}"));
    }
    case.missing.extend(lacking);
}

/// Completed runs of the workflow before this one, newest first.
async fn before(client: &Client, run: &Run, workflow: &str, count: u32) -> Result<Vec<Run>> {
    let filters = vec![("status", "completed".to_owned())];
    let runs = client.runs(workflow, &RunQuery { filters, count: (count + 5).min(100) }).await?;
    Ok(runs.into_iter().filter(|other| other.id < run.id).take(count as usize).collect())
}

async fn changed(client: &Client, rules: &Rules, run: &Run, workflow: &str, case: &mut Case, scratch: &Path) {
    let filters = vec![("status", "success".to_owned())];
    let green = match client.runs(workflow, &RunQuery { filters, count: 20 }).await {
        Ok(runs) => runs.into_iter().find(|other| other.id < run.id),
        Err(error) => return case.missing.push(format!("last green run: {error}{}", advice(&error))),
    };
    let Some(green) = green else { return case.missing.push("last green run: there is none".to_owned()) };
    let mut changed = Changed { since: green.html_url.clone(), ..Changed::default() };
    if green.head_sha == run.head_sha {
        changed.commits.push("none: the same head".to_owned());
    } else {
        match client.compare(&green.head_sha, &run.head_sha).await {
            Ok(compare) => {
                let newest = compare.commits.iter().rev().take(COMMITS).rev();
                changed.commits = newest
                    .map(|commit| {
                        let subject = commit.commit.message.lines().next().unwrap_or_default();
                        format!("{} {subject}", commit.sha.chars().take(10).collect::<String>())
                    })
                    .collect();
                changed.commits_left_out = compare.total_commits.saturating_sub(changed.commits.len() as u64);
                let files = compare.files.unwrap_or_default();
                let of_workflow = files.into_iter().filter(|file| file.filename.starts_with(".github/"));
                changed.workflow = of_workflow.map(|file| file.filename).collect();
            }
            Err(error) => case.missing.push(format!("commits since: {error}{}", advice(&error))),
        }
    }
    let mut then = Case::default();
    pack(client, rules, &green, &mut then, &scratch.join("green.zip")).await;
    let zip = scratch.join("green-logs.zip");
    if client.log_zip(green.id, green.run_attempt.unwrap_or(1), &zip).await.is_ok() {
        // Only the runner's version is wanted; a log that can't be read leaves it unknown.
        let _unreadable = add_logs(rules, &zip, &mut then);
    }
    case.missing.extend(
        then.missing
            .into_iter()
            .filter(|what| what.starts_with("pack "))
            .map(|what| format!("last green run's {what}")),
    );
    changed.environment = differences(&then.environment, &case.environment);
    case.changed = Some(changed);
}

/// `name: before → after` for what differs or isn't known on one side.
fn differences(before: &Environment, after: &Environment) -> Vec<String> {
    let value = |of: &Environment, name: &str| of.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
    let all = ENVIRONMENT.iter().filter(|name| **name != "head");
    all.map(|name| (name, value(before, name), value(after, name)))
        .filter(|(_, before, after)| before != after)
        .map(|(name, before, after)| format!("{name}: {before} → {after}"))
        .collect()
}

async fn history(
    client: &Client,
    jobs: &[Job],
    before: &[Run],
    count: u32,
    missing: &mut Vec<String>,
) -> Option<History> {
    if count == 0 {
        return None;
    }
    let mut history = History { signature: api::signature(jobs), ..History::default() };
    for run in before {
        history.looked_at += 1;
        if run.conclusion.as_deref() == Some("success") || history.signature.is_empty() {
            continue;
        }
        match client.jobs(run.id, run.run_attempt.unwrap_or(1)).await {
            Ok(jobs) if api::signature(&jobs) == history.signature => history.same.push(run.html_url.clone()),
            Ok(_) => {}
            Err(error) => {
                history.looked_at -= 1;
                missing.push(format!("jobs of run {}: {error}", run.id));
            }
        }
    }
    Some(history)
}

fn advice(error: &Error) -> String {
    error.advice().map_or(String::new(), |advice| format!(" ({advice})"))
}
