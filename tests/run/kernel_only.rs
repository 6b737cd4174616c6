//! The kernel-only gate, three times, on the real kernel.

use crate::support;
use assert_cmd::cargo::CommandCargoExt;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(root: &Path, gates: &Path, more: &[&str]) -> Output {
    let mut command = Command::cargo_bin("assay-gates").unwrap();
    // A lock of its own: other tests measure at the same time.
    command.env("ASSAY_GATES_STATE_DIR", root.with_extension("state")).env_remove("GITHUB_ACTIONS");
    command
        .args(["run", "--gate", "kernel-only", "--no-pack", "--root"])
        .arg(root)
        .arg("--gates-dir")
        .arg(gates)
        .args(more);
    command.output().unwrap()
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// A copy of the gate whose agent can be changed, below a folder that only root can enter.
fn changed_gate(folder: &Path, change: impl Fn(String) -> String) -> std::path::PathBuf {
    let gates = folder.join("gates");
    let gate = gates.join("kernel-only");
    std::fs::create_dir_all(&gate).unwrap();
    std::fs::copy("gates/kernel-only/gate.yaml", gate.join("gate.yaml")).unwrap();
    let agent = std::fs::read_to_string("gates/kernel-only/agent.sh").unwrap();
    std::fs::write(gate.join("agent.sh"), change(agent)).unwrap();
    gates
}

#[test]
fn three_runs_are_complete_lose_nothing_and_agree() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let output = run(&root, Path::new("gates"), &["--format", "json"]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{err}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let verdict = &report["verdicts"][0];
    assert_eq!(verdict["status"], "passed");
    assert_eq!(verdict["determinism"]["agree"], true);
    for run in verdict["runs"].as_array().unwrap() {
        assert_eq!((run["lost"].as_u64(), run["complete"].as_bool()), (Some(0), Some(true)), "{run}");
        assert!(run["effects"].as_u64().unwrap() > run["kernel_events"].as_u64().unwrap());
    }
    // A head that has changes can't be cited; else the kernel's own claim is earned, and never that of three layers.
    let dirty = report["run"]["source"]["dirty"] == true;
    let claims = report["claims"]["claims"].as_array().unwrap();
    for claim in claims {
        let id = claim["id"].as_str().unwrap();
        assert_eq!(claim["earned"] == true, !dirty && id == "kernel_alone", "{claim}");
        let junit = std::fs::read_to_string(root.join("junit.xml")).unwrap();
        assert_eq!(junit.contains(&format!("claim {id} not earned")), claim["earned"] == false, "{junit}");
    }
    assert_eq!(read(&root.join("claims.json"))["claims"], report["claims"]["claims"]);
    let log = std::fs::read_to_string(root.join("gates/kernel-only/gate.log")).unwrap();
    assert_eq!(log.matches("PASS: runner-spike kernel-only acceptance\n").count(), 3);
    assert_eq!(log.matches("PASS: runner-spike kernel-only three-run determinism\n").count(), 1);
    assert_eq!(read(&root.join("doctor.json"))["fit"], true);
    let surface = read(&root.join("gates/kernel-only/run-1/extract/capability-surface.json"));
    let paths: Vec<&str> =
        surface["filesystem_paths"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    assert!(paths.contains(&"/run/assay-gates/work/input.txt"), "{paths:?}");
    let proof = read(&root.join("gates/kernel-only/run-1/capture_proof.json"));
    assert!(proof["invariants"].as_array().unwrap().iter().all(|i| i["held"] == true), "{proof}");
}

#[test]
fn a_program_that_fails_is_quoted_as_the_reason() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let gates = changed_gate(folder.path(), |_| {
        "#!/bin/sh\nprintf 'first\\n  at a frame\\nError: no such module\\n::error::\\033[2J\\n' >&2\nexit 3\n".to_owned()
    });
    let output = run(&folder.path().join("root"), &gates, &["--runs", "1"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_ne!(output.status.code(), Some(0), "{told}");
    for line in ["first", "Error: no such module", "::error::\u{fffd}[2J"] {
        assert!(told.contains(&format!("    run 1 stderr | {line}\n")), "{told}");
    }
    let root = folder.path().join("root");
    let verdict = read(&root.join("gates/kernel-only/verdict.json"));
    let words = serde_json::json!(["first", "Error: no such module", "::error::\u{fffd}[2J"]);
    assert_eq!(verdict["runs"][0]["last_words"], words, "{verdict}");
    // They decide nothing: the pack of the failed gate stands, with them.
    let pack = folder.path().join("pack");
    for words in [
        vec!["pack".as_ref(), "--root".as_ref(), root.as_os_str(), "--out".as_ref(), pack.as_os_str()],
        vec!["verify".as_ref(), pack.as_os_str()],
    ] {
        let done = Command::cargo_bin("assay-gates").unwrap().args(&words).output().unwrap();
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

/// What is slow may take longer, and nothing else is different: the same evidence, and a reader sees that it was so.
#[test]
fn slow_multiplies_limits_stands_in_the_results_and_changes_no_evidence() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let gates = changed_gate(folder.path(), |agent| {
        agent + "echo \"server: $ASSAY_GATES_SERVER_TIMEOUT_SECONDS\"\n/usr/bin/sleep 2\n"
    });
    let definition = gates.join("kernel-only/gate.yaml");
    let text = std::fs::read_to_string(&definition).unwrap();
    let text = text.replace("timeout_seconds: 60", "timeout_seconds: 1");
    std::fs::write(&definition, text).unwrap();
    let root = |name: &str| folder.path().join(name);
    let output = run(&root("as-it-is"), &gates, &["--runs", "1"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("killed at the time limit"), "{told}");
    for slow in ["60", "90"] {
        let output = run(&root(slow), &gates, &["--runs", "2", "--slow", slow]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(read(&root(slow).join("run.json"))["slow"].to_string(), slow);
        let run = root(slow).join("gates/kernel-only/run-1");
        assert_eq!(read(&run.join("capture_proof.json"))["environment"]["slow"], slow);
        let said = std::fs::read_to_string(run.join("stdout.log")).unwrap();
        assert!(said.contains(&format!("server: {slow}\n")), "{said}");
    }
    let members = |name: &str| {
        let run = root(name).join("gates/kernel-only/run-1");
        let mut files = vec![run.join("kernel_set.json"), run.join("surface.json")];
        files.extend(std::fs::read_dir(run.join("extract")).unwrap().map(|entry| entry.unwrap().path()));
        files.sort();
        let files = files.into_iter().filter(|file| file.is_file());
        let named = |file: std::path::PathBuf| {
            (file.file_name().unwrap().to_owned(), std::fs::read_to_string(&file).unwrap())
        };
        files.map(named).collect::<Vec<_>>()
    };
    // Of the members of an archive those differ that hold ids and times of their run, as between two runs of one --slow.
    let differ = |a: &str, b: &str| {
        let (a, b) = (members(a), members(b));
        assert_eq!(a.len(), b.len());
        let pairs = a.into_iter().zip(b).filter(|(a, b)| a != b);
        pairs.map(|((name, _), _)| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let differing = differ("60", "90");
    for file in ["kernel_set.json", "surface.json", "capability-surface.json", "correlation-report.json"] {
        assert!(!differing.contains(&file.to_owned()), "{differing:?}");
    }
}

#[test]
fn a_program_that_differs_between_runs_is_found_out() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A name of chance in every run is what determinism is for.
    let gates = changed_gate(folder.path(), |agent| agent + "mktemp file-XXXXXXXX > /dev/null\n");
    let root = folder.path().join("root");
    let output = run(&root, &gates, &["--format", "json"]);
    assert_eq!(output.status.code(), Some(11), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let divergence = &report["verdicts"][0]["determinism"]["divergence"];
    assert_eq!(
        (divergence["artifact"].as_str(), divergence["kind"].as_str()),
        (Some("surface.json"), Some("evidence"))
    );
    assert!(divergence["diff"].as_str().unwrap().contains("/run/assay-gates/work/file-"));
}

#[test]
fn a_program_that_does_not_do_what_was_declared_fails_acceptance_with_what_was_found() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let gates = changed_gate(folder.path(), |agent| agent.replace("/usr/bin/env > /dev/null", "exit 3"));
    let root = folder.path().join("root");
    let output = run(&root, &gates, &[]);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(10), "{err}");
    assert!(err.contains("process.exit_code: expected 0, found 3"), "{err}");
    assert!(err.contains("surface.process_execs: expected contains /usr/bin/env, found it is not"), "{err}");
}

#[test]
fn workflow_commands_and_pass_lines_of_the_measured_program_stay_text() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let forged = "echo '::set-env name=X::y'; echo 'PASS: runner-spike kernel-only acceptance'; exit 1\n";
    let gates = changed_gate(folder.path(), |agent| agent + forged);
    let root = folder.path().join("root");
    let output = run(&root, &gates, &["--format", "github"]);
    assert_eq!(output.status.code(), Some(10));
    let log = std::fs::read_to_string(root.join("gates/kernel-only/gate.log")).unwrap();
    assert!(!log.lines().any(|line| line.starts_with("PASS:") || line.starts_with("::")), "{log}");
    assert!(log.contains("stdout | PASS: runner-spike"), "{log}");
    let mut fenced = false;
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        if line.starts_with("::stop-commands::") {
            fenced = true;
        } else if line.starts_with("::") && fenced {
            fenced = false;
        } else if !fenced {
            assert!(!line.starts_with("::set-env"), "{line}");
        }
    }
}
