//! Files below a folder that is held open: the one way in which root opens a path of a proof root.
//!
//! The folder is looked up once. Everything below it is opened from that descriptor by `openat2`, which follows no link,
//! crosses no mount and never leaves the folder: whatever somebody swaps in between two calls, what is written, removed
//! or read lies in the folder that was opened.

use super::pretty_sorted;
use crate::error::{Error, Result};
use crate::host::rights::Rights;
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

#[cfg(target_os = "linux")]
#[path = "beneath/linux.rs"]
mod system;
#[cfg(not(target_os = "linux"))]
#[path = "beneath/portable.rs"]
mod system;

/// Deepest folder that is removed.
const DEPTH: usize = 64;
/// Begins the name of a file that is being written.
const TEMPORARY: &str = ".assay-gates-";

/// A path below a folder that is held open.
#[derive(Clone, Debug)]
pub struct RootPath {
    root: Arc<Root>,
    below: PathBuf,
}

#[derive(Debug)]
struct Root {
    folder: system::Handle,
    /// For messages; nothing is opened by it again.
    path: PathBuf,
    rights: Rights,
}

/// What stands at a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A FIFO, socket or device.
    Other,
}

impl RootPath {
    /// The folder at `path`, which is made when it isn't there. What leads to it is looked up as `rights` see it.
    ///
    /// # Errors
    /// `Io`.
    pub fn create(path: &Path, rights: Rights) -> Result<Self> {
        rights.act(|| {
            std::fs::create_dir_all(path)
                .map_err(|error| Error::io("cannot create the folder", path, error))?;
            Self::held(system::Handle::open(path), path, rights.clone())
        })
    }

    /// The folder at `path`.
    ///
    /// # Errors
    /// `Io`, also when it isn't there.
    pub fn open(path: &Path, rights: Rights) -> Result<Self> {
        rights.act(|| Self::held(system::Handle::open(path), path, rights.clone()))
    }

