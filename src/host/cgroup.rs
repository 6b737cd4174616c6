//! The session's cgroup: found, made, watched, killed, removed.
//!
//! It is made fresh below the nearest ancestor that may hold one, carries its owner in its name
//! (`assay-gates-<pid>-<start time>-<n>`), and may have no children.

mod leftovers;
mod limits;

pub(super) use leftovers::owner_in_name;
pub use leftovers::{Leftover, leftovers, reap, remove_own};
use limits::Applied;

use super::PREFIX;
use super::mounts::{self, Mount};
use super::owner::Owner;
use crate::error::{Code, Error, Result};
use crate::gate::Limits;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Where session cgroups can be made on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Where the version 2 hierarchy is mounted.
    pub mount: PathBuf,
    /// The folder below which the session's cgroup is made.
    pub folder: PathBuf,
    /// Why nearer ancestors were passed over; one line each.
    pub passed_over: Vec<String>,
}

impl Parent {
    /// Finds the nearest ancestor of this process's own cgroup that may hold a session.
    ///
    /// # Errors
    /// `CgroupUnusable` when there is no cgroup v2 mount, or no ancestor that takes a domain child.
    pub fn find() -> Result<Self> {
        let mounts = mounts::parse(&read(Path::new("/proc/self/mountinfo"))?);
        let mount = mounts::cgroup2(&mounts).ok_or_else(|| {
            Error::new(
                Code::CgroupUnusable,
                "expected a cgroup2 file system, found none in /proc/self/mountinfo",
            )
            .hint("mount -t cgroup2 none /sys/fs/cgroup")
        })?;
        let table = read(Path::new("/proc/self/cgroup"))?;
        let own = mounts::membership(&table, "").ok_or_else(|| {
            Error::new(Code::CgroupUnusable, "/proc/self/cgroup has no version 2 line (0::)")
                .hint("boot without cgroup_no_v1= and systemd.unified_cgroup_hierarchy=0")
        })?;
        Self::nearest(mount, &own)
    }

    /// The nearest ancestor (or itself) of `own`, a path within the hierarchy, in which a child is a domain cgroup.
    ///
    /// # Errors
    /// `CgroupUnusable`, with what each candidate said.
    pub fn nearest(mount: &Mount, own: &Path) -> Result<Self> {
        // A path that leaves the namespace's root (`/../x`) can only be entered at the top of what is mounted.
        let inside =
            own.strip_prefix(&mount.root).or_else(|_| own.strip_prefix("/")).unwrap_or(Path::new(""));
        let inside =
            if inside.components().any(|part| part.as_os_str() == "..") { Path::new("") } else { inside };
        let mut passed_over = Vec::new();
        for candidate in inside.ancestors() {
            let folder = mount.point.join(candidate);
            match unfit(&folder, candidate == Path::new("")) {
                None => return Ok(Self { mount: mount.point.clone(), folder, passed_over }),
                Some(reason) => passed_over.push(format!("{}: {reason}", folder.display())),
            }
        }
        Err(Error::new(
            Code::CgroupUnusable,
            format!("no cgroup can hold a session: {}", passed_over.join("; ")),
        )
        .at(mount.point.display())
        .hint("run as root on the host, outside of containers that mount cgroup2 read-only"))
    }
}

/// Why `folder` can't be the parent of a session; `None` when a domain child could really be made there.
fn unfit(folder: &Path, top: bool) -> Option<String> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    if !top && (name.ends_with(".service") || name.ends_with(".scope")) {
        return Some("a unit's own leaf, which systemd removes with the unit".to_owned());
    }
    // A session must never nest in another one: it would be counted, limited and killed with it.
    if name.starts_with(PREFIX) {
        return Some("a measured session".to_owned());
    }
    match std::fs::read_to_string(folder.join("cgroup.type")) {
        Ok(kind) if kind.trim() != "domain" => return Some(format!("type is {}, not domain", kind.trim())),
        Err(error) if !top => return Some(format!("cgroup.type: {error}")),
        _ => {}
    }
    let probe = folder.join(format!("{PREFIX}-{}-probe{}", Owner::current(), next_number()));
    if let Err(error) = std::fs::create_dir(&probe) {
        return Some(format!("cannot make a child: {error}"));
    }
    let kind = std::fs::read_to_string(probe.join("cgroup.type")).unwrap_or_default();
    let removed = std::fs::remove_dir(&probe);
    if kind.trim() != "domain" {
        return Some(format!("a child's type is {:?}, not domain", kind.trim()));
    }
    removed.err().map(|error| format!("cannot remove a child: {error}"))
}

