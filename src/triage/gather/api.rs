//! GitHub's records of a run to facts: plain values in, facts out.

use super::logs::gate_of_step;
use crate::github::rest::{Annotation, Artifact, Job, Run};
use crate::triage::facts::{Case, Fact, FactKind, Place};
use std::collections::BTreeSet;

/// The artifact that the workflow uploads begins with this.
pub const PACK_NAME: &str = "assay-runner-delegated-proof-pack";

/// The run itself.
pub fn add_run(case: &mut Case, run: &Run) {
    case.run_id = Some(run.id);
    case.attempt = run.run_attempt;
    case.url = Some(run.html_url.clone()).filter(|url| !url.is_empty());
    case.environment.insert("head".to_owned(), run.head_sha.clone());
    let place = || Place { file: Some(format!("run {}", run.id)), ..Place::default() };
    for (key, value) in [("status", &run.status), ("conclusion", &run.conclusion)] {
        if let Some(value) = value {
            case.push(Fact::new(FactKind::Run, key, value, place()));
        }
    }
}

/// The jobs and their steps.
pub fn add_jobs(case: &mut Case, jobs: &[Job]) {
    for job in jobs {
        let place = Place { job: Some(job.name.clone()), ..Place::default() };
        if let Some(conclusion) = &job.conclusion {
            case.push(Fact::new(FactKind::Job, "conclusion", conclusion, place.clone()));
        }
        let status = job.status.as_deref().unwrap_or_default();
        let has_runner = job.runner_name.as_deref().is_some_and(|name| !name.is_empty());
        if matches!(status, "queued" | "waiting" | "pending" | "requested") && !has_runner {
            let labels = job.labels.join(", ");
            let text = if labels.is_empty() { "labels unknown".to_owned() } else { labels };
            case.push(Fact::new(FactKind::Job, "waiting", text, place.clone()));
        }
        let steps = job.steps.as_deref().unwrap_or_default();
        for step in steps {
            let Some(conclusion) = &step.conclusion else { continue };
            let place = step_place(job, &step.name);
            case.push(Fact::new(FactKind::Step, "conclusion", conclusion, place));
        }
        // A failed job whose step never ended was not failed by that step.
        let cut = steps
            .iter()
            .find(|step| step.conclusion.is_none() && step.status.as_deref() == Some("in_progress"));
        if let (Some(step), Some("failure")) = (cut, job.conclusion.as_deref()) {
            case.push(Fact::new(FactKind::Job, "runner_lost", "true", step_place(job, &step.name)));
        }
    }
}

fn step_place(job: &Job, step: &str) -> Place {
    Place {
        job: Some(job.name.clone()),
        step: Some(step.to_owned()),
        gate: gate_of_step(step).map(str::to_owned),
        ..Place::default()
    }
}

/// The annotations of one job. An exit code belongs to the step that failed, when there is only one.
pub fn add_annotations(case: &mut Case, job: &Job, annotations: &[Annotation]) {
    let mut failed = job.steps.iter().flatten().filter(|step| step.conclusion.as_deref() == Some("failure"));
    let only = match (failed.next(), failed.next()) {
        (Some(step), None) => Some(step.name.as_str()),
        _ => None,
    };
    for annotation in annotations {
        let Some(message) = &annotation.message else { continue };
        let level = annotation.annotation_level.as_deref().unwrap_or("unknown");
        let place = match only {
            Some(step) => step_place(job, step),
            None => Place { job: Some(job.name.clone()), ..Place::default() },
        };
        let code = message.trim().strip_prefix("Process completed with exit code ");
        let code = code.map(|rest| rest.trim_end_matches('.')).filter(|code| code.parse::<u8>().is_ok());
        match code {
            Some(code) if only.is_some() => {
                case.push(Fact::new(FactKind::ExitCode, "exit_code", code, place))
            }
            _ => case.push(Fact::new(FactKind::Annotation, level, message.trim(), place)),
        }
    }
}

