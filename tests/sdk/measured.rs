//! The SDK gates on the real kernel, with the real SDKs: measured once, looked at by many tests.

use crate::support;
use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

const MATRIX: [(&str, &str, &str); 8] = [
    ("openai-agents-kernel-policy", "matched_safe_read", "positive_join"),
    ("openai-agents-hidden-write", "hidden_write", "semantic_gap"),
    ("scenario-matched-safe-read", "scenario_matched_safe_read", "positive_join"),
    ("scenario-path-rewrite", "scenario_path_rewrite", "semantic_gap"),
    ("scenario-hidden-write", "scenario_hidden_write", "semantic_gap"),
    ("scenario-retry-self-correction", "scenario_retry_self_correction", "semantic_gap"),
    ("scenario-runtime-side-effect", "scenario_runtime_side_effect", "diagnostic_only"),
    ("scenario-weak-join-fallback", "scenario_weak_join_fallback", "diagnostic_only"),
];
const OTHERS: [&str; 5] = [
    "gemini-google-genai-kernel-policy",
    "two-decisions",
    "unbound-tool-call",
    "kernel-only",
    "kernel-policy",
];

pub fn assay_gates(state: &Path) -> Command {
    let mut command = Command::cargo_bin("assay-gates").unwrap();
    // A lock of its own: other tests measure at the same time.
    command.env("ASSAY_GATES_STATE_DIR", state).env_remove("GITHUB_ACTIONS");
    command
}

pub fn run(root: &Path, gates_dir: &Path, gates: &str, more: &[&str]) -> Output {
    let mut command = assay_gates(&root.with_extension("state"));
    command.args(["run", "--no-pack", "--format", "json", "--gates", gates, "--root"]).arg(root);
    command.arg("--gates-dir").arg(gates_dir).args(more).output().unwrap()
}

pub struct Measured {
    _folder: tempfile::TempDir,
    pub root: PathBuf,
    report: Value,
    exit: Option<i32>,
}

/// Every SDK gate, three runs each, into one root; `None` where this process may not measure.
pub fn measured() -> Option<&'static Measured> {
    static ONCE: OnceLock<Option<Measured>> = OnceLock::new();
    ONCE.get_or_init(|| {
        if !support::need_root() {
            return None;
        }
        let gates: Vec<&str> = MATRIX.iter().map(|(gate, ..)| *gate).chain(OTHERS).collect();
        let gates = gates.join(",");
        let mut dependencies = assay_gates(Path::new("/nonexistent"));
        let ready = dependencies.args(["dependencies", "--gates", &gates]).output().unwrap();
        if ready.status.code() != Some(0) {
            let _said = support::skip("fixtures are not installed: assay-gates dependencies --install");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        let output = run(&root, Path::new("gates"), &gates, &[]);
        let report = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        Some(Measured { _folder: folder, root, report, exit: output.status.code() })
    })
    .as_ref()
}

impl Measured {
    fn verdict(&self, gate: &str) -> &Value {
        self.report["verdicts"].as_array().unwrap().iter().find(|verdict| verdict["gate"] == gate).unwrap()
    }

