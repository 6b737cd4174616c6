//! `openat2` below a descriptor.

use super::EntryKind;
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat, openat2, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder held open.
#[derive(Debug)]
pub(super) struct Handle(OwnedFd);

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NONBLOCK);
const NEW_FOLDER: Mode = Mode::from_bits_truncate(0o755);

impl Handle {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(AT_FDCWD, path, FOLDER, Mode::empty())?))
    }

    pub(super) fn folder(&self, below: &Path) -> io::Result<Self> {
        Ok(Self(self.beneath(below, FOLDER, Mode::empty())?))
    }

    pub(super) fn of_root(path: &Path) -> crate::error::Result<Self> {
        use crate::error::{Code, Error};
        let at = |error: Errno| Error::io("cannot open the folder", path, error.into());
        // A link on the way (/var on some hosts) is followed once; what it leads to is checked name by name.
        let real = resolved(path);
        let mut folder = openat(AT_FDCWD, "/", FOLDER, Mode::empty()).map_err(at)?;
        let mut reached = PathBuf::from("/");
        for name in std::iter::once(None).chain(real.components().skip(1).map(Some)) {
            if let Some(name) = name {
                // A mount may stand here, since only root makes one in a folder of root's; a link may not.
                let enter = |name: &Path| openat(&folder, name, FOLDER | OFlag::O_NOFOLLOW, Mode::empty());
                folder = enter_or_make(&folder, name.as_os_str(), enter).map_err(at)?;
                reached.push(name);
            }
            let found = fstat(&folder).map_err(at)?;
            // In a folder like /tmp only a name's owner can change what stands at it.
            let sticky = found.st_mode & 0o1000 != 0;
            if found.st_uid != nix::unistd::geteuid().as_raw() && found.st_uid != 0
                || (found.st_mode & 0o022 != 0 && !sticky)
            {
                return Err(Error::new(
                    Code::CannotMeasure,
                    format!(
                        "expected a folder of root's that nobody else can change, found uid {} and mode {:o}",
                        found.st_uid,
                        found.st_mode & 0o7777
                    ),
                )
                .at(reached.display())
                .hint(format!("sudo chown root:root {0} && sudo chmod go-w {0}", reached.display())));
            }
        }
        Ok(Self(folder))
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.0)?)
    }

    pub(super) fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        let found = fstat(&self.0)?;
        Ok((found.st_uid, found.st_mode & 0o7777))
    }

    pub(super) fn kind(&self, below: &Path) -> io::Result<EntryKind> {
        if below.as_os_str().is_empty() {
            return Ok(EntryKind::Folder);
        }
        let (parent, name) = self.parent(below)?;
        Ok(kind(&look(parent.as_fd(), name)?))
    }

    pub(super) fn read(&self, below: &Path) -> io::Result<File> {
        regular(File::from(self.beneath(below, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?))
    }

    pub(super) fn append(&self, below: &Path) -> io::Result<File> {
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_NONBLOCK;
        let file = regular(File::from(self.beneath(below, flags, Mode::from_bits_truncate(0o644))?))?;
        if fstat(&file)?.st_nlink != 1 {
            return Err(io::Error::other("expected a file of this one name, found one with several"));
        }
        super::readable(&file)?;
        Ok(file)
    }

    pub(super) fn create_new(&self, below: &Path) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        Ok(File::from(self.beneath(below, flags, Mode::from_bits_truncate(0o600))?))
    }

    pub(super) fn entries(&self, below: &Path) -> io::Result<Vec<(OsString, EntryKind)>> {
        let fd = self.beneath(below, FOLDER, Mode::empty())?;
        let named = fd.try_clone()?;
        let mut entries = Vec::new();
        for entry in Dir::from_fd(fd)?.iter() {
            let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            match look(named.as_fd(), &name) {
                Ok(found) => entries.push((name, kind(&found))),
                // Removed since it was listed.
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entries)
    }

    pub(super) fn create_folders(&self, below: &Path) -> io::Result<()> {
        let mut folder = self.0.try_clone()?;
        for name in below.components() {
            let enter = |name: &Path| open_beneath(folder.as_fd(), name, FOLDER, Mode::empty());
            folder = enter_or_make(&folder, name.as_os_str(), enter)?;
        }
        Ok(())
    }

    pub(super) fn create_private_folder(&self, below: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        match mkdirat(&parent, name, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn remove(&self, below: &Path, depth: usize) -> io::Result<()> {
        let (parent, name) = self.parent(below)?;
        Ok(remove(parent.as_fd(), name, depth)?)
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (old, new) = (self.parent(from)?, self.parent(to)?);
        Ok(renameat(&old.0, old.1, &new.0, new.1)?)
    }

    /// The folder that holds the last name of a path, and that name.
    fn parent<'a>(&self, below: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = below.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let parent = below.parent().unwrap_or(Path::new(""));
        Ok((self.beneath(parent, FOLDER, Mode::empty())?, name))
    }

    fn beneath(&self, below: &Path, flags: OFlag, mode: Mode) -> io::Result<OwnedFd> {
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        Ok(open_beneath(self.0.as_fd(), below, flags, mode)?)
    }
}

/// The one door.
fn open_beneath(folder: BorrowedFd<'_>, below: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd, Errno> {
    let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC | OFlag::O_NOCTTY).mode(mode).resolve(
        ResolveFlag::RESOLVE_BENEATH
            | ResolveFlag::RESOLVE_NO_SYMLINKS
            | ResolveFlag::RESOLVE_NO_MAGICLINKS
            | ResolveFlag::RESOLVE_NO_XDEV,
    );
    loop {
        match openat2(folder, below, how) {
            // The kernel saw a rename on the way and asks to try again.
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            done => return done,
        }
    }
}

