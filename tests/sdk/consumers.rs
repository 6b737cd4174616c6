//! What real runs wrote, as the published consumers of these contracts read it. What one of them refuses is told in its
//! own words.

use crate::measured::{assay_gates, measured};
use crate::support;
use assay_evidence::incident_package::{ContextInput, IncidentOutcome, verify_incident_package};
use assay_evidence::runner_archive::verify_runner_archive;
use assay_gates::evidence::Archive;
use assay_gates::evidence::schema::validate;
use assay_runner_schema::KernelLayerEvent;
use serde_json::Value;
use std::path::{Path, PathBuf};

const GATES: [&str; 5] = [
    "kernel-only",
    "kernel-policy",
    "openai-agents-kernel-policy",
    "openai-agents-hidden-write",
    "gemini-google-genai-kernel-policy",
];

fn archive_in(folder: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|extension| extension == "gz")).unwrap()
}

/// The archive itself, and each line of its kernel layer.
fn accepted(path: &Path, schema: &str) -> Archive {
    let bytes = std::fs::read(path).unwrap();
    let archive = Archive::from_bytes(&bytes).unwrap();
    let run_id = archive.run_id();
    let theirs = verify_runner_archive(bytes.as_slice(), &archive.sha256.hex(), run_id, Default::default());
    if let Err(refusal) = theirs {
        panic!("assay-evidence refuses {}: {refusal:?}", path.display());
    }
    let layer = archive.member("layers/kernel.ndjson").unwrap();
    for line in layer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let said = String::from_utf8_lossy(line);
        let event: KernelLayerEvent = serde_json::from_slice(line)
            .unwrap_or_else(|refusal| panic!("assay-runner-schema refuses {said}: {refusal}"));
        if let Err(refusal) = event.validate_emitted() {
            panic!("assay-runner-schema refuses {said}: {refusal:?}");
        }
        let value: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(value["schema"], schema);
    }
    archive
}

/// Health as the published type reads it, and by its own rules.
fn healthy(archive: &Archive) {
    let bytes = archive.member("observation-health.json").unwrap();
    let health: assay_runner_schema::ObservationHealth =
        serde_json::from_slice(bytes).unwrap_or_else(|refusal| {
            panic!("assay-runner-schema refuses {}: {refusal}", String::from_utf8_lossy(bytes))
        });
    if let Err(refusal) = health.validate() {
        panic!("assay-runner-schema refuses the health of {}: {refusal:?}", archive.run_id());
    }
}

#[test]
fn every_archive_of_the_five_gates_is_taken_by_the_published_crates() {
    let Some(measured) = measured() else { return };
    for gate in GATES {
        for run in 1..=3 {
            let folder = measured.root.join(format!("gates/{gate}/run-{run}"));
            let archive = accepted(&archive_in(&folder), "assay.runner.kernel_event.v0");
            assert!(!archive.kernel.is_empty(), "{gate}");
            healthy(&archive);
            if archive.policy.is_empty() {
                continue;
            }
            let log = std::fs::read_to_string(folder.join("policy-decisions.ndjson")).unwrap();
            for line in log.lines() {
                validate("assay.gates.tool_decision.v0", &serde_json::from_str(line).unwrap()).unwrap();
            }
        }
    }
    let surface = |gate: &str| {
        let folder = measured.root.join(format!("gates/{gate}/run-1"));
        Archive::open(&archive_in(&folder)).unwrap().content.surface.filesystem_paths
    };
    for gate in &GATES[1..] {
        assert!(surface(gate).contains("/run/assay-gates/work/policy-input.txt"), "{gate}");
    }
}

