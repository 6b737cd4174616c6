//! Removing a tree that a hostile program may have built, and may still be changing.
//!
//! Every folder is opened with `openat2` below an already opened one, so that no symbolic link is ever
//! followed and no mount is ever crossed, whatever is swapped in between two calls. What is removed is a
//! name in a folder that is held open; nothing is ever looked up by a path twice. Immutable and append-only
//! flags are cleared on the way; on a file that has another name elsewhere they are put back afterwards.

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat2, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat};
use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Folders held open at once; deeper ones are first moved up, so that depth costs no descriptors.
const MAX_DEPTH: usize = 128;
/// How often a folder is listed again because entries appeared while it was emptied.
const MAX_PASSES: usize = 16;
/// Entries that stayed are listed up to this number; beyond it they are only counted.
const MAX_LISTED: usize = 1_000;

/// What a tree holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Files, folders and links.
    pub entries: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// The tree is deeper than what was looked at: the figures are lower bounds.
    pub at_least: bool,
}

/// An entry that could not be removed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stayed {
    /// Where.
    pub path: PathBuf,
    /// The reason, for a person.
    pub why: String,
}

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Entries removed.
    pub entries: u64,
    /// Bytes on disk that they had.
    pub bytes: u64,
    /// Immutable and append-only flags cleared.
    pub flags_cleared: u64,
    /// What stayed, the first thousand.
    pub stayed: Vec<Stayed>,
    /// How many stayed in all.
    pub stayed_count: u64,
}

impl Tally {
    /// Notes that `path` stayed.
    pub fn stay(&mut self, path: PathBuf, why: impl Into<String>) {
        self.stayed_count += 1;
        if self.stayed.len() < MAX_LISTED {
            self.stayed.push(Stayed { path, why: why.into() });
        }
    }
}

/// Whose rights are asked for: an id and the groups that come with it.
#[derive(Clone, Debug)]
pub struct Person {
    /// The user's id.
    pub uid: u32,
    /// The user's own group.
    pub gid: u32,
    /// All groups, the own one among them.
    pub groups: Vec<u32>,
}

impl Person {
    /// The user of that name; `None` when there is none.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let user = nix::unistd::User::from_name(name).ok().flatten()?;
        let own = std::ffi::CString::new(name).ok()?;
        let groups = nix::unistd::getgrouplist(&own, user.gid).unwrap_or_default();
        let groups = groups.iter().map(|group| group.as_raw()).chain([user.gid.as_raw()]).collect();
        Some(Self { uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups })
    }

    /// Read, write and search rights on a folder.
    fn may_use(&self, found: &FileStat) -> bool {
        let shift = if found.st_uid == self.uid {
            6
        } else if self.groups.contains(&found.st_gid) {
            3
        } else {
            0
        };
        self.uid == 0 || found.st_mode >> shift & 0o7 == 0o7
    }

    /// In a sticky folder only the owner of the folder or of the entry removes it.
    fn may_unlink(&self, folder: &FileStat, entry: &FileStat) -> bool {
        let sticky = folder.st_mode & Mode::S_ISVTX.bits() != 0;
        self.may_use(folder)
            && (!sticky || self.uid == 0 || [folder.st_uid, entry.st_uid].contains(&self.uid))
    }
}

/// A folder held open.
pub struct Tree {
    fd: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// Opens an absolute path; no component of it may be a symbolic link.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link on the way, and what opening a folder fails with.
    pub fn open(path: &Path) -> io::Result<Self> {
        let how = OpenHow::new()
            .flags(FOLDER)
            .resolve(ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let fd = openat2(nix::fcntl::AT_FDCWD, path, how)?;
        Ok(Self { fd, path: path.to_path_buf() })
    }

    /// Opens a folder below this one: no links, no mounts, no way up.
    ///
    /// # Errors
    /// `EXDEV` at a mount point, `ELOOP` at a link, and what opening a folder fails with.
    pub fn below(&self, relative: &Path) -> io::Result<Self> {
        Ok(Self { fd: open_below(self.fd.as_fd(), relative, FOLDER)?, path: self.path.join(relative) })
    }

    /// The names in this folder, sorted.
    ///
    /// # Errors
    /// What listing fails with.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        list(self.fd.as_fd())
    }

    /// True when `name` is a folder itself, not a link to one.
    #[must_use]
    pub fn is_folder(&self, name: &OsStr) -> bool {
        look(self.fd.as_fd(), name).is_ok_and(|found| is_folder(&found))
    }

