//! Which commit is being measured.

use serde::{Deserialize, Serialize};
use std::path::Path;

/// Head and state of the checkout, as git says when the checkout's owner asks it: the owner's word, not root's.
/// `unknown` where it can't say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Commit id.
    pub head_sha: String,
    /// Tracked files differ from the commit, or git could not say: such a run can't be cited.
    pub dirty: bool,
    /// Full ref, e.g. `refs/heads/main`.
    pub r#ref: String,
    /// `owner/name` of the origin, or `unknown`.
    pub repository: String,
    /// The workflow run that measures, inside Actions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowRun>,
}

/// A run of a workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowRun {
    /// The workflow's name.
    pub name: String,
    /// The run's id.
    pub run_id: String,
    /// The run's page.
    pub run_url: String,
}

impl WorkflowRun {
    fn of(environment: &impl Fn(&str) -> Option<String>) -> Option<Self> {
        let run_id = environment("GITHUB_RUN_ID").filter(|_| environment("GITHUB_ACTIONS").is_some())?;
        let server = environment("GITHUB_SERVER_URL")?;
        let repository = environment("GITHUB_REPOSITORY")?;
        Some(Self {
            name: environment("GITHUB_WORKFLOW")?,
            run_url: format!("{}/{repository}/actions/runs/{run_id}", server.trim_end_matches('/')),
            run_id,
        })
    }
}

impl Source {
    /// Asks git in `folder`; inside Actions the run's own ref and repository win over what the checkout says.
    #[must_use]
    pub fn of(folder: &Path, environment: impl Fn(&str) -> Option<String>) -> Self {
        let unknown = || "unknown".to_owned();
        let git = |args: &[&str]| git(folder, args);
        let dirty =
            git(&["status", "--porcelain", "--untracked-files=no"]).is_none_or(|status| !status.is_empty());
        Self {
            head_sha: git(&["rev-parse", "HEAD"]).unwrap_or_else(unknown),
            dirty,
            r#ref: environment("GITHUB_REF")
                .or_else(|| git(&["symbolic-ref", "-q", "HEAD"]))
                .unwrap_or_else(unknown),
            repository: environment("GITHUB_REPOSITORY")
                .or_else(|| git(&["remote", "get-url", "origin"]).and_then(|url| owner_and_name(&url)))
                .unwrap_or_else(unknown),
            workflow: WorkflowRun::of(&environment),
        }
    }
}

impl Source {
    /// Whether a run of this checkout may be cited, and why not.
    ///
    /// # Errors
    /// The reason, as the end of a sentence.
    pub fn citable(&self) -> Result<(), &'static str> {
        if self.head_sha == "unknown" {
            Err("the commit is unknown, so the run can't be cited")
        } else if self.dirty {
            Err("the checkout has uncommitted changes, so the run can't be cited")
        } else {
            Ok(())
        }
    }
}

/// Output of a git command, trimmed; `None` when it fails.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    crate::pack::git::git(folder, arguments).ok().map(|text| text.trim().to_owned())
}

fn owner_and_name(url: &str) -> Option<String> {
    let path = url.trim_end_matches('/').trim_end_matches(".git");
    let mut parts = path.rsplit(['/', ':']);
    let name = parts.next().filter(|part| !part.is_empty())?;
    let owner = parts.next().filter(|part| !part.is_empty())?;
    Some(format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_comes_from_either_form_of_remote() {
        for url in ["https://github.com/o/n.git", "git@github.com:o/n", "https://github.com/o/n/"] {
            assert_eq!(owner_and_name(url).as_deref(), Some("o/n"), "{url}");
        }
        assert_eq!(owner_and_name("n"), None);
    }

    #[test]
    fn outside_of_a_checkout_everything_is_unknown_and_dirty() {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::of(folder.path(), |_| None);
        assert_eq!((source.head_sha.as_str(), source.dirty), ("unknown", true));
    }

    #[test]
    fn a_changed_tracked_file_makes_the_checkout_dirty() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        let run = |args: &[&str]| git(folder.path(), args).unwrap();
        run(&["init", "-q"]);
        std::fs::write(&file, "1").unwrap();
        run(&["add", "f"]);
        run(&["-c", "user.name=n", "-c", "user.email=e@x", "commit", "-qm", "m"]);
        assert!(!Source::of(folder.path(), |_| None).dirty);
        std::fs::write(&file, "2").unwrap();
        assert!(Source::of(folder.path(), |_| None).dirty);
    }
}
