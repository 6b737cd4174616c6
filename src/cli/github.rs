//! What the commands that ask GitHub have in common.

use crate::error::{Code, Error, Result};
use crate::github::rest::{Client, RunTarget, Settings, api_of_host, origin, token};
use clap::Args as ClapArgs;
use std::time::Duration;

/// Which repository, through which API. The token is `GH_TOKEN`, `GITHUB_TOKEN`, or what `gh auth token` says.
#[derive(ClapArgs)]
pub struct Repository {
    /// Repository; else the one of the git remote `origin`
    #[arg(long, value_name = "OWNER/NAME", env = "GITHUB_REPOSITORY")]
    repo: Option<String>,
    /// Base URL of the API; else the one that belongs to the remote's host
    #[arg(long, value_name = "URL", env = "GITHUB_API_URL")]
    api_url: Option<String>,
    /// File name of the workflow
    #[arg(long, value_name = "FILE", default_value = "gates.yml")]
    pub workflow: String,
}

impl Repository {
    /// Settings for the repository; a run's URL says more than the remote.
    ///
    /// # Errors
    /// `GithubRepository` when nothing names one.
    pub fn settings(&self, target: &RunTarget, patience: Duration) -> Result<Settings> {
        let remote = if target.repository.is_none() && self.repo.is_none() { origin() } else { None };
        let host = target.host.clone().or_else(|| remote.as_ref().map(|(host, _)| host.clone()));
        let host = host.unwrap_or_else(|| "github.com".to_owned());
        let named = target.repository.clone().or_else(|| self.repo.clone());
        let repository = named.or_else(|| remote.map(|(_, name)| name)).ok_or_else(|| {
            let what = "expected a repository, found no --repo and no git remote `origin`";
            Error::new(Code::GithubRepository, what).hint("--repo OWNER/NAME")
        })?;
        let base_url = self.api_url.clone().unwrap_or_else(|| api_of_host(&host));
        Ok(Settings { token: token(&host, self.api_url.is_some()), base_url, repository, patience })
    }
}

/// Runs `work` with a client, on a runtime of its own.
///
/// # Errors
/// What `work` fails with; `Internal` when there is no runtime.
pub fn with_client<T>(settings: Settings, work: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::Internal, format!("no runtime: {error}")))?;
    runtime.block_on(async { work(Client::new(settings)?).await })
}
