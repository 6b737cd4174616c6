//! `assay-gates verify` of a proof pack.

use crate::error::{Code, Error, Exit, Result};
use crate::files::{Sha256Digest, pretty_sorted};
use crate::pack::{self, Finding, Verification};
use crate::report;
use std::path::Path;

/// What was asked for.
pub(super) struct Wanted<'a> {
    /// Folder or zip.
    pub path: &'a Path,
    /// Digest that the zip must have.
    pub sha256: Option<Sha256Digest>,
    /// A bundle, and the repository that must have made it.
    pub attestation: Option<(&'a Path, &'a str)>,
    /// Standard output carries JSON.
    pub json: bool,
}

/// Verifies, and says what is wrong or what was and wasn't established.
pub(super) fn run(wanted: &Wanted<'_>) -> Result<Exit> {
    let (verified, mut outcome) = pack::verify(wanted.path);
    if let (Some(expected), Some(pack)) = (wanted.sha256, &verified)
        && pack.zip_sha256() != Some(expected)
    {
        let found = pack.zip_sha256().map_or_else(|| "a folder".to_owned(), |digest| digest.to_string());
        refuse(&mut outcome, Finding::new("zip_digest", "zip", expected.to_string(), found));
    }
    if let (Some((bundle, repository)), Some(pack)) = (wanted.attestation, &verified) {
        match pack::verify_attestation(pack, bundle, repository) {
            Ok(attested) => {
                // Who made it, and of which repository, commit and run.
                outcome
                    .not_established
                    .retain(|what| !pack::verify::NOT_ESTABLISHED[..2].contains(&what.as_str()));
                outcome.established.extend(attested.established);
                outcome.not_established.extend(attested.not_established);
            }
            Err(error) if error.code() == Code::AttestationInvalid => {
                let place = bundle.display().to_string();
                refuse(
                    &mut outcome,
                    Finding::new("attestation", place, "a bundle that covers the pack", error.message()),
                );
            }
            Err(error) => return Err(error),
        }
    }
    if wanted.json {
        report::data(&pretty_sorted(&outcome)?);
    } else if outcome.verified {
        report::data(&shown(&outcome));
    } else if let Some((first, others)) = outcome.findings.split_first() {
        let error = Error::new(
            Code::PackInvalid,
            format!("expected {}, found {} ({})", first.expected, first.found, first.check),
        );
        report::error(
            &error.at(&first.path).hint("do not use this pack; download it again, or pack the root again"),
        );
        for other in others {
            report::diagnostic(&format!("  also {other}"));
        }
    }
    Ok(if outcome.verified { Exit::Passed } else { Exit::EvidenceInvalid })
}

fn refuse(outcome: &mut Verification, finding: Finding) {
    outcome.verified = false;
    outcome.claims.clear();
    outcome.established.clear();
    outcome.findings.push(finding);
}

fn shown(outcome: &Verification) -> String {
    let mut text = format!("verified {}\n", outcome.path);
    let mut row = |name: &str, value: &str| text.push_str(&format!("  {name:<12} {value}\n"));
    for (name, digest) in [("manifest", outcome.manifest_sha256), ("zip", outcome.zip_sha256)] {
        if let Some(digest) = digest {
            row(name, &digest.to_string());
        }
    }
    row("archives", &format!("{} recomputed", outcome.archives));
    for (gate, status) in &outcome.gates {
        row(status, gate);
    }
    for claim in &outcome.claims {
        row("claims", claim);
    }
    for what in &outcome.established {
        row("shown", what);
    }
    for what in &outcome.not_established {
        row("not shown", what);
    }
    text
}
