//! The review of a predeclared scenario: its rows, and whether it ends as it was declared to end.
//!
//! A scenario ends in the verdict that its definition declares, or it is inconclusive; there is no third way, and
//! nothing is reinterpreted after the fact. Whatever is missing, unclean or different is named. Pure: values in,
//! values out. What the SDK reports is only ever called reported; what is called measured was written by the kernel side.

mod conclusion;
mod effects;
mod join;
mod refs;
pub mod rows;
#[cfg(test)]
mod tests;
mod texts;

pub use refs::EvidenceRef;

use super::diff::Baseline;
use super::{GateStatus, GateVerdict};
use crate::capture::{Author, CaptureProof};
use crate::error::{Exit, Result};
use crate::evidence::archive::member;
use crate::evidence::{
    Archive, CorrelationReport, KernelEvent, ObservationHealth, PolicyEvent, SdkEvent, ToolEffects,
};
use crate::files::{Sha256Digest, sha256};
use crate::gate::{Definition, Scenario, ScenarioRole};
use conclusion::Conclusion;
use effects::Found;
use join::Join;
use std::collections::BTreeMap;

/// One measured run, read back from disk and verified before.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// `observation-health.json`.
    pub health: &'a ObservationHealth,
    /// `correlation-report.json`.
    pub correlation: &'a CorrelationReport,
    /// `layers/kernel.ndjson`.
    pub kernel: &'a [KernelEvent],
    /// `layers/policy.ndjson`.
    pub policy: &'a [PolicyEvent],
    /// `layers/sdk.ndjson`.
    pub sdk: &'a [SdkEvent],
    /// `tool_effects.json`.
    pub effects: &'a ToolEffects,
    /// Who wrote each layer: `capture_proof.json#origins`.
    pub origins: &'a BTreeMap<String, Author>,
    /// Digests of `capability-surface.json`, `correlation-report.json`, `observation-health.json`.
    pub files: [Sha256Digest; 3],
    /// Digest of the archive.
    pub archive: Sha256Digest,
}

/// What a review needs of one run, as it was read.
#[derive(Clone, Debug)]
pub struct RunFiles {
    archive: Archive,
    effects: ToolEffects,
    proof: CaptureProof,
    files: [Sha256Digest; 3],
}

impl RunFiles {
    /// Of an archive that verified, and the `tool_effects.json` and `capture_proof.json` beside it.
    #[must_use]
    pub fn new(archive: Archive, effects: ToolEffects, proof: CaptureProof) -> Self {
        let names = [member::SURFACE, member::CORRELATION, member::HEALTH];
        let files = names.map(|name| sha256(archive.member(name).unwrap_or_default()));
        Self { archive, effects, proof, files }
    }

    /// What a baseline of this run would say.
    ///
    /// # Errors
    /// As [`Baseline::of`].
    pub fn baseline(&self, gate: &str) -> Result<Baseline> {
        Baseline::of(gate, &self.archive.content.surface, &self.effects)
    }

    /// As the judge takes it.
    #[must_use]
    pub fn as_run(&self) -> Run<'_> {
        let content = &self.archive.content;
        Run {
            health: &content.health,
            correlation: &content.correlation,
            kernel: &content.kernel,
            policy: &content.policy,
            sdk: &content.sdk,
            effects: &self.effects,
            origins: &self.proof.origins,
            files: self.files,
            archive: self.archive.sha256,
        }
    }
}

/// A gate that was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// Its definition.
    pub gate: &'a Definition,
    /// What was concluded of it without its scenario.
    pub verdict: &'a GateVerdict,
    /// Its runs, in order.
    pub runs: &'a [Run<'a>],
    /// The `PASS:` lines of its log.
    pub pass_lines: &'a [String],
    /// The commit that it was measured on.
    pub head_sha: &'a str,
}

/// The invocation that measured.
#[derive(Clone, Debug)]
pub struct Invocation {
    /// RFC 3339, UTC.
    pub created_at: String,
    /// The commit; `unknown` when git could not say.
    pub head_sha: String,
    /// Tracked files differ from the commit.
    pub dirty: bool,
    /// Full ref.
    pub r#ref: String,
    /// What was asked for.
    pub selection: String,
    /// Whether the measuring binary was built from the commit: `true`, `false`, or `local` outside of a workflow.
    pub build_ebpf: String,
    /// The workflow, or `local`.
    pub workflow: String,
    /// The workflow run, or this tool's session.
    pub run_id: String,
    /// Page of the workflow run.
    pub run_url: Option<String>,
}

