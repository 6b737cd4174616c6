//! Results whose invocation did not come to its end: the host went down, or the driver was killed.
//!
//! What is missing must not look like something that is still coming, nor like something that nobody asked for. So each
//! such root says so in its record, and each gate that had begun gets the verdict that its finished runs carry, which is
//! never a pass. `--resume` takes both back.

use super::{ProofRoot, RunRecord, chain, gate, readback};
use crate::error::{Exit, Result};
use crate::files::{EntryKind, RootPath};
use crate::gate::{Definition, Group};
use crate::host::rights::Rights;
use crate::judge::{GateVerdict, INTERRUPTED, RunVerdict};
use std::path::{Path, PathBuf};

/// A root that was marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// The root.
    pub root: PathBuf,
    /// Why it is not finished.
    pub why: String,
    /// The line that goes on with it.
    pub resume: String,
}

/// Marks the unfinished roots among the entries of `folders`. Nobody may be measuring.
///
/// # Errors
/// `Io`; entries that are no proof roots are passed over.
pub fn mark(folders: &[PathBuf]) -> Result<Vec<Unfinished>> {
    let mut marked = Vec::new();
    for path in folders.iter().flat_map(|folder| entries(folder)) {
        let Ok(root) = ProofRoot::visit(&path) else { continue };
        let Ok(Some(mut record)) = root.record() else { continue };
        if record.finished_at.is_some() {
            continue;
        }
        let why = record.unfinished.clone().unwrap_or_else(|| guess(&record));
        for gate in &record.gates {
            conclude(&root, &record, gate, &why)?;
        }
        record.unfinished = Some(why.clone());
        root.write_record(&record)?;
        root.folder().sync()?;
        marked.push(Unfinished { resume: resume(&path, &record), root: path, why });
    }
    Ok(marked)
}

/// Writes into the record of the root at `path` that it was ended, and nothing else: whoever measured may still write.
///
/// # Errors
/// `Io`, `RootBroken`.
pub fn mark_ended(path: &Path, why: &str) -> Result<()> {
    let root = ProofRoot::visit(path)?;
    let Some(mut record) = root.record()?.filter(|record| record.finished_at.is_none()) else {
        return Ok(());
    };
    record.unfinished = Some(why.to_owned());
    root.write_record(&record)
}

/// Roots below `folder` that say of themselves that they are unfinished; what can't be read is passed over.
#[must_use]
pub fn unfinished(folder: &Path) -> Vec<Unfinished> {
    let said = |path: PathBuf| {
        let record: RunRecord = serde_json::from_slice(&record(&path)?).ok()?;
        Some(Unfinished { why: record.unfinished.clone()?, resume: resume(&path, &record), root: path })
    };
    entries(folder).into_iter().filter_map(said).collect()
}

/// The root below `folder` to go on with: the newest that is not finished, else the newest.
#[must_use]
pub fn newest(folder: &Path) -> Option<PathBuf> {
    let dated = entries(folder).into_iter().filter_map(|path| {
        let record: serde_json::Value = serde_json::from_slice(&record(&path)?).unwrap_or_default();
        let text = |key: &str| record.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        Some((text("finished_at").is_none(), text("started_at"), path))
    });
    dated.max().map(|(_, _, path)| path)
}

/// `run.json` of the root at `path`.
fn record(path: &Path) -> Option<Vec<u8>> {
    RootPath::open(path, Rights::own()).ok()?.join("run.json").read().ok()?
}

/// The folders in `folder` that have a `run.json`, sorted.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(root) = RootPath::open(folder, Rights::own()) else { return Vec::new() };
    let begun = |name: &std::ffi::OsString| {
        matches!(root.join(name).join("run.json").kind(), Ok(Some(EntryKind::File)))
    };
    let found = root.entries().unwrap_or_default().into_iter();
    let found = found.filter(|(name, kind)| *kind == EntryKind::Folder && begun(name));
    let mut found: Vec<PathBuf> = found.map(|(name, _)| folder.join(name)).collect();
    found.sort();
    found
}

