//! A pack as it lies somewhere: a folder or a zip, read the same way.

use super::finding::Finding;
use super::names;
use super::root::{RootFile, open_regular};
use super::zip_reader::{ENTRIES, ZipReader};
use crate::files::{Sha256Digest, sha256_reader};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

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
    Folder(PathBuf),
    /// A proof root's files, by the path that they have in a pack of it.
    Root(BTreeMap<String, PathBuf>),
    Zip(ZipReader),
}

impl Source {
    /// Opens a folder or a zip and lists what it holds; nothing is decoded yet.
    ///
    /// # Errors
    /// The first structural thing that is wrong with it.
    pub fn open(path: &Path) -> Result<Self, Finding> {
        if path.is_dir() { Self::folder(path) } else { Self::zip(path) }
    }

    /// The files of a proof root, as if they were packed. A file that is gone reads as one that is missing.
    #[must_use]
    pub fn of_root(files: &[RootFile]) -> Self {
        let mut members = BTreeMap::new();
        let mut places = BTreeMap::new();
        for file in files {
            let path = format!("payload/{}", file.path);
            let bytes = std::fs::symlink_metadata(&file.source).map_or(0, |facts| facts.len());
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

    fn folder(root: &Path) -> Result<Self, Finding> {
        let mut members = BTreeMap::new();
        let mut folders = vec![(root.to_owned(), String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            let unreadable = |error: std::io::Error| {
                Finding::new("pack_readable", prefix.clone(), "a readable folder", error.to_string())
            };
            for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
                let entry = entry.map_err(unreadable)?;
                let name = entry.file_name();
                let name = name.to_str().ok_or_else(|| {
                    Finding::new("pack_name", name.to_string_lossy(), "a name in UTF-8", "other bytes")
                })?;
                let path = format!("{prefix}{name}");
                names::check(&path)
                    .map_err(|wrong| Finding::new("pack_name", wrong.path, wrong.expected, wrong.found))?;
                let facts = std::fs::symlink_metadata(entry.path()).map_err(unreadable)?;
                if facts.is_dir() {
                    folders.push((entry.path(), format!("{path}/")));
                } else if facts.is_file() {
                    members.insert(path, facts.len());
                } else {
                    let found =
                        if facts.is_symlink() { "a symbolic link" } else { "a FIFO, socket or device" };
                    return Err(Finding::new("pack_link", path, "a regular file or a folder", found));
                }
                if members.len() as u64 > ENTRIES {
                    return Err(Finding::new(
                        "pack_entries",
                        prefix,
                        format!("at most {ENTRIES} files"),
                        "more",
                    ));
                }
            }
        }
        names::refuse_collisions(members.keys().map(String::as_str), std::iter::empty())
            .map_err(|wrong| Finding::new("pack_name_collision", wrong.path, wrong.expected, wrong.found))?;
        Ok(Self { members, form: Form::Folder(root.to_owned()) })
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
            Form::Folder(root) => match open_regular(&root.join(path)) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(missing(error.to_string())),
            },
            Form::Root(places) => match places.get(path).map(|place| open_regular(place)) {
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
