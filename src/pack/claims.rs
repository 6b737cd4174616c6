//! `claims.json` (`assay.gates.claims.v0`): what a pack may be cited for, and what would refute it.
//!
//! Derived from the pack's own files and from nothing else, so that a verifier derives it again and compares.

use super::manifest::{GateRow, GateStatus};
use super::source::Source;
use crate::evidence::contract::{ArchiveManifest, schema};
use crate::evidence::{CorrelationReport, ObservationHealth, SdkEvent};
use crate::files::{Sha256Digest, sha256};
use crate::judge;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Schema id.
pub const SCHEMA: &str = "assay.gates.claims.v0";

/// Runs of one gate that must agree.
const RUNS: usize = 3;

/// What a pack never shows, on top of what no run shows ([`judge::claims::NON_CLAIMS`]).
const NON_CLAIMS: [(&str, &str); 4] = [
    (
        "does_not_claim_runtime_safety",
        "passing gates do not show that the agent, its model or its tools are safe to run",
    ),
    (
        "does_not_claim_effects_outside_the_cgroup",
        "nothing is said of processes outside the measured cgroup, nor of what the capture proofs list as blind spots",
    ),
    (
        "does_not_claim_self_reported_truth",
        "the SDK layer is what the measured agent reported of itself; only the kernel layer is observed independently",
    ),
    (
        "does_not_establish_authenticity",
        "digests show that the pack is whole, not who made it; that needs a verified attestation",
    ),
];

/// The whole file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// [`SCHEMA`].
    pub schema: String,
    /// The bounded claim.
    pub claim: Claim,
    /// What would refute it, in fixed order.
    pub kill_criteria: Vec<Criterion>,
    /// What is never claimed.
    pub non_claims: Vec<NonClaim>,
}

/// `claim`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Every gate passed and every criterion was measured and not refuted.
    pub earned: bool,
    /// The claim; null when it was not earned.
    pub text: Option<String>,
    /// Gates that it covers.
    pub gates: Vec<String>,
    /// Measured runs that it covers.
    pub runs: usize,
    /// Why it was not earned; empty when it was.
    pub reasons: Vec<String>,
}

/// One of the five criteria.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Criterion {
    /// Stable name.
    pub id: String,
    /// The claim is dead when this does not hold.
    pub criterion: String,
    /// The outcome.
    pub result: Outcome,
    /// How many runs (of gates, for the last one) could be judged.
    pub judged: usize,
    /// How many of them met it.
    pub met: usize,
    /// Files that refute it, each with what was found.
    pub refuted_by: Vec<String>,
}

/// Outcome of a criterion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Judged at least once, and met each time.
    NotRefuted,
    /// Not met at least once.
    Refuted,
    /// No run in this pack could show it either way.
    NotMeasured,
}

/// One thing that is never claimed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NonClaim {
    /// Stable name.
    pub id: String,
    /// In words.
    pub text: String,
}

/// Derives the claims from the gates and files of a pack. A file that is missing or unreadable refutes; it never helps.
#[must_use]
pub fn derive(source: &Source, gates: &[GateRow]) -> Claims {
    let runs: Vec<Run> = gates
        .iter()
        .flat_map(|gate| gate.archives.iter().map(|archive| Run::read(source, &gate.gate, &archive.path)))
        .collect();
    let kill_criteria = vec![
        clean_correlation(&runs),
        no_drops(&runs),
        call_id_carried(&runs),
        one_verification_path(&runs),
        stable_attribution(gates, &runs),
    ];
    let mut reasons: Vec<String> = gates
        .iter()
        .filter(|gate| gate.status != GateStatus::Passed)
        .map(|gate| format!("gate {} is {}", gate.gate, gate.status.as_str()))
        .collect();
    if dirty(source) {
        reasons.push("the checkout had uncommitted changes".to_owned());
    }
    if gates.is_empty() {
        reasons.push("no gate was selected".to_owned());
    }
    reasons.extend(kill_criteria.iter().filter_map(|criterion| match criterion.result {
        Outcome::NotRefuted => None,
        Outcome::Refuted => Some(format!("{} is refuted", criterion.id)),
        Outcome::NotMeasured => Some(format!("{} was not measured", criterion.id)),
    }));
    let earned = reasons.is_empty();
    Claims {
        schema: SCHEMA.to_owned(),
        claim: Claim {
            earned,
            text: earned.then(|| judge::claims::CLAIM.to_owned()),
            gates: gates.iter().map(|gate| gate.gate.clone()).collect(),
            runs: runs.len(),
            reasons,
        },
        kill_criteria,
        non_claims: judge::claims::NON_CLAIMS
            .iter()
            .chain(&NON_CLAIMS)
            .map(|(id, text)| NonClaim { id: (*id).to_owned(), text: (*text).to_owned() })
            .collect(),
    }
}

