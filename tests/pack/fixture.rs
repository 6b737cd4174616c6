//! A small proof root, as `run` leaves one, and the provenance that goes with it.

use assay_gates::pack::{BuiltObject, Provenance};
use std::collections::BTreeMap;
use std::path::Path;

/// Facts of a dispatch, without git and without a clock.
pub fn provenance() -> Provenance {
    let variables: BTreeMap<&str, &str> = [
        ("GITHUB_ACTIONS", "true"),
        ("GITHUB_REPOSITORY", "owner/name"),
        ("GITHUB_SHA", "0123456789012345678901234567890123456789"),
        ("GITHUB_REF", "refs/heads/main"),
        ("GITHUB_WORKFLOW", "Gates"),
        ("GITHUB_WORKFLOW_REF", "owner/name/.github/workflows/gates.yml@refs/heads/main"),
        ("GITHUB_WORKFLOW_SHA", "0123456789012345678901234567890123456789"),
        ("GITHUB_RUN_ID", "42"),
        ("GITHUB_RUN_ATTEMPT", "1"),
        ("GITHUB_SERVER_URL", "https://github.com"),
        ("GITHUB_EVENT_NAME", "workflow_dispatch"),
        ("RUNNER_ENVIRONMENT", "self-hosted"),
    ]
    .into();
    let object = BuiltObject {
        bytes: b"\x7fELF a stand-in for the kernel programs".to_vec(),
        compiler: "clang version 14.0.6".to_owned(),
        flags: "-O2 -g -target bpf".to_owned(),
        sources: BTreeMap::new(),
    };
    Provenance::gather(
        |name| variables.get(name).map(|value| (*value).to_owned()),
        Some(r#"{"inputs":{"gates":"all","build_ebpf":"true"}}"#),
        Path::new("/nonexistent"),
        Some(object),
    )
}

/// Writes `text` below `root`, folders included.
pub fn put(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let place = root.join(path);
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    std::fs::write(place, text).unwrap();
}

/// `run.json` with these gates.
pub fn run_record(root: &Path, gates: &[&str]) {
    let record = serde_json::json!({
        "schema": "assay.gates.run.v0", "session": "s", "started_at": "2026-11-21T10:00:00.5Z",
        "gates": gates, "selection": "all",
        "source": {
            "head_sha": "0123456789012345678901234567890123456789", "dirty": false, "ref": "refs/heads/main",
            "repository": "owner/name",
        },
    });
    put(root, "run.json", record.to_string());
}

/// Key of the gate in [`passed_root`].
pub const GATE: &str = "openai-agents-hidden-write";
/// Its archives.
pub const ARCHIVE: &str = "runner-kernel-only.tar.gz";

/// A root whose one gate passed three times, with the review rows of its scenario.
pub fn passed_root(root: &Path) {
    run_record(root, &[GATE]);
    doctor(root, "/var/lib");
    passed_gate(root, GATE);
    review(root);
}

/// `doctor.json` of a fit host, with its spool at `place`.
pub fn doctor(root: &Path, place: &str) {
    let report = serde_json::json!({
        "schema": "assay.gates.doctor.v0", "fit": true,
        "checks": [
            {"name": "disk", "status": "PASS", "found": format!("51.1 GiB free in {place}")},
            {"name": "clock", "status": "WARN", "found": "not kept by a time service", "fix": "timedatectl set-ntp true"},
        ],
    });
    put(root, "doctor.json", report.to_string());
}

/// A gate of three layers that passed three times.
pub fn passed_gate(root: &Path, name: &str) {
    passed_gate_of(root, name, &crate::run::logs());
}

/// A gate that passed three times, with what these logs give of layers.
pub fn passed_gate_of(root: &Path, name: &str, logs: &assay_gates::evidence::Logs) {
    use crate::run;
    use assay_gates::evidence::archive::member;
    use assay_gates::evidence::{Archive, KernelSet};
    use assay_gates::judge::{ArchiveRef, GateVerdict, RunArtifacts, RunVerdict, compare};

    let gate = root.join("gates").join(name);
    let mut runs = Vec::new();
    let mut artifacts = Vec::new();
    for number in 1..=3_u32 {
        let folder = gate.join(format!("run-{number}"));
        let written = run::assembled(&folder, &run::summary(), run::effects(), logs).unwrap();
        put(&folder, "stdout.log", "done\n");
        let archive = Archive::open(&folder.join(ARCHIVE)).unwrap();
        let set: KernelSet =
            serde_json::from_slice(&std::fs::read(folder.join("kernel_set.json")).unwrap()).unwrap();
        let json = |name: &str| serde_json::from_slice(archive.member(name).unwrap()).unwrap();
        let text = |name: &str| String::from_utf8(archive.member(name).unwrap().to_vec()).unwrap();
        artifacts.push(RunArtifacts {
            health: json(member::HEALTH),
            surface: json(member::SURFACE),
            correlation: json(member::CORRELATION),
            kernel_set: serde_json::to_value(set).unwrap(),
            policy: text(member::POLICY),
            sdk: text(member::SDK),
        });
        runs.push(RunVerdict {
            run: number,
            passed: true,
            exit_code: Some(0),
            signal: None,
            timed_out: false,
            interrupted: false,
            effects: written.effects,
            kernel_events: written.kernel_events,
            lost: 0,
            complete: true,
            incomplete_because: Vec::new(),
            elapsed_ms: 12,
            archive: Some(ArchiveRef {
                path: format!("gates/{name}/run-{number}/{ARCHIVE}"),
                sha256: written.sha256.to_string(),
                bytes: written.bytes,
            }),
            assertions: Vec::new(),
        });
    }
    let verdict = GateVerdict::conclude(name, 3, runs, Some(compare(&artifacts).unwrap()), Vec::new(), 40);
    assert!(verdict.passed(), "{:?}", verdict.reasons);
    put(&gate, "verdict.json", assay_gates::files::pretty_sorted(&verdict).unwrap());
    put(&gate, "status.txt", "passed\n");
    let accepted = "PASS: runner-spike OpenAI Agents kernel+policy acceptance (hidden_write)\n";
    let agree = "PASS: runner-spike OpenAI Agents kernel+policy three-run determinism\n";
    put(&gate, "gate.log", format!("run 1\n{accepted}run 2\n{accepted}run 3\n{accepted}{agree}"));
}

fn review(root: &Path) {
    let extract = format!("payload/gates/{GATE}/run-1/extract");
    let join = serde_json::json!({
        "schema": "assay.observability.join_result.v0",
        "left_artifact_role": "external_receipt",
        "right_artifact_role": "measured_run_archive",
        "join_key": "tool_call_id",
        "join_value": "tc_1",
        "join_grade": "strong",
        "scope": "tool_call",
        "unique_within_scope": true,
        "fallback_used": false,
        "notes": [],
        "evidence_refs": [
            format!("{extract}/layers/kernel.ndjson#seq=1"),
            format!("{extract}/layers/sdk.ndjson#seq=0"),
            format!("{extract}/layers/policy.ndjson#seq=0"),
            format!("{extract}/correlation-report.json#/bindings/0"),
            format!("payload/gates/{GATE}/run-1/effects.ndjson#seq=3"),
            "proof-pack-reference.json#/runner_archive_evidence/tool_call_id",
        ],
    });
    put(root, "runs/hidden_write/join-result.json", join.to_string());
    let reference = serde_json::json!({"runner_archive_evidence": {"tool_call_id": "tc_1"}});
    put(root, "runs/hidden_write/proof-pack-reference.json", reference.to_string());
}

/// Copies a folder with everything in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target)
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
