//! From whatever there is to a [`Case`]: proof roots, packs, logs. Runs come through `github::rest`.

mod api;
mod flatten;
mod logs;
mod root;
mod run;
mod tree;

pub use api::PACK_NAME;
pub use logs::gate_of_step;
pub use run::{Scope, from_run};
pub use tree::Tree;

use super::facts::{Case, Fact, FactKind, Place};
use super::log::{open_zip, read_zip, scan};
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
    let tree = Tree::open(path)?;
    let has = |test: &dyn Fn(&str) -> bool| tree.names().iter().any(|name| test(name));
    if has(&|name| name == "manifest.json" || name.starts_with("payload/")) {
        Ok(OnDisk::Pack)
    } else if has(&|name| name == "run.json" || name.starts_with("gates/")) {
        Ok(OnDisk::ProofRoot)
    } else if !path.is_dir() || has(&|name| name.ends_with(".txt") || name.ends_with(".log")) {
        Ok(OnDisk::Logs)
    } else {
        let what = "expected a proof root (run.json, gates/), a pack (manifest.json, payload/) or logs, found none of them";
        Err(Error::new(Code::TriageInput, what).at(path.display()))
    }
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
        OnDisk::ProofRoot => root::gather(rules, &mut Tree::open(path)?, "", case),
        OnDisk::Pack => add_pack(rules, path, case)?,
        OnDisk::Log => {
            let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
            let found =
                scan(file, rules.patterns()).map_err(|error| Error::io("cannot read", path, error))?;
            if found.bytes == 0 {
                case.missing.push(format!("log {}: empty", path.display()));
            }
            let place = Place { file: Some(path.display().to_string()), ..Place::default() };
            logs::add(rules, case, &place, found, false);
        }
        OnDisk::Logs if path.is_dir() => {
            let mut tree = Tree::open(path)?;
            for name in tree.names().to_vec() {
                let read = tree
                    .with(&name, |reader| scan(reader, rules.patterns()).map_err(|error| error.to_string()));
                match read {
                    Ok(Some(found)) => {
                        let place = Place { file: Some(name), ..Place::default() };
                        logs::add(rules, case, &place, found, false);
                    }
                    Ok(None) => {}
                    Err(error) => case.missing.push(format!("log {name}: {error}")),
                }
            }
        }
        OnDisk::Logs => add_log_zip(rules, path, case)?,
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

/// Adds every log of a zip as the log endpoints give it.
///
/// # Errors
/// `LogUnreadable` when it is not a zip.
pub fn add_log_zip(rules: &Rules, path: &Path, case: &mut Case) -> Result<()> {
    let (read, missing) = read_zip(&mut open_zip(path)?, rules.patterns());
    if read.is_empty() {
        case.missing.push("log zip: no log in it".to_owned());
    }
    for (file, found) in read {
        let place = Place {
            job: file.job,
            step: file.step.map(|(_, name)| name),
            file: Some(file.name),
            ..Place::default()
        };
        logs::add(rules, case, &place, found, false);
    }
    case.missing.extend(missing);
    Ok(())
}

/// Adds one job's log.
///
/// # Errors
/// What the reader fails with, as a sentence.
pub fn add_job_log(rules: &Rules, job: &str, path: &Path, case: &mut Case) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::io("cannot open", path, error))?;
    let found = scan(file, rules.patterns()).map_err(|error| Error::io("cannot read", path, error))?;
    if found.bytes == 0 {
        case.missing.push(format!("log of job {job}: empty"));
    }
    let place = Place { job: Some(job.to_owned()), file: Some(format!("job {job}")), ..Place::default() };
    logs::add(rules, case, &place, found, false);
    Ok(())
}
