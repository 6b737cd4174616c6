//! A scenario's review: gathers what stands in the proof root, and writes the rows into `runs/`.

use super::readback;
use super::{BaselineUse, ProofRoot, RunRecord};
use crate::error::Result;
use crate::files::RootPath;
use crate::gate::{Catalog, Definition, Entry};
use crate::judge::GateVerdict;
use crate::judge::scenario::{self, Input, Measured, Review, RunFiles};

/// What reviews of one invocation share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reviewer<'a> {
    pub catalog: &'a Catalog,
    pub root: &'a ProofRoot,
    pub record: &'a RunRecord,
    pub baselines: BaselineUse,
}

impl Reviewer<'_> {
    /// The review folder of a gate; `None` when it has no scenario.
    pub fn folder(&self, gate: &Definition) -> Option<RootPath> {
        scenario::folder(gate).map(|name| self.root.folder().join("runs").join(name))
    }

    /// Reviews a gate that was concluded, and writes its rows; `None` when it has no scenario.
    ///
    /// # Errors
    /// `Io`; what an archive of the baseline fails with that had verified before.
    pub fn review(
        &self,
        entry: &Entry,
        verdict: &GateVerdict,
        before: &[GateVerdict],
    ) -> Result<Option<Review>> {
        let gate = &entry.definition;
        let (Some(folder), Some(scenario)) = (self.folder(gate), &gate.scenario) else { return Ok(None) };
        let head = self.record.source.head_sha.as_str();
        let own = Loaded::of(self.root, gate, verdict)?;
        let baseline = match &scenario.baseline {
            Some(name) => match before.iter().find(|other| other.gate == *name) {
                Some(verdict) => Some(Loaded::of(self.root, &self.catalog.get(name)?.definition, verdict)?),
                None => None,
            },
            None => None,
        };
        let own_runs: Vec<scenario::Run> = own.runs.iter().map(RunFiles::as_run).collect();
        let baseline_runs: Vec<scenario::Run> =
            baseline.iter().flat_map(|loaded| &loaded.runs).map(RunFiles::as_run).collect();
        let invocation = self.record.invocation();
        let review = scenario::review(&Input {
            gate: own.measured(&own_runs, head),
            baseline: baseline.as_ref().map(|loaded| loaded.measured(&baseline_runs, head)),
            invocation: &invocation,
            work: crate::host::WORK,
        })?;
        if let Some(review) = &review {
            for (name, text) in &review.files {
                folder.join(name).write(text.as_bytes())?;
            }
        }
        Ok(review)
    }
}

/// A gate as it stands in the root.
struct Loaded<'a> {
    gate: &'a Definition,
    verdict: &'a GateVerdict,
    runs: Vec<RunFiles>,
    pass_lines: Vec<String>,
}

impl<'a> Loaded<'a> {
    /// Reads every run that left an archive; a run without one is missing here, and the review says so.
    fn of(root: &ProofRoot, gate: &'a Definition, verdict: &'a GateVerdict) -> Result<Self> {
        let with_archive = verdict.runs.iter().filter(|run| run.archive.is_some());
        let runs = with_archive
            .map(|run| readback::reviewed(&root.run(&gate.id, run.run)))
            .collect::<Result<Vec<_>>>()?;
        let log = root.gate(&gate.id).join("gate.log");
        let text = String::from_utf8_lossy(&log.read()?.unwrap_or_default()).into_owned();
        let pass_lines = text.lines().filter(|line| line.starts_with("PASS:")).map(str::to_owned).collect();
        Ok(Self { gate, verdict, runs, pass_lines })
    }

    fn measured(&'a self, runs: &'a [scenario::Run<'a>], head_sha: &'a str) -> Measured<'a> {
        Measured { gate: self.gate, verdict: self.verdict, runs, pass_lines: &self.pass_lines, head_sha }
    }
}
