//! Writes archives, byte for byte the same from the same content.

use super::member;
use crate::error::{Code, Error, Result};
use crate::evidence::contract::{
    ArchiveManifest, CapabilitySurface, CorrelationReport, KernelEvent, ManifestFile, ObservationHealth,
    PolicyEvent, RunFinished, RunStarted, SdkEvent, schema,
};
use crate::files::{compact, sha256};
use flate2::{Compression, GzBuilder};
use serde::Serialize;
use std::collections::BTreeMap;

/// The content of an archive; the manifest follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Members {
    /// `capability-surface.json`.
    pub surface: CapabilitySurface,
    /// `correlation-report.json`.
    pub correlation: CorrelationReport,
    /// First line of `events.ndjson`.
    pub started: RunStarted,
    /// Last line of `events.ndjson`.
    pub finished: RunFinished,
    /// `layers/kernel.ndjson`.
    pub kernel: Vec<KernelEvent>,
    /// `layers/policy.ndjson`; empty when there was no decision log.
    pub policy: Vec<PolicyEvent>,
    /// `layers/sdk.ndjson`; empty when there was no SDK log.
    pub sdk: Vec<SdkEvent>,
    /// `observation-health.json`.
    pub health: ObservationHealth,
}

impl Members {
    /// The eight members' bytes by path.
    ///
    /// # Errors
    /// `Internal` when a value can't be serialised.
    pub fn bytes(&self) -> Result<BTreeMap<&'static str, Vec<u8>>> {
        let mut events = lines(std::slice::from_ref(&self.started))?;
        events.extend(lines(std::slice::from_ref(&self.finished))?);
        let mut members = BTreeMap::from([
            (member::SURFACE, compact(&self.surface)?.into_bytes()),
            (member::CORRELATION, compact(&self.correlation)?.into_bytes()),
            (member::EVENTS, events),
            (member::KERNEL, lines(&self.kernel)?),
            (member::POLICY, lines(&self.policy)?),
            (member::SDK, lines(&self.sdk)?),
            (member::HEALTH, compact(&self.health)?.into_bytes()),
        ]);
        let manifest = ArchiveManifest {
            schema: schema::ARCHIVE_MANIFEST.to_owned(),
            run_id: self.health.run_id.clone(),
            files: members
                .iter()
                .map(|(path, bytes)| {
                    let file = ManifestFile {
                        path: (*path).to_owned(),
                        sha256: sha256(bytes),
                        bytes: bytes.len() as u64,
                    };
                    ((*path).to_owned(), file)
                })
                .collect(),
        };
        members.insert(member::MANIFEST, compact(&manifest)?.into_bytes());
        Ok(members)
    }
}

/// One compact object per line, each line ended.
fn lines<T: Serialize>(items: &[T]) -> Result<Vec<u8>> {
    let mut text = String::new();
    for item in items {
        text.push_str(&compact(item)?);
        text.push('\n');
    }
    Ok(text.into_bytes())
}

/// The bytes of a `.tar.gz` with these members.
///
/// GNU headers, mode 0644, owner 0 named `assay`, no times, two zero blocks at the end and no more; gzip without
/// name and time, best compression, unknown system.
///
/// # Errors
/// `Internal` when a member is missing.
pub fn write(members: &BTreeMap<&'static str, Vec<u8>>) -> Result<Vec<u8>> {
    let failed =
        |error: std::io::Error| Error::new(Code::Internal, format!("cannot build the archive: {error}"));
    let gzip = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(gzip);
    for path in member::ALL {
        let bytes = members
            .get(path)
            .ok_or_else(|| Error::new(Code::Internal, format!("the archive lacks its member {path}")))?;
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(path).map_err(failed)?;
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_username("assay").map_err(failed)?;
        header.set_groupname("assay").map_err(failed)?;
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        archive.append(&header, bytes.as_slice()).map_err(failed)?;
    }
    archive.into_inner().and_then(flate2::write::GzEncoder::finish).map_err(failed)
}
