//! Which repository, which API, which token, which run.

use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use std::process::Stdio;

/// A run, as the user named it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunTarget {
    /// Host of the URL.
    pub host: Option<String>,
    /// `owner/name` of the URL.
    pub repository: Option<String>,
    /// The run.
    pub run: Option<u64>,
    /// The attempt.
    pub attempt: Option<u32>,
    /// The job.
    pub job: Option<u64>,
}

/// What the argument names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A run or job on GitHub.
    Run(RunTarget),
    /// Something on disk, perhaps.
    Path(String),
}

impl Target {
    /// Reads an id, a URL, or else a path.
    ///
    /// # Errors
    /// `TriageInput` for a URL that names neither a run nor a job.
    pub fn parse(text: &str) -> Result<Self> {
        if let Ok(run) = text.parse() {
            return Ok(Target::Run(RunTarget { run: Some(run), ..RunTarget::default() }));
        }
        if !text.starts_with("http://") && !text.starts_with("https://") {
            return Ok(Target::Path(text.to_owned()));
        }
        let wrong = || {
            Error::new(Code::TriageInput, format!("expected the URL of a run or job, found {text}"))
                .hint("https://github.com/OWNER/NAME/actions/runs/123")
        };
        let url = url::Url::parse(text).map_err(|_| wrong())?;
        let parts: Vec<&str> = url.path().split('/').filter(|part| !part.is_empty()).collect();
        let [owner, name, "actions", "runs", run, rest @ ..] = parts.as_slice() else { return Err(wrong()) };
        let mut target = RunTarget {
            host: url.host_str().map(str::to_owned),
            repository: Some(format!("{owner}/{name}")),
            run: Some(run.parse().map_err(|_| wrong())?),
            ..RunTarget::default()
        };
        for pair in rest.chunks(2) {
            match pair {
                ["attempts", attempt] => target.attempt = Some(attempt.parse().map_err(|_| wrong())?),
                ["job" | "jobs", job] => target.job = Some(job.parse().map_err(|_| wrong())?),
                _ => {}
            }
        }
        Ok(Target::Run(target))
    }
}

/// The API's base URL of a host: github.com, a tenant of ghe.com, or an Enterprise Server.
#[must_use]
pub fn api_of_host(host: &str) -> String {
    match host.strip_suffix(".ghe.com") {
        Some(tenant) => format!("https://api.{tenant}.ghe.com"),
        None if host == "github.com" || host == "www.github.com" => "https://api.github.com".to_owned(),
        None => format!("https://{host}/api/v3"),
    }
}

/// Host and `owner/name` of a git remote: HTTPS, SSH, or `git@host:owner/name`.
#[must_use]
pub fn repository_of_remote(url: &str) -> Option<(String, String)> {
    let url = url.trim();
    let (host, path) = match url.split_once("://") {
        Some((_, rest)) => rest.split_once('/')?,
        None => url.split_once(':')?,
    };
    let host = host.rsplit('@').next()?.split(':').next()?;
    let path = path.trim_matches('/').trim_end_matches(".git");
    let (owner, name) = path.split_once('/')?;
    (!owner.is_empty() && !name.is_empty() && !name.contains('/'))
        .then(|| (host.to_owned(), format!("{owner}/{name}")))
}

/// `origin` of the git repository that the current folder is in.
#[must_use]
pub fn origin() -> Option<(String, String)> {
    repository_of_remote(&output_of("git", &["remote", "get-url", "origin"])?)
}

/// The token for `host`: from the environment, or what `gh auth token` says.
///
/// A token belongs to its host: that for github.com (`GH_TOKEN`, `GITHUB_TOKEN`) must not reach another server because
/// someone pasted a URL. As with gh, `GH_ENTERPRISE_TOKEN` and `GITHUB_ENTERPRISE_TOKEN` are for the others, and in a
/// workflow `GITHUB_TOKEN` is for the server that the workflow runs on. `chosen`: the user named the API himself.
#[must_use]
pub fn token(host: &str, chosen: bool) -> Option<String> {
    let from = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let own_server = || {
        from("GITHUB_SERVER_URL").and_then(|url| url::Url::parse(&url).ok()?.host_str().map(str::to_owned))
    };
    let dotcom = matches!(host, "github.com" | "www.github.com") || host.ends_with(".ghe.com");
    let names: &[&str] = if chosen || dotcom || own_server().as_deref() == Some(host) {
        &["GH_TOKEN", "GITHUB_TOKEN"]
    } else {
        &["GH_ENTERPRISE_TOKEN", "GITHUB_ENTERPRISE_TOKEN"]
    };
    let asked = || output_of("gh", &["auth", "token", "--hostname", host]);
    let token = names.iter().find_map(|name| from(name)).or_else(asked)?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Rights::own().command(program).args(arguments).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_named_by_id_or_url() {
        let run = |text: &str| match Target::parse(text).unwrap() {
            Target::Run(run) => (run.repository, run.run, run.attempt, run.job),
            Target::Path(path) => panic!("{path}"),
        };
        assert_eq!(run("12"), (None, Some(12), None, None));
        let repository = Some("o/r".to_owned());
        let url = "https://github.com/o/r/actions/runs/12";
        assert_eq!(run(url), (repository.clone(), Some(12), None, None));
        assert_eq!(run(&format!("{url}/attempts/2?pr=1")), (repository.clone(), Some(12), Some(2), None));
        assert_eq!(run(&format!("{url}/job/34#step:5:1")), (repository, Some(12), None, Some(34)));
        assert_eq!(Target::parse("proof/x.zip").unwrap(), Target::Path("proof/x.zip".to_owned()));
        assert!(Target::parse("https://github.com/o/r/pull/1").is_err());
    }

    #[test]
    fn remotes_give_host_and_repository() {
        for remote in [
            "https://github.com/o/r.git",
            "git@github.com:o/r.git",
            "ssh://git@github.com:22/o/r",
            "https://u:p@github.com/o/r/",
        ] {
            assert_eq!(
                repository_of_remote(remote),
                Some(("github.com".to_owned(), "o/r".to_owned())),
                "{remote}"
            );
        }
        assert_eq!(repository_of_remote("/srv/git/r.git"), None);
        assert_eq!(api_of_host("github.example.org"), "https://github.example.org/api/v3");
        assert_eq!(api_of_host("acme.ghe.com"), "https://api.acme.ghe.com");
    }
}
