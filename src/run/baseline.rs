//! The baseline that a repository keeps of a gate: compared with what was measured, or written from it.

use super::{ProofRoot, readback};
use crate::error::{Exit, Result};
use crate::files::RootPath;
use crate::gate::Entry;
use crate::host::rights::Rights;
use crate::judge::diff::{Baseline, BaselineDiff};
use std::path::PathBuf;

/// What an invocation does with baselines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaselineUse {
    /// Nothing.
    #[default]
    None,
    /// A gate whose surface grew fails.
    Against,
    /// A gate that passes writes its baseline.
    Update,
}

/// The run that is compared.
const FIRST: u32 = 1;

/// `baseline.json` beside the gate's definition.
fn file(entry: &Entry) -> PathBuf {
    entry.file.with_file_name("baseline.json")
}

/// Compares the first run with the repository's baseline; `baseline_diff.json` of the gate says what differs.
///
/// # Errors
/// `BaselineInvalid`; what a run's files fail with.
pub(super) fn against(entry: &Entry, root: &ProofRoot) -> Result<Vec<(Exit, String)>> {
    let gate = &entry.definition.id;
    let Some(expected) = Rights::of_caller()?.act(|| Baseline::read(&file(entry), gate))? else {
        let reason = format!(
            "there is no baseline {}: write one with `assay-gates run --gate {gate} --update-baseline`",
            file(entry).display()
        );
        return Ok(vec![(Exit::AcceptanceFailed, reason)]);
    };
    // What was compared with, so that a reader of the evidence can compare again.
    root.gate(gate).join("baseline.json").write_json(&expected)?;
    let run = root.run(gate, FIRST);
    let difference: BaselineDiff = expected.compare(&measured(gate, &run)?);
    root.gate(gate).join("baseline_diff.json").write_json(&difference)?;
    Ok(difference
        .growth(FIRST, &readback::run_artifacts(&run)?.effects)
        .into_iter()
        .map(|line| (Exit::AcceptanceFailed, format!("baseline: {line}")))
        .collect())
}

/// Writes the baseline from the first run of a gate that passed.
///
/// # Errors
/// What a run's files fail with; `Io`.
pub(super) fn update(entry: &Entry, root: &ProofRoot) -> Result<PathBuf> {
    let gate = &entry.definition.id;
    let path = file(entry);
    let baseline = measured(gate, &root.run(gate, FIRST))?;
    Rights::of_caller()?.act(|| baseline.write(&path))?;
    Ok(path)
}

fn measured(gate: &str, run: &RootPath) -> Result<Baseline> {
    let (surface, effects) = readback::surface_and_effects(run)?;
    Baseline::of(gate, &surface, &effects)
}