    /// The file at `path`, or where it will be: its folder is held, and made when it isn't there.
    ///
    /// # Errors
    /// `Io`.
    pub fn of(path: &Path, rights: Rights) -> Result<Self> {
        let Some(name) = path.file_name() else {
            return Err(Error::io("cannot write", path, io::Error::from(io::ErrorKind::InvalidInput)));
        };
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self::create(folder, rights)?.join(name))
    }

    /// A folder of root's that nobody else can change, nor any folder above it; what is missing is made with mode 0755.
    ///
    /// # Errors
    /// `CannotMeasure`, naming the folder that somebody else could change; `Io`.
    #[cfg(target_os = "linux")]
    pub fn of_root(path: &Path) -> Result<Self> {
        let folder = system::Handle::of_root(path)?;
        Self::held(Ok(folder), path, Rights::own())
    }

    fn held(folder: io::Result<system::Handle>, path: &Path, rights: Rights) -> Result<Self> {
        let folder = folder.map_err(|error| Error::io("cannot open the folder", path, error))?;
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Ok(Self { root: Arc::new(Root { folder, path, rights }), below: PathBuf::new() })
    }

    /// The folder of this path, held itself: no link, no mount.
    ///
    /// # Errors
    /// `Io`, also when it isn't there.
    pub fn hold(&self) -> Result<Self> {
        let folder = self.act("cannot open the folder", |folder, below| folder.folder(below))?;
        Self::held(Ok(folder), &self.path(), self.root.rights.clone())
    }

    /// A path further down. `..` is refused when it is used.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> Self {
        Self { root: Arc::clone(&self.root), below: self.below.join(name) }
    }

    /// Where it was when its folder was opened: for messages, and for whoever reads it without us.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        if self.below.as_os_str().is_empty() {
            self.root.path.clone()
        } else {
            self.root.path.join(&self.below)
        }
    }

    /// Below the folder that is held, `/` between parts.
    #[must_use]
    pub fn below(&self) -> &Path {
        &self.below
    }

    fn at(&self, doing: &'static str) -> impl Fn(io::Error) -> Error + use<> {
        let path = self.path();
        move |error| Error::io(doing, &path, error)
    }

    fn act<T>(
        &self,
        doing: &'static str,
        act: impl FnOnce(&system::Handle, &Path) -> io::Result<T>,
    ) -> Result<T> {
        if self.below.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(self.at(doing)(io::Error::new(
                io::ErrorKind::InvalidInput,
                "expected a path of plain names",
            )));
        }
        self.root.rights.act(|| act(&self.root.folder, &self.below).map_err(self.at(doing)))
    }

    /// Owner and mode of the folder that is held.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(unix)]
    pub fn owner_and_mode(&self) -> Result<(u32, u32)> {
        self.root.folder.owner_and_mode().map_err(self.at("cannot look at"))
    }

    /// What stands there, without following a link; `None` when nothing does.
    ///
    /// # Errors
    /// `Io`.
    pub fn kind(&self) -> Result<Option<EntryKind>> {
        self.act("cannot look at", |folder, below| absent(folder.kind(below)))
    }

    /// Opens the regular file there to read it; `None` when nothing is there.
    ///
    /// # Errors
    /// `Io`, also for what isn't a regular file.
    pub fn open_file(&self) -> Result<Option<File>> {
        self.act("cannot open", |folder, below| absent(folder.read(below)))
    }

    /// Opens the regular file there to read it.
    ///
    /// # Errors
    /// As [`RootPath::open_file`]; `Io` when nothing is there.
    pub fn expect_file(&self) -> Result<File> {
        self.open_file()?.ok_or_else(|| self.at("cannot open")(io::ErrorKind::NotFound.into()))
    }

    /// The file's bytes; `None` when nothing is there.
    ///
    /// # Errors
    /// As [`RootPath::open_file`].
    pub fn read(&self) -> Result<Option<Vec<u8>>> {
        let Some(mut file) = self.open_file()? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(self.at("cannot read"))?;
        Ok(Some(bytes))
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// As [`RootPath::read`]; `Io` when nothing is there.
    pub fn expect(&self) -> Result<Vec<u8>> {
        self.read()?.ok_or_else(|| self.at("cannot read")(io::ErrorKind::NotFound.into()))
    }

    /// Names and kinds of what a folder holds, sorted; empty when it isn't there.
    ///
    /// # Errors
    /// `Io`.
    pub fn entries(&self) -> Result<Vec<(std::ffi::OsString, EntryKind)>> {
        let mut entries =
            self.act("cannot list", |folder, below| absent(folder.entries(below)))?.unwrap_or_default();
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(entries)
    }

    /// Makes the folder and those above it, mode 0755.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_folder(&self) -> Result<()> {
        self.act("cannot create the folder", |folder, below| folder.create_folders(below))
    }

    /// Makes the folder in one that is there, mode 0700, when it isn't there yet.
    ///
    /// # Errors
    /// `Io`.
    #[cfg(target_os = "linux")]
    pub fn create_private_folder(&self) -> Result<()> {
        self.act("cannot create the folder", |folder, below| folder.create_private_folder(below))
    }

    /// Removes a file or a folder with everything in it; nothing there is fine. No link is followed.
    ///
    /// # Errors
    /// `Io`.
    pub fn remove(&self) -> Result<()> {
        self.act("cannot remove", |folder, below| absent(folder.remove(below, DEPTH)).map(drop))
    }

    /// Gives the folder or file another name in the folder that is held, in place of whatever file stood there.
    ///
    /// # Errors
    /// `Io`.
    pub fn rename(&self, to: &Self) -> Result<()> {
        to.create_parent()?;
        self.act("cannot rename", |folder, below| folder.rename(below, &to.below))
    }

    /// Waits until this folder, all that is in it, and the names that lead to it are on disk: what is said to be done after it is there
    /// after a power cut.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync(&self) -> Result<()> {
        self.sync_tree()?;
        self.sync_names()
    }

    /// Waits until the names that lead to this are on disk.
    ///
    /// # Errors
    /// `Io`.
    pub fn sync_names(&self) -> Result<()> {
        for above in self.below.ancestors().skip(1) {
            Self { root: Arc::clone(&self.root), below: above.to_owned() }.sync_folder()?;
        }
        Ok(())
    }

    fn sync_tree(&self) -> Result<()> {
        for (name, kind) in self.entries()? {
            let entry = self.join(name);
            match kind {
                EntryKind::Folder => entry.sync_tree()?,
                EntryKind::File => entry.expect_file()?.sync_all().map_err(entry.at("cannot sync"))?,
                EntryKind::Link | EntryKind::Other => {}
            }
        }
        self.sync_folder()
    }

    fn sync_folder(&self) -> Result<()> {
        self.act("cannot sync", |folder, below| folder.folder(below)?.sync())
    }

    fn create_parent(&self) -> Result<()> {
        match self.below.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => Self { root: Arc::clone(&self.root), below: parent.to_owned() }.create_folder(),
            None => Ok(()),
        }
    }

    /// Opens a file to write at its end, mode 0644; it is made when it isn't there.
    ///
    /// # Errors
    /// `Io`, also for what isn't a regular file with this one name.
    pub fn append(&self) -> Result<File> {
        self.create_parent()?;
        self.act("cannot append", |folder, below| folder.append(below))
    }

    /// Makes a file anew, mode 0644, in place of whatever stood there.
    ///
    /// # Errors
    /// `Io`.
    pub fn create_file(&self) -> Result<File> {
        self.create_parent()?;
        self.remove()?;
        let file = self.act("cannot create", |folder, below| folder.create_new(below))?;
        readable(&file).map_err(self.at("cannot set the mode"))?;
        Ok(file)
    }

    /// Begins the file that [`Draft::finish`] puts there whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin(&self) -> Result<Draft> {
        self.create_parent()?;
        let temporary = self.beside()?;
        let file = temporary
            .act("cannot create a temporary file beside it", |folder, below| folder.create_new(below))?;
        Ok(Draft { file, temporary, place: self.clone(), finished: false })
    }

    /// Begins the folder that [`DraftFolder::put_in_place`] puts there whole.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin_folder(&self) -> Result<DraftFolder> {
        let folder = self.beside()?;
        folder.create_folder()?;
        Ok(DraftFolder { folder, place: self.clone() })
    }

    /// A name in the same folder that nothing has yet.
    fn beside(&self) -> Result<Self> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| self.at("cannot name something beside")(io::Error::other(error)))?;
        let name = format!("{TEMPORARY}{}", hex::encode(random));
        Ok(Self { root: Arc::clone(&self.root), below: self.below.with_file_name(name) })
    }

    /// Puts `bytes` there, whole or not at all, synced before the rename.
    ///
    /// # Errors
    /// `Io`.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut draft = self.begin()?;
        draft.write_all(bytes).map_err(self.at("cannot write"))?;
        draft.finish()
    }

    /// As [`RootPath::write`], without waiting for the disk: for what can be made again from a file that is there.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_copy(&self, bytes: &[u8]) -> Result<()> {
        let mut draft = self.begin()?;
        draft.write_all(bytes).map_err(self.at("cannot write"))?;
        draft.put_in_place()
    }

    /// Writes `value` as our own JSON files are written: indented by two, sorted keys, newline at the end.
    ///
    /// # Errors
    /// As [`RootPath::write`]; `Internal` when the value can't be serialised.
    pub fn write_json<T: Serialize>(&self, value: &T) -> Result<()> {
        self.write(pretty_sorted(value)?.as_bytes())
    }
}

