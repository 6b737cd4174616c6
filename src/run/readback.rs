//! What a run left on disk, read back and verified: judging looks at nothing else.

use crate::capture::REFUSED;
use crate::error::{Code, Error, Result};
use crate::evidence::archive::read_bounded_from;
use crate::evidence::{Archive, CapabilitySurface, ToolEffects, effects};
use crate::files::{RootPath, Sha256Digest, sha256};
use crate::judge::{ArchiveRef, RunArtifacts, RunEvidence, scenario};
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
    let (mut touched, mut refused) = (std::collections::BTreeSet::new(), std::collections::BTreeSet::new());
    let recorded = out.join("effects.ndjson");
    for effect in effects::read_from(BufReader::new(recorded.expect_file()?), &recorded.path(), None) {
        let effect = effect?;
        if effect.marks.iter().any(|mark| mark == REFUSED) {
            refused.insert(effect.syscall);
        }
        touched.extend([effect.path, effect.target].into_iter().flatten().map(|path| path.value));
    }
    let evidence = RunEvidence {
        exit_code: archive.finished.exit_code,
        health: archive.content.health,
        surface: archive.content.surface,
        correlation: archive.content.correlation,
        kernel: archive.content.kernel,
        policy: archive.content.policy,
        sdk: archive.content.sdk,
        proof: json(&out.join("capture_proof.json"))?,
        calls: calls.calls,
        touched,
        refused,
    };
    Ok((evidence, found))
}

/// What a review looks at, from the folder of one run.
#[derive(Clone, Debug)]
pub(super) struct Reviewed {
    archive: Archive,
    effects: ToolEffects,
    files: [Sha256Digest; 3],
}

impl Reviewed {
    /// As the judge takes it.
    pub(super) fn as_run(&self) -> scenario::Run<'_> {
        let content = &self.archive.content;
        scenario::Run {
            health: &content.health,
            correlation: &content.correlation,
            kernel: &content.kernel,
            policy: &content.policy,
            sdk: &content.sdk,
            effects: &self.effects,
            files: self.files,
            archive: self.archive.sha256,
        }
    }
}

/// What a review looks at, from the folder of one run.
///
/// # Errors
/// As [`run_evidence`].
pub(super) fn reviewed(out: &RootPath) -> Result<Reviewed> {
    let (archive, _) = archive(out)?;
    let names = ["capability-surface.json", "correlation-report.json", "observation-health.json"];
    let files = names.map(|name| sha256(archive.member(name).unwrap_or_default()));
    Ok(Reviewed { effects: json(&out.join("tool_effects.json"))?, archive, files })
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
    artifacts_of(&archive, json(&out.join("kernel_set.json"))?)
}

/// Everything that the runs of a gate are compared by, from an archive and the kernel set beside it.
///
/// # Errors
/// `Internal` when a value can't be serialised.
pub fn artifacts_of(archive: &Archive, kernel_set: Value) -> Result<RunArtifacts> {
    Ok(RunArtifacts {
        health: value(&archive.health)?,
        surface: value(&archive.surface)?,
        correlation: value(&archive.correlation)?,
        kernel_set,
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