/// Whether the invocation's record says that its source was not what the commit holds. Without a record nobody knows.
fn dirty(source: &Source) -> bool {
    json::<serde_json::Value>(source, "payload/run.json")
        .map_or(true, |record| record.pointer("/source/dirty") == Some(&serde_json::Value::Bool(true)))
}

/// What one run's files say. `Err` is what kept a file from being read.
struct Run {
    gate: String,
    extract: String,
    health: Result<ObservationHealth, String>,
    correlation: Result<CorrelationReport, String>,
    manifest: Result<ArchiveManifest, String>,
    sdk_calls: Result<BTreeSet<String>, String>,
    kernel_set: Result<Sha256Digest, String>,
    members: Vec<(String, Option<Sha256Digest>)>,
}

impl Run {
    fn read(source: &Source, gate: &str, archive: &str) -> Self {
        let folder = archive.rsplit_once('/').map_or("", |(folder, _)| folder);
        let extract = format!("{folder}/extract");
        let members = [
            "capability-surface.json",
            "correlation-report.json",
            "observation-health.json",
            "layers/policy.ndjson",
            "layers/sdk.ndjson",
        ]
        .iter()
        .map(|name| {
            let digest = source.digest(&format!("{extract}/{name}")).ok().map(|(digest, _)| digest);
            ((*name).to_owned(), digest)
        })
        .collect();
        Self {
            health: json(source, &format!("{extract}/observation-health.json")),
            correlation: json(source, &format!("{extract}/correlation-report.json")),
            manifest: json(source, &format!("{extract}/manifest.json")),
            sdk_calls: sdk_calls(source, &format!("{extract}/layers/sdk.ndjson")),
            kernel_set: json::<serde_json::Value>(source, &format!("{folder}/kernel_set.json"))
                .map(|value| sha256(value.to_string().as_bytes())),
            gate: gate.to_owned(),
            members,
            extract,
        }
    }

    fn has_policy(&self) -> bool {
        self.health.as_ref().is_ok_and(|health| health.policy_layer == "present")
    }
}

