//! A folder or a zip, read the same way: names sorted, sizes bounded, nothing outside of it followed.

use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use zip::ZipArchive;

/// Larger JSON files are not read: ours are far smaller.
const LARGEST: u64 = 16 << 20;
/// More names than this are no proof root of ours.
const MOST_FILES: usize = 20_000;

/// Where files are read from.
pub enum Tree {
    /// A folder, and the names of its files.
    Folder(PathBuf, Vec<String>),
    /// A zip, and the names of its files.
    Zip(Box<ZipArchive<BufReader<File>>>, Vec<String>),
}

impl Tree {
    /// Opens a folder or a zip.
    ///
    /// # Errors
    /// `Io`; `LogUnreadable` for what is neither; `TriageInput` for more files than any root has.
    pub fn open(path: &Path) -> Result<Self> {
        let mut names = Vec::new();
        let tree = if path.is_dir() {
            walk(path, "", &mut names)?;
            names.sort();
            Tree::Folder(path.to_owned(), names)
        } else {
            let zip = open_zip(path)?;
            names.extend(zip.file_names().filter_map(|name| name.ok()).map(|name| name.to_string()));
            names.retain(|name| !name.ends_with('/'));
            names.sort();
            Tree::Zip(Box::new(zip), names)
        };
        if tree.names().len() > MOST_FILES {
            let many = format!("expected at most {MOST_FILES} files, found {}", tree.names().len());
            return Err(Error::new(Code::TriageInput, many).at(path.display()));
        }
        Ok(tree)
    }

    /// The names of the files, relative, with `/`, sorted.
    #[must_use]
    pub fn names(&self) -> &[String] {
        match self {
            Tree::Folder(_, names) | Tree::Zip(_, names) => names,
        }
    }

    /// The length of a file; `None` when it is not there or nobody knows.
    #[must_use]
    pub fn size(&mut self, name: &str) -> Option<u64> {
        match self {
            Tree::Folder(root, _) => Some(std::fs::symlink_metadata(root.join(name)).ok()?.len()),
            Tree::Zip(zip, _) => Some(zip.by_name(name).ok()?.size()),
        }
    }

    /// The bytes of a file; `None` when it is not there.
    ///
    /// # Errors
    /// A sentence, when it is there and can't be read.
    pub fn read(&mut self, name: &str) -> Result<Option<Vec<u8>>, String> {
        self.read_up_to(name, LARGEST)
    }

    /// As [`Self::read`], with a limit of the caller's.
    ///
    /// # Errors
    /// A sentence, when it is there and can't be read.
    pub fn read_up_to(&mut self, name: &str, limit: u64) -> Result<Option<Vec<u8>>, String> {
        self.with(name, |reader| {
            let mut bytes = Vec::new();
            reader.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
            if bytes.len() as u64 > limit { Err(format!("larger than {limit} bytes")) } else { Ok(bytes) }
        })
    }

    /// Hands a reader of the file to `then`; `None` when it is not there.
    ///
    /// # Errors
    /// A sentence, when it is there and can't be read.
    pub fn with<T>(
        &mut self,
        name: &str,
        then: impl FnOnce(&mut dyn Read) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.names().binary_search_by(|known| known.as_str().cmp(name)).is_err() {
            return Ok(None);
        }
        match self {
            Tree::Folder(root, _) => {
                let mut file = File::open(root.join(name)).map_err(|error| error.to_string())?;
                then(&mut file).map(Some)
            }
            Tree::Zip(zip, _) => {
                let mut entry = zip.by_name(name).map_err(|error| error.to_string())?;
                then(&mut entry).map(Some)
            }
        }
    }
}

fn open_zip(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    ZipArchive::new(BufReader::new(file)).map_err(|error| {
        Error::new(Code::LogUnreadable, format!("expected a zip, found: {error}"))
            .at(path.display())
            .hint("download it again: gh run view RUN --log")
    })
}

/// Regular files only: a link could lead anywhere.
fn walk(folder: &Path, prefix: &str, names: &mut Vec<String>) -> Result<()> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("cannot list", folder, error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io("cannot list", folder, error))?;
        let kind = entry.file_type().map_err(|error| Error::io("cannot look at", &entry.path(), error))?;
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if names.len() > MOST_FILES {
            return Ok(());
        }
        if kind.is_dir() {
            walk(&entry.path(), &format!("{name}/"), names)?;
        } else if kind.is_file() {
            names.push(name);
        }
    }
    Ok(())
}
