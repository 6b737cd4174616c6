//! What is known of a run, whatever it was learnt from.

use crate::pack::claims::Claims;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a fact is about.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FactKind {
    /// The workflow run, from the API. Keys: `status`, `conclusion`, `gates`.
    Run,
    /// A job, from the API. Keys: `status`, `conclusion`, `waiting` (labels that it waits for), `runner`.
    Job,
    /// A step, from the API. Keys: `conclusion`.
    Step,
    /// An annotation, from the API. Key: its level.
    Annotation,
    /// A line of a log. Key: `line`.
    Log,
    /// `error[AG###]` in a log. Key: `code`; the value is the code.
    Code,
    /// The exit status of a gate's step. Key: `exit_code`.
    ExitCode,
    /// A value in a JSON file of a pack or proof root. Key: `file.json:/path/to/value`.
    Field,
    /// A gate's outcome in a pack or proof root. Keys: `status`, `runs`.
    Gate,
    /// The artifact of a run. Keys: `missing`, `expired`, `verify`.
    Artifact,
}

impl FactKind {
    /// Who says so, with how much weight: the driver's files and GitHub's records are certain, text is likely.
    #[must_use]
    pub fn confidence(self) -> Confidence {
        match self {
            FactKind::Annotation | FactKind::Log | FactKind::Code => Confidence::Likely,
            _ => Confidence::Certain,
        }
    }
}

/// How much a verdict can be relied on.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Nothing decides.
    None,
    /// A measured program may have written the deciding line.
    Low,
    /// A line of text decides.
    Likely,
    /// A record of the driver's or of GitHub's decides.
    Certain,
}

/// Where a fact stands. Unknown parts are `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<String>,
    /// The step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The gate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gate: Option<String>,
    /// Which of the gate's runs, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<u32>,
    /// The file, or the API's name of the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        match (&self.file, self.line) {
            (Some(file), Some(line)) => parts.push(format!("{file}:{line}")),
            (Some(file), None) => parts.push(file.clone()),
            (None, _) => {
                parts.extend(self.job.iter().map(|job| format!("job {job}")));
                parts.extend(self.step.iter().map(|step| format!("step {step:?}")));
            }
        }
        if parts.is_empty() {
            parts.push("unknown".to_owned());
        }
        f.write_str(&parts.join(", "))
    }
}

/// One thing that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What about.
    pub kind: FactKind,
    /// Which property; see [`FactKind`].
    pub key: String,
    /// Its value, as text.
    pub value: String,
    /// Where it stands.
    pub place: Place,
    /// Lines around it, the line itself marked `> `.
    pub context: Vec<String>,
    /// A measured program printed it, so it may be forged.
    pub measured: bool,
    /// How much what follows from it can be relied on, unless it is measured: then little.
    pub confidence: Confidence,
}

impl Fact {
    /// A fact without context, not printed by a measured program.
    pub fn new(kind: FactKind, key: impl Into<String>, value: impl Into<String>, place: Place) -> Self {
        let (context, measured, confidence) = (Vec::new(), false, kind.confidence());
        Self { kind, key: key.into(), value: value.into(), place, context, measured, confidence }
    }

    /// How far a verdict can rely on it.
    #[must_use]
    pub fn weight(&self) -> Confidence {
        if self.measured { Confidence::Low } else { self.confidence }
    }

    /// The line of a log that says so.
    #[must_use]
    pub fn line(&self) -> Option<&str> {
        self.context.iter().find_map(|line| line.strip_prefix("> "))
    }
}

/// What a run ran on and with, to compare with the last green one: name to value.
pub type Environment = BTreeMap<String, String>;

/// What was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Subject {
    /// A run on GitHub.
    Run,
    /// A proof root on disk.
    Root,
    /// A pack on disk.
    Pack,
    /// Logs alone.
    #[default]
    Logs,
}

/// Everything known of one run, pack, proof root or log.
#[derive(Clone, Debug, Default)]
pub struct Case {
    /// What was looked at, as the user would name it.
    pub source: String,
    /// What that is.
    pub subject: Subject,
    /// The run's page.
    pub url: Option<String>,
    /// The run's id, and the attempt that was used.
    pub run_id: Option<u64>,
    /// See `run_id`.
    pub attempt: Option<u32>,
    /// `owner/name`.
    pub repository: Option<String>,
    /// In the order in which they were learnt: driver's files, then API, then logs.
    pub facts: Vec<Fact>,
    /// Head commit, kernel, eBPF object, toolchain, runner version, SDK versions.
    pub environment: Environment,
    /// Disk, leftovers, lost events, clock.
    pub host: Environment,
    /// What the invocation may be cited for, of its `claims.json`.
    pub claims: Option<Claims>,
    /// What differs from the last green run.
    pub changed: Option<Changed>,
    /// Earlier runs.
    pub history: Option<History>,
    /// Logs, files and permissions that were not there.
    pub missing: Vec<String>,
}

impl Case {
    /// Adds a fact.
    pub fn push(&mut self, fact: Fact) {
        self.facts.push(fact);
    }
}

/// What changed since the last green run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// The last green run's page, or its name.
    pub since: String,
    /// `sha subject`, newest last.
    pub commits: Vec<String>,
    /// More commits than are listed.
    pub commits_left_out: u64,
    /// Changed files that belong to the workflow.
    pub workflow: Vec<String>,
    /// `name: before → after`; a value that isn't known reads `unknown`.
    pub environment: Vec<String>,
}

/// Earlier runs of the same workflow.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct History {
    /// Runs looked at.
    pub looked_at: u32,
    /// The steps that failed here, which is what is compared.
    pub signature: Vec<String>,
    /// Runs in which exactly the same steps failed.
    pub same: Vec<String>,
}
