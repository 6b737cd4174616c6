//! Each scenario ends as it is declared; change anything that carries the verdict, and it does not.

mod mutations;
mod world;

use super::*;
use rows::schema;
use serde_json::json;
use world::*;

fn file<'a>(review: &'a Review, name: &str) -> &'a str {
    &review.files.iter().find(|(file, _)| *file == name).unwrap_or_else(|| panic!("no {name}")).1
}

fn row(review: &Review, name: &str) -> serde_json::Value {
    serde_json::from_str(file(review, name)).unwrap()
}

#[test]
fn each_scenario_ends_as_it_declares_with_its_six_files() {
    for (scenario, world, verdict) in all_six() {
        let review = world.review();
        assert_eq!(
            (review.verdict.verdict.as_str(), review.exit()),
            (verdict, Exit::Passed),
            "{scenario}: {:?}",
            review.failures
        );
        for name in [
            "proof-pack-reference.json",
            "join-result.json",
            "claim-class-cells.json",
            "scenario-verdict.json",
            "redaction-manifest.json",
            "summary.md",
        ] {
            assert!(!file(&review, name).is_empty(), "{scenario}/{name}");
        }
        let finding = review.files.iter().any(|(name, _)| *name == "finding.md");
        assert_eq!(finding, verdict == "semantic_gap", "{scenario}");
    }
}

#[test]
fn the_example_of_a_review_is_what_this_build_writes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("proof-pack/examples/review");
    let files = hidden_write().review().files;
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in &files {
            std::fs::write(folder.join(name), text).unwrap();
        }
    }
    let there = std::fs::read_dir(&folder).unwrap().count();
    assert_eq!(there, files.len());
    for (name, text) in files {
        let found = std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(found, text, "{name}: UPDATE_EXAMPLES=1 writes it anew");
    }
}

#[test]
fn a_conforming_hidden_write_row_has_the_values_that_its_readers_expect() {
    let review = hidden_write().review();
    let join = row(&review, "join-result.json");
    for (key, value) in [
        ("left_artifact_role", json!("external_receipt")),
        ("right_artifact_role", json!("measured_run_archive")),
        ("join_key", json!("tool_call_id")),
        ("join_value", json!(CALL)),
        ("join_grade", json!("strong")),
        ("scope", json!("tool_call")),
        ("unique_within_scope", json!(true)),
        ("fallback_used", json!(false)),
    ] {
        assert_eq!(join[key], value, "{key}");
    }
    let refs: Vec<&str> =
        join["evidence_refs"].as_array().unwrap().iter().filter_map(|r| r.as_str()).collect();
    let run = "payload/gates/openai-agents-hidden-write/run-1";
    for expected in [
        format!("{run}/extract/layers/kernel.ndjson#seq=2"),
        format!("{run}/extract/layers/sdk.ndjson#seq=0"),
        format!("{run}/extract/layers/sdk.ndjson#seq=1"),
        format!("{run}/extract/layers/policy.ndjson#seq=0"),
        format!("{run}/extract/correlation-report.json#/bindings/0"),
        format!("{run}/tool_effects.json#/calls/0/effects/1"),
        "proof-pack-reference.json#/runner_archive_evidence/tool_call_id".to_owned(),
    ] {
        assert!(refs.contains(&expected.as_str()), "{expected} is not among {refs:?}");
    }
    let cells = row(&review, "claim-class-cells.json");
    let types: Vec<&str> =
        cells.as_array().unwrap().iter().filter_map(|cell| cell["claim_type"].as_str()).collect();
    assert_eq!(
        types,
        [
            "reported_tool_intent",
            "policy_allow_evidence",
            "measured_filesystem_effect",
            "joined_semantic_gap"
        ]
    );
    let reference = row(&review, "proof-pack-reference.json");
    assert_eq!(reference["status"], "delegated-gap-smoke-verified");
    assert_eq!(
        reference["runner_archive_evidence"]["measured_write"],
        json!({
            "path": format!("{WORK}/hidden-write-output.txt"), "kind": "openat", "access_mode": "write",
            "operation_flags": ["create", "truncate"], "status": "success",
        })
    );
    assert_eq!(reference["same_head_positive_baseline"]["archive_sha256"].as_array().unwrap().len(), 3);
    assert_eq!(reference["non_claims"].as_array().unwrap().len(), 5);
}

