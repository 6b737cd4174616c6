//! Opens archives and refuses what does not verify.

use super::container;
use super::examine::{Finding, examine_members};
use super::write::Members;
use crate::error::{Code, Error, Result};
use crate::evidence::contract::ArchiveManifest;
use crate::files::{RootPath, Sha256Digest, sha256};
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

/// An archive that verified: container, digests, schemas, and everything that its layers decide.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Digest of the whole file.
    pub sha256: Sha256Digest,
    /// `manifest.json`.
    pub manifest: ArchiveManifest,
    /// The other members, parsed.
    pub content: Members,
    bytes: BTreeMap<&'static str, Vec<u8>>,
}

impl std::ops::Deref for Archive {
    type Target = Members;

    fn deref(&self) -> &Members {
        &self.content
    }
}

impl Archive {
    /// Opens and verifies an archive.
    ///
    /// # Errors
    /// `Io` when it can't be read; `EvidenceInvalid` with the first thing that is wrong.
    pub fn open(path: &Path) -> Result<Self> {
        Self::named(&read_bounded(path)?, path)
    }

    /// Verifies an archive in memory that stood at `path`.
    ///
    /// # Errors
    /// `EvidenceInvalid` with the first thing that is wrong, and where.
    pub fn named(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::from_bytes(bytes).map_err(|error| {
            let place = match error.place() {
                Some(inside) => format!("{}: {inside}", path.display()),
                None => path.display().to_string(),
            };
            error.at(place)
        })
    }

    /// Verifies an archive in memory.
    ///
    /// # Errors
    /// `EvidenceInvalid` with the first thing that is wrong.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        examine(bytes).map_err(|findings| match findings.into_iter().next() {
            Some(first) => first.into_error(),
            None => Error::new(Code::Internal, "an archive was refused without a finding"),
        })
    }

    /// The run.
    #[must_use]
    pub fn run_id(&self) -> &str {
        &self.manifest.run_id
    }

    /// The bytes of a member; see [`super::member`] for the paths.
    #[must_use]
    pub fn member(&self, path: &str) -> Option<&[u8]> {
        self.bytes.get(path).map(Vec::as_slice)
    }

    /// Writes the eight members below `folder`.
    ///
    /// # Errors
    /// `Io`.
    pub fn extract_to(&self, folder: &RootPath) -> Result<()> {
        self.bytes.iter().try_for_each(|(path, bytes)| folder.join(path).write_copy(bytes))
    }
}

/// Verifies an archive in memory and collects everything that is wrong.
///
/// # Errors
/// All findings, worst first: those of the container end the search, since what follows them means nothing.
pub fn examine(bytes: &[u8]) -> std::result::Result<Archive, Vec<Finding>> {
    let members = container::open(bytes).map_err(|finding| vec![finding])?;
    let (manifest, content) = examine_members(&members)?;
    Ok(Archive { sha256: sha256(bytes), manifest, content, bytes: members })
}

/// Reads a file of at most the largest archive.
///
/// # Errors
/// `Io`; `EvidenceInvalid` when it is larger.
pub fn read_bounded(path: &Path) -> Result<Vec<u8>> {
    let file = std::fs::File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    read_bounded_from(file, path)
}

/// As [`read_bounded`], of a file that is open; `path` names it.
///
/// # Errors
/// As [`read_bounded`].
pub fn read_bounded_from(file: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(container::MAX_SOURCE + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("cannot read", path, error))?;
    if bytes.len() as u64 > container::MAX_SOURCE {
        return Err(Error::new(
            Code::EvidenceInvalid,
            format!("expected an archive of at most {} bytes, found more", container::MAX_SOURCE),
        )
        .at(path.display()));
    }
    Ok(bytes)
}
