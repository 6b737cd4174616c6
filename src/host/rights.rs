//! Whose rights a file is opened with, and whom a program is started as.
//!
//! The tool runs as root for somebody who must not be root. What that user names (definitions, fixtures, a checkout, a
//! place for results) is looked at with that user's own rights, so that the kernel decides what it may be; what is
//! root's own is opened with root's.
//!
//! This is the one door: every program that is started, and every file that is opened by a path which somebody else may
//! have named, goes through [`Rights`]. `tests/roothalf/door.rs` holds the source against that.

#[cfg(target_os = "linux")]
use crate::error::Code;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folders in which a program that is started for the caller is looked up.
pub const CALLER_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The rights of one user.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Rights(Option<Account>);

/// Whom they are of.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    home: PathBuf,
}

impl Rights {
    /// What this process may do: root's, or those of whoever runs an unprivileged command.
    #[must_use]
    pub const fn own() -> Self {
        Self(None)
    }

    /// Of the user who called sudo; this process's own when nobody did, or when it isn't root.
    ///
    /// # Errors
    /// `Usage` when sudo's variables don't hold a user: going on as root would be a guess.
    pub fn of_caller() -> Result<Self> {
        #[cfg(target_os = "linux")]
        if nix::unistd::geteuid().is_root()
            && let Some(uid) = number("SUDO_UID")?.filter(|uid| *uid != 0)
        {
            return Ok(Self(Some(Account::new(uid, number("SUDO_GID")?))));
        }
        Ok(Self::own())
    }

    /// Of a user who is known by ids alone: no other groups.
    #[must_use]
    pub fn of_ids(uid: u32, gid: u32) -> Self {
        Self(Some(Account { uid, gid, groups: vec![gid], home: "/nonexistent".into() }))
    }

    /// Of the measured user; this process's own when it isn't root, which then measures nothing.
    #[must_use]
    pub fn of_measured(uid: u32, gid: u32) -> Self {
        if Self::is_root() { Self::of_ids(uid, gid) } else { Self::own() }
    }

    /// Of whoever owns `path`, when that is not root and this process is.
    ///
    /// # Errors
    /// `Io`, when it can't be looked at.
    #[cfg(unix)]
    pub fn of_owner(path: &Path) -> Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let found = path.metadata().map_err(|error| Error::io("cannot look at", path, error))?;
        if found.uid() == 0 || !nix::unistd::geteuid().is_root() {
            return Ok(Self::own());
        }
        Ok(Self(Some(Account::new(found.uid(), Some(found.gid())))))
    }

    /// Of the caller, else of whoever owns `path`: nothing that stands in somebody's folder is done as root.
    ///
    /// # Errors
    /// As [`Rights::of_caller`] and [`Rights::of_owner`].
    #[cfg(unix)]
    pub fn over(path: &Path) -> Result<Self> {
        let caller = Self::of_caller()?;
        if caller.is_own() { Self::of_owner(path) } else { Ok(caller) }
    }

    /// As on unix; there is no root half elsewhere.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn over(_: &Path) -> Result<Self> {
        Ok(Self::own())
    }

    /// Whether this process is root's.
    #[must_use]
    pub fn is_root() -> bool {
        #[cfg(unix)]
        return nix::unistd::geteuid().is_root();
        #[cfg(not(unix))]
        false
    }

    /// Nobody else's: what is done is done as this process.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.0.is_none()
    }

    /// Calls `act` with these rights over files. Only this thread has them, and only until `act` is done; programs that
    /// `act` starts don't have them (see [`Rights::command`]).
    ///
    /// # Errors
    /// `Internal` when the kernel doesn't hand them over, and then `act` isn't called; what `act` fails with.
    pub fn act<T>(&self, act: impl FnOnce() -> Result<T>) -> Result<T> {
        #[cfg(target_os = "linux")]
        let _until_done = self.0.as_ref().map(linux::Borrowed::take).transpose()?;
        act()
    }

    /// Opens a file for reading, as this user could.
    ///
    /// # Errors
    /// `Io`; as [`Rights::act`].
    pub fn open(&self, path: &Path) -> Result<File> {
        self.act(|| File::open(path).map_err(|error| Error::io("cannot open", path, error)))
    }

    /// What stands in a file, as this user could read it.
    ///
    /// # Errors
    /// As [`Rights::open`].
    pub fn read(&self, path: &Path) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut self.open(path)?, &mut bytes)
            .map_err(|error| Error::io("cannot read", path, error))?;
        Ok(bytes)
    }

    /// The text that stands in a file, as this user could read it.
    ///
    /// # Errors
    /// As [`Rights::open`]; `Io` when it isn't UTF-8.
    pub fn read_text(&self, path: &Path) -> Result<String> {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut self.open(path)?, &mut text)
            .map_err(|error| Error::io("cannot read", path, error))?;
        Ok(text)
    }

    /// Makes this whole process the user's for good: what needs no root is not done as root. For the beginning of a
    /// process, before it has threads.
    ///
    /// # Errors
    /// `Internal` when the kernel doesn't let it, and then nothing may be done.
    pub fn take_for_good(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        if let Some(user) = &self.0 {
            use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
            let groups: Vec<Gid> = user.groups.iter().copied().map(Gid::from_raw).collect();
            let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
            setgroups(&groups).map_err(|error| linux::failed("setgroups", error))?;
            setresgid(gid, gid, gid).map_err(|error| linux::failed("setresgid", error))?;
            setresuid(uid, uid, uid).map_err(|error| linux::failed("setresuid", error))?;
            // SAFETY: there is one thread.
            unsafe { std::env::set_var("HOME", &user.home) };
        }
        Ok(())
    }

    /// A command that runs as this user from its first instruction on, with an environment of its own: no variable of
    /// this process's, `PATH` and `HOME` of the user, no question asked on a terminal. With [`Rights::own`], one that is
    /// as this process is.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.stdin(std::process::Stdio::null());
        #[cfg(not(unix))]
        let _nobody_else = &self.0;
        #[cfg(unix)]
        if let Some(user) = &self.0 {
            use std::os::unix::process::CommandExt;
            // std drops root's supplementary groups with the uid; the user's own are not needed for what is the user's.
            command.uid(user.uid).gid(user.gid);
            command.env_clear().env("PATH", CALLER_PATH).env("HOME", &user.home).env("LC_ALL", "C.UTF-8");
        }
        command
    }
}

