//! A proof root as it lies on disk: what a pack carries of it, and what it refuses.
//!
//! The root is written by this tool alone. Still nothing in it is trusted: a link, a FIFO or a name that
//! another tool would read differently is refused before a byte is copied.

use super::manifest::{GateStatus, is_archive_name};
use super::names;
use crate::error::{Code, Error, Result};
use crate::files::{EntryKind, RootPath};
use std::io::Read;

/// Deepest folder below the root.
const DEPTH: usize = 12;
/// Most files of a root.
const FILES: usize = 20_000;
/// Files beside `gates/` and `runs/` that a pack carries.
const TOP_FILES: [&str; 5] = ["cleanup.json", "doctor.json", "events.jsonl", "junit.xml", "run.json"];
/// Largest `run.json`.
const RUN_RECORD_LIMIT: u64 = 16 * 1024 * 1024;

/// A regular file of the root.
#[derive(Clone, Debug)]
pub struct RootFile {
    /// Where it lies.
    pub source: RootPath,
    /// Its path below the root, `/` between parts; the pack has it below `payload/`.
    pub path: String,
}

/// What a root holds.
#[derive(Debug)]
pub struct ProofRoot {
    /// What a pack carries, sorted by path.
    pub files: Vec<RootFile>,
    /// What it leaves out on purpose, and why.
    pub left_out: Vec<(String, &'static str)>,
    /// Gates in the order of selection, then those that only have a folder.
    pub gates: Vec<(String, GateStatus)>,
    /// The selection as it was asked for, e.g. `all`.
    pub selection: String,
    /// When the invocation began, as recorded; `None` when the record is missing.
    pub started_at: Option<String>,
    /// The kernel programs that measured, as recorded.
    pub object_sha256: Option<String>,
}

impl ProofRoot {
    /// Reads the layout of `root`.
    ///
    /// # Errors
    /// `PackRootInvalid` names the first entry that can't be carried; `Io`.
    pub fn read(root: &RootPath) -> Result<Self> {
        let mut walk = Walk { root, files: Vec::new(), left_out: Vec::new() };
        for name in ["gates", "runs"] {
            let folder = root.join(name);
            match folder.kind()? {
                Some(EntryKind::Folder) => walk.folder(&folder, name, 1)?,
                Some(_) => return Err(refused(name, "a folder", "something else")),
                None => {}
            }
        }
        for (name, kind) in list(root)? {
            if TOP_FILES.contains(&name.as_str()) {
                walk.entry(&root.join(&name), kind, &name, 1)?;
            } else if name == "claims.json" {
                walk.left_out.push((name, "derived again from what is packed"));
            } else if name != "gates" && name != "runs" && name != crate::run::RESERVE {
                walk.left_out.push((name, "not part of a proof root"));
            }
        }
        let Walk { mut files, left_out, .. } = walk;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        names::refuse_collisions(files.iter().map(|file| file.path.as_str()), std::iter::empty())
            .map_err(|wrong| refused(&wrong.path, &wrong.expected, &wrong.found))?;
        let record = RunRecord::read(&root.join("run.json"))?;
        let gates = gates(root, &record)?;
        let selection = record
            .selection
            .unwrap_or_else(|| gates.iter().map(|(gate, _)| gate.as_str()).collect::<Vec<_>>().join(","));
        Ok(Self {
            files,
            left_out,
            gates,
            selection,
            started_at: record.started_at,
            object_sha256: record.object_sha256,
        })
    }
}

struct Walk<'a> {
    root: &'a RootPath,
    files: Vec<RootFile>,
    left_out: Vec<(String, &'static str)>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &RootPath, path: &str, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(refused(path, &format!("at most {DEPTH} folders deep"), "deeper"));
        }
        for (name, kind) in list(folder)? {
            self.entry(&folder.join(&name), kind, &format!("{path}/{name}"), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: &RootPath, kind: EntryKind, path: &str, depth: usize) -> Result<()> {
        names::check(path).map_err(|wrong| refused(path, &wrong.expected, &wrong.found))?;
        match kind {
            EntryKind::Folder => return self.folder(place, path, depth + 1),
            EntryKind::File => {}
            EntryKind::Link => return Err(refused(path, "a regular file or a folder", "a symbolic link")),
            EntryKind::Other => {
                return Err(refused(path, "a regular file or a folder", "a FIFO, socket or device"));
            }
        }
        if let Some(reason) = left_out(path) {
            self.left_out.push((path.to_owned(), reason));
            return Ok(());
        }
        if self.files.len() == FILES {
            return Err(refused(
                path,
                &format!("at most {FILES} files in {}", self.root.path().display()),
                "more",
            ));
        }
        self.files.push(RootFile { source: place.clone(), path: path.to_owned() });
        Ok(())
    }
}

/// Why a pack does not carry the file at `path`, if it does not.
fn left_out(path: &str) -> Option<&'static str> {
    let parts: Vec<&str> = path.split('/').collect();
    let name = parts[parts.len() - 1];
    if name.starts_with(".assay-gates-") {
        return Some("a write that was interrupted");
    }
    match parts.as_slice() {
        ["gates", _, "status.txt"] => Some("its word stands in the manifest"),
        ["gates", _, _, "extract", "events.ndjson"] => Some("it stands in the archive"),
        _ => None,
    }
}

