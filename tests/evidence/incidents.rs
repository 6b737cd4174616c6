//! Incident packages, and what their published verifier says of them.

use crate::fixtures::{RUN, assembled, effects, logs, outputs, summary};
use assay_evidence::incident_package::{
    ContextInput, IncidentOutcome, IncidentReason, verify_incident_package,
};
use assay_gates::error::Code;
use assay_gates::evidence::Archive;
use assay_gates::evidence::archive::member;
use assay_gates::pack::incident::{Inputs, Package, package};
use serde_json::Value;
use std::path::Path;

const AS_OF: &str = "2026-11-30T12:00:00Z";

/// A run that was recorded on a real kernel, with its log and policy.
pub fn recorded() -> Inputs {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/evidence/recorded/gemini");
    let archive = Archive::open(&folder.join("runner-gemini-google-genai-kernel-policy.tar.gz")).unwrap();
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    Inputs {
        health: archive.member(member::HEALTH).unwrap().to_vec(),
        kernel: archive.member(member::KERNEL).unwrap().to_vec(),
        policy: Some((read("policy-decisions.ndjson"), read("policy.yaml"))),
    }
}

fn judged(package: &Package) -> (IncidentOutcome, Option<IncidentReason>) {
    let context: ContextInput = serde_json::from_slice(&package.context).unwrap();
    let report = verify_incident_package(&package.tar, &context);
    (report.outcome, report.reason)
}

#[test]
fn a_recorded_run_is_taken_and_every_record_of_it_is_listed() {
    let inputs = recorded();
    let made = package(&inputs, AS_OF).unwrap();
    assert_eq!(judged(&made), (IncidentOutcome::PackageVerified, None));
    let lines = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(made.records, lines(&inputs.kernel) + lines(&inputs.policy.as_ref().unwrap().0));
    assert_eq!(package(&inputs, AS_OF).unwrap(), made, "the same inputs give the same bytes");
    let container = assay_evidence::incident_package::read_incident_container(&made.tar).unwrap();
    let assessment: Value = serde_json::from_slice(&container.assessment.bytes).unwrap();
    assert_eq!(assessment["units"].as_array().unwrap().len(), made.records);
    for surface in assessment["surfaces"].as_array().unwrap() {
        assert_eq!(surface["observation"], "unknown", "{surface}");
    }
    assert_eq!((&assessment["joins"], &assessment["claims"]), (&Value::Array(vec![]), &Value::Array(vec![])));
}

#[test]
fn a_run_without_a_policy_and_one_without_any_record_are_taken_too() {
    let whole = recorded();
    for inputs in [
        Inputs { policy: None, ..whole.clone() },
        Inputs { kernel: Vec::new(), policy: None, health: whole.health.clone() },
        Inputs { kernel: Vec::new(), ..whole.clone() },
    ] {
        assert_eq!(judged(&package(&inputs, AS_OF).unwrap()), (IncidentOutcome::PackageVerified, None));
    }
}

#[test]
fn a_run_of_the_fixtures_is_taken_with_every_kind_of_kernel_event() {
    let folder = tempfile::tempdir().unwrap();
    assembled(folder.path(), &summary(), effects(), &logs()).unwrap();
    let archive = Archive::open(&outputs(folder.path()).archive.path()).unwrap();
    assert_eq!(archive.run_id(), RUN);
    let inputs = Inputs {
        health: archive.member(member::HEALTH).unwrap().to_vec(),
        kernel: archive.member(member::KERNEL).unwrap().to_vec(),
        policy: None,
    };
    assert_eq!(judged(&package(&inputs, AS_OF).unwrap()), (IncidentOutcome::PackageVerified, None));
}

/// Places of the bytes that fill up the last block of each member: they belong to none.
fn padding(tar: &[u8]) -> std::collections::BTreeSet<usize> {
    let mut found = std::collections::BTreeSet::new();
    let mut at = 0;
    while tar[at] != 0 {
        let size = usize::from_str_radix(std::str::from_utf8(&tar[at + 124..at + 135]).unwrap(), 8).unwrap();
        let end = at + 512 + size;
        at = end.next_multiple_of(512);
        found.extend(end..at);
    }
    found
}

#[test]
fn no_byte_of_a_package_can_be_another() {
    let made = package(&recorded(), AS_OF).unwrap();
    let mut padding = padding(&made.tar);
    // Words that are the same in every package, which its verifier states itself and does not look for.
    let text = String::from_utf8_lossy(&made.tar);
    let words = text.find("\"non_claims\":[").unwrap();
    padding.extend(words..words + text[words..].find(']').unwrap());
    for at in (0..made.tar.len()).step_by(97).filter(|at| !padding.contains(at)) {
        let mut spoilt = made.clone();
        spoilt.tar[at] ^= 1;
        assert_eq!(judged(&spoilt).0, IncidentOutcome::PackageRefused, "byte {at}");
    }
    let other = package(&recorded(), "2026-11-30T12:00:01Z").unwrap();
    let mixed = Package { context: other.context, ..made };
    assert_eq!(judged(&mixed).1, Some(IncidentReason::StaleAssessment), "its context is bound");
}

#[test]
fn a_log_of_an_earlier_form_is_refused_before_anybody_else_refuses_it() {
    let mut inputs = recorded();
    let log = String::from_utf8(inputs.policy.take().unwrap().0).unwrap();
    assert!(log.contains(r#"[{"type":"observe_effects"}]"#), "{log}");
    let old = log.replace(r#"[{"type":"observe_effects"}]"#, r#"["observe_effects"]"#);
    inputs.policy = Some((old.into_bytes(), b"default: deny".to_vec()));
    let error = package(&inputs, AS_OF).unwrap_err();
    assert_eq!(error.code(), Code::NotRepresentable);
    assert!(error.place().unwrap().contains("policy-decisions.ndjson, line:0:0:"), "{error}");
}
