//! Verification: everything a pack says, recomputed from its files.
//!
//! An [`UnverifiedPack`] becomes a [`VerifiedPack`] or a list of findings; nothing else makes one. Files are streamed; what
//! is in memory at once are the archives, whose size their contract bounds.

mod apart;
mod chain;
mod evidence;
mod gates;
mod host;
mod judgement;
mod layers;
mod manifest;
mod payload;
mod provenance;
mod refs;
mod said;

pub use chain::Chained;

use super::claims::{self, Claims};
use super::finding::Finding;
use super::manifest::{BUNDLE_PATH, CLAIMS_PATH, MANIFEST_PATH, Manifest};
use super::source::Source;
use crate::files::{Sha256Digest, pretty_sorted, sha256, sha256_file};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Findings after which a verifier stops to collect: the pack is refused long before.
const ENOUGH: usize = 500;

/// What verification establishes.
pub const ESTABLISHED: [&str; 10] = [
    "every file has the digest and size that the manifest, the checksums and the Statement state, and there is no other file",
    "the manifest is in canonical form and of its published schema",
    "each archive has the published structure, and its surface, correlation, health and counts follow from its layers",
    "kernel layer, kernel set and tool effects follow from the recorded effects, and the kernel's counters of them are those of the capture proof",
    "the runs of each passed gate agree, recomputed from their archives, and are so many runs: no two have a canary or kernel times in common",
    "each verdict follows from definition, archives and effects: every assertion, status, reason and PASS line was recomputed by the code that judged",
    "every decision was taken by the policy that the pack carries, and the layers of decisions and SDK events are what their logs hold",
    "the review rows of each scenario are those that its runs give, and every reference in them leads to a line of the pack that says the same",
    "each gate's chain is whole, from its nonce to the verdict, and over these very files",
    "what is claimed follows from all that",
];

/// What it does not.
pub const NOT_ESTABLISHED: [&str; 6] = [
    "who made the pack, and on which machine: that needs an attestation (--attestation)",
    "that repository, commit, ref and workflow run are those that the manifest states: they are the packer's word until an attestation or the run's own record is compared",
    "that the recorded effects are all that the kernel saw: capture_proof.json states why its writer believed so",
    "that the source commit was built into the binary that measured: the pack only states both",
    "that definitions and policies are those of the commit: the pack carries what it was judged by; `assay-gates lane` compares it",
    "wall times, signals, the host's report and free text: they are the driver's word",
];

/// A pack that nobody has checked yet.
#[derive(Debug)]
pub struct UnverifiedPack {
    source: Source,
    place: PathBuf,
}

/// A pack of which everything was recomputed and nothing was wrong.
#[derive(Debug)]
pub struct VerifiedPack {
    manifest: Manifest,
    manifest_sha256: Sha256Digest,
    zip_sha256: Option<Sha256Digest>,
    claims: Claims,
    archives: usize,
    limits: Vec<String>,
    chains: Vec<Chained>,
}

impl UnverifiedPack {
    /// Opens a pack's folder or zip.
    ///
    /// # Errors
    /// The first structural thing that is wrong.
    pub fn open(path: &Path) -> Result<Self, Finding> {
        Ok(Self { source: Source::open(path)?, place: path.to_owned() })
    }

    /// Recomputes everything.
    ///
    /// # Errors
    /// Everything that is wrong, in the order in which a reader would meet it. Findings about content that could not be
    /// read at all end the search early, since what follows would mean nothing.
    pub fn verify(self) -> Result<VerifiedPack, Vec<Finding>> {
        let text = self.source.text(MANIFEST_PATH).map_err(|finding| vec![finding])?;
        let manifest = manifest::parse(&text).map_err(|finding| vec![finding])?;
        let manifest_sha256 = sha256(text.as_bytes());
        let mut check =
            Check { source: &self.source, manifest: &manifest, findings: Vec::new(), limits: Vec::new() };
        check.manifest(&text);
        check.payload(manifest_sha256);
        check.provenance();
        check.gates();
        check.host();
        check.bundle();
        let archives = check.evidence();
        let chains = check.chains();
        let claims = check.claims();
        match (check.findings.is_empty(), claims) {
            (true, Some(claims)) => {
                let limits = check.limits;
                let zip_sha256 = if self.place.is_dir() {
                    None
                } else {
                    let (digest, _) = sha256_file(&self.place).map_err(|error| {
                        vec![Finding::new("pack_readable", "zip", "a readable file", error.to_string())]
                    })?;
                    Some(digest)
                };
                Ok(VerifiedPack { manifest, manifest_sha256, zip_sha256, claims, archives, limits, chains })
            }
            _ => Err(check.findings),
        }
    }
}

impl VerifiedPack {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Digest of the manifest: what an attestation names.
    #[must_use]
    pub fn manifest_sha256(&self) -> Sha256Digest {
        self.manifest_sha256
    }

    /// Digest of the zip; `None` for a folder.
    #[must_use]
    pub fn zip_sha256(&self) -> Option<Sha256Digest> {
        self.zip_sha256
    }

    /// What it may be cited for.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Archives that were opened and recomputed.
    #[must_use]
    pub fn archives(&self) -> usize {
        self.archives
    }

