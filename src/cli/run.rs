//! `assay-gates run`: the main job.

use crate::error::{Code, Error, Exit, Result};
use crate::gate::{Catalog, Plan};
use crate::report::{self, All, Human, Lines, Place, Recorder, Sink};
use crate::run::{self as job, BaselineUse, Options, ProofRoot, Source};
use clap::{Args as ClapArgs, ValueEnum};
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
    let catalog = Catalog::load(&args.gates_dir)?;
    let selection = catalog.select(&args.gates)?;
    let root = args.root.clone().map_or_else(|| default_root(args.resume), Ok)?;
    if args.dry_run {
        return show_plan(&Plan::new(&selection, root, args.runs), args.format);
    }
    args.measure(&catalog, &selection, &root)
}

impl Args {
    #[cfg(not(all(feature = "capture", target_os = "linux")))]
    fn measure(&self, _: &Catalog, _: &crate::gate::Selection, _: &Path) -> Result<Exit> {
        Err(super::built_without_capture())
    }

    #[cfg(all(feature = "capture", target_os = "linux"))]
    fn measure(&self, catalog: &Catalog, selection: &crate::gate::Selection, root: &Path) -> Result<Exit> {
        let checkout = catalog.folder();
        let source = Source::of(checkout, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
        let mut measure = job::KernelMeasure::prepare(
            selection,
            self.user.as_deref(),
            self.install,
            vec![root.to_path_buf()],
        )?;
        let root = ProofRoot::open(root)?;
        let events = root.path().join("events.jsonl");
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&events)
            .map_err(|error| Error::io("cannot open", &events, error))?;
        let mut views: Vec<Box<dyn Sink>> =
            vec![Box::new(Recorder::new(file)), Box::new(Human::new(self.place()))];
        if self.format == Format::Jsonl {
            views.push(Box::new(Lines));
        }
        let options = Options {
            runs: self.runs,
            resume: self.resume,
            selection: self.selection.clone(),
            baselines: self.baselines(),
            source: source.clone(),
            now,
        };
        let finished = job::run(catalog, selection, &options, &root, &mut measure, &mut All(views))?;
        let junit = report::junit(&finished.verdicts);
        crate::files::write_atomic(&root.path().join("junit.xml"), junit.as_bytes())?;
        match self.format {
            Format::Json => report::data(&crate::files::pretty_sorted(&finished.report(&root)?)?),
            Format::Jsonl => {}
            Format::Human | Format::Github => {
                let citable = source.citable();
                report::data(&format!("\n{}", report::verdicts(&finished.verdicts, citable)));
            }
        }
        report::diagnostic(&format!("results: {}", root.path().display()));
        if !self.no_pack {
            let zip = root.path().join("pack.zip");
            let provenance = crate::pack::Provenance::from_environment(checkout);
            let built = crate::pack::build(root.path(), &root.path().join("pack"), Some(&zip), &provenance)?;
            report::diagnostic(&format!(
                "proof pack: {} (manifest {})",
                zip.display(),
                built.manifest_sha256
            ));
        }
        Ok(finished.exit)
    }

    fn baselines(&self) -> BaselineUse {
        match (self.against_baseline, self.update_baseline) {
            (true, _) => BaselineUse::Against,
            (_, true) => BaselineUse::Update,
            _ => BaselineUse::None,
        }
    }

    fn place(&self) -> Place {
        if self.format == Format::Github || std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true")
        {
            Place::Actions
        } else if console::user_attended_stderr() {
            Place::Terminal
        } else {
            Place::Log
        }
    }
}

/// RFC 3339, UTC, seconds.
fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

const ROOTS: &str = "/var/lib/assay-gates/proof";

/// A new root, or with `--resume` the newest there is.
fn default_root(resume: bool) -> Result<PathBuf> {
    let folder = Path::new(ROOTS);
    if !resume {
        return Ok(folder.join(chrono::Utc::now().format("local-%Y%m%dT%H%M%S%3fZ").to_string()));
    }
    let mut roots: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|entries| entries.filter_map(std::result::Result::ok).map(|entry| entry.path()).collect())
        .unwrap_or_default();
    roots.retain(|root| root.join("run.json").is_file());
    roots.sort();
    roots.pop().ok_or_else(|| {
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
