//! The main job: takes a selection of gates through the stages, each result on disk before the next step.

mod baseline;
pub mod chain;
mod gate;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod kernel;
pub mod propose;
mod readback;
mod review;
mod root;
mod source;
#[cfg(test)]
mod tests;
pub mod unfinished;
mod words;

pub use baseline::BaselineUse;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub use kernel::{Fit, KernelMeasure, Wanted};
pub use readback::run_evidence;
pub use root::{BuildFacts, HostFacts, ProofRoot, RESERVE, ROOTS, RunRecord, Stopped};
pub use source::{Source, WorkflowRun};
pub use words::last as last_words;

use crate::error::{Code, Error, Exit, Result};
use crate::files::RootPath;
use crate::gate::{Catalog, Entry, Group, Selection};
use crate::judge::GateVerdict;
use crate::pack::claims::Claims;
use crate::report::{Event, Sink};
use std::time::Instant;

/// Whoever measures one run of a gate into a folder; the kernel in earnest, values in tests of the order of things.
pub trait Measure {
    /// Measures. When this returns, everything that was recorded is in the run's folder.
    ///
    /// # Errors
    /// Whatever kept it from being measured at all; an incomplete or failed run is a [`Measured`].
    fn measure(&mut self, gate: &Entry, run: Run<'_>) -> Result<Measured>;
}

/// One run of a gate, and where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// From 1.
    pub number: u32,
    /// Its folder, which exists and is empty.
    pub out: &'a RootPath,
    /// The gate and the folder of the run that comes after it unless something fails: what that one needs may be made
    /// ready once nothing of this one is alive.
    pub next: Option<(&'a Entry, &'a RootPath)>,
}

/// One run that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The outcome, accounting and proof.
    pub summary: crate::capture::Summary,
    /// Effects recorded.
    pub effects: u64,
    /// Why there is no archive, when there is none.
    pub without_archive: Option<Failure>,
}

/// An error as a value: what it says and the exit code that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What it says.
    pub text: String,
    /// What it asks for.
    pub exit: Exit,
}

/// How an invocation is to be carried out.
#[derive(Clone, Debug)]
pub struct Options {
    /// Measured runs of each gate.
    pub runs: u32,
    /// Keep what an earlier invocation has finished.
    pub resume: bool,
    /// What the whole invocation was asked for, when this is one step of it: `all`, or names joined by commas.
    pub selection: Option<String>,
    /// What time limits are multiplied by.
    pub slow: u32,
    /// What is done with baselines.
    pub baselines: BaselineUse,
    /// Head and state of the checkout.
    pub source: Source,
    /// RFC 3339, UTC, seconds.
    pub now: fn() -> String,
    /// Who told this invocation to stop, in words, once somebody did.
    pub told_to_stop: fn() -> Option<String>,
}

/// What an invocation came to.
#[derive(Debug)]
pub struct Finished {
    /// The worst exit of all gates.
    pub exit: Exit,
    /// The verdicts, in order.
    pub verdicts: Vec<GateVerdict>,
    /// What everything in this root may be cited for; `claims.json` of the root.
    pub claims: Claims,
}

/// `run --format json` (`assay.gates.run_report.v0`).
#[derive(Debug, serde::Serialize)]
pub struct Report {
    schema: &'static str,
    exit: u8,
    root: String,
    run: Option<RunRecord>,
    claims: Claims,
    verdicts: Vec<GateVerdict>,
}

impl Finished {
    /// Everything, for machines.
    ///
    /// # Errors
    /// `Io`, `RootBroken`.
    pub fn report(&self, root: &ProofRoot) -> Result<Report> {
        Ok(Report {
            schema: "assay.gates.run_report.v0",
            exit: self.exit.code(),
            root: root.path().display().to_string(),
            run: root.record()?,
            claims: self.claims.clone(),
            verdicts: self.verdicts.clone(),
        })
    }
}

/// Runs every gate of the selection. A gate that fails doesn't stop the next; an interruption and a full disk do, and
/// `run.json` says so.
///
/// # Errors
/// `ResumeMismatch` when the root is of another head, tool or number of runs; `DiskFull`;
/// `Io`.
pub fn run(
    catalog: &Catalog,
    selection: &Selection,
    options: &Options,
    root: &ProofRoot,
    measure: &mut dyn Measure,
    sink: &mut dyn Sink,
) -> Result<Finished> {
    let began = Instant::now();
    let record = begin(catalog, selection, options, root)?;
    let all = All { catalog, selection, options, root };
    all.gates(record, measure, sink, began).inspect_err(|error| root.stop(error, (options.now)()))
}

/// Everything that one invocation is about.
struct All<'a> {
    catalog: &'a Catalog,
    selection: &'a Selection,
    options: &'a Options,
    root: &'a ProofRoot,
}