    /// What the log of the job must hold of each gate's chain.
    #[must_use]
    pub fn chains(&self) -> &[Chained] {
        &self.chains
    }

    /// What could not be recomputed here, and why.
    #[must_use]
    pub fn limits(&self) -> &[String] {
        &self.limits
    }
}

/// Outcome of a verification, for machines (`assay.gates.pack_verification.v0`).
#[derive(Debug, Serialize)]
pub struct Verification {
    /// `assay.gates.pack_verification.v0`.
    pub schema: &'static str,
    /// What was verified.
    pub path: String,
    /// Nothing was wrong.
    pub verified: bool,
    /// Digest of the manifest, when verified.
    pub manifest_sha256: Option<Sha256Digest>,
    /// Digest of the zip, when verified and a zip.
    pub zip_sha256: Option<Sha256Digest>,
    /// Gates and their status, when verified.
    pub gates: Vec<(String, &'static str)>,
    /// Archives that were recomputed.
    pub archives: usize,
    /// What was earned and what not, a line for each bounded claim; empty when not verified.
    pub claims: Vec<String>,
    /// What verification established.
    pub established: Vec<String>,
    /// What it did not.
    pub not_established: Vec<String>,
    /// Everything that is wrong.
    pub findings: Vec<Finding>,
}

/// Opens and verifies; gives the pack (when nothing was wrong) and the outcome in words.
#[must_use]
pub fn verify(path: &Path) -> (Option<VerifiedPack>, Verification) {
    let mut outcome = Verification {
        schema: "assay.gates.pack_verification.v0",
        path: path.display().to_string(),
        verified: false,
        manifest_sha256: None,
        zip_sha256: None,
        gates: Vec::new(),
        archives: 0,
        claims: Vec::new(),
        established: Vec::new(),
        not_established: NOT_ESTABLISHED.map(str::to_owned).to_vec(),
        findings: Vec::new(),
    };
    match UnverifiedPack::open(path).map_err(|finding| vec![finding]).and_then(UnverifiedPack::verify) {
        Ok(pack) => {
            outcome.verified = true;
            outcome.manifest_sha256 = Some(pack.manifest_sha256);
            outcome.zip_sha256 = pack.zip_sha256;
            outcome.gates =
                pack.manifest.gates.iter().map(|gate| (gate.gate.clone(), gate.status.as_str())).collect();
            outcome.archives = pack.archives;
            outcome.claims = pack.claims.lines();
            outcome.established = ESTABLISHED.map(str::to_owned).to_vec();
            outcome.not_established.extend(pack.limits.iter().cloned());
            (Some(pack), outcome)
        }
        Err(findings) => {
            outcome.findings = findings;
            (None, outcome)
        }
    }
}

/// The checks, one file of this folder for each part of a pack.
struct Check<'a> {
    source: &'a Source,
    manifest: &'a Manifest,
    findings: Vec<Finding>,
    limits: Vec<String>,
}

impl Check<'_> {
    fn fault(
        &mut self,
        check: &'static str,
        path: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        self.keep(Finding::new(check, path, expected, found));
    }

    fn keep(&mut self, finding: Finding) {
        if self.findings.len() < ENOUGH {
            self.findings.push(finding);
        }
    }

    fn equal<T: PartialEq + std::fmt::Display + ?Sized>(
        &mut self,
        check: &'static str,
        path: &str,
        expected: &T,
        found: &T,
    ) {
        if expected != found {
            self.fault(check, path, expected.to_string(), found.to_string());
        }
    }

    /// A bundle inside the pack is nothing until it is checked.
    fn bundle(&mut self) {
        if self.source.members().contains_key(BUNDLE_PATH) {
            self.limits.push(format!(
                "anything by {BUNDLE_PATH}: it lies in the pack and was not checked; give it with --attestation and --repo"
            ));
        }
    }

    /// Claims that don't follow from the pack's own files are worse than none.
    fn claims(&mut self) -> Option<Claims> {
        let text = match self.source.text(CLAIMS_PATH) {
            Ok(text) => text,
            Err(finding) => {
                self.keep(finding);
                return None;
            }
        };
        let gates: Vec<_> = self.manifest.gates.iter().map(Into::into).collect();
        let derived = claims::derive(self.source, &gates);
        match pretty_sorted(&derived) {
            Ok(expected) if expected == text => Some(derived),
            Ok(expected) => {
                let (line, wanted, found) = first_difference(&expected, &text);
                self.fault("claims", format!("{CLAIMS_PATH}:{line}"), wanted, found);
                None
            }
            Err(error) => {
                self.fault("claims", CLAIMS_PATH, "claims that can be written", error.to_string());
                None
            }
        }
    }
}

/// The first line (from 1) in which two texts differ.
fn first_difference(expected: &str, found: &str) -> (usize, String, String) {
    let end = || "the end".to_owned();
    let mut lines = (expected.split('\n'), found.split('\n'));
    for number in 1.. {
        match (lines.0.next(), lines.1.next()) {
            (Some(a), Some(b)) if a == b => {}
            (None, None) => break,
            (a, b) => {
                return (
                    number,
                    a.map_or_else(end, |text| text.trim().to_owned()),
                    b.map_or_else(end, |text| text.trim().to_owned()),
                );
            }
        }
    }
    (1, "the same text".to_owned(), "the same text".to_owned())
}