/// A folder being filled, which isn't at its place yet. Dropping it takes it away again.
#[derive(Debug)]
pub struct DraftFolder {
    folder: RootPath,
    place: RootPath,
}

impl DraftFolder {
    /// Puts it at its place once all of it is on disk, instead of whatever stood there, which stays when that fails.
    ///
    /// # Errors
    /// `Io`.
    pub fn put_in_place(self) -> Result<()> {
        self.folder.sync_tree()?;
        let earlier = match self.place.kind()? {
            None => None,
            Some(_) => {
                let aside = self.place.beside()?;
                self.place.rename(&aside)?;
                Some(aside)
            }
        };
        if let Err(error) = self.folder.rename(&self.place) {
            if let Some(earlier) = earlier {
                let _best_effort = earlier.rename(&self.place);
            }
            return Err(error);
        }
        self.place.sync_names()?;
        earlier.map_or(Ok(()), |earlier| earlier.remove())
    }
}

impl std::ops::Deref for DraftFolder {
    type Target = RootPath;

    fn deref(&self) -> &RootPath {
        &self.folder
    }
}

impl Drop for DraftFolder {
    fn drop(&mut self) {
        // Nothing is there any more when it was put in place.
        let _best_effort = self.folder.remove();
    }
}

/// A file being written, which isn't at its place yet. Dropping it takes it away again.
#[derive(Debug)]
pub struct Draft {
    file: File,
    temporary: RootPath,
    place: RootPath,
    finished: bool,
}

