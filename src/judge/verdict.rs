//! `verdict.json` (`assay.gates.verdict.v0`): what is concluded of one gate.

use super::{Assertion, Determinism};
use crate::error::Exit;
use serde::{Deserialize, Serialize};

/// The verdict on one measured run; also `result.json` of the run, written before the next one starts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunVerdict {
    /// From 1.
    pub run: u32,
    /// Every assertion held.
    pub passed: bool,
    /// Exit status of the measured process.
    pub exit_code: Option<i32>,
    /// Signal of the measured process.
    pub signal: Option<i32>,
    /// Killed by the driver at the time limit.
    pub timed_out: bool,
    /// Killed by the driver because it was told to stop.
    pub interrupted: bool,
    /// Effects recorded.
    pub effects: u64,
    /// Kernel records kept as evidence.
    pub kernel_events: u64,
    /// Records lost.
    pub lost: u64,
    /// The capture is complete.
    pub complete: bool,
    /// Why it is not.
    pub incomplete_because: Vec<String>,
    /// Wall time of the measured tree, milliseconds.
    pub elapsed_ms: u64,
    /// The archive; `None` when none could be written.
    pub archive: Option<ArchiveRef>,
    /// Everything that had to hold.
    pub assertions: Vec<Assertion>,
    /// What the program of a run that was not accepted printed last to its standard error: its own word, at most 3 lines of 300
    /// characters, controls replaced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
}

/// An archive on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveRef {
    /// Relative to the proof root.
    pub path: String,
    /// `sha256:` and 64 hex digits.
    pub sha256: String,
    /// Length in bytes.
    pub bytes: u64,
}

/// `status.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    /// Every run accepted, and the runs agree.
    Passed,
    /// A run was not accepted, or the runs disagree.
    Failed,
    /// Never ran, for a stated reason.
    Skipped,
    /// The measurement does not carry a verdict.
    Incomplete,
}

impl GateStatus {
    /// The status of a gate that ran and asks for `exit`.
    const fn of(exit: Exit) -> Self {
        match exit {
            Exit::Passed => GateStatus::Passed,
            Exit::AcceptanceFailed | Exit::RunsDisagree | Exit::EvidenceInvalid => GateStatus::Failed,
            _ => GateStatus::Incomplete,
        }
    }

    /// The word in `status.txt`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            GateStatus::Passed => "passed",
            GateStatus::Failed => "failed",
            GateStatus::Skipped => "skipped",
            GateStatus::Incomplete => "incomplete",
        }
    }
}

/// The verdict on one gate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateVerdict {
    /// `assay.gates.verdict.v0`.
    pub schema: String,
    /// The gate.
    pub gate: String,
    /// What `status.txt` says.
    pub status: GateStatus,
    /// Exit code that this gate alone asks for.
    pub exit: u8,
    /// Named reasons why it did not pass.
    pub reasons: Vec<String>,
    /// The runs.
    pub runs: Vec<RunVerdict>,
    /// The comparison; `None` when a run has no archive.
    pub determinism: Option<Determinism>,
    /// Wall time, milliseconds.
    pub elapsed_ms: u64,
}

/// How the reason of a verdict begins that says: between two runs, the driver was told to stop.
pub const INTERRUPTED: &str = "interrupted: ";