    /// `person` could list, enter and change this folder.
    #[must_use]
    pub fn is_usable_by(&self, person: &Person) -> bool {
        fstat(&self.fd).is_ok_and(|found| person.may_use(&found)) && flags_of(self.fd.as_fd()) == 0
    }

    /// `person` could remove `name` and everything below it without a change of rights.
    #[must_use]
    pub fn is_removable_by(&self, name: &OsStr, person: &Person) -> bool {
        fstat(&self.fd).is_ok_and(|folder| removable(self.fd.as_fd(), &folder, name, person, 0))
    }

    /// Gives the folder to a user, with every right of an owner, and clears its flags.
    ///
    /// # Errors
    /// What changing owner or mode fails with.
    pub fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        let _without_flags = clear_flags(self.fd.as_fd());
        fchown(&self.fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        let mode = fstat(&self.fd)?.st_mode & 0o7777 | 0o755;
        fchmod(&self.fd, Mode::from_bits_truncate(mode))?;
        Ok(())
    }

    /// How large `name` and everything below it is; mounts below it are not entered.
    #[must_use]
    pub fn measure(&self, name: &OsStr) -> Size {
        let mut size = Size::default();
        measure(self.fd.as_fd(), name, 0, &mut size);
        size
    }

    /// Removes `name` and everything below it.
    pub fn remove(&self, name: &OsStr, tally: &mut Tally) {
        Removal { top: self, levels: Vec::new(), hoisted: 0, tally }.run(name);
    }

    /// Removes everything in this folder, and keeps the folder.
    ///
    /// # Errors
    /// What listing fails with.
    pub fn empty(&self, tally: &mut Tally) -> io::Result<()> {
        let mut seen = HashSet::new();
        for _ in 0..MAX_PASSES {
            let fresh: Vec<OsString> =
                self.names()?.into_iter().filter(|name| seen.insert(name.clone())).collect();
            if fresh.is_empty() {
                return Ok(());
            }
            for name in fresh {
                self.remove(&name, tally);
            }
        }
        tally.stay(self.path.clone(), "new entries keep appearing");
        Ok(())
    }
}

// Without O_NOFOLLOW, which would turn the ELOOP of RESOLVE_NO_SYMLINKS into a vaguer ENOTDIR.
const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);

fn open_below(folder: BorrowedFd<'_>, name: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_XDEV
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS,
    );
    loop {
        match openat2(folder, name.as_ref(), how) {
            // The kernel saw a rename on the way and asks to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
}

fn look(folder: BorrowedFd<'_>, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn is_folder(found: &FileStat) -> bool {
    found.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

fn on_disk(found: &FileStat) -> u64 {
    u64::try_from(found.st_blocks).unwrap_or(0) * 512
}

fn list(folder: BorrowedFd<'_>) -> io::Result<Vec<OsString>> {
    // A descriptor of its own: the position of a listing belongs to the open file.
    let fd = open_below(folder, ".", FOLDER)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(fd)?.iter() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(OsStr::from_bytes(name).to_os_string());
        }
    }
    names.sort();
    Ok(names)
}

fn measure(folder: BorrowedFd<'_>, name: &OsStr, depth: usize, size: &mut Size) {
    let Ok(found) = look(folder, name) else { return };
    size.entries += 1;
    size.bytes += on_disk(&found);
    if !is_folder(&found) {
        return;
    }
    if depth >= MAX_DEPTH {
        size.at_least = true;
        return;
    }
    let Ok(fd) = open_below(folder, name, FOLDER) else { return };
    for child in list(fd.as_fd()).unwrap_or_default() {
        measure(fd.as_fd(), &child, depth + 1, size);
    }
}

fn removable(folder: BorrowedFd<'_>, of: &FileStat, name: &OsStr, person: &Person, depth: usize) -> bool {
    // What is gone, or can't be looked at, keeps nobody from removing the rest.
    let Ok(found) = look(folder, name) else { return true };
    if !person.may_unlink(of, &found) || depth >= MAX_DEPTH {
        return false;
    }
    if !is_folder(&found) {
        return open_for_flags(folder, name).is_none_or(|entry| flags_of(entry.as_fd()) == 0);
    }
    let Ok(fd) = open_below(folder, name, FOLDER) else { return false };
    if flags_of(fd.as_fd()) != 0 {
        return false;
    }
    // An empty folder goes by its name alone.
    list(fd.as_fd())
        .is_ok_and(|names| names.iter().all(|name| removable(fd.as_fd(), &found, name, person, depth + 1)))
}

