//! The verdict on one run, from what it left; and the lines of a gate's log that follow from verdicts.

use super::{ArchiveRef, GateVerdict, RunEvidence, RunVerdict, accept};
use crate::gate::{Definition, Group};

/// What the driver alone says of how a run went. The rest of a verdict follows from the run's evidence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunAccount {
    /// From 1.
    pub run: u32,
    /// Exit status of the measured process.
    pub exit_code: Option<i32>,
    /// Signal of the measured process.
    pub signal: Option<i32>,
    /// Killed at the time limit.
    pub timed_out: bool,
    /// Killed because the driver was told to stop.
    pub interrupted: bool,
    /// Effects recorded.
    pub effects: u64,
    /// Records lost.
    pub lost: u64,
    /// The capture is complete.
    pub complete: bool,
    /// Why it is not, or why there is no archive.
    pub reasons: Vec<String>,
    /// Wall time of the measured tree, milliseconds.
    pub elapsed_ms: u64,
}

/// Judges one run. `evidence` is what was read back of it; `None` when it left no archive that holds.
#[must_use]
pub fn run_verdict(
    gate: &Definition,
    account: RunAccount,
    evidence: Option<(&RunEvidence, ArchiveRef)>,
    work: &str,
) -> RunVerdict {
    let (archive, kernel_events, assertions) = match evidence {
        Some((evidence, archive)) => {
            (Some(archive), evidence.kernel.len() as u64, accept(gate, evidence, work))
        }
        None => (None, 0, Vec::new()),
    };
    let complete = account.complete && archive.is_some();
    RunVerdict {
        run: account.run,
        passed: complete && assertions.iter().all(|assertion| assertion.held) && !account.interrupted,
        exit_code: account.exit_code,
        signal: account.signal,
        timed_out: account.timed_out,
        interrupted: account.interrupted,
        effects: account.effects,
        kernel_events,
        lost: account.lost,
        complete,
        incomplete_because: account.reasons,
        elapsed_ms: account.elapsed_ms,
        archive,
        assertions,
        last_words: Vec::new(),
    }
}

/// A negative gate never passes: what it declares is how it fails.
#[must_use]
pub fn declared_failure(gate: &Definition, runs: &[RunVerdict]) -> Option<String> {
    (gate.group == Group::Negative && runs.iter().all(|run| run.passed) && !runs.is_empty()).then(|| {
        format!(
            "correlation is {}: {}, as this gate declares",
            gate.expect.correlation,
            gate.expect.ambiguities.join(", ")
        )
    })
}

/// Why a scenario has no finding: its baseline did not pass before it, on the same head, in the same invocation.
#[must_use]
pub fn baseline_missing(gate: &Definition, before: &[GateVerdict]) -> Option<String> {
    let baseline = gate.scenario.as_ref()?.baseline.as_deref()?;
    match before.iter().find(|verdict| verdict.gate == baseline) {
        Some(verdict) if verdict.passed() => None,
        Some(verdict) => Some(format!("its baseline {baseline} is {}", verdict.status.word())),
        None => Some(format!("its baseline {baseline} was not measured before it")),
    }
}

/// The line that a consumer harvests for each accepted run.
#[must_use]
pub fn acceptance_line(gate: &Definition) -> String {
    let scenario = gate.scenario.as_ref().and_then(|scenario| serde_json::to_value(scenario.id).ok());
    match scenario.as_ref().and_then(|id| id.as_str()) {
        Some(id) => format!("PASS: runner-spike {} acceptance ({id})", gate.label),
        None => format!("PASS: runner-spike {} acceptance", gate.label),
    }
}

/// The line that a consumer harvests when the runs agree.
#[must_use]
pub fn determinism_line(gate: &Definition, runs: usize) -> String {
    let count = if runs == 3 { "three".to_owned() } else { runs.to_string() };
    format!("PASS: runner-spike {} {count}-run determinism", gate.label)
}