/// The run's pack: the artifact to fetch, if it can be had.
pub fn add_artifacts<'a>(case: &mut Case, run: &Run, artifacts: &'a [Artifact]) -> Option<&'a Artifact> {
    let place = Place { file: Some(format!("artifacts of run {}", run.id)), ..Place::default() };
    // Of several attempts the newest pack is the last one.
    let pack = artifacts
        .iter()
        .filter(|artifact| artifact.name.starts_with(PACK_NAME))
        .max_by_key(|artifact| artifact.id);
    match pack {
        // Of a run that is not green the pack says nothing by its absence: what kept it away does.
        None if run.conclusion.as_deref() == Some("success") => {
            case.push(Fact::new(FactKind::Artifact, "missing", PACK_NAME, place));
            None
        }
        None if run.status.as_deref() == Some("completed") => {
            case.missing.push(format!("artifact {PACK_NAME}-{}: the run has none", run.id));
            None
        }
        Some(pack) if pack.expired => {
            case.push(Fact::new(FactKind::Artifact, "expired", &*pack.name, place));
            None
        }
        other => other,
    }
}

/// Concludes whether a green run is green: every selected gate has a step of its own that succeeded.
///
/// GitHub's record of the steps decides, not the pack, which the run wrote itself.
pub fn conclude_green(case: &mut Case, run: &Run, jobs: &[Job]) {
    let claimed: BTreeSet<String> = case
        .facts
        .iter()
        .filter(|fact| fact.kind == FactKind::Gate && fact.key == "status")
        .filter_map(|fact| fact.place.gate.clone())
        .collect();
    case.facts.retain(|fact| !(fact.kind == FactKind::Run && fact.key == "green_with"));
    if run.conclusion.as_deref() != Some("success") {
        return;
    }
    let place = Place { file: Some(format!("steps of run {}", run.id)), ..Place::default() };
    let steps = || jobs.iter().flat_map(|job| job.steps.iter().flatten());
    let with = |wanted: &str| -> BTreeSet<String> {
        let fits = steps().filter(|step| step.conclusion.as_deref() == Some(wanted));
        fits.filter_map(|step| gate_of_step(&step.name).map(str::to_owned)).collect()
    };
    let (ran, skipped) = (with("success"), with("skipped"));
    // The workflow's run-name is `Gates <selection> [nonce]`.
    let title = run.display_title.as_deref().unwrap_or_default();
    let words = title.strip_prefix("Gates ").and_then(|rest| rest.split_whitespace().next());
    let selected: Option<BTreeSet<String>> = match words {
        _ if !claimed.is_empty() => Some(claimed),
        Some("all") => Some(ran.union(&skipped).cloned().collect()),
        Some("hidden_write") => Some(BTreeSet::from(["openai-agents-hidden-write".to_owned()])),
        Some(words) => Some(words.split(',').map(str::to_owned).collect()),
        None => None,
    };
    let mut without: Vec<String> = match &selected {
        Some(selected) => selected.difference(&ran).cloned().collect(),
        None if ran.is_empty() => vec!["any gate".to_owned()],
        None => Vec::new(),
    };
    if ran.is_empty() && without.is_empty() {
        without.push("any gate".to_owned());
    }
    if !without.is_empty() {
        case.push(Fact::new(FactKind::Run, "green_without", without.join(", "), place));
    } else if selected.is_none() && !skipped.is_empty() {
        case.missing
            .push("which gates were selected: neither the pack nor the run's name says it".to_owned());
    } else {
        let ran: Vec<String> = ran.into_iter().collect();
        case.push(Fact::new(FactKind::Run, "green_with", ran.join(", "), place));
    }
}

/// `job / step` of every step that failed: what is compared with earlier runs.
#[must_use]
pub fn signature(jobs: &[Job]) -> Vec<String> {
    let failed = jobs.iter().flat_map(|job| {
        job.steps
            .iter()
            .flatten()
            .filter(|step| step.conclusion.as_deref() == Some("failure"))
            .map(move |step| (job, step))
    });
    let mut names: Vec<String> = failed.map(|(job, step)| format!("{} / {}", job.name, step.name)).collect();
    names.sort();
    names.dedup();
    names
}
