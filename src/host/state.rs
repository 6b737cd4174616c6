//! The state folder, and the lock that lets one measured run at a time onto a host.

use super::owner::Owner;
use crate::error::{Code, Error, Result};
use crate::files::RootPath;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Variable that names another state folder.
pub const STATE_VARIABLE: &str = "ASSAY_GATES_STATE_DIR";
const DEFAULT_STATE: &str = "/run/assay-gates-state";

/// The state folder: on a file system that a restart empties, readable by root alone.
#[must_use]
pub fn folder() -> PathBuf {
    std::env::var_os(STATE_VARIABLE)
        .filter(|value| !value.is_empty())
        .map_or_else(|| DEFAULT_STATE.into(), PathBuf::from)
}

/// Where records of a run in progress are kept: on a disk, since they may be large.
#[must_use]
pub fn spool(state: &Path) -> PathBuf {
    if state == Path::new(DEFAULT_STATE) { "/var/lib/assay-gates/spool".into() } else { state.join("spool") }
}

/// Where the outcome of the last cleanup before a run waits for that run's proof root to take it over.
///
/// # Errors
/// As [`prepare`].
pub fn cleanup_record() -> Result<RootPath> {
    Ok(prepare(&folder())?.join("cleanup.json"))
}

/// Removes what killed runs left in the spool. Only under the lock: there is no other run then.
pub(super) fn clear_spool(spool: &Path) -> Result<()> {
    for entry in std::fs::read_dir(spool).into_iter().flatten().flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"run-") {
            let path = entry.path();
            std::fs::remove_dir_all(&path).map_err(|error| Error::io("cannot remove", &path, error))?;
        }
    }
    Ok(())
}

/// Makes `folder` with mode 0700, or checks that it is a folder of root's that nobody else may write; nor may anybody
/// else write a folder above it.
///
/// # Errors
/// `CannotMeasure` when it belongs to somebody else; `Io` otherwise.
pub fn prepare(folder: &Path) -> Result<RootPath> {
    let (Some(parent), Some(name)) = (folder.parent(), folder.file_name()) else {
        return Err(Error::io(
            "cannot make the state folder",
            folder,
            std::io::ErrorKind::InvalidInput.into(),
        ));
    };
    RootPath::of_root(parent)?.join(name).create_private_folder()?;
    let held = RootPath::of_root(folder)?;
    let (uid, mode) = held.owner_and_mode()?;
    if uid != nix::unistd::geteuid().as_raw() || mode & 0o022 != 0 {
        return Err(Error::new(
            Code::CannotMeasure,
            format!(
                "expected a folder of uid {} that no other can write, found uid {uid} and mode {mode:o}",
                nix::unistd::geteuid()
            ),
        )
        .at(folder.display())
        .hint(format!("sudo rm -r {}", folder.display())));
    }
    Ok(held)
}

/// Who holds or held the lock, as `lock` in the state folder says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id of the driver.
    pub pid: u32,
    /// Its start time, clock ticks since boot.
    pub start_time: u64,
    /// RFC 3339 time at which it took the lock.
    pub since: String,
    /// What it is measuring: run id or gate.
    pub what: String,
}

impl Holder {
    /// The process.
    #[must_use]
    pub fn owner(&self) -> Owner {
        Owner { pid: self.pid, start_time: self.start_time }
    }
}

/// State of the lock at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockState {
    /// Nobody holds it and nobody left it.
    Free,
    /// A live process holds it.
    Held(Option<Holder>),
    /// A process wrote itself down and ended without taking that back.
    Stale(Holder),
}

/// The lock, held. Dropping it gives the host free again.
#[derive(Debug)]
pub struct HostLock {
    file: Flock<File>,
    /// The holder that ended without giving the lock back, if there was one.
    pub stale: Option<Holder>,
}

impl HostLock {
    /// Takes the lock for measuring `what`.
    ///
    /// The kernel gives a lock free with its holder's end, so a lock left by a killed run never blocks; it is
    /// recognised by what the holder wrote, and told in [`HostLock::stale`].
    ///
    /// # Errors
    /// `HostBusy` when a live process holds it.
    pub fn take(folder: &Path, what: &str) -> Result<Self> {
        prepare(folder)?;
        let path = folder.join("lock");
        let file = open(&path, true)?;
        let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(file) => file,
            Err((mut file, _)) => {
                let who = holder(&mut file).map_or_else(
                    || "another process".to_owned(),
                    |holder| {
                        format!("process {} (measuring {} since {})", holder.pid, holder.what, holder.since)
                    },
                );
                return Err(Error::new(
                    Code::HostBusy,
                    format!("one measured run at a time: {who} holds the host's lock"),
                )
                .at(path.display())
                .hint(
                    "wait for it to end, or look at it: fuser -v ".to_owned() + &path.display().to_string(),
                ));
            }
        };
        let stale = holder(&mut file);
        let owner = Owner::current();
        let own = Holder {
            pid: owner.pid,
            start_time: owner.start_time,
            since: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            what: what.to_owned(),
        };
        let text = crate::files::compact(&own)?;
        file.set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| Error::io("cannot write the lock", &path, error))?;
        Ok(Self { file, stale })
    }

    /// What the lock in `folder` says, without taking it.
    #[must_use]
    pub fn look(folder: &Path) -> LockState {
        let Ok(file) = open(&folder.join("lock"), false) else { return LockState::Free };
        match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(mut file) => holder(&mut file).map_or(LockState::Free, LockState::Stale),
            Err((mut file, _)) => LockState::Held(holder(&mut file)),
        }
    }
}

impl Drop for HostLock {
    fn drop(&mut self) {
        // An empty file says that the last holder ended as it should.
        let _told_as_stale_next_time = self.file.set_len(0);
    }
}

fn open(path: &Path, create: bool) -> Result<File> {
    OpenOptions::new()
        .read(true)
        .write(create)
        .create(create)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(path)
        .map_err(|error| Error::io("cannot open the lock", path, error))
}

fn holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(4096).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_who_holds_the_host() {
        let home = tempfile::tempdir().unwrap();
        let state = home.path().join("state");
        let first = HostLock::take(&state, "run_a").unwrap();
        assert_eq!(first.stale, None);
        let refused = HostLock::take(&state, "run_b").unwrap_err();
        assert_eq!(refused.code(), Code::HostBusy);
        assert!(refused.message().contains("measuring run_a since"), "{}", refused.message());
        assert!(matches!(HostLock::look(&state), LockState::Held(Some(_))));
        drop(first);
        assert_eq!(HostLock::look(&state), LockState::Free);
        assert_eq!(HostLock::take(&state, "run_b").unwrap().stale, None);
    }

    #[test]
    fn what_a_killed_holder_wrote_is_recognised_and_told() {
        let home = tempfile::tempdir().unwrap();
        let dead =
            Holder { pid: 1, start_time: 7, since: "2026-01-01T00:00:00Z".into(), what: "run_a".into() };
        std::fs::write(home.path().join("lock"), serde_json::to_string(&dead).unwrap()).unwrap();
        assert_eq!(HostLock::look(home.path()), LockState::Stale(dead.clone()));
        assert_eq!(HostLock::take(home.path(), "run_b").unwrap().stale, Some(dead));
    }

    #[test]
    fn a_state_folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(HostLock::take(home.path(), "run").unwrap_err().code(), Code::CannotMeasure);
    }
}
