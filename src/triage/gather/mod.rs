//! From whatever there is to a [`Case`]: proof roots, packs, logs. Runs come through `github::rest`.

mod api;
mod flatten;
mod logs;
mod root;
mod run;
mod tree;

pub use api::PACK_NAME;
pub use logs::{LogFile, gate_of_step, read_logs};
pub use run::{Scope, from_run};
pub use tree::Tree;

use super::facts::{Case, Fact, FactKind, Place, Subject};
use super::rules::Rules;
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// What lies on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDisk {
    /// `run.json`, `gates/`.
    ProofRoot,
    /// `manifest.json`, `payload/`; a folder or a zip.
    Pack,
    /// A zip, or an extracted folder, of logs.
    Logs,
    /// One log.
    Log,
}

/// What `path` is, by its content.
///
/// # Errors
/// `Io`, or `TriageInput` for a folder that is none of these.
pub fn recognise(path: &Path) -> Result<OnDisk> {
    let mut magic = Vec::new();
    if !path.is_dir() {
        let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
        file.take(4).read_to_end(&mut magic).map_err(|error| Error::io("cannot read", path, error))?;
        if magic != b"PK\x03\x04" && magic != b"PK\x05\x06" {
            return Ok(OnDisk::Log);
        }
    }
    let mut tree = Tree::open(path)?;
    // A job may be called `gates` or `payload`, and its folder of step logs then is too.
    let holds_gates = |tree: &Tree, prefix: &str| tree.names().iter().any(|name| is_of_a_gate(name, prefix));
    if object(&mut tree, "manifest.json")
        || object(&mut tree, "payload/run.json")
        || holds_gates(&tree, "payload/")
    {
        return Ok(OnDisk::Pack);
    }
    if object(&mut tree, "run.json") || holds_gates(&tree, "") {
        return Ok(OnDisk::ProofRoot);
    }
    if !path.is_dir() || tree.names().iter().any(|name| name.ends_with(".txt") || name.ends_with(".log")) {
        return Ok(OnDisk::Logs);
    }
    let what = "expected a proof root (run.json, gates/), a pack (manifest.json, payload/) or logs, found none of them";
    Err(Error::new(Code::TriageInput, what).at(path.display()))
}

/// The file is there and begins as a JSON object does; its end may be lost.
fn object(tree: &mut Tree, name: &str) -> bool {
    let mut first = Vec::new();
    let read =
        tree.with(name, |reader| reader.take(64).read_to_end(&mut first).map_err(|error| error.to_string()));
    matches!(read, Ok(Some(_))) && (first.is_empty() || first.trim_ascii_start().starts_with(b"{"))
}

/// `gates/ID/status.txt`, `gates/ID/run-1/…`: what a proof root holds of a gate.
fn is_of_a_gate(name: &str, prefix: &str) -> bool {
    let Some((_, file)) =
        name.strip_prefix(prefix).and_then(|name| name.strip_prefix("gates/")?.split_once('/'))
    else {
        return false;
    };
    matches!(file, "status.txt" | "verdict.json" | "gate.log" | "baseline_diff.json")
        || file.split_once('/').is_some_and(|(run, _)| {
            run.strip_prefix("run-").is_some_and(|number| number.parse::<u32>().is_ok())
        })
}

/// Reads what lies at `path`.
///
/// # Errors
/// `Io`, `TriageInput`, `LogUnreadable`.
pub fn from_disk(rules: &Rules, path: &Path) -> Result<Case> {
    let mut case = Case { source: path.display().to_string(), ..Case::default() };
    add_from_disk(rules, path, &mut case)?;
    Ok(case)
}

/// Adds what lies at `path` to what is known already.
///
/// # Errors
/// As [`from_disk`].
pub fn add_from_disk(rules: &Rules, path: &Path, case: &mut Case) -> Result<()> {
    match recognise(path)? {
        OnDisk::ProofRoot => {
            case.subject = Subject::Root;
            root::gather(rules, &mut Tree::open(path)?, "", case);
        }
        OnDisk::Pack => {
            case.subject = Subject::Pack;
            add_pack(rules, path, case)?;
        }
        OnDisk::Log => add_log(rules, path, &path.display().to_string(), Place::default(), case)?,
        OnDisk::Logs => add_logs(rules, path, case)?,
    }
    Ok(())
}

/// Adds the pack at `path`, whatever is in it.
///
/// # Errors
/// `LogUnreadable` when it is not a zip.
pub fn add_pack(rules: &Rules, path: &Path, case: &mut Case) -> Result<()> {
    let mut tree = Tree::open(path)?;
    if !tree.names().iter().any(|name| name == "manifest.json") {
        case.missing.push("pack: there is no manifest.json in it".to_owned());
        root::gather(rules, &mut tree, "payload/", case);
        return Ok(());
    }
    root::gather(rules, &mut tree, "payload/", case);
    // A pack of a red run may lack what a verifier asks for; one that says green must hold in every point.
    let green = case.facts.iter().any(|fact| fact.kind == FactKind::Run && fact.key == "green_with");
    if green && let (None, verification) = crate::pack::verify(path) {
        let first = verification.findings.first().map_or_else(|| "refused".to_owned(), ToString::to_string);
        let place = Place { file: Some("manifest.json".to_owned()), ..Place::default() };
        case.push(Fact::new(FactKind::Artifact, "verify", first, place));
    }
    Ok(())
}

/// Adds every log of a zip as the log endpoints give it, or of the folder that it unpacks to.
///
/// # Errors
/// `LogUnreadable` when it is neither.
pub fn add_logs(rules: &Rules, path: &Path, case: &mut Case) -> Result<()> {
    let (read, missing) = read_logs(&mut Tree::open(path)?, rules.patterns());
    if read.is_empty() && missing.is_empty() {
        case.missing.push("log zip: no log in it".to_owned());
    }
    for (file, found) in read {
        let place = Place { job: file.job, step: file.step, file: Some(file.name), ..Place::default() };
        logs::add(rules, case, &place, found, false);
    }
    case.missing.extend(missing);
    Ok(())
}

/// Adds one job's log.
///
/// # Errors
/// `Io` when the file can't be opened.
pub fn add_job_log(rules: &Rules, job: &str, path: &Path, case: &mut Case) -> Result<()> {
    let place = Place { job: Some(job.to_owned()), ..Place::default() };
    add_log(rules, path, &format!("job {job}"), place, case)
}

/// Adds one log, called `name`; what came instead of a log is named among what is missing.
fn add_log(rules: &Rules, path: &Path, name: &str, place: Place, case: &mut Case) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    match logs::read_log(file, rules.patterns()) {
        Ok(found) => {
            logs::add(rules, case, &Place { file: Some(name.to_owned()), ..place }, found, false);
        }
        Err(what) => case.missing.push(format!("log of {name}: {what}")),
    }
    Ok(())
}
