//! What the environment of a job says about where artifacts go.

use super::token::RuntimeToken;
use crate::error::{Code, Error, Result};
use std::path::PathBuf;

/// A job's facts, read once at the edge.
#[derive(Clone, Debug)]
pub struct Job {
    /// `ACTIONS_RESULTS_URL`.
    pub results_url: String,
    /// `ACTIONS_RUNTIME_TOKEN`.
    pub token: RuntimeToken,
    /// `GITHUB_RUN_ID`; `local` when unset.
    pub run_id: String,
    /// `GITHUB_RUN_ATTEMPT`; empty when unset.
    pub run_attempt: String,
    /// `GITHUB_REPOSITORY`.
    pub repository: Option<String>,
    /// `GITHUB_SERVER_URL`, without a slash at the end.
    pub server_url: String,
    /// `GITHUB_API_URL`.
    pub api_url: String,
    /// `GITHUB_TOKEN` or `GH_TOKEN`.
    pub rest_token: Option<RuntimeToken>,
    /// `GITHUB_RETENTION_DAYS`.
    pub retention_cap: Option<u32>,
    /// `GITHUB_OUTPUT`.
    pub output: Option<PathBuf>,
    /// `GITHUB_STEP_SUMMARY`.
    pub summary: Option<PathBuf>,
    /// `GITHUB_ACTIONS` is `true`: standard streams are read by a runner.
    pub in_actions: bool,
}

impl Job {
    /// Reads the facts through `variable`.
    ///
    /// # Errors
    /// `ArtifactEnvironment` names the variable that is missing and why it may be.
    pub fn gather(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let need = |name: &str| {
            set(name).ok_or_else(|| {
                Error::new(Code::ArtifactEnvironment, "expected this variable of an Actions job, found none")
                    .at(name)
                    .hint("runners set it for actions, not for `run:` steps: call `assay-gates upload` from a local action (uses: ./…)")
            })
        };
        let trimmed = |text: String| text.trim_end_matches('/').to_owned();
        Ok(Self {
            results_url: need("ACTIONS_RESULTS_URL")?,
            token: RuntimeToken::new(need("ACTIONS_RUNTIME_TOKEN")?),
            run_id: set("GITHUB_RUN_ID").unwrap_or_else(|| crate::pack::LOCAL.to_owned()),
            run_attempt: set("GITHUB_RUN_ATTEMPT").unwrap_or_default(),
            repository: set("GITHUB_REPOSITORY"),
            server_url: trimmed(set("GITHUB_SERVER_URL").unwrap_or_else(|| "https://github.com".to_owned())),
            api_url: trimmed(set("GITHUB_API_URL").unwrap_or_else(|| "https://api.github.com".to_owned())),
            rest_token: set("GITHUB_TOKEN").or_else(|| set("GH_TOKEN")).map(RuntimeToken::new),
            retention_cap: set("GITHUB_RETENTION_DAYS").and_then(|text| text.parse().ok()),
            output: set("GITHUB_OUTPUT").map(PathBuf::from),
            summary: set("GITHUB_STEP_SUMMARY").map(PathBuf::from),
            in_actions: set("GITHUB_ACTIONS").as_deref() == Some("true"),
        })
    }

    /// Page of an artifact, when the repository is known.
    #[must_use]
    pub fn artifact_url(&self, artifact_id: &str) -> Option<String> {
        let repository = self.repository.as_ref()?;
        Some(format!("{}/{repository}/actions/runs/{}/artifacts/{artifact_id}", self.server_url, self.run_id))
    }
}
