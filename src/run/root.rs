//! The proof root: the folder on disk that is the state of an invocation.
//!
//! Every result is written before the next step starts, so that an interrupted invocation can be continued
//! and a pack can be built from whatever there is.
//!
//! Root makes it, and whoever called may read it and change nothing in it: between a measurement and its pack nobody
//! touches the evidence.

use super::Source;
use crate::error::{Code, Error, Result};
use crate::files::{RootPath, append_whole};
use crate::gate::Entry;
use crate::host::rights::Rights;
use crate::judge::scenario::Invocation;
use crate::judge::{GateVerdict, RunVerdict};
use crate::pack::claims::Claims;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The folder of the proof roots. It is root's: whoever starts measured runs through sudo has no other.
pub const ROOTS: &str = "/var/lib/assay-gates/proof";

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
    /// Why it did not come to its end, once somebody found that out: the recovery at boot, a cleanup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished: Option<String>,
    /// Version of this tool.
    pub tool_version: String,
    /// Digest of the embedded kernel programs.
    pub object_sha256: Option<String>,
    /// The commit that the running binary was built from in the host's store, and the binary's digest; written by root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<BuildFacts>,
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
    /// What time limits were multiplied by, at most.
    #[serde(default = "as_it_is", skip_serializing_if = "is_as_it_is")]
    pub slow: u32,
    /// The host.
    pub host: HostFacts,
    /// What ended the invocation before its end, when it was neither killed nor a verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stopped>,
}

/// What ended an invocation before its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The error's code, `AG###`.
    pub code: String,
    /// What it says.
    pub reason: String,
}

const fn as_it_is() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference over")]
const fn is_as_it_is(slow: &u32) -> bool {
    *slow == 1
}

impl RunRecord {
    /// As a review names it.
    #[must_use]
    pub fn invocation(&self) -> Invocation {
        let workflow = self.source.workflow.as_ref();
        let local = || crate::pack::LOCAL.to_owned();
        Invocation {
            created_at: self.started_at.clone(),
            head_sha: self.source.head_sha.clone(),
            dirty: self.source.dirty,
            r#ref: self.source.r#ref.clone(),
            selection: self.selection.clone(),
            build_ebpf: match (workflow, &self.build) {
                (_, Some(_)) => "true".to_owned(),
                (Some(_), None) => "false".to_owned(),
                (None, None) => local(),
            },
            workflow: workflow.map_or_else(local, |workflow| workflow.name.clone()),
            run_id: workflow.map_or_else(local, |workflow| workflow.run_id.clone()),
            run_url: workflow.map(|workflow| workflow.run_url.clone()),
        }
    }
}

/// Which binary of the host's store measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildFacts {
    /// The commit that it was built from.
    pub commit: String,
    /// `sha256:` and the digest of the binary.
    pub sha256: String,
}

impl BuildFacts {
    /// Of the running binary; `None` when it does not stand in the store.
    ///
    /// # Errors
    /// As the store's record fails with.
    pub fn here() -> Result<Option<Self>> {
        #[cfg(all(feature = "capture", target_os = "linux"))]
        if let Some(build) = crate::host::builds::running()? {
            return Ok(Some(Self { commit: build.commit, sha256: build.sha256.to_string() }));
        }
        Ok(None)
    }
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
    folder: RootPath,
}

impl ProofRoot {
    /// Opens or creates the proof root at `path`: mode 0755, so that whoever called can read and pack it.
    ///
    /// For the user who called sudo it stands in [`ROOTS`], under a plain name; root itself may name any folder of its own.
    ///
    /// # Errors
    /// `Io`; `RootTaken` when the folder has other content than a proof root's, belongs to somebody else, or is no place
    /// for a root of this caller.
    pub fn open(path: &Path) -> Result<Self> {
        Self::at(Self::place(path)?)
    }

    /// Creates a root of this process's own, whoever called it, which goes with the folder that it stands in.
    ///
    /// # Errors
    /// As [`ProofRoot::open`].
    pub fn passing(path: &Path) -> Result<Self> {
        Self::at(RootPath::of(path, Rights::own())?)
    }

