//! The environment of a command that somebody runs as root through sudo.
//!
//! sudo leaves what its policy says (`env_keep`, `SETENV`, `-E`). This tool doesn't rely on it: before anything else,
//! every variable goes but those that are listed here, each with the reason why its value may be the caller's.

use std::ffi::OsString;
use std::sync::OnceLock;

/// What a command that runs as root for somebody else reads of that user's environment, and why that may be.
pub const OF_CALLER: [(&str, &str); 30] = [
    ("ASSAY_GATES_SELECTION", "names of gates, looked up in the catalog; stands in run.json"),
    ("ASSAY_GATES_SLOW", "a number of 1 to 100 that time limits are multiplied by; stands in run.json"),
    ("ASSAY_REDACTION_KEY_FILE", "a file, read with the caller's rights; decides placeholders only"),
    ("CI", "how a log is written"),
    ("CLICOLOR", "how a log is written"),
    ("CLICOLOR_FORCE", "how a log is written"),
    ("COLUMNS", "how a log is written"),
    ("FORCE_COLOR", "how a log is written"),
    ("GITHUB_ACTIONS", "how a log is written; whether the facts below are stated"),
    ("GITHUB_EVENT_NAME", "stated in a pack as the job's word"),
    ("GITHUB_EVENT_PATH", "a file, read with the caller's rights; its inputs are stated as the job's word"),
    ("GITHUB_REF", "stated as the job's word"),
    ("GITHUB_REPOSITORY", "stated as the job's word"),
    ("GITHUB_RUN_ATTEMPT", "stated as the job's word"),
    ("GITHUB_RUN_ID", "stated as the job's word"),
    ("GITHUB_SERVER_URL", "stated as the job's word"),
    ("GITHUB_SHA", "stated as the job's word"),
    ("GITHUB_WORKFLOW", "stated as the job's word"),
    ("GITHUB_WORKFLOW_REF", "stated as the job's word"),
    ("GITHUB_WORKFLOW_SHA", "stated as the job's word"),
    ("NO_COLOR", "how a log is written"),
    ("RUNNER_ENVIRONMENT", "stated as the job's word"),
    ("RUNNER_NAME", "stated as the job's word"),
    ("SOURCE_DATE_EPOCH", "the time that a pack states"),
    ("SUDO_COMMAND", "sudo's own word; not used, kept for what looks at its environment"),
    ("SUDO_GID", "sudo's own word on who called"),
    ("SUDO_UID", "sudo's own word on who called"),
    ("SUDO_USER", "sudo's own word on who called"),
    ("TERM", "how a log is written"),
    ("TZ", "times for people; evidence is in UTC"),
];

static CALLED_WITH: OnceLock<Vec<(OsString, OsString)>> = OnceLock::new();

/// The environment that this process was started with, as `record` hands it on to what it measures.
#[must_use]
pub fn called_with() -> Vec<(OsString, OsString)> {
    CALLED_WITH.get().cloned().unwrap_or_else(|| std::env::vars_os().collect())
}

/// Removes every variable that is not listed, when this process is root's for somebody else; sets `PATH` to the system's
/// folders and the mask of new files to one that keeps others from writing.
///
/// Nothing is done for root itself: root's environment is root's.
pub fn keep_listed() {
    #[cfg(unix)]
    {
        let called = std::env::var_os("SUDO_UID").is_some_and(|uid| uid != "0");
        if !nix::unistd::geteuid().is_root() || !called {
            return;
        }
        let all: Vec<(OsString, OsString)> = std::env::vars_os().collect();
        for (name, _) in &all {
            if !OF_CALLER.iter().any(|(listed, _)| name == *listed) {
                // SAFETY: called first of all, before any thread but this one exists.
                unsafe { std::env::remove_var(name) };
            }
        }
        // SAFETY: as above.
        unsafe { std::env::set_var("PATH", super::rights::CALLER_PATH) };
        let _first_call = CALLED_WITH.set(all);
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_listed_that_says_what_is_executed_or_where_root_writes() {
        let mut names: Vec<&str> = OF_CALLER.iter().map(|(name, _)| *name).collect();
        assert!(names.is_sorted());
        for (_, reason) in OF_CALLER {
            assert!(!reason.is_empty());
        }
        names.retain(|name| {
            ["LD_", "PATH", "HOME", "TMP", "RUST", "PYTHON", "NODE", "_DIR"]
                .iter()
                .any(|part| name.contains(part))
                && *name != "GITHUB_EVENT_PATH"
        });
        assert!(names.is_empty(), "{names:?}");
    }
}
