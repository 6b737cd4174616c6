//! What git says of two commits, as whoever the repository belongs to. It is read, never changed; no hook of it runs.

use super::contract::LaneContract;
use super::lock::only_tests_change;
use crate::error::{Code, Error, Result};
use crate::files::{Sha256Digest, sha256};
use std::collections::BTreeSet;
use std::path::Path;

/// The commit that `revision` names.
///
/// # Errors
/// `LaneGit` when there is none.
pub fn resolve(repository: &Path, revision: &str) -> Result<String> {
    let commit =
        git(repository, &["rev-parse", "--verify", "--end-of-options", &format!("{revision}^{{commit}}")])
            .map_err(|_| {
                Error::new(Code::LaneGit, format!("{revision:?} names no commit here"))
                    .at(repository.display())
                    .hint("git fetch --all --tags; in a workflow, actions/checkout with fetch-depth: 0")
            })?;
    Ok(String::from_utf8_lossy(&commit).trim().to_owned())
}

/// Every path that differs between `head` and its merge base with `base`; of a rename both names.
///
/// # Errors
/// `LaneGit`.
pub fn changed_files(repository: &Path, base: &str, head: &str) -> Result<BTreeSet<String>> {
    let range = format!("{base}...{head}");
    let listed = git(
        repository,
        &[
            "diff",
            "--name-only",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            "-z",
            "--end-of-options",
            &range,
        ],
    )?;
    Ok(listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect())
}

/// Those of the changed lock files of cargo, as `contract` names them, in which only packages of tests differ. The manifest
/// beside one must be as it was.
///
/// # Errors
/// `LaneGit`.
pub fn test_only_locks(
    repository: &Path,
    contract: &LaneContract,
    base: &str,
    head: &str,
    changed: &BTreeSet<String>,
) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in changed.iter().filter(|path| contract.is_cargo_lock(path)) {
        let manifest = format!("{}Cargo.toml", path.strip_suffix("Cargo.lock").unwrap_or_default());
        if changed.contains(&manifest) {
            continue;
        }
        let start = git(repository, &["merge-base", "--end-of-options", base, head])?;
        let start = String::from_utf8_lossy(&start).trim().to_owned();
        let text = |commit: &str, path: &str| {
            let bytes = file_at(repository, commit, path).ok()?;
            String::from_utf8(bytes).ok()
        };
        if let (Some(manifest), Some(before), Some(after)) =
            (text(head, &manifest), text(&start, path), text(head, path))
            && only_tests_change(&manifest, &before, &after)
        {
            found.insert(path.clone());
        }
    }
    Ok(found)
}

/// The object that `path` has at `commit`; `None` when it has none.
///
/// # Errors
/// `LaneGit`.
pub fn object_of(repository: &Path, commit: &str, path: &str) -> Result<Option<String>> {
    let listed = git(repository, &["ls-tree", "-z", "--full-tree", commit, "--", path])?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    Ok(listed.split('\0').find_map(|row| {
        let (facts, name) = row.split_once('\t')?;
        (name == path).then(|| facts.rsplit(' ').next().unwrap_or_default().to_owned())
    }))
}

/// What stands at `path` in `commit`.
///
/// # Errors
/// `LaneGit` when nothing does.
pub fn file_at(repository: &Path, commit: &str, path: &str) -> Result<Vec<u8>> {
    git(repository, &["cat-file", "blob", &format!("{commit}:{path}")])
}

/// SHA-256 of every YAML file below `folder` in `commit`.
///
/// # Errors
/// `LaneGit`.
pub fn yaml_digests_below(repository: &Path, commit: &str, folder: &str) -> Result<BTreeSet<Sha256Digest>> {
    let listed =
        git(repository, &["ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", folder])?;
    String::from_utf8_lossy(&listed)
        .split('\0')
        .filter(|name| name.ends_with(".yaml"))
        .map(|name| Ok(sha256(&file_at(repository, commit, name)?)))
        .collect()
}

fn git(repository: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let failed = |message: String| Error::new(Code::LaneGit, message).at(repository.display());
    let output = crate::pack::git::command(repository)?
        .args(["-c", "core.quotePath=false"])
        .args(arguments)
        .output()
        .map_err(|error| failed(format!("git could not be started: {error}")).because(error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!(
        "git {}: {}",
        arguments.first().unwrap_or(&""),
        said.lines().next().unwrap_or("failed")
    )))
}
