//! A pack as it lies somewhere: a folder or a zip, read the same way.

use super::finding::Finding;
use super::names;
use super::root::RootFile;
use super::zip_reader::{ENTRIES, ZipReader};
use crate::files::{EntryKind, RootPath, Sha256Digest, sha256_reader};
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest JSON or text file that is read as a whole.
pub const TEXT_LIMIT: u64 = 16 * 1024 * 1024;

/// Where a pack's files come from.
#[derive(Debug)]
pub struct Source {
    members: BTreeMap<String, u64>,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Folder(RootPath),
    /// A proof root's files, by the path that they have in a pack of it.
    Root(BTreeMap<String, RootPath>),
    Zip(ZipReader),
}

impl Source {
    /// Opens a folder or a zip and lists what it holds; nothing is decoded yet.
    ///
    /// # Errors
    /// The first structural thing that is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Finding> {
        if path.is_dir() {
            let folder = RootPath::open(path, Rights::own()).map_err(|error| {
                Finding::new("pack_readable", "", "a readable folder", error.message().to_owned())
            })?;
            Self::folder(&folder)
        } else {
            Self::zip(path)
        }
    }

    /// The files of a proof root, as if they were packed. A file that is gone reads as one that is missing.
    #[must_use]
    pub fn of_root(files: &[RootFile]) -> Self {
        let mut members = BTreeMap::new();
        let mut places = BTreeMap::new();
        for file in files {
            let path = format!("payload/{}", file.path);
            let opened = file.source.open_file().ok().flatten();
            let bytes = opened.and_then(|file| file.metadata().ok()).map_or(0, |facts| facts.len());
            members.insert(path.clone(), bytes);
            places.insert(path, file.source.clone());
        }
        Self { members, form: Form::Root(places) }
    }

    fn zip(path: &Path) -> Result<Self, Finding> {
        let file = File::open(path).map_err(|error| {
            Finding::new(
                "pack_readable",
                path.display().to_string(),
                "a pack's folder or zip",
                error.to_string(),
            )
        })?;
        let zip = ZipReader::open(file)?;
        let members = zip.members().map(|(name, bytes)| (name.to_owned(), bytes)).collect();
        Ok(Self { members, form: Form::Zip(zip) })
    }

    /// As [`Source::open`], of a folder that is held.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn folder(root: &RootPath) -> Result<Self, Finding> {
        let mut members = BTreeMap::new();
        let mut folders = vec![(root.clone(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let unreadable = |error: crate::error::Error| {
                Finding::new("pack_readable", prefix.clone(), "a readable folder", error.message().to_owned())
            };
            for (name, kind) in folder.entries().map_err(unreadable)? {
                let name = name.to_str().ok_or_else(|| {
                    Finding::new("pack_name", name.to_string_lossy(), "a name in UTF-8", "other bytes")
                })?;
                let path = format!("{prefix}{name}");
                names::check(&path)
                    .map_err(|wrong| Finding::new("pack_name", wrong.path, wrong.expected, wrong.found))?;
                let found = match kind {
                    EntryKind::Folder => {
                        folders.push((folder.join(name), format!("{path}/")));
                        continue;
                    }
                    EntryKind::File => {
                        let file = folder.join(name).open_file().map_err(unreadable)?;
                        let facts = file.map(|file| file.metadata()).transpose();
                        let length = facts.ok().flatten().map_or(0, |facts| facts.len());
                        members.insert(path, length);
                        if members.len() as u64 > ENTRIES {
                            return Err(Finding::new(
                                "pack_entries",
                                prefix,
                                format!("at most {ENTRIES} files"),
                                "more",
                            ));
                        }
                        continue;
                    }
                    EntryKind::Link => "a symbolic link",
                    EntryKind::Other => "a FIFO, socket or device",
                };
                return Err(Finding::new("pack_link", path, "a regular file or a folder", found));
            }
        }
        names::refuse_collisions(members.keys().map(String::as_str), std::iter::empty())
            .map_err(|wrong| Finding::new("pack_name_collision", wrong.path, wrong.expected, wrong.found))?;
        Ok(Self { members, form: Form::Folder(root.clone()) })
    }

    /// Every file and its length, sorted by path.
    #[must_use]
    pub fn members(&self) -> &BTreeMap<String, u64> {
        &self.members
    }

    /// Streams one file.
    ///
    /// # Errors
    /// Not there, or not readable.
    pub fn reader(&self, path: &str) -> Result<Box<dyn Read + '_>, Finding> {
        let missing = |found: String| Finding::new("file_present", path, "a readable file", found);
        if !self.members.contains_key(path) {
            return Err(missing("none".to_owned()));
        }
        match &self.form {
            Form::Folder(root) => match root.join(path).open_file() {
                Ok(Some(file)) => Ok(Box::new(file)),
                Ok(None) => Err(missing("none".to_owned())),
                Err(error) => Err(missing(error.to_string())),
            },
            Form::Root(places) => match places.get(path).map(RootPath::expect_file) {
                Some(Ok(file)) => Ok(Box::new(file)),
                Some(Err(error)) => Err(missing(error.to_string())),
                None => Err(missing("none".to_owned())),
            },
            Form::Zip(zip) => zip.reader(path).map_err(|error| missing(error.to_string())),
        }
    }

    /// A file as a whole.
    ///
    /// # Errors
    /// As [`Source::reader`]; longer than `limit`.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>, Finding> {
        let mut bytes = Vec::new();
        let mut reader = self.reader(path)?.take(limit + 1);
        reader.read_to_end(&mut bytes).map_err(|error| broken(path, &error))?;
        if bytes.len() as u64 > limit {
            return Err(Finding::new("file_size", path, format!("at most {limit} bytes"), "more"));
        }
        Ok(bytes)
    }

    /// A file of at most [`TEXT_LIMIT`] as text.
    ///
    /// # Errors
    /// As [`Source::read`]; not UTF-8.
    pub fn text(&self, path: &str) -> Result<String, Finding> {
        String::from_utf8(self.read(path, TEXT_LIMIT)?)
            .map_err(|error| Finding::new("file_utf8", path, "UTF-8", error.utf8_error().to_string()))
    }

    /// Digest and length of a file, in constant memory.
    ///
    /// # Errors
    /// As [`Source::reader`].
    pub fn digest(&self, path: &str) -> Result<(Sha256Digest, u64), Finding> {
        sha256_reader(self.reader(path)?).map_err(|error| broken(path, &error))
    }
}

fn broken(path: &str, error: &std::io::Error) -> Finding {
    Finding::new("file_content", path, "content that can be read to its end", error.to_string())
}
