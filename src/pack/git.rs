//! What git knows of the code that measures: the head commit and the trees of named paths.

use super::manifest::PathTree;
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// The paths whose trees decide what a pack measured: kernel programs, capture to judge, gates, and what builds them.
pub const CONTENT_PATHS: [&str; 16] = [
    ".github/actions",
    ".github/workflows",
    "Cargo.lock",
    "Cargo.toml",
    "build.rs",
    "ebpf",
    "gates",
    "src/capture",
    "src/evidence",
    "src/files",
    "src/gate",
    "src/github",
    "src/host",
    "src/judge",
    "src/pack",
    "src/policy",
];

/// Commit that `HEAD` names in `folder`.
///
/// # Errors
/// What git says, in one line.
pub fn head(folder: &Path) -> Result<String, String> {
    git(folder, &["rev-parse", "--verify", "HEAD^{commit}"]).map(|text| text.trim().to_owned())
}

/// The object of every content path at `HEAD`, or why there is none.
#[must_use]
pub fn path_trees(folder: &Path) -> BTreeMap<String, PathTree> {
    // One call for all; `--full-tree` makes paths count from the top, wherever `folder` is in the work tree.
    let mut arguments = vec!["ls-tree", "-z", "--full-tree", "HEAD", "--"];
    arguments.extend(CONTENT_PATHS);
    let listed = git(folder, &arguments);
    CONTENT_PATHS
        .iter()
        .map(|path| {
            let tree = match &listed {
                Ok(text) => match text.split('\0').find_map(|row| oid_of(row, path)) {
                    Some(oid) => PathTree { oid: Some(oid), error: None },
                    None => PathTree { oid: None, error: Some(format!("HEAD has no {path}")) },
                },
                Err(error) => PathTree { oid: None, error: Some(error.clone()) },
            };
            ((*path).to_owned(), tree)
        })
        .collect()
}

/// The object of `path` in a row `<mode> <type> <oid>\t<path>`.
fn oid_of(row: &str, path: &str) -> Option<String> {
    let (facts, name) = row.split_once('\t')?;
    (name == path).then(|| facts.rsplit(' ').next().unwrap_or_default().to_owned())
}

/// git in `folder`, run as whoever the checkout belongs to and never as root: a repository's own configuration names
/// programs (monitors, filters, helpers), and git starts them.
///
/// # Errors
/// As [`Rights::over`].
pub fn command(folder: &Path) -> crate::error::Result<Command> {
    let rights = Rights::over(folder)?;
    let mut command = rights.command("git");
    for (name, _) in std::env::vars_os() {
        // What a hook or an alias that calls this tool would leave behind.
        if name.as_encoded_bytes().starts_with(b"GIT_") {
            command.env_remove(name);
        }
    }
    if rights.is_own() && !Rights::is_root() {
        // A checkout of somebody else's, read by a user for that user alone.
        command.args(["-c", "safe.directory=*"]);
    }
    // Not the border, which is the uid: what needs no program of the repository's starts none.
    command
        .args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-C"])
        .arg(folder);
    Ok(command)
}

/// What `git` says in `folder`; see [`command`].
///
/// # Errors
/// What git says, in one line.
pub fn git(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    // Errors name the folder; the pack must not depend on where the checkout stands.
    let anywhere = |said: &str| said.replace(&*folder.to_string_lossy(), ".");
    let mut command = command(folder).map_err(|error| anywhere(&error.to_string()))?;
    let output =
        command.args(arguments).output().map_err(|error| format!("git could not be run: {error}"))?;
    if output.status.success() {
        return String::from_utf8(output.stdout).map_err(|_| "git gave a name that is not UTF-8".to_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().next().unwrap_or("no message").trim();
    Err(anywhere(line))
}