fn next_number() -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// A fresh cgroup of one measured run. Dropping it kills what is in it and removes it.
#[derive(Debug)]
pub struct SessionCgroup {
    folder: PathBuf,
    handle: File,
    events: Mutex<File>,
    id: u64,
    parent: Parent,
    limits: Applied,
}

impl SessionCgroup {
    /// Makes an empty cgroup that takes no children, limited as far as controllers are available.
    ///
    /// # Errors
    /// `CgroupUnusable`, naming the file that refused.
    pub fn create(limits: &Limits) -> Result<Self> {
        let parent = Parent::find()?;
        let folder = parent.folder.join(format!("{PREFIX}-{}-{}", Owner::current(), next_number()));
        let at = |doing: &str, error: std::io::Error| {
            Error::new(Code::CgroupUnusable, format!("{doing}: {error}")).at(folder.display()).because(error)
        };
        std::fs::create_dir(&folder).map_err(|error| at("cannot make the session's cgroup", error))?;
        let handle = File::open(&folder).map_err(|error| at("cannot open the session's cgroup", error))?;
        let id = handle.metadata().map_err(|error| at("cannot read the cgroup's id", error))?.ino();
        let events = File::open(folder.join("cgroup.events"))
            .map_err(|error| at("cannot open cgroup.events", error))?;
        let mut cgroup = Self {
            folder: folder.clone(),
            handle,
            events: Mutex::new(events),
            id,
            parent,
            limits: Applied::default(),
        };
        write(&folder.join("cgroup.max.descendants"), "0")?;
        if cgroup.is_populated()? {
            return Err(
                Error::new(Code::Internal, "a cgroup that was just made has processes").at(folder.display())
            );
        }
        cgroup.limits.apply(&cgroup.folder, limits)?;
        Ok(cgroup)
    }

    /// The cgroup's id, read back from the kernel: its inode, which `bpf_get_current_cgroup_id` gives too.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Its folder, opened.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    /// Where it was made, and why there.
    #[must_use]
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    /// Limits that are in force, in words.
    #[must_use]
    pub fn limits(&self) -> &[String] {
        self.limits.words()
    }

    /// Whether a controller bounds the number of processes.
    #[must_use]
    pub fn bounds_processes(&self) -> bool {
        self.limits.bounds_processes()
    }

    /// The limit that the tree has run into, in words.
    #[must_use]
    pub fn exceeded(&self) -> Option<String> {
        self.limits.exceeded(|| self.processes())
    }

    /// `cgroup.procs` of every group of the session, opened for writing: whoever writes `0` to it joins, whatever its own
    /// privileges are by then, since the kernel checks those of the opener. The session's own is the last.
    ///
    /// # Errors
    /// `CgroupUnusable`, naming the file.
    pub fn procs_files(&self) -> Result<Vec<File>> {
        let folders = self.limits.groups().iter().chain([&self.folder]);
        folders.map(|folder| open_for_writing(&folder.join("cgroup.procs"))).collect()
    }

    /// Whether any process is in it or below it.
    ///
    /// # Errors
    /// `Io`, naming `cgroup.events`.
    pub fn is_populated(&self) -> Result<bool> {
        let path = self.folder.join("cgroup.events");
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut text = String::new();
        events
            .rewind()
            .and_then(|()| events.read_to_string(&mut text))
            .map_err(|e| Error::io("cannot read", &path, e))?;
        Ok(!text.lines().any(|line| line == "populated 0"))
    }

