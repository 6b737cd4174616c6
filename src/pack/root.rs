//! A proof root as it lies on disk: what a pack carries of it, and what it refuses.
//!
//! The root is written by this tool alone. Still nothing in it is trusted: a link, a FIFO or a name that
//! another tool would read differently is refused before a byte is copied.

use super::manifest::{GateStatus, is_archive_name};
use super::names;
use crate::error::{Code, Error, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Deepest folder below the root.
const DEPTH: usize = 12;
/// Most files of a root.
const FILES: usize = 20_000;
/// Files beside `gates/` and `runs/` that a pack carries.
const TOP_FILES: [&str; 5] = ["cleanup.json", "doctor.json", "events.jsonl", "junit.xml", "run.json"];
/// Largest `run.json`.
const RUN_RECORD_LIMIT: u64 = 16 * 1024 * 1024;

/// A regular file of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootFile {
    /// Where it lies.
    pub source: PathBuf,
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
    pub fn read(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::new(Code::PackRootInvalid, "expected a proof root (a folder), found none")
                .at(root.display())
                .hint("assay-gates run --gates all --root DIR"));
        }
        let mut walk = Walk { root, files: Vec::new(), left_out: Vec::new() };
        for name in ["gates", "runs"] {
            let folder = root.join(name);
            match std::fs::symlink_metadata(&folder) {
                Ok(facts) if facts.is_dir() => walk.folder(&folder, name, 1)?,
                Ok(_) => return Err(refused(name, "a folder", "something else")),
                Err(_) => {}
            }
        }
        for entry in list(root)? {
            let name = entry.0;
            if TOP_FILES.contains(&name.as_str()) {
                walk.entry(&entry.1, &name, 1)?;
            } else if name == "claims.json" {
                walk.left_out.push((name, "derived again from what is packed"));
            } else if name != "gates" && name != "runs" {
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
    root: &'a Path,
    files: Vec<RootFile>,
    left_out: Vec<(String, &'static str)>,
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path, path: &str, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(refused(path, &format!("at most {DEPTH} folders deep"), "deeper"));
        }
        for (name, place) in list(folder)? {
            self.entry(&place, &format!("{path}/{name}"), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, place: &Path, path: &str, depth: usize) -> Result<()> {
        names::check(path).map_err(|wrong| refused(path, &wrong.expected, &wrong.found))?;
        let facts =
            std::fs::symlink_metadata(place).map_err(|error| Error::io("cannot look at", place, error))?;
        let kind = facts.file_type();
        if kind.is_dir() {
            return self.folder(place, path, depth + 1);
        }
        if !kind.is_file() {
            let found = if kind.is_symlink() { "a symbolic link" } else { "a FIFO, socket or device" };
            return Err(refused(path, "a regular file or a folder", found));
        }
        if let Some(reason) = left_out(path) {
            self.left_out.push((path.to_owned(), reason));
            return Ok(());
        }
        if self.files.len() == FILES {
            return Err(refused(path, &format!("at most {FILES} files in {}", self.root.display()), "more"));
        }
        self.files.push(RootFile { source: place.to_owned(), path: path.to_owned() });
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
        ["gates", _, _, "extract", "events.ndjson"]
        | ["gates", _, _, "extract", "layers", "kernel.ndjson"] => Some("it stands in the archive"),
        _ => None,
    }
}

/// Names and places of a folder's entries, sorted.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let at = |error| Error::io("cannot list", folder, error);
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(at)? {
        let entry = entry.map_err(at)?;
        let name = entry
            .file_name()
            .into_string()
            .map_err(|name| refused(&name.to_string_lossy(), "a name in UTF-8", "bytes that are not"))?;
        entries.push((name, entry.path()));
    }
    entries.sort();
    Ok(entries)
}

/// Opens a file of the root without following a link and without waiting for a FIFO's writer.
///
/// # Errors
/// `Io`; `PackRootInvalid` when it is no longer a regular file.
pub(super) fn open_regular(path: &Path) -> Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
    }
    let file = options.open(path).map_err(|error| Error::io("cannot open", path, error))?;
    let facts = file.metadata().map_err(|error| Error::io("cannot look at", path, error))?;
    if !facts.is_file() {
        return Err(refused(&path.display().to_string(), "a regular file", "something else"));
    }
    Ok(file)
}

fn gates(root: &Path, record: &RunRecord) -> Result<Vec<(String, GateStatus)>> {
    let mut names = record.gates.clone();
    if root.join("gates").is_dir() {
        for (name, place) in list(&root.join("gates"))? {
            if place.is_dir() && !names.contains(&name) {
                names.push(name);
            }
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
fn status(folder: &Path) -> Result<GateStatus> {
    if !folder.is_dir() {
        return Ok(GateStatus::Missing);
    }
    let file = folder.join("status.txt");
    let text = match std::fs::symlink_metadata(&file) {
        Ok(facts) if facts.is_file() && facts.len() <= 64 => {
            std::fs::read_to_string(&file).map_err(|error| Error::io("cannot read", &file, error))?
        }
        Ok(_) | Err(_) => String::new(),
    };
    Ok(match text.trim_end() {
        "passed" if has_archive(folder)? => GateStatus::Passed,
        "failed" => GateStatus::Failed,
        "skipped" => GateStatus::Skipped,
        _ => GateStatus::Incomplete,
    })
}

fn has_archive(folder: &Path) -> Result<bool> {
    for (_, place) in list(folder)? {
        if place.is_dir() && list(&place)?.iter().any(|(name, _)| is_archive_name(name)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the root says `passed` of a gate that left no archive.
pub(super) fn claims_to_have_passed(root: &Path, gate: &str) -> bool {
    std::fs::read_to_string(root.join("gates").join(gate).join("status.txt"))
        .is_ok_and(|text| text.trim_end() == "passed")
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
    fn read(path: &Path) -> Result<Self> {
        match std::fs::symlink_metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::io("cannot look at", path, error)),
            Ok(facts) if facts.len() > RUN_RECORD_LIMIT => {
                return Err(refused("run.json", "at most 16 MiB", &format!("{} bytes", facts.len())));
            }
            Ok(_) => {}
        }
        let file = open_regular(path)?;
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