    fn json(&self, file: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.root.join(file)).unwrap()).unwrap()
    }

    fn lines(&self, file: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.root.join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[test]
fn every_scenario_passes_its_gate_and_ends_in_its_declared_verdict() {
    let Some(measured) = measured() else { return };
    for (gate, folder, verdict) in MATRIX {
        let found = measured.verdict(gate);
        assert_eq!(found["status"], "passed", "{gate}: {:#}", found["reasons"]);
        assert_eq!(found["determinism"]["agree"], true, "{gate}");
        let row = measured.json(&format!("runs/{folder}/scenario-verdict.json"));
        assert_eq!(row["verdict"], verdict, "{gate}: {row:#}");
        let log = std::fs::read_to_string(measured.root.join("gates").join(gate).join("gate.log")).unwrap();
        let scenario = row["scenario_id"].as_str().unwrap();
        let line = format!("PASS: runner-spike OpenAI Agents kernel+policy acceptance ({scenario})\n");
        assert_eq!(log.matches(&line).count(), 3, "{gate}");
        assert_eq!(
            log.matches("PASS: runner-spike OpenAI Agents kernel+policy three-run determinism\n").count(),
            1
        );
    }
}

#[test]
fn one_call_id_stands_in_sdk_events_decision_and_kernel_effects() {
    let Some(measured) = measured() else { return };
    for (gate, call, path) in [
        ("openai-agents-kernel-policy", "tc_runner_policy_001", "policy-input.txt"),
        ("gemini-google-genai-kernel-policy", "tc_gemini_replay_001", "policy-input.txt"),
    ] {
        assert_eq!(measured.verdict(gate)["status"], "passed", "{:#}", measured.verdict(gate)["reasons"]);
        for run in 1..=3 {
            let folder = format!("gates/{gate}/run-{run}");
            let sdk = measured.lines(&format!("{folder}/extract/layers/sdk.ndjson"));
            let types: Vec<&str> = sdk.iter().map(|event| event["event_type"].as_str().unwrap()).collect();
            assert_eq!(types, ["tool_call_started", "tool_call_completed", "run_finished"]);
            assert!(sdk[..2].iter().all(|event| event["tool_call_id"] == call), "{sdk:?}");
            let policy = measured.lines(&format!("{folder}/extract/layers/policy.ndjson"));
            assert_eq!((policy.len(), &policy[0]["tool_call_id"]), (1, &call.into()));
            let effects = measured.json(&format!("{folder}/tool_effects.json"));
            let [own] = effects["calls"].as_array().unwrap().as_slice() else { panic!("{effects:#}") };
            assert_eq!((&own["tool_call_id"], &own["attribution"]), (&call.into(), &"exact".into()));
            let [effect] = own["effects"].as_array().unwrap().as_slice() else { panic!("{own:#}") };
            assert_eq!(effect["path"], format!("/run/assay-gates/work/{path}"));
        }
    }
}

#[test]
fn the_hidden_write_is_inside_the_call_and_its_baseline_differs_in_that_effect_alone() {
    let Some(measured) = measured() else { return };
    let effects = |gate: &str| -> Vec<Value> {
        let all = measured.json(&format!("gates/{gate}/run-1/tool_effects.json"));
        all["calls"][0]["effects"].as_array().unwrap().clone()
    };
    let (baseline, hidden) = (effects("openai-agents-kernel-policy"), effects("openai-agents-hidden-write"));
    let added: Vec<&Value> = hidden.iter().filter(|effect| !baseline.contains(effect)).collect();
    let [write] = added.as_slice() else { panic!("{added:?}") };
    assert_eq!(write["path"], "/run/assay-gates/work/hidden-write-output.txt");
    assert!(baseline.iter().all(|effect| hidden.contains(effect)));
    let finding = std::fs::read_to_string(measured.root.join("runs/hidden_write/finding.md")).unwrap();
    assert!(
        finding.contains("hidden-write-output.txt") && finding.contains("does_not_claim_malicious_behavior")
    );
    // What the SDK and the proxy reported does not tell the two apart.
    for layer in ["sdk", "policy"] {
        let reported = |gate: &str| {
            let file = format!("gates/{gate}/run-1/extract/layers/{layer}.ndjson");
            std::fs::read_to_string(measured.root.join(file))
                .unwrap()
                .replace("hidden_write", "kernel_policy")
        };
        assert_eq!(
            reported("openai-agents-kernel-policy"),
            reported("openai-agents-hidden-write"),
            "{layer}"
        );
    }
}

#[test]
fn negative_gates_fail_with_their_exact_ambiguity() {
    let Some(measured) = measured() else { return };
    assert_eq!(measured.exit, Some(10));
    for (gate, ambiguity) in [
        ("unbound-tool-call", "sdk_tool_call_without_policy_binding:tc_runner_unbound_001"),
        ("two-decisions", "session_cgroup_ambiguous_for_multiple_policy_events"),
    ] {
        assert_eq!(
            (&measured.verdict(gate)["status"], &measured.verdict(gate)["exit"]),
            (&"failed".into(), &10.into())
        );
        let report = measured.json(&format!("gates/{gate}/run-1/extract/correlation-report.json"));
        assert_eq!(
            (&report["status"], &report["ambiguities"]),
            (&"partial".into(), &serde_json::json!([ambiguity]))
        );
    }
}

#[test]
fn rows_on_disk_are_valid_by_their_schemas_and_the_pack_resolves_their_references() {
    let Some(measured) = measured() else { return };
    let valid = |schema: &str, row: &Value| {
        let file = format!("proof-pack/schemas/{schema}.json");
        let schema: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert!(jsonschema::validator_for(&schema).unwrap().is_valid(row), "{row:#}");
    };
    for (_, folder, _) in MATRIX {
        let row = |name: &str| measured.json(&format!("runs/{folder}/{name}"));
        valid("assay.observability.join_result.v0", &row("join-result.json"));
        for cell in row("claim-class-cells.json").as_array().unwrap() {
            valid("assay.observability.claim_class_cell.v0", cell);
        }
        let family = "assay.experiment.agent_observability_fidelity";
        valid(&format!("{family}.semantic_gap_verdict.v0"), &row("scenario-verdict.json"));
        valid(&format!("{family}.redaction_manifest.v0"), &row("redaction-manifest.json"));
        valid("delegated_gap_reference.v0", &row("proof-pack-reference.json"));
    }
    let pack = measured.root.with_extension("pack");
    let state = measured.root.with_extension("state");
    let built =
        assay_gates(&state).args(["pack", "--root"]).arg(&measured.root).arg("--out").arg(&pack).output();
    assert!(built.unwrap().status.success());
    let verified = assay_gates(&state).arg("verify").arg(&pack).output().unwrap();
    assert_eq!(verified.status.code(), Some(0), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// What a second host would compare: everything but ids of cgroups and counts of telemetry.
fn evidence(root: &Path, gate: &str) -> Vec<String> {
    let run = root.join("gates").join(gate).join("run-1");
    let files = [
        "kernel_set.json",
        "extract/capability-surface.json",
        "extract/layers/policy.ndjson",
        "extract/layers/sdk.ndjson",
    ];
    let mut texts: Vec<String> =
        files.iter().map(|file| std::fs::read_to_string(run.join(file)).unwrap()).collect();
    let mut calls: Value =
        serde_json::from_slice(&std::fs::read(run.join("tool_effects.json")).unwrap()).unwrap();
    texts.push(calls["calls"].take().to_string());
    texts
}

/// A copy of a fixture by hard links, without any bytecode, below a folder of the same file system.
fn without_bytecode(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && entry.file_name() == "__pycache__" => {}
            kind if kind.is_dir() => without_bytecode(&entry.path(), &target),
            _ => std::fs::hard_link(entry.path(), target).unwrap(),
        }
    }
}

#[test]
fn cold_caches_give_the_same_evidence_as_warm_ones() {
    let Some(measured) = measured() else { return };
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Page cache, dentries and inodes of node, python and every package.
    nix::unistd::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
    let cold = folder.path().join("cold");
    let gates = "openai-agents-kernel-policy,gemini-google-genai-kernel-policy";
    run(&cold, Path::new("gates"), gates, &["--runs", "1"]);
    for gate in gates.split(',') {
        assert_eq!(evidence(&cold, gate), evidence(&measured.root, gate), "{gate}");
    }
    // Python that has to compile every module first.
    let copy = folder.path().join("gates");
    let gate = "gemini-google-genai-kernel-policy";
    without_bytecode(&Path::new("gates").join(gate), &copy.join(gate));
    let uncompiled = folder.path().join("uncompiled");
    run(&uncompiled, &copy, gate, &["--runs", "1"]);
    assert_eq!(evidence(&uncompiled, gate), evidence(&measured.root, gate));
}

#[test]
fn a_missing_package_or_another_version_stops_the_gate_with_the_line_to_paste_or_to_change() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let gate = "gemini-google-genai-kernel-policy";
    let copy = folder.path().join("gates").join(gate);
    std::fs::create_dir_all(&copy).unwrap();
    for file in ["gate.yaml", "requirements.txt"] {
        std::fs::copy(Path::new("gates").join(gate).join(file), copy.join(file)).unwrap();
    }
    let root = folder.path().join("root");
    let output = run(&root, &folder.path().join("gates"), gate, &["--runs", "1"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("not installed") && said.contains("-m pip install"), "{said}");

    let installed = Path::new("gates").join(gate).join("site-packages");
    if !installed.is_dir() {
        let _said = support::skip("fixtures are not installed: assay-gates dependencies --install");
        return;
    }
    for entry in std::fs::read_dir(installed).unwrap().map(Result::unwrap) {
        if entry.path().extension().is_some_and(|extension| extension == "dist-info") {
            without_bytecode(&entry.path(), &copy.join("site-packages").join(entry.file_name()));
        }
    }
    let text = std::fs::read_to_string(copy.join("gate.yaml")).unwrap();
    std::fs::write(copy.join("gate.yaml"), text.replacen("google-genai: 3.4.0", "google-genai: 3.3.0", 1))
        .unwrap();
    let state = root.with_extension("state");
    let told = assay_gates(&state)
        .args(["dependencies", "--gate", gate, "--gates-dir"])
        .arg(folder.path().join("gates"))
        .output();
    let told = told.unwrap();
    let text = String::from_utf8_lossy(&told.stdout);
    assert_eq!(told.status.code(), Some(10), "{text}");
    assert!(text.contains("gate.yaml:") && text.contains("`\"google-genai\": 3.4.0`"), "{text}");
}
