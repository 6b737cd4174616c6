//! Every artifact against its published schema, and the examples against this build.

use crate::fixtures::{RUN, assembled, decision, effects, logs, open, summary, window};
use assay_gates::capture::Effect;
use assay_gates::evidence::archive::member;
use assay_gates::evidence::schema::{ALL, faults, validate};
use assay_gates::evidence::{Logs, strict};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A run with calls, so that every artifact says something.
fn example(folder: &Path) {
    let mut summary = summary();
    summary.calls = vec![window("tc_1", "read_file", false)];
    let mut effects = effects();
    effects.push(Effect {
        call: Some("tc_1".to_owned()),
        ..open(8, "/run/assay-gates/work/policy-input.txt", 0, 3)
    });
    assembled(folder, &summary, effects, &logs()).unwrap();
}

/// Which schema a file's document, or each of its lines, fits.
const FILES: [(&str, &str); 13] = [
    (member::MANIFEST, "assay.runner.archive_manifest.v0"),
    (member::SURFACE, "assay.runner.capability_surface.v0"),
    (member::CORRELATION, "assay.runner.correlation_report.v0"),
    (member::EVENTS, "assay.runner.event.v0"),
    (member::KERNEL, "assay.runner.kernel_event.v0"),
    (member::POLICY, "assay.runner.policy_event.v0"),
    (member::SDK, "assay.runner.sdk_event.v0"),
    (member::HEALTH, "assay.runner.observation_health.v0"),
    ("../effects.ndjson", "assay.gates.effect.v0"),
    ("../surface.json", "assay.gates.surface.v0"),
    ("../kernel_set.json", "assay.gates.kernel_set.v0"),
    ("../tool_effects.json", "assay.gates.tool_effects.v0"),
    ("../filter.json", "assay.gates.filter_report.v0"),
];

fn check(folder: &Path) {
    for (file, id) in FILES.into_iter().chain([("../capture_proof.json", "assay.gates.capture_proof.v0")]) {
        let bytes = std::fs::read(folder.join("extract").join(file)).unwrap();
        let documents: Vec<&[u8]> = if file.ends_with(".ndjson") {
            bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect()
        } else {
            vec![&bytes]
        };
        assert!(!documents.is_empty(), "{file} says nothing");
        for document in documents {
            let value = strict::value(document).unwrap();
            assert_eq!(value["schema"], id);
            validate(id, &value).unwrap();
        }
    }
}

#[test]
fn every_file_of_a_run_fits_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    check(folder.path());
}

#[test]
fn the_examples_fit_their_schemas_and_are_what_this_build_writes() {
    let examples = repository().join("proof-pack/examples/run");
    if std::env::var_os("UPDATE_EXAMPLES").is_some() {
        example(&examples);
    }
    check(&examples);
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    let mut files = files_below(&examples);
    files.sort();
    let mut fresh = files_below(folder.path());
    fresh.sort();
    assert_eq!(files, fresh);
    for file in files {
        let read = |root: &Path| std::fs::read(root.join(&file)).unwrap();
        assert_eq!(
            read(&examples),
            read(folder.path()),
            "{}: UPDATE_EXAMPLES=1 writes it anew",
            file.display()
        );
    }
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path)
            } else {
                found.push(path.strip_prefix(root).unwrap().to_owned())
            }
        }
    }
    found
}