#[test]
fn rows_are_valid_by_their_schemas_whatever_the_verdict() {
    let validator = |name: &str| {
        let file = format!("{}/proof-pack/schemas/{name}.json", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
        jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
    };
    let inconclusive = World { baseline: None, ..hidden_write() };
    let mut all: Vec<World> = all_six().into_iter().map(|(_, world, _)| world).collect();
    all.push(inconclusive);
    for world in all {
        let review = world.review();
        for (name, file) in [
            (schema::JOIN_RESULT, "join-result.json"),
            (schema::SEMANTIC_GAP_VERDICT, "scenario-verdict.json"),
            (schema::REDACTION_MANIFEST, "redaction-manifest.json"),
            ("delegated_gap_reference.v0", "proof-pack-reference.json"),
        ] {
            let row = row(&review, file);
            let errors: Vec<String> = validator(name)
                .iter_errors(&row)
                .map(|error| format!("{} {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{}: {errors:?} in {row:#}", world.gate.gate.id);
        }
        for cell in row(&review, "claim-class-cells.json").as_array().unwrap() {
            assert!(validator(schema::CLAIM_CLASS_CELL).is_valid(cell), "{}: {cell:#}", world.gate.gate.id);
        }
    }
}

#[test]
fn every_reference_resolves_in_the_run_that_it_names() {
    for (scenario, world, _) in all_six() {
        let review = world.review();
        let first = &world.gate.runs[0];
        let lines =
            |records: Vec<serde_json::Value>| records.iter().map(|r| format!("{r}\n")).collect::<String>();
        let value = |record: &dyn erased::Json| record.json();
        for reference in row(&review, "join-result.json")["evidence_refs"].as_array().unwrap() {
            let reference = EvidenceRef::parse(reference.as_str().unwrap()).unwrap();
            let text = match reference.path.rsplit('/').next().unwrap() {
                "kernel.ndjson" => lines(first.kernel.iter().map(|r| value(r)).collect()),
                "sdk.ndjson" => lines(first.sdk.iter().map(|r| value(r)).collect()),
                "policy.ndjson" => lines(first.policy.iter().map(|r| value(r)).collect()),
                "correlation-report.json" => value(&first.correlation).to_string(),
                "tool_effects.json" => value(&first.effects).to_string(),
                "proof-pack-reference.json" => file(&review, "proof-pack-reference.json").to_owned(),
                other => panic!("{scenario}: {other}"),
            };
            reference.find_in(text.as_bytes()).unwrap_or_else(|error| panic!("{scenario}: {error}"));
        }
    }
}

mod erased {
    pub trait Json {
        fn json(&self) -> serde_json::Value;
    }
    impl<T: serde::Serialize> Json for T {
        fn json(&self) -> serde_json::Value {
            serde_json::to_value(self).unwrap()
        }
    }
}

#[test]
fn a_dirty_or_unknown_head_is_said_and_can_not_be_cited() {
    for (head, dirty) in [("abc", true), ("unknown", false)] {
        let mut world = hidden_write();
        world.invocation.head_sha = head.into();
        world.invocation.dirty = dirty;
        world.gate.head = head.into();
        world.baseline.as_mut().unwrap().head = head.into();
        let review = world.review();
        assert_eq!(row(&review, "proof-pack-reference.json")["status"], "delegated-gap-smoke-not-citable");
        assert!(file(&review, "finding.md").contains("Not citable"));
        assert!(file(&review, "summary.md").contains("Not citable"));
    }
}

#[test]
fn an_inconclusive_row_claims_nothing_and_names_every_reason() {
    let mut world = World { baseline: None, ..hidden_write() };
    world.gate.runs[1].health.kernel_layer = "partial_ringbuf_drops".into();
    world.gate.runs[1].health.ringbuf_drops = 3;
    let review = world.review();
    assert_eq!(review.exit(), Exit::CaptureIncomplete);
    assert_eq!(review.verdict.verdict, "inconclusive");
    assert_eq!(review.verdict.evidence_pack_claim_class, "diagnostic");
    for part in ["openai-agents-kernel-policy", "run 2", "partial_ringbuf_drops"] {
        assert!(review.verdict.reason.contains(part), "{}", review.verdict.reason);
    }
    for cell in row(&review, "claim-class-cells.json").as_array().unwrap() {
        assert_eq!((&cell["claim_strength"], &cell["evidence_refs"]), (&json!("absent"), &json!([])));
    }
    assert!(!review.files.iter().any(|(name, _)| *name == "finding.md"));
}