/// One folder on the way down.
struct Level {
    fd: OwnedFd,
    name: OsString,
    pending: Vec<OsString>,
    kept: HashSet<OsString>,
    passes: usize,
}

/// One removal, with the folders it stands in.
struct Removal<'a> {
    top: &'a Tree,
    levels: Vec<Level>,
    hoisted: usize,
    tally: &'a mut Tally,
}

impl Removal<'_> {
    fn run(mut self, name: &OsStr) {
        self.visit(name.to_os_string());
        while let Some(level) = self.levels.last_mut() {
            match level.pending.pop() {
                Some(child) => self.visit(child),
                None => self.leave(),
            }
        }
    }

    /// The folder that is being emptied.
    fn here(&self) -> BorrowedFd<'_> {
        self.levels.last().map_or(self.top.fd.as_fd(), |level| level.fd.as_fd())
    }

    fn path_of(&self, name: &OsStr) -> PathBuf {
        let mut path = self.top.path.clone();
        path.extend(self.levels.iter().map(|level| &level.name));
        path.push(name);
        path
    }

    fn keep(&mut self, name: OsString, why: impl Into<String>) {
        let path = self.path_of(&name);
        self.tally.stay(path, why);
        self.mark_kept(name);
    }

    fn mark_kept(&mut self, name: OsString) {
        if let Some(level) = self.levels.last_mut() {
            level.kept.insert(name);
        }
    }

    /// Removes a file, or goes into a folder.
    fn visit(&mut self, name: OsString) {
        let found = match look(self.here(), &name) {
            Ok(found) => found,
            Err(Errno::ENOENT) => return,
            Err(error) => return self.keep(name, reason(error)),
        };
        if !is_folder(&found) {
            return self.remove_name(name, &found);
        }
        if self.levels.len() >= MAX_DEPTH {
            return self.hoist(name);
        }
        let listed = open_below(self.here(), &name, FOLDER)
            .map_err(io::Error::from)
            .and_then(|fd| Ok((list(fd.as_fd())?, fd)));
        match listed {
            Ok((pending, fd)) => {
                self.levels.push(Level { fd, name, pending, kept: HashSet::new(), passes: 0 });
            }
            Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::ENOENT) => {}
                // It was a folder a moment ago: what stands there now is removed as what it is, a name.
                Some(Errno::ELOOP | Errno::ENOTDIR) => match look(self.here(), &name) {
                    Ok(now) if !is_folder(&now) => self.remove_name(name, &now),
                    Ok(_) => self.keep(name, "it changes while it is removed"),
                    Err(_) => {}
                },
                Some(errno) => self.keep(name, reason(errno)),
                None => self.keep(name, error.to_string()),
            },
        }
    }

    fn remove_name(&mut self, name: OsString, found: &FileStat) {
        let flag = if is_folder(found) { UnlinkatFlags::RemoveDir } else { UnlinkatFlags::NoRemoveDir };
        let result = match unlinkat(self.here(), name.as_os_str(), flag) {
            Err(Errno::EPERM | Errno::EACCES) => {
                let (result, cleared) =
                    without_flags(self.here(), &name, || unlinkat(self.here(), name.as_os_str(), flag));
                self.tally.flags_cleared += cleared;
                result
            }
            result => result,
        };
        match result {
            Ok(()) => {
                self.tally.entries += 1;
                self.tally.bytes += on_disk(found);
            }
            Err(Errno::ENOENT) => {}
            Err(Errno::EPERM | Errno::EACCES) => {
                self.keep(name, format!("not permitted; it belongs to user {}", found.st_uid));
            }
            Err(errno) => self.keep(name, reason(errno)),
        }
    }

    /// Moves a folder that lies too deep up into the first level, which is listed again afterwards.
    fn hoist(&mut self, name: OsString) {
        self.hoisted += 1;
        let up = format!(".hoisted-{}-{}", std::process::id(), self.hoisted);
        let Some(first) = self.levels.first() else { return };
        let (here, first) = (self.here(), first.fd.as_fd());
        let rename = || renameat2(here, name.as_os_str(), first, up.as_str(), RenameFlags::RENAME_NOREPLACE);
        let (result, cleared) = match rename() {
            Err(Errno::EPERM | Errno::EACCES) => {
                let on_top = clear_flags(first).unwrap_or(0);
                let (result, cleared) = without_flags(here, &name, rename);
                (result, cleared + u64::from(on_top != 0))
            }
            result => (result, 0),
        };
        self.tally.flags_cleared += cleared;
        match result {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => self.keep(name, reason(errno)),
        }
    }

    /// The folder has nothing left to visit: look again, then remove it.
    fn leave(&mut self) {
        let hoisted = self.hoisted;
        let Some(level) = self.levels.last_mut() else { return };
        let fresh: Vec<OsString> = match list(level.fd.as_fd()) {
            Ok(names) => names.into_iter().filter(|name| !level.kept.contains(name)).collect(),
            Err(_) => Vec::new(),
        };
        level.passes += 1;
        if !fresh.is_empty() && level.passes <= MAX_PASSES + hoisted {
            level.pending = fresh;
            return;
        }
        let Some(level) = self.levels.pop() else { return };
        if !level.kept.is_empty() {
            return self.mark_kept(level.name);
        }
        if !fresh.is_empty() {
            return self.keep(level.name, "new entries keep appearing");
        }
        match fstat(&level.fd) {
            Ok(found) => self.remove_name(level.name, &found),
            Err(errno) => self.keep(level.name, reason(errno)),
        }
    }
}