    /// Waits by poll until no process is left in it; false when `limit` passed first.
    ///
    /// # Errors
    /// `Io`, naming `cgroup.events`.
    pub fn wait_empty(&self, limit: Duration) -> Result<bool> {
        // A second opening of the file: poll state belongs to the opening, and others read theirs meanwhile.
        let path = self.folder.join("cgroup.events");
        let mut events = File::open(&path).map_err(|error| Error::io("cannot open", &path, error))?;
        let until = Instant::now() + limit;
        loop {
            let mut text = String::new();
            events
                .rewind()
                .and_then(|()| events.read_to_string(&mut text))
                .map_err(|error| Error::io("cannot read", &path, error))?;
            if text.lines().any(|line| line == "populated 0") {
                return Ok(true);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout =
                PollTimeout::try_from(left.min(Duration::from_secs(1))).unwrap_or(PollTimeout::ZERO);
            let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            let _woken_or_timed_out = poll(&mut fds, timeout);
        }
    }

    /// Ids of the processes that are in it now.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        processes_of(&self.folder)
    }

    /// Kills every process in it and below it, at once and without a chance to refuse.
    ///
    /// # Errors
    /// `CgroupUnusable` when `cgroup.kill` refuses (before Linux 5.14).
    pub fn kill(&self) -> Result<()> {
        write(&self.folder.join("cgroup.kill"), "1")
    }

    /// Kills, waits and removes, and says when something stayed.
    ///
    /// # Errors
    /// `CgroupUnusable`, naming what stayed.
    pub fn remove(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(());
        }
        remove_tree(&self.folder)?;
        self.limits.groups().iter().try_for_each(|group| remove_v1(group))
    }
}

impl Drop for SessionCgroup {
    fn drop(&mut self) {
        // Nobody can be told any more; the next start reaps by name.
        let _reaped_later = self.remove();
    }
}

fn processes_of(folder: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Kills everything in a version 2 cgroup, waits until it is empty, and removes it with its children. Somebody else
/// who does the same at the same time is no failure.
fn remove_tree(folder: &Path) -> Result<()> {
    match kill_and_remove(folder) {
        Err(_) if !folder.exists() => Ok(()),
        other => other,
    }
}

fn kill_and_remove(folder: &Path) -> Result<()> {
    write(&folder.join("cgroup.kill"), "1")?;
    let until = Instant::now() + Duration::from_secs(10);
    let events_path = folder.join("cgroup.events");
    loop {
        let mut events =
            File::open(&events_path).map_err(|error| Error::io("cannot open", &events_path, error))?;
        let mut text = String::new();
        events.read_to_string(&mut text).map_err(|error| Error::io("cannot read", &events_path, error))?;
        if text.lines().any(|line| line == "populated 0") {
            break;
        }
        if Instant::now() > until {
            return Err(Error::new(
                Code::CgroupUnusable,
                format!("processes {:?} survive cgroup.kill for 10 s", processes_of(folder)),
            )
            .at(folder.display()));
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let _woken_or_timed_out = poll(&mut fds, PollTimeout::from(200u8));
    }
    remove_with_children(folder)
}

fn remove_with_children(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_with_children(&entry.path())?;
        }
    }
    remove_empty(folder)
}

/// Kills everything in the cgroup at `folder` and removes it with those below.
///
/// # Errors
/// `CgroupUnusable`, naming what stayed; `Io`.
pub(super) fn kill_and_remove_group(folder: &Path, version_1: bool) -> Result<()> {
    if version_1 { remove_v1(folder) } else { remove_tree(folder) }
}

/// Version 1 has no kill; the tree is the same as that of the version 2 group, which is empty by now.
fn remove_v1(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    for pid in processes_of(folder) {
        if let Ok(pid) = i32::try_from(pid) {
            let _gone_already =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
    remove_empty(folder)
}

/// A dying task keeps its cgroup busy for a moment after it left the process list.
fn remove_empty(folder: &Path) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        match std::fs::remove_dir(folder) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(error) => {
                return Err(Error::new(Code::CgroupUnusable, format!("cannot remove the cgroup: {error}"))
                    .at(folder.display())
                    .because(error));
            }
        }
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| Error::io("cannot read", path, error))
}

fn open_for_writing(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).open(path).map_err(|error| unusable(path, error))
}

fn write(path: &Path, text: &str) -> Result<()> {
    open_for_writing(path)?.write_all(text.as_bytes()).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, error: std::io::Error) -> Error {
    Error::new(Code::CgroupUnusable, format!("cannot write: {error}")).at(path.display()).because(error)
}
