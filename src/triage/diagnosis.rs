//! What triage says (`assay.gates.triage.v0`).

use super::facts::{Changed, Confidence, Environment, History, Place};
use super::rules::{Kind, Rerun};
use crate::error::Exit;
use serde::Serialize;

/// The verdict on a run, and what it rests on. What isn't known reads `unknown`.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// `assay.gates.triage.v0`.
    pub schema: &'static str,
    /// What was looked at.
    pub source: String,
    /// The run's page.
    pub url: Option<String>,
    /// The class.
    pub class: String,
    /// What the class means.
    pub title: String,
    /// What the class says about the run.
    pub kind: Kind,
    /// Which of several: a doctor's check, an invariant, an artifact.
    pub detail: Option<String>,
    /// How far to rely on it.
    pub confidence: Confidence,
    /// Whether the run may be started again.
    pub rerun: RerunAnswer,
    /// What decided; `None` when nothing did.
    pub evidence: Option<Evidence>,
    /// The gate, or `unknown`.
    pub gate: String,
    /// Which of its runs, or `unknown`.
    pub run: String,
    /// The first divergence or failed assertion, or `unknown`.
    pub divergence: String,
    /// Ten lines around it.
    pub context: Vec<String>,
    /// Other classes that something fits, in the order of precedence.
    pub also: Vec<Also>,
    /// What was earned and what not, a line for each bounded claim.
    pub claims: Vec<String>,
    /// What differs from the last green run; `None` when that is not known.
    pub changed: Option<Changed>,
    /// What the run ran on and with.
    pub environment: Environment,
    /// Disk, leftovers, lost events, clock; each `unknown` when it is not known.
    pub host: Environment,
    /// Earlier runs; `None` when they were not looked at.
    pub history: Option<History>,
    /// The attempt that was used.
    pub attempt: Option<u32>,
    /// Logs, files and permissions that were not there.
    pub missing: Vec<String>,
    /// What to do next.
    pub next: Next,
    /// Exit code of `watch` for such a run.
    #[serde(skip)]
    pub exit: Exit,
}

/// Whether the run may be started again, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RerunAnswer {
    /// The answer.
    pub answer: Rerun,
    /// The reason.
    pub why: String,
}

/// What decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Evidence {
    /// Where.
    pub place: Place,
    /// Which property.
    pub key: String,
    /// What it says.
    pub value: String,
    /// The line of the log that says so.
    pub line: Option<String>,
}

/// Another class that something fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Also {
    /// The class.
    pub class: String,
    /// Which of several.
    pub detail: Option<String>,
    /// What fits.
    pub evidence: Evidence,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Next {
    /// A line to paste.
    pub command: String,
    /// The runbook page.
    pub page: String,
}
