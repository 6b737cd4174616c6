//! Whom the measured program runs as. Never root, and in a gate nobody that any other process is.
//!
//! Gates are measured as a user of their own: the system user that `host install` makes, else a uid from a range that
//! nothing gives out. Either is held by a lock for as long as this process measures, and taken only when no process of
//! the host has it. `record` runs as whoever called sudo, so that a command finds the caller's files; its proof says so.

use super::state;
use crate::error::{Code, Error, Result};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Gid, Uid, User};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The system user that `host install` makes.
pub const SYSTEM_USER: &str = "assay-measured";
/// Uids that neither distributions nor systemd nor container engines give out, from 2,080,000,000.
const RESERVED: std::ops::Range<u32> = 2_080_000_000..2_080_000_256;
/// Locks of uids in use, a file each. Not in the state folder: drivers with another one must see them too.
const LOCKS: &str = "/run/assay-gates-uids";

/// The measured user.
#[derive(Clone, Debug)]
pub struct MeasuredUser {
    /// User id; never 0.
    pub uid: u32,
    /// Primary group; supplementary groups (docker, sudo, …) are dropped.
    pub gid: u32,
    /// Name, or what stands for it when the host has none.
    pub name: String,
    /// Home folder, when the host knows one.
    pub home: Option<PathBuf>,
    /// Held while it measures; `None` when other processes may be this user.
    lease: Option<Arc<Lease>>,
}

/// A uid that nobody else has.
#[derive(Debug)]
struct Lease {
    uid: u32,
    gid: u32,
    name: String,
    _lock: Option<Flock<File>>,
}

/// One for this process: its sessions are apart by their process namespaces.
static HELD: Mutex<Weak<Lease>> = Mutex::new(Weak::new());

impl MeasuredUser {
    /// For `record`: `wanted` (name or id) if given, else the user who called sudo, else a user of its own.
    ///
    /// # Errors
    /// `MeasuredUser` when the name is unknown or means root.
    pub fn choose(wanted: Option<&str>, sudo_uid: Option<&str>) -> Result<Self> {
        if let Some(wanted) = wanted {
            return Self::named(wanted);
        }
        // sudo from a root shell leaves SUDO_UID=0: then there is no user to go back to.
        match sudo_uid.and_then(|uid| uid.parse::<u32>().ok()).filter(|uid| *uid != 0) {
            Some(uid) => Self::by_id(uid),
            None => Self::alone(None),
        }
    }

    /// For gates: a user that no other process is, whoever called; `wanted` only if that holds for it.
    ///
    /// # Errors
    /// `MeasuredUser` when the name is unknown, means root, or is that of a running process.
    pub fn alone(wanted: Option<&str>) -> Result<Self> {
        if let Some(wanted) = wanted {
            let user = Self::named(wanted)?;
            return match processes_by_uid().get(&user.uid) {
                None => Ok(user),
                Some(pid) => Err(Error::new(
                    Code::MeasuredUser,
                    format!("expected a user that nobody else is, found process {pid} of {}", user.name),
                )
                .hint("leave --user out: a gate is measured as a user of its own")),
            };
        }
        let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
        let lease = match held.upgrade() {
            Some(lease) => lease,
            None => Arc::new(Lease::take()?),
        };
        *held = Arc::downgrade(&lease);
        let (uid, gid, name) = (lease.uid, lease.gid, lease.name.clone());
        Ok(Self { uid, gid, name, home: None, lease: Some(lease) })
    }

    /// No other process of the host is this user, and none becomes it while this is held.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.lease.is_some()
    }

    /// The line that the measured program finds in `/etc/passwd`, when the host's has none for it.
    #[must_use]
    pub fn passwd_line(&self) -> Option<String> {
        let unknown = self.lease.is_some() && self.name != SYSTEM_USER;
        let (uid, gid) = (self.uid, self.gid);
        unknown.then(|| {
            format!("{SYSTEM_USER}:x:{uid}:{gid}:measured program:{}:/usr/sbin/nologin\n", super::WORK)
        })
    }

    fn named(wanted: &str) -> Result<Self> {
        let found = User::from_name(wanted).map_err(|error| {
            Error::new(Code::MeasuredUser, format!("cannot look up user {wanted:?}: {error}"))
        })?;
        match (found, wanted.parse::<u32>()) {
            (Some(user), _) => Self::of(user.uid.as_raw(), user.gid.as_raw(), user.name, Some(user.dir)),
            (None, Ok(uid)) => Self::by_id(uid),
            (None, Err(_)) => {
                Err(Error::new(Code::MeasuredUser, format!("this host has no user {wanted:?}"))
                    .hint("getent passwd, or leave --user out to measure as a user of its own"))
            }
        }
    }

    fn by_id(uid: u32) -> Result<Self> {
        match User::from_uid(Uid::from_raw(uid)) {
            Ok(Some(user)) => Self::of(uid, user.gid.as_raw(), user.name, Some(user.dir)),
            _ => Self::of(uid, uid, uid.to_string(), None),
        }
    }

    fn of(uid: u32, gid: u32, name: String, home: Option<PathBuf>) -> Result<Self> {
        if Uid::from_raw(uid).is_root() || Gid::from_raw(gid).as_raw() == 0 {
            return Err(Error::new(
                Code::MeasuredUser,
                format!("a measured program never runs as root: {name} has uid {uid} and gid {gid}"),
            )
            .hint("leave --user out to measure as a user of its own"));
        }
        Ok(Self { uid, gid, name, home, lease: None })
    }
}

