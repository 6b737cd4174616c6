//! The proof root: the folder on disk that is the state of an invocation.
//!
//! Every result is written before the next step starts, so that an interrupted invocation can be continued
//! and a pack can be built from whatever there is.

use super::Source;
use crate::error::{Code, Error, Result};
use crate::files::{write_atomic, write_json};
use crate::judge::{GateVerdict, RunVerdict};
use crate::pack::claims::Claims;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::{Path, PathBuf};

/// `run.json` (`assay.gates.run.v0`): the invocation's own record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// `assay.gates.run.v0`.
    pub schema: String,
    /// The invocation, `session_` and 16 hex digits.
    pub session: String,
    /// RFC 3339, UTC, seconds.
    pub started_at: String,
    /// RFC 3339, UTC, seconds; `None` while it is running or when it was killed.
    pub finished_at: Option<String>,
    /// Exit code; `None` while it is running or when it was killed.
    pub exit: Option<u8>,
    /// Version of this tool.
    pub tool_version: String,
    /// Digest of the embedded kernel programs.
    pub object_sha256: Option<String>,
    /// What was measured.
    pub source: Source,
    /// What was asked for, as a workflow input names it: `all`, or ids joined by commas.
    pub selection: String,
    /// Ids of the gates, in order.
    pub gates: Vec<String>,
    /// Those among them that are only here as a baseline.
    pub added: Vec<String>,
    /// Measured runs of each gate.
    pub runs: u32,
    /// The host.
    pub host: HostFacts,
}

/// What is said of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFacts {
    /// `uname -s`.
    pub system: String,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub architecture: String,
}

impl HostFacts {
    /// Asks the kernel.
    #[must_use]
    pub fn here() -> Self {
        #[cfg(unix)]
        if let Ok(name) = nix::sys::utsname::uname() {
            let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
            return Self {
                system: text(name.sysname()),
                kernel: text(name.release()),
                architecture: text(name.machine()),
            };
        }
        Self {
            system: std::env::consts::OS.into(),
            kernel: "unknown".into(),
            architecture: std::env::consts::ARCH.into(),
        }
    }
}

/// The folder.
#[derive(Clone, Debug)]
pub struct ProofRoot {
    path: PathBuf,
}

impl ProofRoot {
    /// Opens or creates it. Only its owner may read it: it holds the output of what was measured.
    ///
    /// # Errors
    /// `Io`; `RootTaken` when the folder has other content than a proof root's.
    pub fn open(path: &Path) -> Result<Self> {
        let at = |error| Error::io("cannot create the proof root", path, error);
        std::fs::create_dir_all(path).map_err(at)?;
        let path = path.canonicalize().map_err(at)?;
        let root = Self { path };
        let foreign =
            std::fs::read_dir(&root.path).map_err(at)?.filter_map(std::result::Result::ok).find(|entry| {
                let name = entry.file_name();
                !KNOWN.iter().any(|known| name == *known)
            });
        if let Some(entry) = foreign.filter(|_| !root.path.join("run.json").exists()) {
            return Err(Error::new(
                Code::RootTaken,
                format!(
                    "expected an empty folder or a proof root, found `{}`",
                    entry.file_name().to_string_lossy()
                ),
            )
            .at(root.path.display())
            .hint("name another folder with --root"));
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&root.path, std::fs::Permissions::from_mode(0o700)).map_err(at)?;
        }
        Ok(root)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `gates/<gate>`.
    #[must_use]
    pub fn gate(&self, gate: &str) -> PathBuf {
        self.path.join("gates").join(gate)
    }

    /// `gates/<gate>/run-N`.
    #[must_use]
    pub fn run(&self, gate: &str, run: u32) -> PathBuf {
        self.gate(gate).join(format!("run-{run}"))
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// `Io`; `RootBroken` when it is not what was written.
    pub fn record(&self) -> Result<Option<RunRecord>> {
        read(&self.path.join("run.json"))
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_record(&self, record: &RunRecord) -> Result<()> {
        write_json(&self.path.join("run.json"), record)
    }

    /// Writes `claims.json`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_claims(&self, claims: &Claims) -> Result<()> {
        write_json(&self.path.join("claims.json"), claims)
    }

    /// The verdict on a gate, if it was concluded.
    ///
    /// # Errors
    /// `Io`; `RootBroken`.
    pub fn verdict(&self, gate: &str) -> Result<Option<GateVerdict>> {
        read(&self.gate(gate).join("verdict.json"))
    }

    /// The result of a run, if it was finished.
    ///
    /// # Errors
    /// `Io`; `RootBroken`.
    pub fn result(&self, gate: &str, run: u32) -> Result<Option<RunVerdict>> {
        read(&self.run(gate, run).join("result.json"))
    }

    /// Writes `result.json` of a run.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_result(&self, gate: &str, result: &RunVerdict) -> Result<()> {
        write_json(&self.run(gate, result.run).join("result.json"), result)
    }

    /// Writes `verdict.json`, then `status.txt`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_verdict(&self, verdict: &GateVerdict) -> Result<()> {
        let folder = self.gate(&verdict.gate);
        write_json(&folder.join("verdict.json"), verdict)?;
        write_atomic(&folder.join("status.txt"), format!("{}\n", verdict.status.word()).as_bytes())
    }

    /// Marks a gate as begun: a killed invocation leaves it `incomplete`.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin_gate(&self, gate: &str) -> Result<()> {
        write_atomic(&self.gate(gate).join("status.txt"), b"incomplete\n")
    }

    /// Removes what an earlier invocation left of a gate.
    ///
    /// # Errors
    /// `Io`.
    pub fn forget(&self, folder: &Path) -> Result<()> {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("cannot remove an earlier result", folder, error))
            }
            _ => Ok(()),
        }
    }

    /// Appends one line to a file of the root; `\n` and control characters in `line` are escaped.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&self, file: &Path, line: &str) -> Result<()> {
        let at = |error| Error::io("cannot append", file, error);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).map_err(at)?;
        }
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(file).map_err(at)?;
        let line: String = line
            .chars()
            .flat_map(|c| {
                if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
                    .chars()
                    .collect::<Vec<_>>()
            })
            .collect();
        log.write_all(format!("{line}\n").as_bytes()).map_err(at)
    }
}

/// What may stand at the top of a proof root.
const KNOWN: [&str; 11] = [
    "run.json",
    "claims.json",
    "doctor.json",
    "events.jsonl",
    "junit.xml",
    "summary.md",
    "cleanup.json",
    "gates",
    "runs",
    "pack",
    "pack.zip",
];

fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Result<Option<T>> {
    match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", file, error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| {
            Error::new(Code::RootBroken, format!("not what this tool writes: {error}"))
                .at(format!("{}:{}:{}", file.display(), error.line(), error.column()))
                .hint("start over with another --root, or without --resume")
        }),
    }
}
