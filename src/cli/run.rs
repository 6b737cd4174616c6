//! `assay-gates run`: the main job.

#[cfg(all(feature = "capture", target_os = "linux"))]
mod measuring;

use crate::error::{Code, Error, Exit, Result};
#[cfg(not(all(feature = "capture", target_os = "linux")))]
use crate::gate::Selection;
use crate::gate::{Catalog, Plan};
use crate::host::rights::Rights;
use crate::report;
use crate::run::{ROOTS, unfinished};
use clap::{Args as ClapArgs, ValueEnum};
#[cfg(all(feature = "capture", target_os = "linux"))]
use measuring::measure;
use std::path::{Path, PathBuf};

/// Measure gates, judge them, and build the proof pack.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  assay-gates run --gate kernel-only              one gate, three measured runs
  assay-gates run --gates all                     every gate that belongs to `all`
  assay-gates run --gate hidden_write             its baseline is measured first
  assay-gates run --gates all --resume --root R   go on where an earlier invocation was interrupted
  assay-gates run --gates all --against-baseline  fail when a gate's surface grew
  assay-gates run --gates all --dry-run           what would be done, and where

Exit codes: 0 passed · 10 acceptance failed · 11 runs disagree · 12 capture incomplete or inconclusive ·
13 interrupted · 14 evidence invalid · 40 this host can't measure")]
pub struct Args {
    /// A gate, or `all`; repeatable, or joined by commas.
    #[arg(long = "gate", visible_alias = "gates", value_name = "ID", required = true, value_delimiter = ',')]
    gates: Vec<String>,
    /// Measured runs of each gate.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// The proof root; a new folder below /var/lib/assay-gates/proof by default.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Keep what an earlier invocation has finished in this root.
    #[arg(long)]
    resume: bool,
    /// What the whole invocation was asked for, when this is one step of several into one root.
    #[arg(long, value_name = "NAMES", env = "ASSAY_GATES_SELECTION")]
    selection: Option<String>,
    /// Print the plan; measure nothing.
    #[arg(long)]
    dry_run: bool,
    /// Install what a fixture needs, from its lockfiles, before measuring.
    #[arg(long)]
    install: bool,
    /// Folder of the gate definitions.
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// User that the measured process runs as.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Fail a gate that touches more than its baseline.json in the repository says.
    #[arg(long, conflicts_with = "update_baseline")]
    against_baseline: bool,
    /// Write baseline.json of each gate that passes, for the repository to keep.
    #[arg(long)]
    update_baseline: bool,
    /// Bytes of the ring between kernel and reader; less on a host with little memory, and records may be lost, which
    /// fails the run. Rounded up to a power of two; it stands in each run's capture_proof.json.
    #[arg(long, value_name = "BYTES", default_value_t = crate::capture::RING_BYTES, value_parser = super::ring_bytes())]
    ring_bytes: u32,
    /// Give every program N times its time limits, on a host that is that much slower: emulated, or under load. It stands
    /// in run.json and in each run's capture_proof.json, and changes nothing else.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::slowness(), env = "ASSAY_GATES_SLOW")]
    slow: u32,
    /// What kernel events are written as: v1 labels O_EXCL as exclusive, v0 O_NOCTTY as its readers expect.
    #[arg(long, value_enum, value_name = "VERSION", default_value_t)]
    kernel_event: super::KernelEventForm,
    /// File to write the findings to, as SARIF 2.1.0.
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// File to write the verdicts to, as JUnit; the proof root has junit.xml in any case.
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Don't build a proof pack at the end.
    #[arg(long)]
    no_pack: bool,
    /// How results are shown on standard output.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A table for people.
    Human,
    /// One JSON object at the end.
    Json,
    /// One JSON object an event, as they happen.
    Jsonl,
    /// A table, with the groups of a job log of Actions.
    Github,
}

/// Carries it out.
pub fn run(args: &Args) -> Result<Exit> {
    let catalog = Rights::of_caller()?.act(|| Catalog::load(&args.gates_dir))?;
    let selection = catalog.select(&args.gates)?;
    let root = args.root.clone().map_or_else(|| default_root(args.resume), Ok)?;
    if args.dry_run {
        return show_plan(&Plan::new(&selection, root, args.runs), args.format);
    }
    measure(args, &catalog, &selection, &root)
}

/// Without the measuring half there is nothing to measure with.
#[cfg(not(all(feature = "capture", target_os = "linux")))]
fn measure(_: &Args, _: &Catalog, _: &Selection, _: &Path) -> Result<Exit> {
    Err(super::built_without_capture())
}

/// A new root, or with `--resume` the newest that is not finished, else the newest there is.
fn default_root(resume: bool) -> Result<PathBuf> {
    let folder = Path::new(ROOTS);
    if !resume {
        return Ok(folder.join(chrono::Utc::now().format("local-%Y%m%dT%H%M%S%3fZ").to_string()));
    }
    unfinished::newest(folder).ok_or_else(|| {
        Error::new(Code::Usage, format!("there is nothing to resume below {ROOTS}"))
            .hint("name the folder with --root")
    })
}

fn show_plan(plan: &Plan, format: Format) -> Result<Exit> {
    if matches!(format, Format::Json | Format::Jsonl) {
        report::data(&crate::files::pretty_sorted(plan)?);
        return Ok(Exit::Passed);
    }
    let mut rows = vec![["gate", "because", "runs", "command"].map(str::to_owned).to_vec()];
    for gate in &plan.gates {
        rows.push(vec![gate.id.clone(), gate.because.clone(), plan.runs.to_string(), gate.command.join(" ")]);
    }
    report::data(&format!("{}\nproof root: {}\n", report::columns(&rows), plan.root.display()));
    Ok(Exit::Passed)
}
