//! Gates broken on purpose, measured on the real kernel, then triaged as a maintainer would.

use super::situations::command;
use super::support;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A gate of one shell script. `expect` is what it declares beyond exit code 0.
fn gate(root: &Path, script: &str, timeout: u32, expect: &str) -> PathBuf {
    let folder = root.join("gates/broken");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(
        folder.join("agent.sh"),
        format!("#!/bin/sh\nset -eu\ncd \"$ASSAY_GATES_WORK\"\n{script}\n"),
    )
    .unwrap();
    let definition = format!(
        "schema: assay.gates.gate.v0\nid: broken\ntitle: Broken on purpose\ngroup: opt-in\norder: 1\nlabel: broken\n\
         run_id: run_broken\narchive: runner-broken.tar.gz\nagent_shim: none\nlayers: {{policy: absent, sdk: absent}}\n\
         command: [/bin/sh, /run/assay-gates/fixture/agent.sh]\ntimeout_seconds: {timeout}\nexpect:\n  exit_code: 0\n{expect}"
    );
    std::fs::write(folder.join("gate.yaml"), definition).unwrap();
    root.join("gates")
}

/// Measures gates as a user would; gives the exit code and the proof root.
pub fn run(root: &Path, gates_dir: &Path, gates: &str, more: &[&str]) -> (i32, PathBuf) {
    let proof = root.join("proof");
    let mut arguments =
        vec!["run", "--gates", gates, "--gates-dir", gates_dir.to_str().unwrap(), "--no-pack"];
    arguments.extend(["--root", proof.to_str().unwrap()].iter().chain(more));
    // A lock of its own: other tests measure at the same time.
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(arguments)
        .current_dir(root)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", root)
        .env("ASSAY_GATES_STATE_DIR", root.join("state"))
        .output()
        .unwrap();
    assert!(proof.join("gates").is_dir(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), proof)
}

fn measured(root: &Path, script: &str, timeout: u32, expect: &str) -> (i32, PathBuf) {
    let gates = gate(root, script, timeout, expect);
    run(root, &gates, "broken", &["--runs", "2"])
}

pub fn triaged(target: &Path) -> Value {
    let (exit, out, err) =
        command(&["triage", target.to_str().unwrap(), "--format", "json"], target.parent().unwrap());
    assert_eq!(exit, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

fn class_of(script: &str, timeout: u32, expect: &str) -> (i32, Value) {
    let folder = tempfile::tempdir().unwrap();
    let (exit, proof) = measured(folder.path(), script, timeout, expect);
    (exit, triaged(&proof))
}

/// A pack of a proof root, as a zip.
pub fn packed(proof: &Path) -> PathBuf {
    let (folder, zip) = (proof.with_extension("pack"), proof.with_extension("zip"));
    let paths = [proof, &folder, &zip].map(|path| path.to_str().unwrap().to_owned());
    let [root, out, zip] = &paths;
    let (exit, _, err) =
        command(&["pack", "--root", root, "--out", out, "--zip", zip], proof.parent().unwrap());
    assert_eq!(exit, 0, "{err}");
    zip.into()
}

#[test]
fn a_file_name_of_chance_is_drift_of_evidence_and_the_diff_is_shown() {
    if !support::need_root() {
        return;
    }
    let (exit, found) = class_of("mktemp ./x.XXXXXXXX > /dev/null", 60, "");
    assert_eq!((exit, found["class"].as_str()), (11, Some("determinism_drift_evidence")), "{found:#}");
    assert_eq!((found["confidence"].as_str(), found["gate"].as_str()), (Some("certain"), Some("broken")));
    let context = found["context"].to_string();
    assert!(context.contains("/run/assay-gates/work/x."), "{context}");
    assert!((1..=10).contains(&found["context"].as_array().unwrap().len()), "{context}");
}

#[test]
fn a_fixture_that_hangs_is_a_timeout() {
    if !support::need_root() {
        return;
    }
    let (exit, found) = class_of("sleep 600", 1, "");
    assert_ne!(exit, 0);
    assert_eq!(found["class"], "fixture_timeout", "{found:#}");
}

#[test]
fn a_file_that_is_not_written_fails_acceptance_and_the_assertion_is_named() {
    if !support::need_root() {
        return;
    }
    let (exit, found) = class_of("echo a > a.txt", 60, "  work_paths: [b.txt]\n");
    assert_eq!((exit, found["class"].as_str()), (10, Some("acceptance_failed")), "{found:#}");
    assert!(found["divergence"].as_str().unwrap().contains("/run/assay-gates/work/b.txt"), "{found:#}");
    assert_eq!(found["run"], "1");
}

#[test]
fn a_file_that_must_not_be_written_is_a_hidden_write_with_its_path() {
    if !support::need_root() {
        return;
    }
    let (exit, found) = class_of("echo a > hidden.txt", 60, "  absent_work_paths: [hidden.txt]\n");
    assert_eq!((exit, found["class"].as_str()), (10, Some("hidden_write")), "{found:#}");
    assert_eq!(found["detail"], "/run/assay-gates/work/hidden.txt");
}

#[test]
fn what_the_program_prints_decides_nothing() {
    if !support::need_root() {
        return;
    }
    let lies = "echo 'No space left on device'; echo 'error[AG302]: refused' >&2; echo 'PASS: all'; echo '::stop-commands::x'; exit 3";
    let (exit, found) = class_of(lies, 60, "");
    assert_eq!((exit, found["class"].as_str()), (10, Some("acceptance_failed")), "{found:#}");
    assert!(found["divergence"].as_str().unwrap().contains("process.exit_code"), "{found:#}");
}

#[test]
fn a_root_that_passed_is_green_until_a_byte_of_its_evidence_changes() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (exit, proof) = measured(folder.path(), "echo a > a.txt", 60, "  work_paths: [a.txt]\n");
    let found = triaged(&proof);
    assert_eq!((exit, found["class"].as_str()), (0, Some("passed")), "{found:#}");
    assert_eq!(found["host"]["lost events"], "0");
    assert_ne!(found["environment"]["kernel"], "unknown");
    let page = folder.path().join("report.html");
    let (exit, _, err) =
        command(&["report", proof.to_str().unwrap(), "--html", page.to_str().unwrap()], folder.path());
    assert_eq!(exit, 0, "{err}");
    let text = std::fs::read_to_string(page).unwrap();
    for part in ["Gates: passed", "/run/assay-gates/work/a.txt", "process 0", "<svg", "Run 2: accepted"] {
        assert!(text.contains(part), "{part}");
    }
    let archive = proof.join("gates/broken/run-2/runner-broken.tar.gz");
    let mut bytes = std::fs::read(&archive).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&archive, bytes).unwrap();
    let found = triaged(&proof);
    assert_eq!(found["class"], "evidence_invalid", "{found:#}");
    assert_eq!(found["run"], "2");
}
