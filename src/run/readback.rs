//! What a run left on disk, read back and verified: judging looks at nothing else.

use crate::error::{Code, Error, Result};
use crate::evidence::archive::read_bounded_from;
use crate::evidence::{Archive, CapabilitySurface, EffectSurface, ToolEffects, effects};
use crate::files::{RootPath, sha256};
use crate::judge::scenario::RunFiles;
use crate::judge::{ArchiveRef, EffectTotals, RunArtifacts, RunEvidence};
use serde_json::Value;
use std::io::BufReader;

/// The archive that was found in a run's folder.
#[derive(Clone, Debug)]
pub struct Found {
    path: RootPath,
    sha256: String,
    bytes: u64,
}

impl Found {
    /// As a verdict names it.
    #[must_use]
    pub fn below(&self, root: &RootPath) -> ArchiveRef {
        let (path, root) = (self.path.path(), root.path());
        let path = path.strip_prefix(root).unwrap_or(&path);
        ArchiveRef { path: path.display().to_string(), sha256: self.sha256.clone(), bytes: self.bytes }
    }
}

/// Everything that acceptance looks at, from the folder of one run.
///
/// # Errors
/// `RunIncomplete` when a file is missing; what the verifier of archives says when one is wrong.
pub fn run_evidence(out: &RootPath) -> Result<(RunEvidence, Found)> {
    let (archive, found) = archive(out)?;
    let calls: ToolEffects = json(&out.join("tool_effects.json"))?;
    let mut totals = EffectTotals::default();
    let recorded = out.join("effects.ndjson");
    for effect in effects::read_from(BufReader::new(recorded.expect_file()?), &recorded.path(), None) {
        totals.take(effect?);
    }
    let evidence = RunEvidence::of(
        &archive,
        json(&out.join("capture_proof.json"))?,
        &calls,
        json(&out.join("surface.json"))?,
        totals,
    );
    Ok((evidence, found))
}

/// What a review looks at, from the folder of one run.
///
/// # Errors
/// As [`run_evidence`].
pub(super) fn reviewed(out: &RootPath) -> Result<RunFiles> {
    let (archive, _) = archive(out)?;
    let proof = json(&out.join("capture_proof.json"))?;
    Ok(RunFiles::new(archive, json(&out.join("tool_effects.json"))?, proof))
}

/// What a baseline is made of, from the folder of one run.
///
/// # Errors
/// As [`run_evidence`].
pub(super) fn surface_and_effects(out: &RootPath) -> Result<(CapabilitySurface, ToolEffects)> {
    let (archive, _) = archive(out)?;
    Ok((archive.content.surface, json(&out.join("tool_effects.json"))?))
}

/// Everything that the runs of a gate are compared by, from the folder of one run.
///
/// # Errors
/// As [`run_evidence`].
pub fn run_artifacts(out: &RootPath) -> Result<RunArtifacts> {
    let (archive, _) = archive(out)?;
    artifacts_of(&archive, json(&out.join("kernel_set.json"))?, json(&out.join("surface.json"))?)
}

/// Everything that the runs of a gate are compared by, from an archive and what stands beside it.
///
/// # Errors
/// `Internal` when a value can't be serialised.
pub fn artifacts_of(archive: &Archive, kernel_set: Value, effects: EffectSurface) -> Result<RunArtifacts> {
    Ok(RunArtifacts {
        health: value(&archive.health)?,
        surface: value(&archive.surface)?,
        correlation: value(&archive.correlation)?,
        kernel_set,
        effects,
        policy: lines(&archive.policy)?,
        sdk: lines(&archive.sdk)?,
    })
}

fn archive(out: &RootPath) -> Result<(Archive, Found)> {
    let missing = || {
        Error::new(Code::RunIncomplete, "expected one archive runner-*.tar.gz, found none")
            .at(out.path().display())
    };
    let name = out
        .entries()
        .map_err(|_| missing())?
        .into_iter()
        .filter_map(|(name, _)| name.into_string().ok())
        .find(|name| name.starts_with("runner-") && name.ends_with(".tar.gz"))
        .ok_or_else(missing)?;
    let path = out.join(name);
    let bytes = read_bounded_from(path.expect_file()?, &path.path())?;
    let archive = Archive::named(&bytes, &path.path())?;
    Ok((archive, Found { path, sha256: sha256(&bytes).to_string(), bytes: bytes.len() as u64 }))
}

fn json<T: serde::de::DeserializeOwned>(file: &RootPath) -> Result<T> {
    serde_json::from_slice(&file.expect()?).map_err(|error| {
        Error::new(Code::RunIncomplete, format!("not what a run writes: {error}")).at(format!(
            "{}:{}:{}",
            file.path().display(),
            error.line(),
            error.column()
        ))
    })
}

fn value<T: serde::Serialize>(artifact: &T) -> Result<Value> {
    serde_json::to_value(artifact)
        .map_err(|error| Error::new(Code::Internal, format!("cannot serialise: {error}")).because(error))
}

fn lines<T: serde::Serialize>(records: &[T]) -> Result<String> {
    let mut text = String::new();
    for record in records {
        text.push_str(&crate::files::compact(record)?);
        text.push('\n');
    }
    Ok(text)
}
