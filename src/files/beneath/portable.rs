//! Where nothing is measured: the same, by paths. Nobody is root there for somebody else.

use super::EntryKind;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// A folder.
#[derive(Debug)]
pub(super) struct Handle(PathBuf);

impl Handle {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !std::fs::metadata(path)?.is_dir() {
            return Err(io::Error::other("expected a folder"));
        }
        Ok(Self(path.to_owned()))
    }

    pub(super) fn folder(&self, below: &Path) -> io::Result<Self> {
        let path = self.plain(below)?;
        match kind(&path)? {
            EntryKind::Folder => Ok(Self(path)),
            _ => Err(io::Error::other("expected a folder")),
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        Ok(()) // nothing is measured here that could be lost
    }

    #[cfg(unix)]
    pub(super) fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        use std::os::unix::fs::MetadataExt;
        let found = self.0.metadata()?;
        Ok((found.uid(), found.mode() & 0o7777))
    }

    pub(super) fn kind(&self, below: &Path) -> io::Result<EntryKind> {
        kind(&self.plain(below)?)
    }

    pub(super) fn read(&self, below: &Path) -> io::Result<File> {
        File::open(self.regular(below)?)
    }

    pub(super) fn append(&self, below: &Path) -> io::Result<File> {
        let path = self.plain(below)?;
        if path.symlink_metadata().is_ok() {
            self.regular(below)?;
        }
        OpenOptions::new().append(true).create(true).open(path)
    }

    pub(super) fn create_new(&self, below: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(self.plain(below)?)
    }

    pub(super) fn entries(&self, below: &Path) -> io::Result<Vec<(OsString, EntryKind)>> {
        let path = self.plain(below)?;
        if kind(&path)? != EntryKind::Folder {
            return Err(io::Error::other("expected a folder"));
        }
        std::fs::read_dir(path)?
            .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), kind(&entry.path())?))))
            .collect()
    }

    pub(super) fn create_folders(&self, below: &Path) -> io::Result<()> {
        let path = self.plain(below)?;
        if path.symlink_metadata().is_ok() && kind(&path)? != EntryKind::Folder {
            return Err(io::Error::other("expected a folder"));
        }
        std::fs::create_dir_all(path)
    }

    pub(super) fn remove(&self, below: &Path, _: usize) -> io::Result<()> {
        let path = self.plain(below)?;
        match kind(&path)? {
            EntryKind::Folder => std::fs::remove_dir_all(path),
            _ => std::fs::remove_file(path),
        }
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(self.plain(from)?, self.plain(to)?)
    }

    /// The path, when no folder on the way is a link.
    fn plain(&self, below: &Path) -> io::Result<PathBuf> {
        let mut path = self.0.clone();
        let mut names = below.components().peekable();
        while let Some(name) = names.next() {
            path.push(name);
            if names.peek().is_some() && path.is_symlink() {
                return Err(io::Error::other("expected a folder, found a link"));
            }
        }
        Ok(path)
    }

    fn regular(&self, below: &Path) -> io::Result<PathBuf> {
        let path = self.plain(below)?;
        match kind(&path)? {
            EntryKind::File => Ok(path),
            _ => Err(io::Error::other("expected a regular file")),
        }
    }
}

fn kind(path: &Path) -> io::Result<EntryKind> {
    let found = path.symlink_metadata()?;
    Ok(match found.file_type() {
        kind if kind.is_file() => EntryKind::File,
        kind if kind.is_dir() => EntryKind::Folder,
        kind if kind.is_symlink() => EntryKind::Link,
        _ => EntryKind::Other,
    })
}
