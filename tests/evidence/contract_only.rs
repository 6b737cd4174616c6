//! `record --no-capture`: archives of logs alone, and that nobody can take them for more.

use assay_evidence::runner_archive::verify_runner_archive;
use assay_gates::capture::CaptureProof;
use assay_gates::evidence::schema::validate;
use assay_gates::evidence::{Archive, EffectSurface, ToolEffects};
use assay_gates::gate::Catalog;
use assay_gates::judge::{EffectTotals, RunEvidence, accept};
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const SDK: &str = r#"{"schema":"assay.runner.sdk_event.v0","run_id":"run_laptop","seq":0,"event_type":"tool_call_started","source":"s","sdk_name":"n","sdk_version":"1","tool_call_id":"tc_1","tool":"read_file"}
{"schema":"assay.runner.sdk_event.v0","run_id":"run_laptop","seq":1,"event_type":"run_finished","source":"s"}"#;
const DECISION: &str = r#"{"specversion":"1.0","id":"evt_decision_1","type":"assay.tool.decision","source":"assay://laptop","time":"2026-11-30T00:00:00Z","data":{"tool":"read_file","decision":"allow","tool_call_id":"tc_1"}}"#;

fn record(folder: &Path, options: &[&str], script: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["record", "--no-capture", "--run-id", "run_laptop", "--output", "out.tar.gz"])
        .args(options)
        .args(["--", "sh", "-c", script])
        .current_dir(folder)
        .env("SDK", SDK)
        .env("DECISION", DECISION)
        .env("ASSAY_REDACTION_KEY_FILE", key(folder))
        .env_remove("SUDO_UID")
        .output()
        .unwrap()
}

fn key(folder: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join("redaction.key");
    std::fs::write(&path, format!("assay-redaction-key-v1:{}\n", "A".repeat(43))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path
}

const WITH_LOGS: [&str; 8] = [
    "--agent-shim",
    "openai-agents",
    "--sdk-event-log",
    "sdk.ndjson",
    "--policy-decision-log",
    "decisions.ndjson",
    "--effects",
    "fx",
];
const SCRIPT: &str = r#"printf '%s\n' "$SDK" > $ASSAY_RUNNER_SDK_EVENT_LOG; printf '%s\n' "$DECISION" > $ASSAY_RUNNER_POLICY_DECISION_LOG; echo said; exit 3"#;

#[test]
fn logs_become_an_archive_that_says_that_nothing_was_captured() {
    let folder = tempfile::tempdir().unwrap();
    let output = record(folder.path(), &WITH_LOGS, SCRIPT);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "wrote runner-spike bundle: out.tar.gz (run_id=run_laptop, status=exit_code:3)\n"
    );
    assert!(err.contains("said") && err.contains("can pass no gate"), "{err}");
    let bytes = std::fs::read(folder.path().join("out.tar.gz")).unwrap();
    let archive = Archive::from_bytes(&bytes).unwrap();
    let theirs =
        verify_runner_archive(bytes.as_slice(), &archive.sha256.hex(), "run_laptop", Default::default());
    assert!(theirs.is_ok(), "assay-evidence refuses it: {:?}", theirs.err());
    let health = &archive.health;
    assert_eq!(
        [&health.kernel_layer, &health.policy_layer, &health.sdk_layer, &health.cgroup_correlation],
        ["absent", "present", "self_reported", "partial"]
    );
    assert_eq!(health.network_protocol_coverage, "absent");
    assert_eq!(
        health.notes,
        [
            "contract_only_mode: kernel and cgroup capture not wired in this revision",
            "s4_policy_capture: decision_events=1",
            "s5_sdk_capture: sdk_events=2 sdk_tool_calls=1",
        ]
    );
    assert_eq!(archive.correlation.status, "partial");
    assert_eq!(archive.correlation.ambiguities, ["policy_events_without_kernel_events"]);
    assert_eq!(archive.finished.exit_code, Some(3));
    assert!(archive.kernel.is_empty() && archive.surface.filesystem_paths.is_empty());
    let proof: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("fx/capture_proof.json")).unwrap()).unwrap();
    validate("assay.gates.capture_proof.v0", &proof).unwrap();
    assert_eq!(proof["complete"], false);
    assert_eq!(proof["policy_origin"], "self_reported");
}

#[test]
fn it_can_pass_no_gate_that_is_shipped() {
    let folder = tempfile::tempdir().unwrap();
    let output = record(folder.path(), &WITH_LOGS, &SCRIPT.replace("exit 3", "exit 0"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let archive = Archive::open(&folder.path().join("out.tar.gz")).unwrap();
    let read = |name: &str| std::fs::read(folder.path().join("fx").join(name)).unwrap();
    let proof: CaptureProof = serde_json::from_slice(&read("capture_proof.json")).unwrap();
    let tools: ToolEffects = serde_json::from_slice(&read("tool_effects.json")).unwrap();
    let everything: EffectSurface = serde_json::from_slice(&read("surface.json")).unwrap();
    let evidence = RunEvidence::of(&archive, proof, &tools, everything, EffectTotals::default());
    let gates = Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("gates")).unwrap();
    assert!(gates.entries().len() >= 5);
    for entry in gates.entries() {
        let failed: Vec<String> = accept(&entry.definition, &evidence, "/run/assay-gates/work")
            .into_iter()
            .filter(|assertion| !assertion.held)
            .map(|assertion| assertion.name)
            .collect();
        // Not by what this one lacks, but by what every such archive says of itself.
        assert!(failed.iter().any(|name| name.contains("kernel")), "{}: {failed:?}", entry.definition.id);
    }
}

#[test]
fn what_only_a_measurement_has_is_refused_and_logs_are_never_old_ones() {
    let folder = tempfile::tempdir().unwrap();
    for option in
        [["--user", "nobody"], ["--network", "host"], ["--kernel-event", "v1"], ["--memory-mib", "64"]]
    {
        let output = record(folder.path(), &option, "true");
        assert_eq!(output.status.code(), Some(2), "{option:?}");
    }
    std::fs::write(folder.path().join("sdk.ndjson"), SDK).unwrap();
    let output = record(folder.path(), &WITH_LOGS[..4], "true");
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && err.contains("AG208"), "{err}");
    std::fs::remove_file(folder.path().join("sdk.ndjson")).unwrap();
    let output = record(folder.path(), &WITH_LOGS[..4], "true");
    assert_eq!(output.status.code(), Some(12), "an empty log is no log");
    let output = record(folder.path(), &["--timeout", "200ms"], "sleep 60");
    assert_eq!(output.status.code(), Some(13), "{}", String::from_utf8_lossy(&output.stderr));
    let output = record(folder.path(), &["--propagate-exit"], "exit 7");
    assert_eq!(output.status.code(), Some(7));
}