impl Lease {
    /// The system user if there is one and nobody is it, else the first free uid of the reserved range.
    fn take() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            // Nothing can be measured without root; what would be chosen can be told.
            let uid = RESERVED.start;
            return Ok(Self { uid, gid: uid, name: format!("measured-{uid}"), _lock: None });
        }
        state::prepare(Path::new(LOCKS))?;
        let taken = processes_by_uid();
        let system = User::from_name(SYSTEM_USER).ok().flatten().filter(|user| !user.uid.is_root());
        let system = system.map(|user| (user.uid.as_raw(), user.gid.as_raw(), user.name));
        let reserved = RESERVED.map(|uid| (uid, uid, format!("measured-{uid}")));
        for (uid, gid, name) in system.into_iter().chain(reserved) {
            let known = name != SYSTEM_USER && !matches!(User::from_uid(Uid::from_raw(uid)), Ok(None));
            if gid == 0 || known || taken.contains_key(&uid) {
                continue;
            }
            if let Some(lock) = lock(uid)? {
                return Ok(Self { uid, gid, name, _lock: Some(lock) });
            }
        }
        Err(Error::new(
            Code::MeasuredUser,
            format!("every uid from {} to {} is in use", RESERVED.start, RESERVED.end - 1),
        )
        .hint("ps -eo uid,pid,cmd, or name a user that nobody else is: --user NAME"))
    }
}

/// The lock of a uid; `None` while somebody else holds it.
fn lock(uid: u32) -> Result<Option<Flock<File>>> {
    let path = Path::new(LOCKS).join(uid.to_string());
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&path)
        .map_err(|error| Error::io("cannot open the lock of a uid", &path, error))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
        Err((_, error)) => Err(Error::io("cannot lock", &path, error.into())),
    }
}

/// A process for each uid that any process of the host has: real, effective, saved or of its file accesses.
fn processes_by_uid() -> BTreeMap<u32, u32> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // One that ends meanwhile is nobody.
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        found.extend(uids.split_whitespace().filter_map(|uid| Some((uid.parse().ok()?, pid))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_runs_as_the_named_user_then_sudos_then_its_own_and_never_as_root() {
        let own = MeasuredUser::choose(None, None).unwrap();
        assert!(own.is_alone() && own.uid != 65534, "{own:?}");
        assert_eq!(MeasuredUser::choose(None, Some("0")).unwrap().uid, own.uid);
        assert_eq!(MeasuredUser::choose(None, Some("4711")).unwrap().uid, 4711);
        assert_eq!(MeasuredUser::choose(Some("4712"), Some("4711")).unwrap().uid, 4712);
        for root in ["root", "0"] {
            assert_eq!(MeasuredUser::choose(Some(root), None).unwrap_err().code(), Code::MeasuredUser);
            assert_eq!(MeasuredUser::alone(Some(root)).unwrap_err().code(), Code::MeasuredUser);
        }
        assert_eq!(MeasuredUser::choose(Some("no-such-user"), None).unwrap_err().code(), Code::MeasuredUser);
    }

    #[test]
    fn no_process_has_the_uid_of_a_gate() {
        let mine = MeasuredUser::alone(None).unwrap();
        assert!(!processes_by_uid().contains_key(&mine.uid), "{mine:?}");
        assert!(processes_by_uid().contains_key(&nix::unistd::getuid().as_raw()));
        if nix::unistd::geteuid().is_root() {
            assert!(lock(mine.uid).unwrap().is_none(), "another driver could take {}", mine.uid);
        }
    }
}