fn json<T: DeserializeOwned>(source: &Source, path: &str) -> Result<T, String> {
    let text = source.text(path).map_err(|finding| finding.found)?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn sdk_calls(source: &Source, path: &str) -> Result<BTreeSet<String>, String> {
    let text = source.text(path).map_err(|finding| finding.found)?;
    text.lines()
        .map(|line| serde_json::from_str::<SdkEvent>(line).map_err(|error| error.to_string()))
        .filter_map(|event| event.map(|event| event.tool_call_id).transpose())
        .collect()
}

fn criterion(id: &str, text: &str, judged: impl Iterator<Item = Result<(), String>>) -> Criterion {
    let (mut met, mut refuted_by) = (0, Vec::new());
    for outcome in judged {
        match outcome {
            Ok(()) => met += 1,
            Err(found) => refuted_by.push(found),
        }
    }
    let result = match (met, refuted_by.len()) {
        (0, 0) => Outcome::NotMeasured,
        (_, 0) => Outcome::NotRefuted,
        _ => Outcome::Refuted,
    };
    Criterion {
        id: id.to_owned(),
        criterion: text.to_owned(),
        result,
        judged: met + refuted_by.len(),
        met,
        refuted_by,
    }
}

fn clean_correlation(runs: &[Run]) -> Criterion {
    criterion(
        "clean_cgroup_correlation",
        "every run's process tree stayed in its own cgroup from start to end, and its correlation is clean",
        runs.iter().map(|run| {
            let path = format!("{}/observation-health.json", run.extract);
            let health = run.health.as_ref().map_err(|error| format!("{path}: {error}"))?;
            if health.cgroup_correlation != "clean" {
                return Err(format!("{path}: cgroup_correlation is {}", health.cgroup_correlation));
            }
            let path = format!("{}/correlation-report.json", run.extract);
            let report = run.correlation.as_ref().map_err(|error| format!("{path}: {error}"))?;
            if report.status == "clean" {
                Ok(())
            } else {
                Err(format!("{path}: status is {}", report.status))
            }
        }),
    )
}

fn no_drops(runs: &[Run]) -> Criterion {
    criterion(
        "no_drops",
        "no kernel record of any run was lost",
        runs.iter().map(|run| {
            let path = format!("{}/observation-health.json", run.extract);
            let health = run.health.as_ref().map_err(|error| format!("{path}: {error}"))?;
            match (health.kernel_layer.as_str(), health.ringbuf_drops) {
                ("complete", 0) => Ok(()),
                (layer, drops) => Err(format!("{path}: kernel_layer is {layer}, ringbuf_drops {drops}")),
            }
        }),
    )
}

fn call_id_carried(runs: &[Run]) -> Criterion {
    criterion(
        "tool_call_id_carried",
        "each run with tool calls has the same tool_call_id in its SDK events, policy decisions and correlation",
        runs.iter().filter(|run| run.has_policy() || run.health.is_err()).map(|run| {
            let path = format!("{}/correlation-report.json", run.extract);
            let report = run.correlation.as_ref().map_err(|error| format!("{path}: {error}"))?;
            let bound: BTreeSet<String> =
                report.bindings.iter().map(|one| one.tool_call_id.clone()).collect();
            if bound.is_empty() {
                return Err(format!("{path}: no binding"));
            }
            let health = run.health.as_ref().map_err(|error| format!("{}: {error}", run.extract))?;
            if health.sdk_layer == "absent" {
                return Ok(());
            }
            let log = format!("{}/layers/sdk.ndjson", run.extract);
            let calls = run.sdk_calls.as_ref().map_err(|error| format!("{log}: {error}"))?;
            match calls.symmetric_difference(&bound).next() {
                None => Ok(()),
                Some(id) => Err(format!("{log}: {id} stands on one side only")),
            }
        }),
    )
}

fn one_verification_path(runs: &[Run]) -> Criterion {
    criterion(
        "one_verification_path",
        "every archive, whatever agent it measured, has the one manifest schema and passes the one verifier",
        runs.iter().map(|run| {
            let path = format!("{}/manifest.json", run.extract);
            let manifest = run.manifest.as_ref().map_err(|error| format!("{path}: {error}"))?;
            if manifest.schema != schema::ARCHIVE_MANIFEST {
                return Err(format!("{path}: schema is {}", manifest.schema));
            }
            for (name, digest) in &run.members {
                let stated = manifest.files.get(name).map(|file| file.sha256);
                if stated.is_none() || stated != *digest {
                    return Err(format!(
                        "{}/{name}: not the member that the archive's manifest names",
                        run.extract
                    ));
                }
            }
            Ok(())
        }),
    )
}

fn stable_attribution(gates: &[GateRow], runs: &[Run]) -> Criterion {
    let attribution = |run: &Run| -> Result<_, String> {
        let report = run
            .correlation
            .as_ref()
            .map_err(|error| format!("{}/correlation-report.json: {error}", run.extract))?;
        let set =
            run.kernel_set.as_ref().map_err(|error| format!("{}: kernel_set.json: {error}", run.extract))?;
        let bindings: Vec<_> = report
            .bindings
            .iter()
            .map(|one| (one.tool_call_id.clone(), one.policy_decision.clone(), one.kernel_event_count))
            .collect();
        Ok((bindings, *set))
    };
    criterion(
        "attribution_stable_over_three_runs",
        "three or more runs of a gate bind the same calls to the same decisions, kernel event counts and kernel set",
        gates.iter().filter(|gate| !gate.archives.is_empty()).map(|gate| {
            let mine: Vec<&Run> = runs.iter().filter(|run| run.gate == gate.gate).collect();
            if mine.len() < RUNS {
                return Err(format!("payload/gates/{}: {} runs", gate.gate, mine.len()));
            }
            let first = attribution(mine[0])?;
            for run in &mine[1..] {
                if attribution(run)? != first {
                    return Err(format!("{}: differs from {}", run.extract, mine[0].extract));
                }
            }
            Ok(())
        }),
    )
}