fn enter_or_make(
    folder: &OwnedFd,
    name: &OsStr,
    enter: impl Fn(&Path) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    match enter(Path::new(name)) {
        Err(Errno::ENOENT) => {}
        done => return done,
    }
    match mkdirat(folder, name, NEW_FOLDER) {
        Err(Errno::EEXIST) => enter(Path::new(name)),
        Err(error) => Err(error),
        Ok(()) => {
            let made = enter(Path::new(name))?;
            // Whatever umask was inherited.
            fchmod(&made, NEW_FOLDER)?;
            Ok(made)
        }
    }
}

/// The path with the links of its longest part that exists followed.
fn resolved(path: &Path) -> PathBuf {
    for existing in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (existing.canonicalize(), path.strip_prefix(existing)) {
            return real.join(rest);
        }
    }
    path.to_owned()
}

fn look(folder: BorrowedFd<'_>, name: &OsStr) -> Result<FileStat, Errno> {
    fstatat(folder, name, AtFlags::AT_SYMLINK_NOFOLLOW)
}

fn kind(found: &FileStat) -> EntryKind {
    match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG => EntryKind::File,
        SFlag::S_IFDIR => EntryKind::Folder,
        SFlag::S_IFLNK => EntryKind::Link,
        _ => EntryKind::Other,
    }
}

fn regular(file: File) -> io::Result<File> {
    match kind(&fstat(&file)?) {
        EntryKind::File => Ok(file),
        _ => Err(io::Error::other("expected a regular file")),
    }
}

fn remove(folder: BorrowedFd<'_>, name: &OsStr, depth: usize) -> Result<(), Errno> {
    if kind(&look(folder, name)?) != EntryKind::Folder {
        return unlinkat(folder, name, UnlinkatFlags::NoRemoveDir);
    }
    if depth == 0 {
        return Err(Errno::ENAMETOOLONG);
    }
    let inner = open_beneath(folder, Path::new(name), FOLDER, Mode::empty())?;
    let listed = inner.try_clone().map_err(|_| Errno::EMFILE)?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(listed)?.iter() {
        let entry = entry?;
        names.push(OsStr::from_bytes(entry.file_name().to_bytes()).to_owned());
    }
    for name in names.iter().filter(|name| *name != "." && *name != "..") {
        match remove(inner.as_fd(), name, depth - 1) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    unlinkat(folder, name, UnlinkatFlags::RemoveDir)
}
