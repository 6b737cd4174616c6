//! The measuring half of `run`.

use super::{Args, Format};
use crate::error::{Code, Error, Exit, Result};
use crate::files::{RootPath, quoted};
use crate::gate::{Catalog, Selection};
use crate::host::rights::Rights;
use crate::host::state::cleanup_record;
use crate::host::{interrupt, stop, units};
use crate::report::{self, All, Definitions, Human, Lines, Place, Recorder, Sink, page};
use crate::run::{self as job, BaselineUse, Options, ProofRoot, ROOTS, Source, Wanted};
use crate::triage::gather::Tree;
use std::path::Path;

/// Measures, shows, and builds the proof pack.
pub fn measure(args: &Args, catalog: &Catalog, selection: &Selection, root: &Path) -> Result<Exit> {
    ProofRoot::allow(root)?;
    units::check()?;
    stop::watch()?;
    let resume = resume_line(args, root);
    let said = resume.clone();
    let unfinished = root.to_path_buf();
    stop::last(move |why| {
        told_to_stop(why, &said);
        let _nothing_was_begun = job::unfinished::mark_ended(&unfinished, &format!("told to stop: {why}"));
    });
    let checkout = catalog.folder();
    let source = Source::of(checkout, |name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    let mut fit = interrupt::unless_told(job::Fit::prepare(
        selection,
        &Wanted {
            user: args.user.as_deref(),
            install: args.install,
            hide: vec![root.to_path_buf(), ROOTS.into()],
            ring_bytes: args.ring_bytes,
            slow: args.slow,
            kernel_event: args.kernel_event.into(),
        },
    ))?;
    let root = ProofRoot::open(root)?;
    let folder = root.folder();
    if root.record()?.is_none() {
        let cleanup = cleanup_record()?;
        if let Some(outcome) = cleanup.read()? {
            folder.join("cleanup.json").write(&outcome)?;
            cleanup.remove()?;
        }
    }
    folder.join("doctor.json").write_json(fit.doctor())?;
    let events = folder.join("events.jsonl");
    let recorder = Recorder::new(events.append()?, events.path());
    let mut views: Vec<Box<dyn Sink>> = vec![Box::new(recorder), Box::new(Human::new(place(args)))];
    if args.format == Format::Jsonl {
        views.push(Box::new(Lines));
    }
    let options = Options {
        runs: args.runs,
        resume: args.resume,
        selection: args.selection.clone(),
        slow: args.slow,
        baselines: baselines(args),
        source,
        now,
        told_to_stop: interrupt::told,
    };
    let finished = job::run(catalog, selection, &options, &root, &mut fit.measure(), &mut All(views))
        .map_err(|error| resumable(error, &resume))?;
    // What is said of the results is said when all of them are on disk.
    let packed = rest(args, &root, &finished, catalog)
        .inspect_err(|error| root.stop(error, now()))
        .map_err(|error| resumable(error, &resume))?;
    match args.format {
        Format::Json => report::data(&crate::files::pretty_sorted(&finished.report(&root)?)?),
        Format::Jsonl => {}
        Format::Human | Format::Github => {
            report::data(&format!("\n{}", report::verdicts(&finished.verdicts, Some(&finished.claims))));
        }
    }
    let failed: Vec<&str> =
        finished.verdicts.iter().filter(|gate| !gate.passed()).map(|gate| gate.gate.as_str()).collect();
    if !failed.is_empty() && interrupt::told().is_none() {
        report::diagnostic(&format!("did not pass: {}", failed.join(", ")));
        report::diagnostic(&format!("to measure exactly that again: {}", again_line(args, &failed)));
    }
    report::diagnostic(&format!("results: {}", root.path().display()));
    let mut exit = finished.exit;
    if let Some(why) = interrupt::told() {
        told_to_stop(&why, &resume);
        exit = Exit::worst([exit, Exit::Infrastructure]);
    }
    if let Some(packed) = packed {
        report::diagnostic(&packed);
    }
    // What a signal cut short now is whole already.
    stop::forget_last();
    Ok(exit)
}

fn told_to_stop(why: &str, resume: &str) {
    report::diagnostic(&format!("told to stop: {why}; what was measured is kept. To go on: {resume}"));
}

/// The line to paste that goes on with this invocation.
fn resume_line(args: &Args, root: &Path) -> String {
    let (gates, root) = (quoted(&args.gates.join(",")), quoted(&root.display().to_string()));
    with_settings(args, format!("sudo assay-gates run --gates {gates} --resume --root {root}"))
}

/// The line to paste that measures `gates` again, into a new root.
fn again_line(args: &Args, gates: &[&str]) -> String {
    let gates = quoted(&gates.join(","));
    let against = if args.against_baseline { " --against-baseline" } else { "" };
    with_settings(args, format!("sudo assay-gates run --gates {gates}{against}"))
}

/// `line` with what this invocation was told beside gates and root.
fn with_settings(args: &Args, line: String) -> String {
    let mut words = vec![line];
    if args.runs != 3 {
        words.push(format!("--runs {}", args.runs));
    }
    if args.slow != 1 {
        words.push(format!("--slow {}", args.slow));
    }
    if args.gates_dir != Path::new("gates") {
        words.extend(["--gates-dir".to_owned(), quoted(&args.gates_dir.display().to_string())]);
    }
    words.join(" ")
}

/// Writes what is made of the results; gives the line about the pack, if one was built.
fn rest(
    args: &Args,
    root: &ProofRoot,
    finished: &job::Finished,
    catalog: &Catalog,
) -> Result<Option<String>> {
    let checkout = catalog.folder();
    let folder = root.folder();
    let junit = report::junit(&finished.verdicts, Some(&finished.claims));
    folder.join("junit.xml").write(junit.as_bytes())?;
    if let Some(file) = &args.junit {
        RootPath::of(file, Rights::of_caller()?)?.write(junit.as_bytes())?;
    }
    if let Some(file) = &args.sarif {
        let mut tree = Tree::open(&root.path())?;
        let document = page::read(&mut tree, "", &root.path().display().to_string());
        let sarif = report::sarif(&document, &Definitions::of(catalog, Path::new(".")));
        RootPath::of(file, Rights::of_caller()?)?.write(sarif.as_bytes())?;
    }
    let packed = match args.no_pack || interrupt::told().is_some() {
        true => None,
        false => {
            let zip = folder.join("pack.zip");
            let provenance = crate::pack::Provenance::from_environment(checkout);
            let built = crate::pack::build_below(folder, &folder.join("pack"), Some(&zip), &provenance)?;
            Some(format!("proof pack: {} (manifest {})", zip.path().display(), built.manifest_sha256))
        }
    };
    root.release()?;
    Ok(packed)
}

/// Where a full disk ended it, the line to go on with.
fn resumable(error: Error, resume: &str) -> Error {
    if error.code() != Code::DiskFull {
        return error;
    }
    let again = format!("what is finished is kept; go on with: {resume}");
    let hint = error.advice().map(|first| format!("{first}\n  hint: {again}"));
    error.hint(hint.unwrap_or(again))
}

fn baselines(args: &Args) -> BaselineUse {
    match (args.against_baseline, args.update_baseline) {
        (true, _) => BaselineUse::Against,
        (_, true) => BaselineUse::Update,
        _ => BaselineUse::None,
    }
}

fn place(args: &Args) -> Place {
    if args.format == Format::Github || std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true") {
        Place::Actions
    } else if console::user_attended_stderr() {
        Place::Terminal
    } else {
        Place::Log
    }
}

/// RFC 3339, UTC, seconds.
fn now() -> String {
    chrono::Utc::now().format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
