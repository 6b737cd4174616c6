//! What killed runs left, and who measures now.

use super::{Check, Context};
use crate::host::cgroup;
use crate::host::cleanup::{Phase, Places, survey};
use crate::host::hostfile::HostFile;
use crate::host::owner::Owner;
use crate::host::state::{self, HostLock, LockState};

const CLEAN: &str = "sudo assay-gates clean --phase before-run --apply";

pub(super) fn leftovers(context: &Context<'_>) -> Check {
    let mut found = Vec::new();
    match cgroup::leftovers() {
        Ok(left) => found.extend(left.iter().map(|left| {
            format!(
                "cgroup {} of process {}, which is gone ({} processes in it)",
                left.folder.display(),
                left.owner.pid,
                left.processes.len()
            )
        })),
        Err(error) => return Check::error(&error),
    }
    for entry in std::fs::read_dir(state::spool(&context.state)).into_iter().flatten().flatten() {
        if !matches!(HostLock::look(&context.state), LockState::Held(_)) {
            found.push(format!("records of a run that was never finished: {}", entry.path().display()));
        }
    }
    let nobodys = HostFile::of_no_one();
    let file = match &context.host_file {
        Some(Ok(file)) => file,
        _ => &nobodys,
    };
    match survey(Phase::BeforeRun, file, &Places::of_this_machine()) {
        Ok(inventory) => {
            found.extend(
                inventory.namespaces.iter().map(|path| format!("network namespace {}", path.display())),
            );
            for (what, entries) in [("pin", &inventory.pins), ("scratch", &inventory.scratch)] {
                found.extend(
                    entries.iter().map(|entry| format!("{what} {}", entry.root.join(&entry.below).display())),
                );
            }
        }
        Err(error) => return Check::error(&error),
    }
    match found.as_slice() {
        [] => Check::pass("none"),
        [one] => Check::warn(one.clone(), CLEAN),
        [first, rest @ ..] => Check::warn(format!("{first}; and {} more", rest.len()), CLEAN),
    }
}

pub(super) fn lock(context: &Context<'_>) -> Check {
    match HostLock::look(&context.state) {
        LockState::Free => Check::pass("free"),
        LockState::Held(Some(holder)) if holder.owner() == Owner::current() => {
            Check::pass("held by this very run")
        }
        LockState::Held(Some(holder)) => Check::fail(
            format!("process {} measures {} since {}", holder.pid, holder.what, holder.since),
            format!("wait for it, or look at it: ps -fp {}", holder.pid),
        ),
        LockState::Held(None) => Check::fail(
            "somebody holds it without saying who",
            format!("fuser -v {}", context.state.join("lock").display()),
        ),
        LockState::Stale(holder) => Check::warn(
            format!(
                "stale: process {} (measuring {} since {}) ended without giving it back; the next run takes it over",
                holder.pid, holder.what, holder.since
            ),
            CLEAN,
        ),
    }
}