/// Everything that a review looks at. `work` is the work folder as the measured process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The scenario's gate.
    pub gate: Measured<'a>,
    /// Its baseline, when one was measured before it in the same invocation.
    pub baseline: Option<Measured<'a>>,
    /// The invocation.
    pub invocation: &'a Invocation,
    /// The work folder.
    pub work: &'a str,
}

/// What stops a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stop {
    /// What it adds to the gate's outcome; `None` when the gate says so itself already.
    exit: Option<Exit>,
    reason: String,
}

/// The outcome.
#[derive(Clone, Debug, PartialEq)]
pub struct Review {
    /// `scenario-verdict.json`, for whoever asks.
    pub verdict: rows::SemanticGapVerdict,
    /// Name and text of each file of the review folder.
    pub files: Vec<(&'static str, String)>,
    /// What the review adds to the outcome of the gate; empty when the scenario ended as declared.
    pub failures: Vec<(Exit, String)>,
}

impl Review {
    /// The exit code that the review alone asks for.
    #[must_use]
    pub fn exit(&self) -> Exit {
        Exit::worst(self.failures.iter().map(|(exit, _)| *exit))
    }
}

/// The folder of the review below `runs/`: the scenario's name, or the gate's for the gates of the matrix, so that
/// a scenario that is also a gate of `all` never meets itself.
#[must_use]
pub fn folder(gate: &Definition) -> Option<String> {
    let scenario = gate.scenario.as_ref()?;
    Some(match gate.group {
        crate::gate::Group::Scenario => gate.id.replace('-', "_"),
        _ => name(&scenario.id),
    })
}

/// Reviews a gate; `None` when it has no scenario.
///
/// # Errors
/// `Internal` when a row can't be serialised.
pub fn review(input: &Input) -> Result<Option<Review>> {
    let Some(scenario) = &input.gate.gate.scenario else { return Ok(None) };
    let outcome = conclude(input, scenario);
    let conclusion = Conclusion::new(input, scenario, &outcome);
    let failures = match &outcome {
        Ok(_) => Vec::new(),
        Err(stops) => stops
            .iter()
            .filter_map(|stop| {
                stop.exit.map(|exit| (exit, format!("scenario {}: {}", name(&scenario.id), stop.reason)))
            })
            .collect(),
    };
    Ok(Some(Review { files: conclusion.files()?, verdict: conclusion.verdict, failures }))
}

/// What carries a verdict: the first run's join, its records, and the gap where there is one.
struct Shown<'a> {
    join: Join<'a>,
    reads: Vec<Found<'a>>,
    gap: Option<Found<'a>>,
    /// Pointers into each run's `tool_effects.json`.
    pointers: Vec<Vec<String>>,
}

/// Every condition, gathered rather than stopped at the first, so that a reader sees all of them at once.
fn conclude<'a>(input: &Input<'a>, scenario: &Scenario) -> std::result::Result<Shown<'a>, Vec<Stop>> {
    let mut stops = Vec::new();
    let gate = &input.gate;
    let incomplete = |reason: String| Stop { exit: Some(Exit::CaptureIncomplete), reason };
    if gate.verdict.gate != gate.gate.id || gate.verdict.status != GateStatus::Passed {
        let reason = format!("the gate {} is {}", gate.verdict.gate, gate.verdict.status.word());
        // A passed verdict of another gate is no statement about this one.
        let exit = (gate.verdict.status == GateStatus::Passed).then_some(Exit::EvidenceInvalid);
        stops.push(Stop { exit, reason });
    }
    let whole = gate.verdict.runs.iter().filter(|run| run.complete && run.archive.is_some()).count();
    if gate.runs.len() < 3 || whole != gate.runs.len() {
        stops.push(incomplete(format!("expected three complete runs with their archives, found {whole}")));
    }
    let refused = gate.verdict.runs.iter().filter(|run| !run.passed).count();
    if refused > 0 {
        // The gate says so itself, unless its verdict contradicts its runs.
        let exit = (gate.verdict.status == GateStatus::Passed).then_some(Exit::EvidenceInvalid);
        stops.push(Stop { exit, reason: format!("{refused} runs were not accepted") });
    }
    if !gate.verdict.determinism.as_ref().is_some_and(|found| found.agree) {
        stops.push(incomplete("the runs were not shown to agree".to_owned()));
    }
    stops.extend(baseline(input, scenario).err());
    let mut shown: Option<Shown> = None;
    for (at, run) in gate.runs.iter().enumerate() {
        let number = at + 1;
        match one_run(input, scenario, run) {
            Err(stop) => stops.push(Stop { reason: format!("run {number}: {}", stop.reason), ..stop }),
            Ok((join, reads, gap)) => {
                let pointers = gap.iter().chain(&reads).map(|found| found.pointer.clone()).collect();
                match &mut shown {
                    None => shown = Some(Shown { join, reads, gap, pointers: vec![pointers] }),
                    Some(first) if first.join.call().reported == join.call().reported => {
                        first.pointers.push(pointers)
                    }
                    Some(_) => {
                        stops.push(incomplete(format!("run {number}: the call has another id than in run 1")))
                    }
                }
            }
        }
    }
    match shown {
        Some(shown) if stops.is_empty() => Ok(shown),
        _ => Err(stops),
    }
}