    fn at(place: RootPath) -> Result<Self> {
        place.create_folder()?;
        place.sync_names()?;
        let root = Self { folder: place.hold()? };
        root.check_owner()?;
        root.reserve()?;
        let known = |name: &std::ffi::OsStr| KNOWN.iter().any(|known| name == *known);
        let foreign = root.folder.entries()?.into_iter().find(|(name, _)| !known(name));
        if let Some((name, _)) = foreign.filter(|_| root.record().is_ok_and(|record| record.is_none())) {
            return Err(root.taken(
                format!("expected an empty folder or a proof root, found `{}`", name.to_string_lossy()),
                "name another folder with --root",
            ));
        }
        Ok(root)
    }

    /// The proof root that is there, to correct what it says of itself; nothing is measured into it.
    ///
    /// # Errors
    /// As [`ProofRoot::open`]; `Io` when there is none.
    pub fn visit(path: &Path) -> Result<Self> {
        let root = Self { folder: Self::place(path)?.hold()? };
        root.check_owner()?;
        Ok(root)
    }

    fn place(path: &Path) -> Result<RootPath> {
        if Rights::of_caller()?.is_own() { RootPath::of(path, Rights::own()) } else { of_caller(path) }
    }

    /// Whether the caller may have a root at `path` at all; nothing is made yet.
    ///
    /// # Errors
    /// `RootTaken`; as [`Rights::of_caller`].
    pub fn allow(path: &Path) -> Result<()> {
        if Rights::of_caller()?.is_own() { Ok(()) } else { of_caller(path).map(drop) }
    }

    /// Whoever else could write here could change evidence after it was judged.
    fn check_owner(&self) -> Result<()> {
        #[cfg(unix)]
        {
            let own = nix::unistd::geteuid().as_raw();
            let (uid, mode) = self.folder.owner_and_mode()?;
            if uid != own || mode & 0o022 != 0 {
                return Err(self.taken(
                    format!(
                        "expected a folder of uid {own} that nobody else can change, found uid {uid} and mode {mode:o}"
                    ),
                    "name a folder that is not there yet with --root: it is made",
                ));
            }
        }
        Ok(())
    }

    /// Keeps some room, so that on a full disk there is enough to write down that it is full.
    fn reserve(&self) -> Result<()> {
        let file = self.folder.join(RESERVE);
        match file.open_file()?.map(|file| file.metadata().map(|found| found.len())) {
            Some(Ok(length)) if length == RESERVED => Ok(()),
            _ => file.write_copy(&vec![0; RESERVED as usize]),
        }
    }

    /// Gives the room back that was kept.
    ///
    /// # Errors
    /// `Io`.
    pub fn release(&self) -> Result<()> {
        self.folder.join(RESERVE).remove()
    }

    /// Writes into the record of the invocation that `error` ended it, into the room that was kept for that if need be.
    pub fn stop(&self, error: &Error, now: String) {
        let written = self.release().and_then(|()| self.record()).and_then(|record| {
            let Some(mut record) = record else { return Ok(()) };
            record.finished_at = Some(now);
            record.exit = Some(error.exit().code());
            record.stopped =
                Some(Stopped { code: error.code().name().to_owned(), reason: error.to_string() });
            self.write_record(&record)
        });
        if let Err(also) = written {
            crate::report::diagnostic(&format!("note: {} does not say so: {also}", self.path().display()));
        }
    }

    fn taken(&self, message: String, hint: &str) -> Error {
        Error::new(Code::RootTaken, message).at(self.folder.path().display()).hint(hint.to_owned())
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &RootPath {
        &self.folder
    }

    /// Where it is, for messages and for whoever reads it.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        self.folder.path()
    }

    /// `gates/<gate>`.
    #[must_use]
    pub fn gate(&self, gate: &str) -> RootPath {
        self.folder.join("gates").join(gate)
    }

    /// `gates/<gate>/run-N`.
    #[must_use]
    pub fn run(&self, gate: &str, run: u32) -> RootPath {
        self.gate(gate).join(format!("run-{run}"))
    }

