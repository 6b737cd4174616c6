//! The chain over a gate: what the driver writes while it measures, each link with the digest of the one before it.
//!
//! It begins with a nonce that goes to the log of the step before the first run, and ends with a digest that goes there
//! when the verdict is written. Whoever keeps that log knows both: evidence that was made before, afterwards or elsewhere
//! gives another end. A link names every file that it stands for by its digest.

use crate::error::{Code, Error, Result};
use crate::files::{EntryKind, RootPath, Sha256Digest, append_whole, compact, sha256};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file in a gate's folder.
pub const CHAIN: &str = "chain.ndjson";
/// How a line of the log begins that speaks of a chain.
pub const MARK: &str = "chain ";

/// One link (`assay.gates.chain.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// [`Link::SCHEMA`].
    pub schema: String,
    /// From 0, without a gap.
    pub seq: u64,
    /// Digest of the line before it, without its line feed; null for the first.
    pub previous: Option<Sha256Digest>,
    /// The gate.
    pub gate: String,
    /// What happened.
    #[serde(flatten)]
    pub step: Step,
    /// Digest of each file that it stands for: what the gate is judged by, the run's own files, the verdict.
    pub files: BTreeMap<String, Sha256Digest>,
}

/// What a link is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// An invocation began to measure the gate; a resumed one begins again.
    Begin {
        /// 32 hex digits from the system's randomness.
        nonce: String,
    },
    /// A run was measured and judged.
    Run {
        /// From 1.
        run: u32,
    },
    /// The verdict was written.
    End,
}

impl Link {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.chain.v0";

    /// The line that the log has of it, given its digest; none for a run.
    #[must_use]
    pub fn said(&self, digest: Sha256Digest) -> Option<String> {
        match &self.step {
            Step::Begin { nonce } => Some(format!("{MARK}begin gate={} nonce={nonce}", self.gate)),
            Step::End => Some(format!("{MARK}end gate={} head={digest}", self.gate)),
            Step::Run { .. } => None,
        }
    }
}

/// Whether the chain in a gate's folder has its end, and the gate's log the line of it. A driver that was killed before
/// leaves a gate that is not done, whatever its verdict says.
pub(super) fn is_ended(folder: &RootPath) -> Result<bool> {
    let text = folder.join(CHAIN).read()?.unwrap_or_default();
    let last = text.strip_suffix(b"\n").and_then(|whole| whole.rsplit(|byte| *byte == b'\n').next());
    let Some(link) = last.and_then(|line| serde_json::from_slice::<Link>(line).ok()) else {
        return Ok(false);
    };
    let log = folder.join("gate.log").read()?.unwrap_or_default();
    let said = last.and_then(|line| link.said(sha256(line))).map(String::into_bytes);
    let mut lines = log.split_inclusive(|byte| *byte == b'\n');
    Ok(link.step == Step::End && lines.any(|line| line.strip_suffix(b"\n") == said.as_deref()))
}

/// The chain of one gate while it grows.
pub(super) struct Chain {
    folder: RootPath,
    gate: String,
    next: u64,
    previous: Option<Sha256Digest>,
}

impl Chain {
    /// The chain in a gate's folder: a new one, or the one that an earlier invocation left. A link that was cut off goes.
    pub fn open(folder: RootPath, gate: &str) -> Result<Self> {
        let mut text = folder.join(CHAIN).read()?.unwrap_or_default();
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        if whole < text.len() {
            text.truncate(whole);
            folder.join(CHAIN).write(&text)?;
        }
        let lines: Vec<&[u8]> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        let previous = lines.last().map(|line| sha256(line));
        Ok(Self { folder, gate: gate.to_owned(), next: lines.len() as u64, previous })
    }

    /// Begins, with what the gate is judged by; gives the line for the log.
    pub fn begin(&mut self) -> Result<Option<String>> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(Code::Internal, format!("no randomness from the system: {error}")))?;
        let files = self.digests(&self.folder.clone(), &["definition.yaml", "policy.yaml"])?;
        self.add(Step::Begin { nonce: hex::encode(bytes) }, files)
    }

    /// A run, with every file of its folder; those of the archive stand in the archive.
    pub fn run(&mut self, run: u32, folder: &RootPath) -> Result<()> {
        let mut files = BTreeMap::new();
        for (name, kind) in folder.entries()? {
            if kind == EntryKind::File
                && let Some(name) = name.to_str()
                && !name.starts_with('.')
            {
                files.extend(self.digests(folder, &[name])?);
            }
        }
        self.add(Step::Run { run }, files).map(drop)
    }

    /// Ends with the verdict; gives the line for the log.
    pub fn end(&mut self) -> Result<Option<String>> {
        let files = self.digests(&self.folder.clone(), &["verdict.json"])?;
        self.add(Step::End, files)
    }

    fn digests(&self, folder: &RootPath, names: &[&str]) -> Result<BTreeMap<String, Sha256Digest>> {
        let mut files = BTreeMap::new();
        for name in names {
            let Some(file) = folder.join(*name).open_file()? else { continue };
            let (digest, _) = crate::files::sha256_reader(file)
                .map_err(|error| Error::io("cannot read", &folder.join(*name).path(), error))?;
            files.insert((*name).to_owned(), digest);
        }
        Ok(files)
    }

    fn add(&mut self, step: Step, files: BTreeMap<String, Sha256Digest>) -> Result<Option<String>> {
        let link = Link {
            schema: Link::SCHEMA.to_owned(),
            seq: self.next,
            previous: self.previous,
            gate: self.gate.clone(),
            step,
            files,
        };
        let line = compact(&link)?;
        let place = self.folder.join(CHAIN);
        append_whole(&mut place.append()?, format!("{line}\n").as_bytes())
            .map_err(|error| Error::io("cannot append", &place.path(), error))?;
        let digest = sha256(line.as_bytes());
        self.next += 1;
        self.previous = Some(digest);
        Ok(link.said(digest))
    }
}
