//! Runs, jobs, logs, artifacts, runners.

use super::client::Client;
use super::model::{Annotation, Artifact, CommitStatus, Compare, Job, Run, Runner};
use crate::error::{Code, Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::Path;

/// More pages than this are not asked for.
const MOST_PAGES: u32 = 50;
/// Statuses of one commit that are looked at: GitHub keeps no more under one context.
const MOST_STATUSES: usize = 1000;
/// Bytes of a log zip.
const LARGEST_LOGS: u64 = 4 << 30;
/// Bytes of an artifact: a pack is far smaller.
const LARGEST_ARTIFACT: u64 = 1 << 30;

/// Which runs of a workflow to list.
#[derive(Clone, Debug, Default)]
pub struct RunQuery {
    /// Event, branch, status and so on, as `name=value`.
    pub filters: Vec<(&'static str, String)>,
    /// How many, at most.
    pub count: u32,
}

impl Client {
    /// Everything that a list has, page by page, at most `most`; `key` names the list in the answer, without one the
    /// answer is it.
    async fn list<T: DeserializeOwned>(&self, path: &str, key: Option<&str>, most: usize) -> Result<Vec<T>> {
        let joint = if path.contains('?') { '&' } else { '?' };
        let unfit =
            |what: String| Error::new(Code::GithubAnswer, format!("unexpected answer to GET {path}: {what}"));
        let mut all: Vec<T> = Vec::new();
        let size = most.clamp(1, 100);
        for page in 1..=MOST_PAGES {
            let mut answer: Value = self.get(&format!("{path}{joint}per_page={size}&page={page}")).await?;
            let total = answer.get("total_count").and_then(Value::as_u64);
            let items = match key {
                Some(key) => answer.get_mut(key).map(Value::take),
                None => Some(answer),
            };
            let items: Vec<T> = match items {
                Some(items) => serde_json::from_value(items).map_err(|error| unfit(error.to_string()))?,
                None => return Err(unfit(format!("there is no {}", key.unwrap_or_default()))),
            };
            let count = items.len();
            all.extend(items);
            let complete = total.map_or(count < size, |total| all.len() as u64 >= total);
            if complete || count == 0 || all.len() >= most {
                all.truncate(most);
                return Ok(all);
            }
        }
        Err(Error::new(Code::GithubAnswer, format!("GET {path}: more than {} entries", all.len())))
    }

    /// Runs of a workflow file, newest first.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn runs(&self, workflow: &str, query: &RunQuery) -> Result<Vec<Run>> {
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in &query.filters {
            pairs.append_pair(name, value);
        }
        let (workflow, pairs) = (escape(workflow), pairs.finish());
        let filters = if pairs.is_empty() { pairs } else { format!("?{pairs}") };
        let path = format!("/actions/workflows/{workflow}/runs{filters}");
        self.list(&path, Some("workflow_runs"), query.count as usize).await
    }

    /// The statuses of a commit, newest first.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn statuses(&self, commit: &str) -> Result<Vec<CommitStatus>> {
        self.list(&format!("/commits/{}/statuses", escape(commit)), None, MOST_STATUSES).await
    }

    /// A run, of its newest attempt or of `attempt`.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn run(&self, id: u64, attempt: Option<u32>) -> Result<Run> {
        match attempt {
            Some(attempt) => self.get(&format!("/actions/runs/{id}/attempts/{attempt}")).await,
            None => self.get(&format!("/actions/runs/{id}")).await,
        }
    }

    /// The jobs of a run's attempt.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn jobs(&self, run: u64, attempt: u32) -> Result<Vec<Job>> {
        self.list(&format!("/actions/runs/{run}/attempts/{attempt}/jobs"), Some("jobs"), usize::MAX).await
    }

    /// One job.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn job(&self, id: u64) -> Result<Job> {
        self.get(&format!("/actions/jobs/{id}")).await
    }

    /// The annotations of a job.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn annotations(&self, job: u64) -> Result<Vec<Annotation>> {
        self.list(&format!("/check-runs/{job}/annotations"), None, usize::MAX).await
    }

    /// The artifacts of a run.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn artifacts(&self, run: u64) -> Result<Vec<Artifact>> {
        self.list(&format!("/actions/runs/{run}/artifacts"), Some("artifacts"), usize::MAX).await
    }

    /// The zip of an artifact, into `to`; gives its length.
    ///
    /// # Errors
    /// As [`Client::download`]; `ArtifactGone` when it has expired.
    pub async fn artifact_zip(&self, artifact: &Artifact, to: &Path) -> Result<u64> {
        let gone = || Error::new(Code::ArtifactGone, format!("artifact {} has expired", artifact.name));
        if artifact.expired {
            return Err(gone());
        }
        let length =
            self.download(&format!("/actions/artifacts/{}/zip", artifact.id), to, LARGEST_ARTIFACT).await;
        length.map_err(|error| if error.message().contains("410 Gone") { gone() } else { error })
    }

    /// The newest artifact of a run whose name begins with `name`, as a zip, into `to`.
    ///
    /// # Errors
    /// `ArtifactGone` when there is none or it has expired; as [`Client::download`].
    pub async fn artifact_of_run(&self, run: u64, name: &str, to: &Path) -> Result<u64> {
        let artifacts = self.artifacts(run).await?;
        let newest = artifacts
            .iter()
            .filter(|artifact| artifact.name.starts_with(name))
            .max_by_key(|artifact| artifact.id);
        let newest = newest.ok_or_else(|| {
            Error::new(Code::ArtifactGone, format!("run {run} has no artifact {name}"))
                .hint(format!("assay-gates triage {run}"))
        })?;
        self.artifact_zip(newest, to).await
    }

    /// The zip of all logs of a run's attempt, into `to`; gives its length.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn log_zip(&self, run: u64, attempt: u32, to: &Path) -> Result<u64> {
        self.download(&format!("/actions/runs/{run}/attempts/{attempt}/logs"), to, LARGEST_LOGS).await
    }

    /// The log of one job, as text, into `to`; gives its length.
    ///
    /// # Errors
    /// As [`Client::download`].
    pub async fn job_log(&self, job: u64, to: &Path) -> Result<u64> {
        self.download(&format!("/actions/jobs/{job}/logs"), to, LARGEST_LOGS).await
    }

    /// The repository's own self-hosted runners. Those of its organisation are not among them.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn runners(&self) -> Result<Vec<Runner>> {
        self.list("/actions/runners", Some("runners"), usize::MAX).await
    }

    /// What lies between two commits.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn compare(&self, base: &str, head: &str) -> Result<Compare> {
        self.get(&format!("/compare/{}...{}", escape(base), escape(head))).await
    }
}

fn escape(segment: &str) -> String {
    url::form_urlencoded::byte_serialize(segment.as_bytes()).collect::<String>().replace('+', "%20")
}