#[test]
fn every_artifacts_schema_in_the_folder_is_embedded_and_draft_2020_12() {
    let folder: BTreeSet<String> = std::fs::read_dir(repository().join("proof-pack/schemas"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("assay."))
        .map(|name| name.trim_end_matches(".json").to_owned())
        .collect();
    let embedded: BTreeSet<String> = ALL.iter().map(|(id, _)| (*id).to_owned()).collect();
    assert_eq!(folder, embedded, "src/evidence/schema.rs lists them");
    assert!(ALL.is_sorted());
    for (id, text) in ALL {
        let schema: Value = serde_json::from_str(text).unwrap();
        assert!(schema.get("$id").is_none_or(|named| named == *id), "{id} calls itself {}", schema["$id"]);
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        faults(id, &Value::Null).unwrap();
        assert!(validate(id, &json!({})).is_err(), "{id} accepts an empty object");
    }
}

#[test]
fn the_filters_own_file_fits_its_schema() {
    let rules: Value = serde_yaml::from_str(include_str!("../../src/evidence/filter.yaml")).unwrap();
    validate("assay.gates.filter.v0", &rules).unwrap();
}

#[test]
fn every_one_of_these_breaks_the_kernel_events_schema() {
    let whole = json!({
        "schema": "assay.runner.kernel_event.v0", "run_id": RUN, "seq": 0, "pid": 1, "event_type": 1, "kind": "openat",
        "value": "/w/x", "flags": 577, "mode": 420, "return_value": 3, "access_mode": "write",
        "operation_flags": ["create", "truncate"], "status": "success"
    });
    let id = "assay.runner.kernel_event.v0";
    validate(id, &whole).unwrap();
    for (key, value) in [
        ("schema", json!("assay.runner.kernel_event.v9")),
        ("run_id", json!("a b")),
        ("seq", json!(-1)),
        ("event_type", json!(2)),
        ("kind", json!("connect")),
        ("kind", json!("open")),
        ("value", json!("")),
        ("resolve", json!(0)),
        ("operation_flags", json!(["create", "create"])),
        ("operation_flags", json!(["exclusively"])),
        ("operation_flags", json!([])),
        ("status", json!("error")),
        ("return_value", json!(-2)),
        ("return_value", Value::Null),
        ("colour", json!("red")),
        ("rule_id", json!(1)),
        ("flags", json!(9_007_199_254_740_992_u64)),
    ] {
        let mut event = whole.clone();
        event[key] = value.clone();
        assert!(validate(id, &event).is_err(), "{key}: {value}");
    }
    for key in ["flags", "mode", "return_value", "access_mode", "status", "value"] {
        let mut event = whole.clone();
        event.as_object_mut().unwrap().remove(key);
        assert!(validate(id, &event).is_err(), "without {key}");
    }
    let exec = json!({"schema": id, "run_id": RUN, "seq": 0, "pid": 1, "event_type": 4, "kind": "exec", "value": "/x"});
    validate(id, &exec).unwrap();
    let mut with_flags = exec.clone();
    with_flags["flags"] = json!(0);
    assert!(validate(id, &with_flags).is_err());
}

#[test]
fn a_proof_that_is_complete_and_gives_reasons_contradicts_its_schema() {
    let folder = tempfile::tempdir().unwrap();
    example(folder.path());
    let text = std::fs::read(folder.path().join("capture_proof.json")).unwrap();
    let mut proof = strict::value(&text).unwrap();
    validate("assay.gates.capture_proof.v0", &proof).unwrap();
    proof["reasons"] = json!(["a hook was missing"]);
    assert!(validate("assay.gates.capture_proof.v0", &proof).is_err());
    proof["complete"] = json!(false);
    validate("assay.gates.capture_proof.v0", &proof).unwrap();
    proof["reasons"] = json!([]);
    assert!(validate("assay.gates.capture_proof.v0", &proof).is_err());
}

#[test]
fn a_report_with_doubts_can_not_be_clean() {
    let folder = tempfile::tempdir().unwrap();
    let logs =
        Logs { policy: Some(vec![decision(0, "a", "t", "allow"), decision(1, "b", "t", "deny")]), sdk: None };
    let written = assembled(folder.path(), &summary(), effects(), &logs).unwrap();
    let mut report = serde_json::to_value(&written.correlation).unwrap();
    validate("assay.runner.correlation_report.v0", &report).unwrap();
    report["status"] = json!("clean");
    assert!(validate("assay.runner.correlation_report.v0", &report).is_err());
}