fn reason(errno: Errno) -> String {
    match errno {
        Errno::EXDEV => "a mount point, which is never crossed: umount it".to_owned(),
        Errno::EBUSY => "busy: a mount point or in use by the kernel".to_owned(),
        Errno::EROFS => "the file system is read-only".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

const IMMUTABLE: libc::c_int = 0x10;
const APPEND_ONLY: libc::c_int = 0x20;

/// Does `doing` with the flags of the folder and of the entry cleared; puts them back on an entry that
/// still has another name, which may lie outside.
fn without_flags(
    folder: BorrowedFd<'_>,
    name: &OsStr,
    doing: impl Fn() -> Result<(), Errno>,
) -> (Result<(), Errno>, u64) {
    let mut cleared = u64::from(clear_flags(folder).unwrap_or(0) != 0);
    let entry = open_for_flags(folder, name);
    let before = entry.as_ref().map_or(0, |fd| clear_flags(fd.as_fd()).unwrap_or(0));
    cleared += u64::from(before != 0);
    let result = doing();
    if let (true, Some(fd)) = (before != 0, &entry) {
        let elsewhere = fstat(fd).is_ok_and(|found| !is_folder(&found) && found.st_nlink > 0);
        if elsewhere || result.is_err() {
            let _best_effort = get_flags(fd.as_fd()).and_then(|flags| set_flags(fd.as_fd(), flags | before));
        }
    }
    (result, cleared)
}

/// Opens a regular file or a folder, nothing whose opening has an effect.
fn open_for_flags(folder: BorrowedFd<'_>, name: &OsStr) -> Option<OwnedFd> {
    let held = open_below(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).ok()?;
    let kind = fstat(&held).ok()?.st_mode & SFlag::S_IFMT.bits();
    if kind != SFlag::S_IFREG.bits() && kind != SFlag::S_IFDIR.bits() {
        return None;
    }
    // The very inode that was looked at, whatever bears its name by now.
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    nix::fcntl::open(path.as_str(), flags, nix::sys::stat::Mode::empty()).ok()
}

/// Those of both flags that are set; none where the file system has no flags.
fn flags_of(file: BorrowedFd<'_>) -> libc::c_int {
    get_flags(file).unwrap_or(0) & (IMMUTABLE | APPEND_ONLY)
}

/// Clears both flags and gives back those that were set.
fn clear_flags(file: BorrowedFd<'_>) -> Result<libc::c_int, Errno> {
    let flags = get_flags(file)?;
    let found = flags & (IMMUTABLE | APPEND_ONLY);
    if found != 0 {
        set_flags(file, flags & !found)?;
    }
    Ok(found)
}

fn get_flags(file: BorrowedFd<'_>) -> Result<libc::c_int, Errno> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the kernel writes one int through the pointer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS as _, &raw mut flags) })?;
    Ok(flags)
}

fn set_flags(file: BorrowedFd<'_>, flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is open, and the kernel reads one int through the pointer, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS as _, &raw const flags) })?;
    Ok(())
}
