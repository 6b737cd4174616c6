//! Carrying out a plan, checking what is left, and saying so (`assay.gates.cleanup.v0`).

use super::plan::{Action, Plan, Step, shown};
use super::survey::{Places, survey};
use super::tree::{Tally, Tree};
use crate::error::Result;
use crate::host::cgroup::kill_and_remove_group;
use crate::host::hostfile::HostFile;
use crate::host::rights::Rights;
use serde::Serialize;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

/// What a cleanup did: `cleanup.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Cleanup {
    /// `assay.gates.cleanup.v0`.
    pub schema: &'static str,
    /// The plan's phase.
    pub phase: super::plan::Phase,
    /// The host file that granted the roots.
    pub host_file: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    /// RFC 3339, UTC.
    pub finished_at: String,
    /// Everything that was planned is gone, and a second look found nothing.
    pub clean: bool,
    /// Entries removed.
    pub removed_entries: u64,
    /// Bytes on disk that they had.
    pub removed_bytes: u64,
    /// What was done, in order.
    pub steps: Vec<Done>,
    /// What stayed, and why; the first thousand.
    pub stayed: Vec<StayedLine>,
    /// How many stayed in all.
    pub stayed_count: u64,
}

/// A step that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Done {
    /// As planned.
    #[serde(flatten)]
    pub step: Step,
    /// Entries removed.
    pub removed_entries: u64,
    /// Bytes on disk that they had.
    pub removed_bytes: u64,
    /// Immutable and append-only flags cleared.
    pub flags_cleared: u64,
    /// Nothing stayed.
    pub done: bool,
}

/// Something that stayed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StayedLine {
    /// Where; control characters escaped.
    pub path: String,
    /// Why.
    pub why: String,
}

/// Carries out `plan` in its order, then surveys again: what a new plan would still contain has stayed.
///
/// # Errors
/// `Io` when the second survey fails. What can't be removed is not an error here: it is listed in the result.
pub fn apply(plan: &Plan, host: &HostFile, places: &Places) -> Result<Cleanup> {
    let started_at = now();
    let mut whole = Tally::default();
    let mut steps = Vec::new();
    for step in &plan.steps {
        let mut tally = Tally::default();
        carry_out(&step.action, &mut tally);
        steps.push(Done {
            step: step.clone(),
            removed_entries: tally.entries,
            removed_bytes: tally.bytes,
            flags_cleared: tally.flags_cleared,
            done: tally.stayed_count == 0,
        });
        whole.entries += tally.entries;
        whole.bytes += tally.bytes;
        whole.stayed_count += tally.stayed_count;
        whole.stayed.extend(tally.stayed);
    }
    look_again(plan, host, places, &mut whole)?;
    Ok(Cleanup {
        schema: "assay.gates.cleanup.v0",
        phase: plan.phase,
        host_file: shown(&plan.host_file),
        started_at,
        finished_at: now(),
        clean: whole.stayed_count == 0,
        removed_entries: whole.entries,
        removed_bytes: whole.bytes,
        steps,
        stayed: whole
            .stayed
            .into_iter()
            .take(1_000)
            .map(|stayed| StayedLine { path: shown(&stayed.path), why: stayed.why })
            .collect(),
        stayed_count: whole.stayed_count,
    })
}

fn look_again(plan: &Plan, host: &HostFile, places: &Places, whole: &mut Tally) -> Result<()> {
    let left = Plan::new(plan.phase, &plan.host_file, host, &survey(plan.phase, host, places)?);
    for step in left.steps.into_iter().filter(|step| step.action != Action::DockerPrune) {
        let place = match step.action {
            Action::KillCgroup { path, .. } | Action::DeleteNamespace { path } => path,
            Action::Remove { root, below }
            | Action::Empty { root, below }
            | Action::Give { root, below, .. } => root.join(below),
            Action::DockerPrune => continue,
        };
        let explained = whole.stayed.iter().any(|stayed| stayed.path.starts_with(&place));
        if !explained {
            whole.stay(place, "it was there again when everything had been removed");
        }
    }
    Ok(())
}

fn carry_out(action: &Action, tally: &mut Tally) {
    match action {
        Action::KillCgroup { path, version_1, .. } => kill(path, *version_1, tally),
        Action::DeleteNamespace { path } => delete_namespace(path, tally),
        Action::Remove { root, below } => remove(root, below, tally),
        Action::Empty { root, below } => {
            let emptied =
                Tree::open(root).and_then(|tree| tree.below(below)).and_then(|tree| tree.empty(tally));
            stay_on_error(emptied, &root.join(below), tally);
        }
        Action::Give { root, below, uid, gid } => {
            let given = folder(root, below).and_then(|tree| tree.give(*uid, *gid));
            stay_on_error(given, &root.join(below), tally);
        }
        Action::DockerPrune => docker_prune(tally),
    }
}

fn folder(root: &Path, below: &Path) -> io::Result<Tree> {
    let tree = Tree::open(root)?;
    if below == Path::new("") { Ok(tree) } else { tree.below(below) }
}

fn remove(root: &Path, below: &Path, tally: &mut Tally) {
    let (Some(name), Some(parent)) = (below.file_name(), below.parent()) else {
        return tally.stay(root.join(below), "not an entry of its root");
    };
    let tree = Tree::open(root).and_then(|tree| match parent == Path::new("") {
        true => Ok(tree),
        false => tree.below(parent),
    });
    match tree {
        Ok(tree) => tree.remove(name, tally),
        Err(error) => stay_on_error(Err(error), &root.join(below), tally),
    }
}

fn stay_on_error(result: io::Result<()>, path: &Path, tally: &mut Tally) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let why = match error.raw_os_error() {
                Some(libc::EXDEV) => "a mount point, which is never crossed: umount it".to_owned(),
                Some(libc::ELOOP) => "a symbolic link, which is never followed".to_owned(),
                _ => error.to_string(),
            };
            tally.stay(path.to_path_buf(), why);
        }
        Ok(()) | Err(_) => {}
    }
}

/// Kills everything in the control group at once, waits until the kernel says it is empty, and removes it.
fn kill(cgroup: &Path, version_1: bool, tally: &mut Tally) {
    if let Err(error) = kill_and_remove_group(cgroup, version_1) {
        tally.stay(cgroup.to_path_buf(), error.message());
    }
}

fn delete_namespace(path: &Path, tally: &mut Tally) {
    use nix::mount::{MntFlags, umount2};
    let result = match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // EINVAL: a plain file, whose mount is already gone.
        Ok(()) | Err(nix::errno::Errno::EINVAL) => std::fs::remove_file(path).map(|()| tally.entries += 1),
        Err(errno) => Err(errno.into()),
    };
    stay_on_error(result, path, tally);
}

fn docker_prune(tally: &mut Tally) {
    let place = PathBuf::from("docker");
    let arguments = ["system", "prune", "--all", "--volumes", "--force"].map(OsStr::new);
    match Rights::own().command("docker").args(arguments).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            tally.stay(place, format!("{}: {}", output.status, shown(Path::new(said.trim()))));
        }
        Err(error) => tally.stay(place, format!("docker can't be started: {error}")),
    }
}

fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