fn resume(path: &Path, record: &RunRecord) -> String {
    let runs = if record.runs == 3 { String::new() } else { format!(" --runs {}", record.runs) };
    let slow = if record.slow == 1 { String::new() } else { format!(" --slow {}", record.slow) };
    format!(
        "sudo assay-gates run --gates {} --resume --root {}{runs}{slow}",
        record.selection,
        path.display()
    )
}

/// A run that began before this boot can't have been ended by anything of this boot.
fn guess(record: &RunRecord) -> String {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime ")?.parse::<i64>().ok());
    let began = chrono::DateTime::parse_from_rfc3339(&record.started_at).map(|time| time.timestamp());
    match (boot, began) {
        (Some(boot), Ok(began)) if began < boot => "the host went down".to_owned(),
        _ => "its driver ended before it was done".to_owned(),
    }
}

/// Of a gate that had begun, what its finished runs carry. A run without a result is none, and goes.
fn conclude(root: &ProofRoot, record: &RunRecord, gate: &str, why: &str) -> Result<()> {
    let folder = root.gate(gate);
    let done = matches!(root.verdict(gate), Ok(Some(_))) && chain::is_ended(&folder)?;
    if folder.kind()?.is_none() || done {
        return Ok(());
    }
    let mut runs: Vec<RunVerdict> = Vec::new();
    let mut whole = true;
    for number in 1..=record.runs {
        let place = root.run(gate, number);
        let result = root.result(gate, number).ok().flatten();
        match result.filter(|run| whole && (run.archive.is_none() || readback::run_evidence(&place).is_ok()))
        {
            Some(run) => runs.push(run),
            None => {
                whole = false;
                place.remove()?;
            }
        }
    }
    folder.join("verdict.json").remove()?;
    folder.join("status.txt").write(b"incomplete\n")?;
    root.append(&folder.join("gate.log"), &format!("reason: {INTERRUPTED}unfinished: {why}"))?;
    // What else a verdict would have to say can't be had from the root alone; without one it is incomplete all the same.
    let definition = folder.join("definition.yaml").read()?;
    let plain =
        |definition: &Definition| definition.scenario.is_none() && definition.group != Group::Negative;
    let definition =
        definition.and_then(|text| crate::gate::parse(&String::from_utf8(text).ok()?, gate).ok());
    if definition.as_ref().is_some_and(plain) {
        let determinism = gate::determinism(root, gate, &runs)?;
        let failures = vec![(Exit::Infrastructure, format!("{INTERRUPTED}unfinished: {why}"))];
        let verdict = GateVerdict::conclude(gate, record.runs, runs, determinism, failures, 0);
        root.write_verdict(&verdict)?;
    }
    folder.sync()
}

/// What it says of a root, for a person.
impl std::fmt::Display for Unfinished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unfinished: {}: {}. To go on: {}", self.root.display(), self.why, self.resume)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_began_before_this_boot_was_ended_by_the_hosts_end() {
        let record = |started_at: &str| RunRecord {
            schema: String::new(),
            session: String::new(),
            started_at: started_at.to_owned(),
            finished_at: None,
            exit: None,
            unfinished: None,
            tool_version: String::new(),
            object_sha256: None,
            build: None,
            source: crate::run::Source {
                head_sha: String::new(),
                dirty: false,
                r#ref: String::new(),
                repository: String::new(),
                workflow: None,
            },
            selection: String::new(),
            gates: Vec::new(),
            added: Vec::new(),
            runs: 3,
            slow: 1,
            host: crate::run::HostFacts::here(),
            stopped: None,
        };
        assert_eq!(guess(&record("2001-01-01T00:00:00Z")), "the host went down");
        let now = chrono::Utc::now().to_rfc3339();
        assert_eq!(guess(&record(&now)), "its driver ended before it was done");
    }
}
