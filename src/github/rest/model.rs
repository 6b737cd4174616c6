//! What the API answers, as far as it is used. Everything that GitHub may leave out or null is optional, and words that
//! GitHub may add to stay words.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// A workflow run.
#[derive(Clone, Debug, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: u64,
    /// `run-name`, else the commit's subject.
    #[serde(default)]
    pub display_title: Option<String>,
    /// `.github/workflows/gates.yml`, with `@ref` behind it.
    #[serde(default)]
    pub path: Option<String>,
    /// `workflow_dispatch`, …
    #[serde(default)]
    pub event: Option<String>,
    /// `queued`, `in_progress`, `completed`, …
    #[serde(default)]
    pub status: Option<String>,
    /// `success`, `failure`, `cancelled`, …; null before the end.
    #[serde(default)]
    pub conclusion: Option<String>,
    /// From 1.
    #[serde(default)]
    pub run_attempt: Option<u32>,
    /// The commit.
    #[serde(default)]
    pub head_sha: String,
    /// The branch.
    #[serde(default)]
    pub head_branch: Option<String>,
    /// Its page.
    #[serde(default)]
    pub html_url: String,
    /// When it was created.
    #[serde(default)]
    pub created_at: Option<DateTime<Utc>>,
}

/// A job.
#[derive(Clone, Debug, Deserialize)]
pub struct Job {
    /// Its id, which is also that of its check run.
    pub id: u64,
    /// The run that it belongs to.
    pub run_id: u64,
    /// The attempt.
    #[serde(default)]
    pub run_attempt: Option<u32>,
    /// Its name.
    pub name: String,
    /// `queued`, `in_progress`, `completed`, `waiting`, …
    #[serde(default)]
    pub status: Option<String>,
    /// Null before the end.
    #[serde(default)]
    pub conclusion: Option<String>,
    /// The labels that it asks for.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Who runs it; null while it waits.
    #[serde(default)]
    pub runner_name: Option<String>,
    /// Its steps; absent while it waits.
    #[serde(default)]
    pub steps: Option<Vec<Step>>,
    /// When it began.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
}

/// A step of a job.
#[derive(Clone, Debug, Deserialize)]
pub struct Step {
    /// From 1.
    pub number: u64,
    /// Its name.
    pub name: String,
    /// `queued`, `in_progress`, `completed`.
    #[serde(default)]
    pub status: Option<String>,
    /// Null before the end.
    #[serde(default)]
    pub conclusion: Option<String>,
    /// When it began; null before.
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended; null before.
    #[serde(default)]
    pub completed_at: Option<DateTime<Utc>>,
}

/// An annotation of a job.
#[derive(Clone, Debug, Deserialize)]
pub struct Annotation {
    /// `notice`, `warning`, `failure`.
    #[serde(default)]
    pub annotation_level: Option<String>,
    /// The text.
    #[serde(default)]
    pub message: Option<String>,
}

/// A status of a commit.
#[derive(Clone, Debug, Deserialize)]
pub struct CommitStatus {
    /// `success`, `failure`, `pending`, `error`.
    pub state: String,
    /// What it is about.
    pub context: String,
    /// The text.
    #[serde(default)]
    pub description: Option<String>,
}

/// An artifact of a run.
#[derive(Clone, Debug, Deserialize)]
pub struct Artifact {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Length of the zip.
    #[serde(default)]
    pub size_in_bytes: u64,
    /// It can't be had any more.
    #[serde(default)]
    pub expired: bool,
    /// `sha256:…` of the zip; null for uploads of old clients, absent on older servers.
    #[serde(default)]
    pub digest: Option<String>,
}

/// A self-hosted runner.
#[derive(Clone, Debug, Deserialize)]
pub struct Runner {
    /// Its name.
    pub name: String,
    /// `online`, `offline`.
    #[serde(default)]
    pub status: String,
    /// It runs a job.
    #[serde(default)]
    pub busy: bool,
    /// Its labels.
    #[serde(default)]
    pub labels: Vec<Label>,
}

/// A label of a runner.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Label {
    /// The word.
    pub name: String,
}

/// What lies between two commits.
#[derive(Clone, Debug, Deserialize)]
pub struct Compare {
    /// How many commits.
    #[serde(default)]
    pub total_commits: u64,
    /// Oldest first; not all when there are many.
    #[serde(default)]
    pub commits: Vec<Commit>,
    /// Files that differ.
    #[serde(default)]
    pub files: Option<Vec<CompareFile>>,
}

/// A commit.
#[derive(Clone, Debug, Deserialize)]
pub struct Commit {
    /// Its id.
    pub sha: String,
    /// What it says.
    pub commit: CommitText,
}

/// What a commit says.
#[derive(Clone, Debug, Deserialize)]
pub struct CommitText {
    /// The message.
    #[serde(default)]
    pub message: String,
}

/// A file that differs.
#[derive(Clone, Debug, Deserialize)]
pub struct CompareFile {
    /// Its path.
    pub filename: String,
}

/// A branch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Branch {
    /// Its name.
    pub name: String,
    /// Somebody's rules keep it.
    pub protected: bool,
    /// Where it stands.
    pub commit: BranchCommit,
}

/// The commit of a branch.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct BranchCommit {
    /// Its id.
    pub sha: String,
}
