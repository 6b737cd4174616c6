//! `assay-gates verify` of a proof pack.

use super::github::with_client;
use super::verify::OfRun;
use crate::error::{Code, Error, Exit, Result};
use crate::files::{Sha256Digest, pretty_sorted};
use crate::github::rest::{Settings, api_of_host, token};
use crate::lane::{PackFacts, job_logs, recorded, run_facts};
use crate::pack::{self, Finding, Verification, VerifiedPack};
use crate::report;
use std::path::Path;
use std::time::Duration;

/// How long a rate limit may hold the command up.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was asked for.
pub(super) struct Wanted<'a> {
    /// Folder or zip.
    pub path: &'a Path,
    /// Digest that the zip must have.
    pub sha256: Option<Sha256Digest>,
    /// A bundle, and the repository that must have made it.
    pub attestation: Option<(&'a Path, &'a str)>,
    /// The run that must have measured it, and the API that has it.
    pub run: Option<(&'a OfRun, Option<&'a str>)>,
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
    if let (Some((run, api)), Some(pack)) = (wanted.run, &verified) {
        compare(&mut outcome, pack, run, api)?;
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

/// GitHub's own record of the run: its facts, its steps, and the log that knows each chain.
fn compare(outcome: &mut Verification, pack: &VerifiedPack, of: &OfRun, api: Option<&str>) -> Result<()> {
    let host = of.host.as_deref().unwrap_or("github.com");
    let settings = Settings {
        token: token(host, api.is_some()),
        base_url: api.map_or_else(|| api_of_host(host), str::to_owned),
        repository: of.repository.clone(),
        patience: PATIENCE,
    };
    let facts = PackFacts::of(pack, str::to_owned);
    let run = with_client(settings, async |client| {
        let mut run = run_facts(&client, of.run).await?;
        run.logs = job_logs(&client, of.run, run.run_attempt.parse().unwrap_or(1)).await?;
        Ok(run)
    })?;
    let checks = recorded(&of.repository, &facts, &run);
    let page = format!("{}#{}", of.repository, of.run);
    for check in checks.iter().filter(|check| !check.held) {
        let expected = format!("what GitHub recorded of the run: {}", check.name);
        refuse(outcome, Finding::new("run_record", page.clone(), expected, check.detail.clone()));
    }
    if outcome.verified {
        outcome
            .not_established
            .retain(|what| what != pack::verify::NOT_ESTABLISHED[1] && !what.ends_with("(--run)"));
        outcome.established.push(format!(
            "repository, commit and workflow run are {page}'s, its steps are those of the gates, and its job's log holds the nonce and the end of each chain"
        ));
    }
    Ok(())
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
