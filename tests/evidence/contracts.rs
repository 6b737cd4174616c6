//! Every artifact that the tool writes or reads, in one list: its schema, a golden file of it, and the check by somebody
//! else's reader; or the reason why there is none.

use crate::diffing::{prefix, recorded};
use crate::fixtures::{RUN, effects};
use crate::incidents;
use assay_gates::capture::{Outcome, Summary};
use assay_gates::evidence::health::{Counts, health};
use assay_gates::evidence::kernel::{Endpoints, KernelVersion, Normaliser};
use assay_gates::evidence::schema::{ALL, validate};
use assay_gates::evidence::{Filter, filter::Tally};
use assay_gates::files::compact;
use assay_gates::judge::diff::{Baseline, CapabilityDiff, CrossRuntimeDiff, EffectsDiff};
use assay_gates::pack::incident::package;
use regex::Regex;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a contract has, or why it has none.
enum Held {
    /// A file, or `file::function` of a test.
    In(&'static str),
    None(&'static str),
}

use Held::{In, None as No};

struct Contract {
    id: &'static str,
    schema: Held,
    golden: Held,
    consumer: Held,
}

const fn contract(id: &'static str, schema: Held, golden: Held, consumer: Held) -> Contract {
    Contract { id, schema, golden, consumer }
}

const OURS: &str = "ours alone: no published reader";
const READ: &str = "a file that people write and the tool reads; every file in the tree is read by tests";
const SCREEN: &str = "output for scripts, checked field by field where its command is tested";
const IN_RUNS: &str = "depends on host and time; checked against its schema in every measured run";
const STATED: &str = "its reader states every field and refuses others";
const ARCHIVES: Held = In("tests/evidence/archives.rs::the_published_verifier_takes_it");
const EVENTS: Held =
    In("tests/evidence/kernel_events.rs::every_combination_of_flags_is_accepted_by_the_published_validator");
const INCIDENTS: Held =
    In("tests/evidence/incidents.rs::a_recorded_run_is_taken_and_every_record_of_it_is_listed");
const REVIEWED: Held = No("its readers publish no code; schema and rules are checked over real runs");

fn contracts() -> Vec<Contract> {
    let run = |file: &'static str| In(file);
    vec![
        contract(
            "assay.ci.ebpf_build_provenance.v0",
            In("schema"),
            No(IN_RUNS),
            No("its reader publishes no code"),
        ),
        contract(
            "assay.experiment.agent_observability_fidelity.redaction_manifest.v0",
            In("schema"),
            In("review/redaction-manifest.json"),
            REVIEWED,
        ),
        contract(
            "assay.experiment.agent_observability_fidelity.semantic_gap_verdict.v0",
            In("schema"),
            In("review/scenario-verdict.json"),
            REVIEWED,
        ),
        contract("assay.gates.artifact.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.baseline.v0", In("schema"), In("contracts/baseline.json"), No(OURS)),
        contract("assay.gates.baseline_diff.v0", In("schema"), In("contracts/baseline-diff.json"), No(OURS)),
        contract("assay.gates.build.v0", No(STATED), No(IN_RUNS), No(OURS)),
        contract("assay.gates.call_ids.v0", No(STATED), No(READ), No(OURS)),
        contract("assay.gates.capture_proof.v0", In("schema"), run("run/capture_proof.json"), No(OURS)),
        contract("assay.gates.catalogue.v0", No(STATED), No(READ), No(OURS)),
        contract("assay.gates.chain.v0", In("schema"), No(IN_RUNS), No(OURS)),
        contract("assay.gates.claims.v0", In("schema"), No(IN_RUNS), No(OURS)),
        contract("assay.gates.cleanup.v0", In("schema"), No(IN_RUNS), No(OURS)),
        contract("assay.gates.cleanup_plan.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.dependencies.v0", No(STATED), No(SCREEN), No(OURS)),
        contract("assay.gates.doctor.v0", In("schema"), No(IN_RUNS), No(OURS)),
        contract("assay.gates.effect.v0", In("schema"), run("run/effects.ndjson"), No(OURS)),
        contract("assay.gates.effects_diff.v0", In("schema"), In("contracts/effects-diff.json"), No(OURS)),
        contract("assay.gates.event.v0", No(STATED), No(IN_RUNS), No(OURS)),
        contract("assay.gates.filter.v0", In("schema"), No(READ), No(OURS)),
        contract("assay.gates.filter_report.v0", In("schema"), run("run/filter.json"), No(OURS)),
        contract("assay.gates.gate.v0", No(STATED), No(READ), No(OURS)),
        contract(
            "assay.gates.gate.v1",
            No("no such version: tests show that it is refused"),
            No(READ),
            No(OURS),
        ),
        contract("assay.gates.host.v0", No(STATED), No(READ), No(OURS)),
        contract("assay.gates.kernel_set.v0", In("schema"), run("run/kernel_set.json"), No(OURS)),
        contract("assay.gates.lane.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.lane_proof.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.lanes.v0", No(STATED), No(READ), No(OURS)),
        contract("assay.gates.list.v0", No(STATED), No(SCREEN), No(OURS)),
        contract("assay.gates.pack_result.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.pack_verification.v0", In("schema"), No(SCREEN), No(OURS)),
        contract("assay.gates.plan.v0", No(STATED), No(SCREEN), No(OURS)),
        contract("assay.gates.policy.v0", In("schema"), No(READ), No(OURS)),
        contract("assay.gates.run.v0", No(STATED), No(IN_RUNS), No(OURS)),
        contract("assay.gates.run_report.v0", No(STATED), No(SCREEN), No(OURS)),
        contract("assay.gates.surface.v0", In("schema"), run("run/surface.json"), No(OURS)),
        contract(
            "assay.gates.tool_decision.v0",
            In("schema"),
            In("contracts/policy-decisions.ndjson"),
            INCIDENTS,
        ),
        contract("assay.gates.tool_effects.v0", In("schema"), run("run/tool_effects.json"), No(OURS)),
        contract("assay.gates.triage.v0", No(STATED), No(SCREEN), No(OURS)),
        contract(
            "assay.gates.triage_rules.v0",
            No("stands in proof-pack/schemas/triage_rules.v0.json"),
            No(READ),
            No(OURS),
        ),
        contract("assay.gates.verdict.v0", No(STATED), No(IN_RUNS), No(OURS)),
        contract("assay.gates.verification.v0", In("schema"), No(SCREEN), No(OURS)),
        contract(
            "assay.incident.assessment.v1",
            No("its publisher's; its verifier is the check"),
            In("contracts/incident.tar"),
            INCIDENTS,
        ),
        contract(
            "assay.incident.inventory.v1",
            No("its publisher's; its verifier is the check"),
            In("contracts/incident.tar"),
            INCIDENTS,
        ),
        contract(
            "assay.observability.claim_class_cell.v0",
            In("schema"),
            In("review/claim-class-cells.json"),
            REVIEWED,
        ),
        contract("assay.observability.join_result.v0", In("schema"), In("review/join-result.json"), REVIEWED),
        contract(
            "assay.runner.archive_manifest.v0",
            In("schema"),
            run("run/extract/manifest.json"),
            ARCHIVES,
        ),
        contract(
            "assay.runner.capability_diff.v0",
            In("schema"),
            In("contracts/capability-diff.json"),
            No("its reader publishes no code"),
        ),
        contract(
            "assay.runner.capability_surface.v0",
            In("schema"),
            run("run/extract/capability-surface.json"),
            ARCHIVES,
        ),
        contract(
            "assay.runner.correlation_report.v0",
            In("schema"),
            run("run/extract/correlation-report.json"),
            ARCHIVES,
        ),
        contract(
            "assay.runner.cross_runtime_diff.v0",
            In("schema"),
            In("contracts/cross-runtime-diff.json"),
            No("its reader publishes no code"),
        ),
        contract(
            "assay.runner.delegated_proof_pack.v1",
            In("schema"),
            No(IN_RUNS),
            No("its reader publishes no code"),
        ),
        contract("assay.runner.event.v0", In("schema"), run("run/extract/events.ndjson"), ARCHIVES),
        contract(
            "assay.runner.kernel_event.v0",
            In("schema"),
            run("run/extract/layers/kernel.ndjson"),
            EVENTS,
        ),
        contract(
            "assay.runner.kernel_event.v1",
            In("schema"),
            In("contracts/kernel-event-v1.ndjson"),
            EVENTS,
        ),
        contract(
            "assay.runner.observation_health.v0",
            In("schema"),
            In("contracts/contract-only-health.json"),
            INCIDENTS,
        ),
        contract(
            "assay.runner.policy_event.v0",
            In("schema"),
            run("run/extract/layers/policy.ndjson"),
            ARCHIVES,
        ),
        contract("assay.runner.sdk_event.v0", In("schema"), run("run/extract/layers/sdk.ndjson"), ARCHIVES),
    ]
}

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Ids of artifacts that the sources name, tests beside them left out.
fn named() -> BTreeSet<String> {
    let id = Regex::new(r#""(assay\.[a-z_.]+\.v[0-9]+)""#).unwrap();
    let mut found = BTreeSet::new();
    let mut folders = vec![here().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.extend(id.captures_iter(&text).map(|found| found[1].to_owned()));
            }
        }
    }
    found
}

#[test]
fn every_artifact_is_in_the_list_once_and_has_what_the_list_says() {
    let contracts = contracts();
    let listed: BTreeSet<String> = contracts.iter().map(|contract| contract.id.to_owned()).collect();
    assert_eq!(listed.len(), contracts.len(), "one is listed twice");
    let known =
        named().into_iter().chain(ALL.iter().map(|(id, _)| (*id).to_owned())).collect::<BTreeSet<_>>();
    assert_eq!(known, listed, "left: named in the sources or with a schema; right: listed");
    let schemas: BTreeSet<&str> = ALL.iter().map(|(id, _)| *id).collect();
    for contract in contracts {
        match contract.schema {
            In(_) => assert!(schemas.contains(contract.id), "{} has no schema", contract.id),
            No(reason) => assert!(!schemas.contains(contract.id) && !reason.is_empty(), "{}", contract.id),
        }
        if let In(file) = contract.golden {
            let bytes = std::fs::read(here().join("proof-pack/examples").join(file))
                .unwrap_or_else(|error| panic!("{}: {file}: {error}", contract.id));
            if schemas.contains(contract.id) {
                fits(contract.id, file, &bytes);
            }
        }
        if let In(test) = contract.consumer {
            let (file, function) = test.split_once("::").unwrap();
            let text = std::fs::read_to_string(here().join(file)).unwrap();
            assert!(text.contains(&format!("fn {function}(")), "{}: no {test}", contract.id);
            assert!(text.contains("assay_evidence") || text.contains("assay_runner_schema"), "{file}");
        }
    }
}

fn fits(id: &str, file: &str, bytes: &[u8]) {
    let documents: Vec<&[u8]> = if file.ends_with(".ndjson") {
        bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
    } else {
        vec![bytes]
    };
    assert!(!documents.is_empty(), "{file} says nothing");
    for document in documents {
        let rows = match serde_json::from_slice(document).unwrap() {
            Value::Array(rows) => rows,
            row => vec![row],
        };
        assert!(!rows.is_empty(), "{file} says nothing");
        for row in rows {
            validate(id, &row).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
    }
}

fn lines<T: Serialize>(items: &[T]) -> Vec<u8> {
    items.iter().map(|item| format!("{}\n", compact(item).unwrap())).collect::<String>().into_bytes()
}

fn pretty<T: Serialize>(document: &T) -> Vec<u8> {
    format!("{}\n", serde_json::to_string_pretty(document).unwrap()).into_bytes()
}

/// The golden files, by their path below `proof-pack/examples/contracts`: fixed inputs, fixed bytes.
fn goldens() -> Vec<(&'static str, Vec<u8>)> {
    let (openai, hidden, gemini) = (recorded("openai-agents"), recorded("hidden-write"), recorded("gemini"));
    let work = prefix("/run/assay-gates/work/");
    let effects_of = |evidence: &assay_gates::judge::diff::Evidence| evidence.effects.clone().unwrap();
    let (calm, wild) = (effects_of(&openai), effects_of(&hidden));
    let before = Baseline::of("openai-agents-kernel-policy", &openai.side.surface, &calm).unwrap();
    let after = Baseline::of("openai-agents-kernel-policy", &hidden.side.surface, &wild).unwrap();
    let filter = Filter::embedded().unwrap();
    let mut normaliser = Normaliser::new(RUN, filter, None).version(KernelVersion::V1);
    for effect in effects() {
        normaliser.take(&effect).unwrap();
    }
    let outcome = Outcome {
        exit_code: Some(0),
        signal: None,
        elapsed_ms: 12,
        timed_out: false,
        interrupted: false,
        exceeded: None,
        stragglers: 0,
    };
    let counts = Counts {
        kernel_events: 0,
        endpoints: Endpoints::default(),
        filtered: &Tally::default(),
        decisions: Some(1),
        sdk: Some((3, 1)),
    };
    let bare = health(&Summary::contract_only(RUN, outcome, true, true), &counts);
    let incident = package(&incidents::recorded(), "2026-11-30T12:00:00Z").unwrap();
    vec![
        ("baseline.json", pretty(&before)),
        ("baseline-diff.json", pretty(&before.compare(&after))),
        ("capability-diff.json", pretty(&CapabilityDiff::of(&openai.side, &hidden.side).unwrap())),
        ("contract-only-health.json", compact(&bare).unwrap().into_bytes()),
        (
            "cross-runtime-diff.json",
            pretty(&CrossRuntimeDiff::of(&openai.side, &gemini.side, &work, &work).unwrap()),
        ),
        (
            "effects-diff.json",
            pretty(&EffectsDiff::of((&openai.side.health, &calm, None), (&hidden.side.health, &wild, None))),
        ),
        ("incident.tar", incident.tar),
        ("incident.tar.context.json", incident.context),
        ("kernel-event-v1.ndjson", lines(&normaliser.finish().events)),
        ("policy-decisions.ndjson", incidents::recorded().policy.unwrap().0),
    ]
}

#[test]
fn the_golden_files_are_what_this_build_writes() {
    let folder = here().join("proof-pack/examples/contracts");
    let goldens = goldens();
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &goldens {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    }
    let there: BTreeSet<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(there, goldens.iter().map(|(name, _)| folder.join(name)).collect());
    for (name, bytes) in goldens {
        let found = std::fs::read(folder.join(name)).unwrap();
        assert!(found == bytes, "{name}: UPDATE_EXAMPLES=1 writes it anew");
    }
}