#[test]
fn every_run_of_a_pack_is_an_incident_package_that_the_published_verifier_takes() {
    let Some(measured) = measured() else { return };
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    let state = folder.path().join("state");
    let packed =
        assay_gates(&state).args(["pack", "--root"]).arg(&measured.root).arg("--out").arg(&pack).output();
    let packed = packed.unwrap();
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    for (gate, formats) in GATES.iter().zip([2, 4, 4, 4, 4]) {
        let out = folder.path().join(format!("{gate}.tar"));
        let exported = assay_gates(&state)
            .args(["incident", "--gate", gate, "--run", "2", "--out"])
            .args([&out, &pack])
            .output()
            .unwrap();
        assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
        let context = std::fs::read(out.with_extension("tar.context.json")).unwrap();
        let context: ContextInput = serde_json::from_slice(&context).unwrap();
        let report = verify_incident_package(&std::fs::read(&out).unwrap(), &context);
        assert_eq!(
            report.outcome,
            IncidentOutcome::PackageVerified,
            "assay-evidence refuses {gate}: {:?}",
            report.reason
        );
        let inputs = assay_evidence::incident_package::read_incident_container(&std::fs::read(&out).unwrap());
        let inventory: Value = serde_json::from_slice(&inputs.unwrap().inventory.bytes).unwrap();
        assert_eq!(inventory["inputs"].as_array().unwrap().len(), formats, "{gate}");
    }
    let none = assay_gates(&state)
        .args(["incident", "--gate", "kernel-only", "--run", "4", "--out", "nowhere.tar"])
        .arg(&pack)
        .output()
        .unwrap();
    assert_eq!(none.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&none.stderr).contains("no archive of run 4"));
}

#[test]
fn both_versions_of_kernel_events_are_taken_and_differ_in_one_label() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut labels = Vec::new();
    for version in ["v0", "v1"] {
        let out = folder.path().join(format!("{version}.tar.gz"));
        // O_EXCL without O_NOCTTY, then the other way round.
        let script =
            "import os\nos.open('new', os.O_CREAT | os.O_EXCL | os.O_WRONLY)\nos.open('new', os.O_NOCTTY)";
        let ran = assay_gates(&folder.path().join("state"))
            .args(["record", "--run-id", "run_versions", "--kernel-event", version, "--output"])
            .arg(&out)
            .args(["--", "/usr/bin/python3", "-I", "-S", "-c"])
            .arg(format!("import os, tempfile\nos.chdir(tempfile.mkdtemp())\n{script}"))
            .current_dir("/")
            .output()
            .unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        let archive = accepted(&out, &format!("assay.runner.kernel_event.{version}"));
        healthy(&archive);
        let own = archive
            .kernel
            .iter()
            .filter(|event| event.value.as_deref().is_some_and(|value| value.ends_with("/new")));
        let found: Vec<bool> =
            own.map(|event| event.operation_flags.iter().any(|label| label == "exclusive")).collect();
        labels.push(found);
        let verified = assay_gates(&folder.path().join("state")).arg("verify").arg(&out).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    }
    assert_eq!(labels, [[false, true], [true, false]]);
}

#[test]
fn a_gate_that_is_measured_in_v1_makes_a_pack_that_verifies() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let state = folder.path().join("state");
    let ran = assay_gates(&state)
        .args(["run", "--gate", "kernel-only", "--kernel-event", "v1", "--root"])
        .arg(&root)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    accepted(&archive_in(&root.join("gates/kernel-only/run-1")), "assay.runner.kernel_event.v1");
    let verified = assay_gates(&state).arg("verify").arg(root.join("pack.zip")).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let out = folder.path().join("v1.tar");
    let exported = assay_gates(&state)
        .args(["incident", "--gate", "kernel-only", "--out"])
        .args([&out, &root.join("pack.zip")])
        .output()
        .unwrap();
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    let context = std::fs::read(out.with_extension("tar.context.json")).unwrap();
    let report =
        verify_incident_package(&std::fs::read(&out).unwrap(), &serde_json::from_slice(&context).unwrap());
    assert_eq!(report.outcome, IncidentOutcome::PackageVerified, "{:?}", report.reason);
}