/// Names of a folder's entries and what stands there, sorted.
fn list(folder: &RootPath) -> Result<Vec<(String, EntryKind)>> {
    let named = |(name, kind): (std::ffi::OsString, _)| match name.into_string() {
        Ok(name) => Ok((name, kind)),
        Err(name) => Err(refused(&name.to_string_lossy(), "a name in UTF-8", "bytes that are not")),
    };
    folder.entries()?.into_iter().map(named).collect()
}

fn gates(root: &RootPath, record: &RunRecord) -> Result<Vec<(String, GateStatus)>> {
    let mut names = record.gates.clone();
    for (name, kind) in list(&root.join("gates"))? {
        if kind == EntryKind::Folder && !names.contains(&name) {
            names.push(name);
        }
    }
    names
        .into_iter()
        .map(|gate| {
            names::check(&format!("gates/{gate}/x"))
                .map_err(|wrong| refused(&gate, &wrong.expected, &wrong.found))?;
            let status = status(&root.join("gates").join(&gate))?;
            Ok((gate, status))
        })
        .collect()
}

/// What `status.txt` says; an archive must exist before `passed` is believed.
fn status(folder: &RootPath) -> Result<GateStatus> {
    if folder.kind()? != Some(EntryKind::Folder) {
        return Ok(GateStatus::Missing);
    }
    let text = word(folder);
    Ok(match text.trim_end() {
        "passed" if has_archive(folder)? => GateStatus::Passed,
        "failed" => GateStatus::Failed,
        "skipped" => GateStatus::Skipped,
        _ => GateStatus::Incomplete,
    })
}

/// What `status.txt` of a gate says; empty when it says nothing that could be a status.
fn word(folder: &RootPath) -> String {
    let file = folder.join("status.txt").open_file().ok().flatten();
    let mut text = String::new();
    let _nothing_said = file.map(|file| file.take(64).read_to_string(&mut text));
    text
}

fn has_archive(folder: &RootPath) -> Result<bool> {
    for (name, kind) in list(folder)? {
        if kind == EntryKind::Folder
            && list(&folder.join(name))?.iter().any(|(name, _)| is_archive_name(name))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the root says `passed` of a gate that left no archive.
pub(super) fn claims_to_have_passed(root: &RootPath, gate: &str) -> bool {
    word(&root.join("gates").join(gate)).trim_end() == "passed"
}

/// What a pack needs of `run.json`.
#[derive(Debug, Default, serde::Deserialize)]
struct RunRecord {
    #[serde(default)]
    gates: Vec<String>,
    #[serde(default)]
    selection: Option<String>,
    #[serde(default)]
    started_at: Option<String>,
    #[serde(default)]
    object_sha256: Option<String>,
}

impl RunRecord {
    /// An invocation that was killed before it wrote its record has none; then only folders speak.
    fn read(place: &RootPath) -> Result<Self> {
        let Some(file) = place.open_file()? else { return Ok(Self::default()) };
        let path = place.path();
        let length = file.metadata().map_err(|error| Error::io("cannot look at", &path, error))?.len();
        if length > RUN_RECORD_LIMIT {
            return Err(refused("run.json", "at most 16 MiB", &format!("{length} bytes")));
        }
        serde_json::from_reader(std::io::BufReader::new(file)).map_err(|error| {
            Error::new(Code::PackRootInvalid, format!("expected the record of an invocation: {error}"))
                .at(path.display())
                .because(error)
        })
    }
}

fn refused(path: &str, expected: &str, found: &str) -> Error {
    Error::new(Code::PackRootInvalid, format!("expected {expected}, found {found}"))
        .at(path.escape_debug())
        .hint("a proof root holds regular files only; remove the entry or measure again into an empty root")
}