impl Draft {
    /// Syncs the file, makes it readable for everybody, and puts it at its place.
    ///
    /// # Errors
    /// `Io`.
    pub fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(self.place.at("cannot sync"))?;
        self.put_in_place()
    }

    fn put_in_place(mut self) -> Result<()> {
        readable(&self.file).map_err(self.place.at("cannot set the mode"))?;
        let to = &self.place.below;
        self.temporary.act("cannot rename into place", |folder, below| folder.rename(below, to))?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.finished {
            let _best_effort = self.temporary.remove();
        }
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Draft {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Mode 0644: results are for whoever reads them.
fn readable(file: &File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    #[cfg(not(unix))]
    let _no_modes = file;
    Ok(())
}

fn absent<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> (tempfile::TempDir, RootPath) {
        let folder = tempfile::tempdir().unwrap();
        let root = RootPath::create(&folder.path().join("root"), Rights::own()).unwrap();
        (folder, root)
    }

    #[test]
    fn what_is_written_is_read_listed_and_removed() {
        let (_folder, root) = root();
        root.join("a/b/c.txt").write(b"1").unwrap();
        root.join("a/b/c.txt").write(b"2").unwrap();
        root.join("a/log").append().unwrap().write_all(b"x").unwrap();
        root.join("a/log").append().unwrap().write_all(b"y").unwrap();
        assert_eq!(root.join("a/b/c.txt").read().unwrap().unwrap(), b"2");
        assert_eq!(root.join("a/log").expect().unwrap(), b"xy");
        assert_eq!(root.join("a/none").read().unwrap(), None);
        assert_eq!(
            root.join("a").entries().unwrap(),
            [("b".into(), EntryKind::Folder), ("log".into(), EntryKind::File)]
        );
        root.join("a/b").sync().unwrap();
        assert!(root.join("none").sync().is_err());
        root.join("a").remove().unwrap();
        root.join("a").remove().unwrap();
        assert!(root.entries().unwrap().is_empty());
    }

    #[test]
    fn a_draft_that_is_dropped_leaves_nothing() {
        let (_folder, root) = root();
        root.join("f").begin().unwrap().write_all(b"half").unwrap();
        assert!(root.entries().unwrap().is_empty());
    }

    /// Every way to use a path, on every way to leave the folder.
    #[cfg(unix)]
    #[test]
    fn no_use_of_a_path_leaves_the_folder() {
        use std::os::unix::fs::symlink;
        let (folder, root) = root();
        let outside = folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("f"), "keep").unwrap();
        let inside = folder.path().join("root");
        symlink(&outside, inside.join("folder")).unwrap();
        symlink(outside.join("f"), inside.join("file")).unwrap();
        symlink("../outside/f", inside.join("up")).unwrap();
        symlink("/proc/self/root", inside.join("magic")).unwrap();
        symlink(outside.join("new"), inside.join("dangling")).unwrap();
        type Use = fn(&RootPath) -> Result<()>;
        let uses: [Use; 6] = [
            |path| path.expect().map(drop),
            |path| path.append().map(drop),
            |path| path.join("below").write(b"x"),
            |path| path.join("below").create_folder(),
            |path| path.join("f").remove(),
            |path| path.join("f").begin().map(drop),
        ];
        let at = outside.join("f").display().to_string();
        for name in ["folder", "file", "up", "magic", "dangling", "../outside", "../outside/f", at.as_str()] {
            for (number, each) in uses.iter().enumerate() {
                each(&root.join(name)).expect_err(&format!("{name}, use {number}"));
            }
            assert!(root.join(name).join("f").open_file().is_err(), "{name}");
        }
        assert_eq!(std::fs::read_to_string(outside.join("f")).unwrap(), "keep");
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
        // A link itself is replaced or removed, not what it leads to.
        root.join("file").write(b"mine").unwrap();
        root.join("folder").remove().unwrap();
        assert_eq!(std::fs::read_to_string(outside.join("f")).unwrap(), "keep");
        assert_eq!(root.join("file").expect().unwrap(), b"mine");
    }

    #[cfg(unix)]
    #[test]
    fn a_file_with_a_second_name_is_never_written_into() {
        let (folder, root) = root();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "keep").unwrap();
        std::fs::hard_link(&victim, folder.path().join("root/log")).unwrap();
        assert!(root.join("log").append().is_err());
        root.join("log").write(b"mine").unwrap();
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "keep");
    }
}