#[cfg(unix)]
impl Account {
    fn new(uid: u32, gid: Option<u32>) -> Self {
        let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        let gid = gid.or_else(|| known.as_ref().map(|user| user.gid.as_raw())).unwrap_or(uid);
        Self {
            uid,
            gid,
            groups: known.as_ref().map_or_else(|| vec![gid], |user| groups(&user.name, gid)),
            home: known.map_or_else(|| "/nonexistent".into(), |user| user.dir),
        }
    }
}

#[cfg(target_os = "linux")]
fn groups(name: &str, gid: u32) -> Vec<u32> {
    let Ok(name) = std::ffi::CString::new(name) else { return vec![gid] };
    nix::unistd::getgrouplist(&name, gid.into())
        .map_or_else(|_| vec![gid], |groups| groups.into_iter().map(nix::unistd::Gid::as_raw).collect())
}

#[cfg(all(unix, not(target_os = "linux")))]
fn groups(_: &str, gid: u32) -> Vec<u32> {
    vec![gid]
}

/// A variable of sudo's; it sets them all, so one that is no number was set by somebody else.
#[cfg(target_os = "linux")]
fn number(name: &str) -> Result<Option<u32>> {
    match std::env::var_os(name) {
        None => Ok(None),
        Some(text) => match text.to_str().map(str::parse) {
            Some(Ok(number)) => Ok(Some(number)),
            _ => Err(Error::new(Code::Usage, format!("expected a number in {name}, found {text:?}"))
                .hint("start it through sudo, or as root without the variable")),
        },
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Account;
    use crate::error::{Code, Error, Result};
    use nix::libc;
    use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

    /// This thread, with the rights of another user until it is dropped.
    ///
    /// The ids for files are a thread's own. Groups are too, but the C library sets them for all threads at once, so the
    /// kernel is asked itself.
    pub(super) struct Borrowed {
        uid: Uid,
        gid: Gid,
        groups: Vec<libc::gid_t>,
    }

    impl Borrowed {
        pub(super) fn take(user: &Account) -> Result<Self> {
            let own = nix::unistd::getgroups().map_err(|error| failed("getgroups", error))?;
            let groups: Vec<libc::gid_t> = own.into_iter().map(Gid::as_raw).collect();
            set_groups(&user.groups)?;
            let gid = setfsgid(Gid::from_raw(user.gid));
            // Last: with it go the capabilities that let root pass by permissions.
            let uid = setfsuid(Uid::from_raw(user.uid));
            let borrowed = Self { uid, gid, groups };
            // Neither call can say that it failed; asked again with an id that can't be, they say what is in force.
            let now = (setfsuid(Uid::from_raw(u32::MAX)), setfsgid(Gid::from_raw(u32::MAX)));
            if now != (Uid::from_raw(user.uid), Gid::from_raw(user.gid)) {
                return Err(failed("setfsuid", nix::Error::EPERM));
            }
            Ok(borrowed)
        }
    }

    impl Drop for Borrowed {
        fn drop(&mut self) {
            setfsuid(self.uid);
            setfsgid(self.gid);
            let _less_than_before_at_worst = set_groups(&self.groups);
        }
    }

    fn set_groups(groups: &[libc::gid_t]) -> Result<()> {
        // SAFETY: the kernel reads as many ids as it is told, from a slice that lives through the call.
        let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
        if result < 0 { Err(failed("setgroups", nix::Error::last())) } else { Ok(()) }
    }

    pub(super) fn failed(step: &str, error: nix::Error) -> Error {
        Error::new(Code::Internal, format!("cannot take the rights of the user who called ({step}): {error}"))
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn somebody() -> Rights {
        Rights(Some(Account { uid: 61_234, gid: 61_234, groups: vec![61_234], home: "/nonexistent".into() }))
    }

    #[test]
    fn with_the_rights_of_a_user_roots_files_are_closed_and_new_ones_are_the_users() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (secret, open) = (folder.path().join("secret"), folder.path().join("open"));
        std::fs::write(&secret, "s").unwrap();
        // Readable for root's group: that has to go too.
        std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
        std::fs::create_dir(&open).unwrap();
        std::fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
        std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let read = || std::fs::read(&secret).map_err(|error| Error::io("read", &secret, error));
        assert!(somebody().act(read).is_err());
        let other_thread = somebody().act(|| Ok(std::thread::spawn(nix::unistd::geteuid).join().unwrap()));
        assert!(other_thread.unwrap().is_root());
        somebody().act(|| std::fs::write(open.join("f"), "").map_err(|e| Error::io("w", &open, e))).unwrap();
        assert_eq!(open.join("f").metadata().unwrap().uid(), 61_234);
        assert!(read().is_ok(), "root's own rights did not come back");
        assert!(nix::unistd::getgroups().unwrap().iter().all(|group| group.as_raw() != 61_234));
    }

    #[test]
    fn a_command_has_the_user_and_none_of_our_variables() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let output = somebody().command("sh").args(["-c", "id -u; id -G; env"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("61234\n61234\n"), "{text}");
        assert!(!text.contains("CARGO"), "{text}");
    }
}