    /// Reads `run.json`.
    ///
    /// # Errors
    /// `Io`; `RootBroken` when it is not what was written.
    pub fn record(&self) -> Result<Option<RunRecord>> {
        read(&self.folder.join("run.json"))
    }

    /// Writes `run.json`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_record(&self, record: &RunRecord) -> Result<()> {
        self.folder.join("run.json").write_json(record)
    }

    /// Writes `claims.json`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_claims(&self, claims: &Claims) -> Result<()> {
        self.folder.join("claims.json").write_json(claims)
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
        self.run(gate, result.run).join("result.json").write_json(result)
    }

    /// Writes `verdict.json`, then `status.txt`.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_verdict(&self, verdict: &GateVerdict) -> Result<()> {
        let folder = self.gate(&verdict.gate);
        folder.join("verdict.json").write_json(verdict)?;
        folder.join("status.txt").write(format!("{}\n", verdict.status.word()).as_bytes())?;
        folder.sync()
    }

    /// Marks a gate as begun: a killed invocation leaves it `incomplete`.
    ///
    /// # Errors
    /// `Io`.
    pub fn begin_gate(&self, gate: &str) -> Result<()> {
        self.gate(gate).join("status.txt").write(b"incomplete\n")
    }

    /// Writes what a gate is judged by: `definition.yaml` and, where it has a policy, `policy.yaml`, byte for byte.
    ///
    /// # Errors
    /// `Io`.
    pub fn write_ground(&self, entry: &Entry) -> Result<()> {
        let folder = self.gate(&entry.definition.id);
        folder.join("definition.yaml").write(entry.text.as_bytes())?;
        let Some(policy) = &entry.definition.policy else { return Ok(()) };
        let file = entry.fixture().join(&policy.file);
        match Rights::of_caller()?.act(|| Ok(std::fs::read(&file)))? {
            Ok(bytes) => folder.join("policy.yaml").write(&bytes),
            // Whoever measures says that it is not there.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("cannot read the policy", &file, error)),
        }
    }

    /// Appends one line to a file of the root; `\n` and control characters in `line` are escaped.
    ///
    /// # Errors
    /// `Io`.
    pub fn append(&self, file: &RootPath, line: &str) -> Result<()> {
        let line: String = line
            .chars()
            .flat_map(|c| {
                if c.is_control() { c.escape_default().to_string() } else { c.to_string() }
                    .chars()
                    .collect::<Vec<_>>()
            })
            .collect();
        append_whole(&mut file.append()?, format!("{line}\n").as_bytes())
            .map_err(|error| Error::io("cannot append", &file.path(), error))
    }
}

/// The place of a root that the user who called sudo named: right below [`ROOTS`], which is root's.
fn of_caller(path: &Path) -> Result<RootPath> {
    let name = path.strip_prefix(ROOTS).ok().and_then(Path::to_str);
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name.filter(|name| name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(plain))
    {
        #[cfg(target_os = "linux")]
        Some(name) => Ok(RootPath::of_root(Path::new(ROOTS))?.join(name)),
        _ => Err(Error::new(
            Code::RootTaken,
            format!("expected a name of letters, digits, ., _ and - below {ROOTS}, found another place"),
        )
        .at(path.display())
        .hint("leave --root out; only root itself writes anywhere else")),
    }
}

/// Room that is kept in a root while an invocation writes to it; a pack leaves it out.
pub const RESERVE: &str = ".assay-gates-reserve";
/// Bytes of it: enough for a record of the invocation, in blocks of any size.
const RESERVED: u64 = 64 * 1024;

/// What may stand at the top of a proof root.
const KNOWN: [&str; 12] = [
    RESERVE,
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

fn read<T: serde::de::DeserializeOwned>(file: &RootPath) -> Result<Option<T>> {
    let Some(bytes) = file.read()? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|error| {
        Error::new(Code::RootBroken, format!("not what this tool writes: {error}"))
            .at(format!("{}:{}:{}", file.path().display(), error.line(), error.column()))
            .hint("start over with another --root, or without --resume")
    })
}