impl GateVerdict {
    /// Concludes. `wanted` is the number of runs that were asked for; `failures` are reasons outside of any run.
    #[must_use]
    pub fn conclude(
        gate: &str,
        wanted: u32,
        runs: Vec<RunVerdict>,
        determinism: Option<Determinism>,
        failures: Vec<(Exit, String)>,
        elapsed_ms: u64,
    ) -> Self {
        let mut exits: Vec<Exit> = Vec::new();
        let mut reasons = Vec::new();
        let mut because = |exit: Exit, reason: String| {
            exits.push(exit);
            reasons.push(reason);
        };
        let stopped = runs.iter().any(|run| run.interrupted)
            || failures.iter().any(|(_, reason)| reason.starts_with(INTERRUPTED));
        // What was not measured because somebody ended the run is that, and no weakness of the capture.
        let unmeasured = if stopped { Exit::Infrastructure } else { Exit::CaptureIncomplete };
        for (exit, reason) in failures {
            because(exit, reason);
        }
        for run in &runs {
            let number = run.run;
            if run.interrupted {
                // What it lacks follows from its end, and stands with the run.
                because(Exit::Infrastructure, format!("run {number}: interrupted"));
                continue;
            }
            if run.timed_out {
                because(Exit::AcceptanceFailed, format!("run {number}: killed at the time limit"));
            }
            for reason in &run.incomplete_because {
                because(Exit::CaptureIncomplete, format!("run {number}: capture incomplete: {reason}"));
            }
            if !run.complete && run.incomplete_because.is_empty() {
                because(Exit::CaptureIncomplete, format!("run {number}: capture incomplete"));
            }
            for assertion in run.assertions.iter().filter(|assertion| !assertion.held) {
                because(Exit::AcceptanceFailed, format!("run {number}: {assertion}"));
            }
        }
        if runs.len() < wanted as usize {
            because(unmeasured, format!("{} of {wanted} runs were measured", runs.len()));
        }
        match &determinism {
            Some(found) if found.agree => {}
            Some(found) => match &found.divergence {
                Some(at) => {
                    because(
                        Exit::RunsDisagree,
                        format!("runs {} and {} differ in {}", at.runs[0], at.runs[1], at.artifact),
                    );
                    for drift in at.said() {
                        because(Exit::RunsDisagree, drift);
                    }
                }
                None => because(unmeasured, "a single run can't show agreement".to_owned()),
            },
            None => because(unmeasured, "the runs could not be compared".to_owned()),
        }
        let exit = Exit::worst(exits);
        let status = GateStatus::of(exit);
        Self {
            schema: "assay.gates.verdict.v0".to_owned(),
            gate: gate.to_owned(),
            status,
            exit: exit.code(),
            reasons,
            runs,
            determinism,
            elapsed_ms,
        }
    }

    /// The verdict when `failures` apply too. A gate that never ran stays one that never ran.
    #[must_use]
    pub fn also(mut self, failures: Vec<(Exit, String)>) -> Self {
        let own =
            Exit::BY_PRECEDENCE.into_iter().find(|exit| exit.code() == self.exit).unwrap_or(Exit::ToolFailed);
        let stopped = self.is_interrupted();
        let (exits, reasons): (Vec<Exit>, Vec<String>) = failures.into_iter().unzip();
        // What could not be concluded from runs that somebody ended is no weakness of what was measured.
        let exits = exits.into_iter().map(|exit| match exit {
            Exit::CaptureIncomplete if stopped => Exit::Infrastructure,
            other => other,
        });
        let exit = Exit::worst(exits.chain([own]));
        self.exit = exit.code();
        self.reasons.extend(reasons);
        if self.status != GateStatus::Skipped {
            self.status = GateStatus::of(exit);
        }
        self
    }

    /// A gate that never ran.
    #[must_use]
    pub fn skipped(gate: &str, exit: Exit, reason: String) -> Self {
        Self {
            schema: "assay.gates.verdict.v0".to_owned(),
            gate: gate.to_owned(),
            status: GateStatus::Skipped,
            exit: exit.code(),
            reasons: vec![reason],
            runs: Vec::new(),
            determinism: None,
            elapsed_ms: 0,
        }
    }

    /// Somebody told the driver to stop while this gate was measured, or between two of its runs.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.runs.iter().any(|run| run.interrupted)
            || self.reasons.iter().any(|reason| reason.starts_with(INTERRUPTED))
    }

    /// It passed and its runs agree.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.status == GateStatus::Passed
    }
}