impl All<'_> {
    fn gates(
        &self,
        mut record: RunRecord,
        measure: &mut dyn Measure,
        sink: &mut dyn Sink,
        began: Instant,
    ) -> Result<Finished> {
        let &Self { catalog, selection, options, root } = self;
        sink.event(&Event::SessionStarted {
            session: record.session.clone(),
            gates: selection.gates.iter().map(|gate| gate.definition.id.clone()).collect(),
            runs: options.runs,
            root: root.path().display().to_string(),
        })?;
        let mut verdicts: Vec<GateVerdict> = Vec::new();
        // A baseline that was measured in this root, on this head, needs no second measurement.
        let keep = |entry: &Entry| options.resume || selection.added.contains(&entry.definition.id);
        for (at, entry) in selection.gates.iter().enumerate() {
            let next = selection.gates.get(at + 1).filter(|next| !keep(next));
            let told_to_stop = options.told_to_stop;
            let entry = gate::Asked { entry, told_to_stop, runs: options.runs, keep: keep(entry), next };
            let reviewer = review::Reviewer { catalog, root, record: &record, baselines: options.baselines };
            let verdict = gate::run(&entry, &reviewer, measure, sink, &verdicts)?;
            let stop = verdict.is_interrupted();
            verdicts.push(verdict);
            if stop {
                break;
            }
        }
        let exit = Exit::worst(verdicts.iter().map(exit_of));
        record.finished_at = Some((options.now)());
        // Of everything in this root, also of what earlier steps measured.
        let whole: Vec<GateVerdict> =
            record.gates.iter().filter_map(|gate| root.verdict(gate).transpose()).collect::<Result<_>>()?;
        record.exit = Some(Exit::worst(whole.iter().map(exit_of).chain([exit])).code());
        root.write_record(&record)?;
        let claims = crate::pack::claims::of_root(root.folder())?;
        root.write_claims(&claims)?;
        root.folder().sync()?;
        sink.event(&Event::SessionFinished {
            exit: exit.code(),
            elapsed_ms: crate::run::gate::milliseconds(began),
        })?;
        Ok(Finished { exit, verdicts, claims })
    }
}

/// The typed exit of a verdict.
fn exit_of(verdict: &GateVerdict) -> Exit {
    Exit::BY_PRECEDENCE.into_iter().find(|exit| exit.code() == verdict.exit).unwrap_or(Exit::ToolFailed)
}

/// Writes `run.json`, or extends the one that is there: a workflow runs one gate a step into one root.
fn begin(catalog: &Catalog, selection: &Selection, options: &Options, root: &ProofRoot) -> Result<RunRecord> {
    let ids: Vec<String> = selection.gates.iter().map(|gate| gate.definition.id.clone()).collect();
    let object = object_sha256();
    let mut record = match root.record()? {
        Some(earlier) => {
            let differs = [
                (
                    "head",
                    earlier.source.head_sha != options.source.head_sha
                        || earlier.source.dirty != options.source.dirty,
                ),
                ("tool version", earlier.tool_version != env!("CARGO_PKG_VERSION")),
                ("kernel programs", earlier.object_sha256 != object),
                ("number of runs", earlier.runs != options.runs),
                ("build", earlier.build != BuildFacts::here()?),
            ];
            if let Some((what, _)) = differs.iter().find(|(_, differs)| *differs) {
                return Err(Error::new(
                    Code::ResumeMismatch,
                    format!(
                        "the results there are of another {what}; evidence of two can't stand in one root"
                    ),
                )
                .at(root.path().display())
                .hint("name a new folder with --root"));
            }
            earlier
        }
        None => RunRecord {
            schema: "assay.gates.run.v0".to_owned(),
            session: session_id()?,
            started_at: (options.now)(),
            finished_at: None,
            exit: None,
            unfinished: None,
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            object_sha256: object,
            build: BuildFacts::here()?,
            source: options.source.clone(),
            selection: String::new(),
            gates: Vec::new(),
            added: Vec::new(),
            runs: options.runs,
            slow: 1,
            host: HostFacts::here(),
            stopped: None,
        },
    };
    let mut wanted: Vec<String> = record.gates.iter().chain(&ids).cloned().collect();
    if let Some(names) = &options.selection {
        let whole = catalog.select(std::slice::from_ref(names))?;
        wanted.extend(whole.gates.into_iter().map(|entry| entry.definition.id));
    }
    let in_order = |keep: &dyn Fn(&String) -> bool| -> Vec<String> {
        catalog.entries().iter().map(|entry| entry.definition.id.clone()).filter(|id| keep(id)).collect()
    };
    let asked = |id: &String| ids.contains(id) && !selection.added.contains(id);
    record.added = in_order(&|id| (selection.added.contains(id) || record.added.contains(id)) && !asked(id));
    record.gates = in_order(&|id| wanted.contains(id));
    let all = in_order(&|id| catalog.get(id).is_ok_and(|entry| entry.definition.group == Group::All));
    record.selection = match &options.selection {
        Some(names) => names.clone(),
        None if record.gates == all => "all".to_owned(),
        None => record.gates.join(","),
    };
    record.finished_at = None;
    record.exit = None;
    record.unfinished = None;
    // Each run's proof says its own; here the largest stands.
    record.slow = record.slow.max(options.slow);
    record.stopped = None;
    root.write_record(&record)?;
    Ok(record)
}

/// Digest of the embedded kernel programs, when this build has them.
fn object_sha256() -> Option<String> {
    crate::capture::embedded().map(|object| format!("sha256:{}", object.sha256))
}

fn session_id() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::new(Code::Internal, format!("no randomness from the system: {error}")))?;
    Ok(format!("session_{}", hex::encode(bytes)))
}
