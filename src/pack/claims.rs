//! `claims.json` (`assay.gates.claims.v0`): what a pack may be cited for, and what would refute it.
//!
//! Derived from the pack's own files and from nothing else, so that a verifier derives it again and compares.

use super::manifest::{GateRow, GateStatus, is_archive_name};
use super::root::ProofRoot;
use super::source::Source;
use crate::capture::CaptureProof;
use crate::evidence::contract::{ArchiveManifest, schema};
use crate::evidence::{CorrelationReport, ObservationHealth, SdkEvent};
use crate::files::{RootPath, Sha256Digest, sha256};
use crate::judge::claims::{self as words, ClaimClass};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Schema id.
pub const SCHEMA: &str = "assay.gates.claims.v0";

/// The criterion that only runs with tool calls can meet.
const CALL_ID: &str = "tool_call_id_carried";
/// Runs of one gate that must agree.
const RUNS: usize = 3;

/// What a pack never shows, on top of what no run shows ([`words::NON_CLAIMS`]).
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
    /// Every bounded claim, the widest first: earned or not.
    pub claims: Vec<Claim>,
    /// What would refute it, in fixed order.
    pub kill_criteria: Vec<Criterion>,
    /// What is never claimed.
    pub non_claims: Vec<NonClaim>,
}

impl Claims {
    /// The claim of a class.
    #[must_use]
    pub fn of(&self, class: ClaimClass) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.id == class.id())
    }

    /// Those that were earned.
    pub fn earned(&self) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(|claim| claim.earned)
    }

    /// What every view prints: a line for each claim, with its words only when it was earned.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.claims.iter().map(Claim::line).collect()
    }
}

/// What every view prints of an invocation: the lines of its claims, or that there are none.
#[must_use]
pub fn lines_of(claims: Option<&Claims>) -> Vec<String> {
    claims.map_or_else(|| vec!["nothing is claimed: there is no claims.json".to_owned()], Claims::lines)
}

/// One bounded claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// [`ClaimClass::id`].
    pub id: String,
    /// Every gate passed, some have these layers, and every criterion that applies was measured and not refuted.
    pub earned: bool,
    /// The claim; null when it was not earned.
    pub text: Option<String>,
    /// Gates that have its layers.
    pub gates: Vec<String>,
    /// Their measured runs.
    pub runs: usize,
    /// Why it was not earned; empty when it was.
    pub reasons: Vec<String>,
}

impl Claim {
    /// As every view prints it, on one line.
    #[must_use]
    pub fn line(&self) -> String {
        match &self.text {
            Some(text) => {
                format!("claim {} earned by {} ({} runs): {text}", self.id, self.gates.join(", "), self.runs)
            }
            None => format!("claim {} not earned: {}", self.id, self.reasons.join("; ")),
        }
    }
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

/// A gate as claims see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateArchives {
    /// Key.
    pub gate: String,
    /// How it ended.
    pub status: GateStatus,
    /// Paths of its archives within the pack.
    pub archives: Vec<String>,
}

impl From<&GateRow> for GateArchives {
    fn from(row: &GateRow) -> Self {
        Self {
            gate: row.gate.clone(),
            status: row.status,
            archives: row.archives.iter().map(|archive| archive.path.clone()).collect(),
        }
    }
}

/// The claims of a proof root: the same that a pack of it has.
///
/// # Errors
/// `PackRootInvalid`, `Io`.
pub fn of_root(root: &RootPath) -> crate::error::Result<Claims> {
    let state = ProofRoot::read(root)?;
    let source = Source::of_root(&state.files);
    let gates: Vec<GateArchives> = state
        .gates
        .iter()
        .map(|(gate, status)| {
            let prefix = format!("payload/gates/{gate}/");
            let archives = source.members().keys().filter(|path| {
                path.starts_with(&prefix) && is_archive_name(path.rsplit('/').next().unwrap_or_default())
            });
            GateArchives { gate: gate.clone(), status: *status, archives: archives.cloned().collect() }
        })
        .collect();
    Ok(derive(&source, &gates))
}