/// The baseline passed before, on the same head, and its own runs are positive joins without the gap.
fn baseline(input: &Input, scenario: &Scenario) -> std::result::Result<(), Stop> {
    let Some(wanted) = &scenario.baseline else { return Ok(()) };
    let stop = |reason: String| Err(Stop { exit: Some(Exit::CaptureIncomplete), reason });
    let Some(baseline) = &input.baseline else {
        return stop(format!("its baseline {wanted} was not measured before it"));
    };
    if baseline.verdict.gate != *wanted || baseline.gate.id != *wanted {
        return stop(format!("expected the baseline {wanted}, found {}", baseline.verdict.gate));
    }
    if baseline.verdict.status != GateStatus::Passed || baseline.runs.len() < 3 {
        return stop(format!("its baseline {wanted} is {}", baseline.verdict.status.word()));
    }
    if baseline.head_sha != input.gate.head_sha || input.gate.head_sha != input.invocation.head_sha {
        return stop(format!("its baseline {wanted} was measured on another head"));
    }
    for (at, run) in baseline.runs.iter().enumerate() {
        let joined = Join::of(run).and_then(|join| match join {
            Join::Strong(_) => {
                effects::declared_alone(baseline.gate, run, &join, input.work)?;
                effects::reads_only(run, &join, input.work)?;
                effects::absent_from_baseline(input.gate.gate, run, input.work)
            }
            Join::ByOrder(_) => {
                Err(Stop { exit: None, reason: "it is not joined by the call's id".to_owned() })
            }
        });
        if let Err(broken) = joined {
            return stop(format!("its baseline {wanted}, run {}: {}", at + 1, broken.reason));
        }
    }
    Ok(())
}

type OneRun<'a> = (Join<'a>, Vec<Found<'a>>, Option<Found<'a>>);

/// The rule of the scenario's role, on one run.
fn one_run<'a>(
    input: &Input<'a>,
    scenario: &Scenario,
    run: &Run<'a>,
) -> std::result::Result<OneRun<'a>, Stop> {
    let gate = input.gate.gate;
    let work = input.work;
    let join = Join::of(run)?;
    let strong = matches!(join, Join::Strong(_));
    if run.health.run_id != gate.run_id {
        let reason = format!("expected run {}, found {}", gate.run_id, run.health.run_id);
        return Err(Stop { exit: Some(Exit::CaptureIncomplete), reason });
    }
    let wants_id = scenario.role != ScenarioRole::Fallback || scenario.gap_path.is_some();
    if strong != wants_id {
        let reason = if strong {
            format!("{} joins it after all, which this scenario excludes", join.call().reported)
        } else {
            format!("no decision and no effect carries {}, which the SDK reported", join.call().reported)
        };
        return Err(Stop { exit: Some(Exit::CaptureIncomplete), reason });
    }
    effects::declared_alone(gate, run, &join, work)?;
    match scenario.role {
        ScenarioRole::Baseline => {
            let reads = effects::reads_only(run, &join, work)?;
            Ok((join, reads, None))
        }
        ScenarioRole::Gap => {
            let gap = effects::the_gap(gate, run, &join, work, true)?;
            Ok((join, Vec::new(), Some(gap)))
        }
        ScenarioRole::Fallback => {
            let reads = effects::reads_only(run, &join, work)?;
            let gap = match scenario.gap_path {
                Some(_) => Some(effects::the_gap(gate, run, &join, work, false)?),
                None => None,
            };
            Ok((join, reads, gap))
        }
    }
}

/// A unit enum's name as it is serialised.
fn name<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