/// Derives the claims from the gates and files of a pack. A file that is missing or unreadable refutes; it never helps.
#[must_use]
pub fn derive(source: &Source, gates: &[GateArchives]) -> Claims {
    let runs: Vec<Run> = gates
        .iter()
        .flat_map(|gate| gate.archives.iter().map(|archive| Run::read(source, &gate.gate, archive)))
        .collect();
    let kill_criteria = vec![
        clean_correlation(&runs),
        no_drops(&runs),
        call_id_carried(&runs),
        one_verification_path(&runs),
        stable_attribution(gates, &runs),
    ];
    let mut against: Vec<String> = gates
        .iter()
        .filter(|gate| gate.status != GateStatus::Passed)
        .map(|gate| format!("gate {} is {}", gate.gate, gate.status.as_str()))
        .collect();
    against.extend(uncitable(source));
    if gates.is_empty() {
        against.push("no gate was selected".to_owned());
    }
    against.extend(kill_criteria.iter().filter_map(|criterion| match criterion.result {
        Outcome::Refuted => Some(format!("{} is refuted", criterion.id)),
        _ => None,
    }));
    let mut by_class: BTreeMap<ClaimClass, Vec<&str>> = BTreeMap::new();
    for gate in gates {
        let mut mine = runs.iter().filter(|run| run.gate == gate.gate).map(Run::class);
        // Runs of one gate that have other layers are other evidence: the narrowest holds for all.
        if let Some(first) = mine.next() {
            by_class.entry(mine.fold(first, ClaimClass::max)).or_default().push(&gate.gate);
        }
    }
    let claims = ClaimClass::ALL.map(|class| {
        let mine = by_class.get(&class).map_or(&[][..], Vec::as_slice);
        claim(class, mine, &runs, &kill_criteria, &against)
    });
    Claims {
        schema: SCHEMA.to_owned(),
        claims: claims.to_vec(),
        kill_criteria,
        non_claims: words::NON_CLAIMS
            .iter()
            .chain(&NON_CLAIMS)
            .map(|(id, text)| NonClaim { id: (*id).to_owned(), text: (*text).to_owned() })
            .collect(),
    }
}

fn claim(
    class: ClaimClass,
    gates: &[&str],
    runs: &[Run],
    criteria: &[Criterion],
    against: &[String],
) -> Claim {
    let mut reasons = against.to_vec();
    if gates.is_empty() {
        reasons.push("no gate was measured with these layers".to_owned());
    }
    // Without a policy layer there is no call whose id could be carried.
    let applies = |criterion: &&Criterion| criterion.id != CALL_ID || class != ClaimClass::KernelAlone;
    reasons.extend(
        criteria
            .iter()
            .filter(applies)
            .filter(|criterion| criterion.result == Outcome::NotMeasured)
            .map(|criterion| format!("{} was not measured", criterion.id)),
    );
    let earned = reasons.is_empty();
    Claim {
        id: class.id().to_owned(),
        earned,
        text: earned.then(|| class.text().to_owned()),
        gates: gates.iter().map(|gate| (*gate).to_owned()).collect(),
        runs: runs.iter().filter(|run| gates.contains(&run.gate.as_str())).count(),
        reasons,
    }
}

/// Why the invocation's record keeps anything from being cited: its source is not what a commit holds, or nobody knows.
fn uncitable(source: &Source) -> Option<String> {
    let record = match json::<serde_json::Value>(source, "payload/run.json") {
        Ok(record) => record,
        Err(_) => return Some("there is no record of the invocation".to_owned()),
    };
    let shards = record.get("shards").and_then(serde_json::Value::as_array);
    let records: Vec<&serde_json::Value> = match shards {
        Some(shards) => shards.iter().collect(),
        None => vec![&record],
    };
    records.into_iter().find_map(|record| {
        match (
            record.pointer("/source/dirty"),
            record.pointer("/source/head_sha").and_then(|sha| sha.as_str()),
        ) {
            (_, None | Some("unknown")) => Some("it is not known which commit was measured".to_owned()),
            (Some(serde_json::Value::Bool(false)), Some(_)) => None,
            _ => Some("the checkout had uncommitted changes".to_owned()),
        }
    })
}

/// What one run's files say. `Err` is what kept a file from being read.
struct Run {
    gate: String,
    extract: String,
    health: Result<ObservationHealth, String>,
    /// The driver decided, by the run's own policy.
    decided: bool,
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
            decided: json::<CaptureProof>(source, &format!("{folder}/capture_proof.json"))
                .is_ok_and(|proof| proof.policy_origin.as_deref() == Some("corroborated")),
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

    /// What its layers let it say; an unreadable health record, nothing wide. Decisions that are the agent's own word
    /// carry no claim.
    fn class(&self) -> ClaimClass {
        match &self.health {
            Ok(health)
                if health.policy_layer == "present"
                    && self.decided
                    && health.sdk_layer == "self_reported" =>
            {
                ClaimClass::ThreeLayers
            }
            Ok(health) if health.policy_layer == "present" && self.decided => ClaimClass::KernelAndPolicy,
            _ => ClaimClass::KernelAlone,
        }
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
        CALL_ID,
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

fn stable_attribution(gates: &[GateArchives], runs: &[Run]) -> Criterion {
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
