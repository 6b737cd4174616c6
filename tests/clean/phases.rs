//! What each phase may touch, and when nothing may be.

use crate::host::{Host, snapshot};

fn machine() -> Host {
    let host = Host::new();
    for file in [
        "runner/bin/Runner.Listener",
        "runner/_diag/Runner.log",
        "runner/_work/_actions/actions/checkout/action.yml",
        "runner/_work/_temp/script.sh",
        "runner/_work/_tool/node/bin/node",
        "runner/_work/_PipelineMapping/x.json",
        "runner/_work/app/app/src/main.rs",
        "runner/_work/other/other/file",
        "runner/_work/stray.txt",
        "runner/_work/app/stray.txt",
        "proof/1-1/run.json",
        "scratch/unrelated",
    ] {
        host.write(file, "x");
    }
    host.write(&format!("scratch/{}-x/file", host.prefix), "x");
    host.write(&format!("scratch/{}x", host.prefix), "another program's");
    host
}

fn left(host: &Host) -> Vec<String> {
    let here = host.path("");
    let mut left: Vec<String> = Vec::new();
    let mut pending = vec![here.clone()];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => pending.push(entry.path()),
                false => {
                    let name = entry.path().strip_prefix(&here).unwrap().to_str().unwrap().to_owned();
                    left.push(name.replace(&host.prefix, "PREFIX"));
                }
            }
        }
    }
    left.sort();
    left
}

const KEPT_ALWAYS: [&str; 8] = [
    "host.yaml",
    "outside/keep.txt",
    "runner/_diag/Runner.log",
    "runner/_work/_PipelineMapping/x.json",
    "runner/_work/_tool/node/bin/node",
    "runner/bin/Runner.Listener",
    "scratch/PREFIXx",
    "scratch/unrelated",
];

#[track_caller]
fn keeps(phase: &str, more: &[&str]) {
    let host = machine();
    let output = host.clean(phase, &["--apply"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut expected: Vec<String> = KEPT_ALWAYS.iter().chain(more).map(|name| (*name).to_owned()).collect();
    expected.sort();
    assert_eq!(left(&host), expected, "{phase}");
    assert!(host.workspace().is_dir(), "the shell of the step still stands in the workspace");
}

#[test]
fn before_run_keeps_actions_and_temp_and_the_newest_results() {
    keeps(
        "before-run",
        &[
            "runner/_work/_actions/actions/checkout/action.yml",
            "runner/_work/_temp/script.sh",
            "proof/1-1/run.json",
            "state/cleanup.json",
        ],
    );
}

#[test]
fn results_go_by_the_retention_of_the_host_file_which_says_so_and_never_by_a_restart() {
    let host = machine();
    host.write_file(true, "retention: {days: 10, newest: 3}\n");
    let ago = |days: i64| (chrono::Utc::now() - chrono::TimeDelta::days(days)).to_rfc3339();
    for (name, days, finished) in [
        ("2-1", 40, "null"),
        ("3-1", 11, "\"x\""),
        ("4-1", 9, "\"x\""),
        ("5-1", 8, "null"),
        ("6-1", 7, "\"x\""),
    ] {
        let record = format!("{{\"started_at\": \"{}\", \"finished_at\": {finished}}}", ago(days));
        host.write(&format!("proof/{name}/run.json"), &record);
    }
    let roots = || {
        let mut names: Vec<String> = std::fs::read_dir(host.path("proof"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    for phase in ["after-run", "before-download"] {
        assert!(host.clean(phase, &["--apply"]).status.success());
        assert_eq!(roots().len(), 6, "{phase}");
    }
    let output = host.clean("before-run", &["--apply"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // 1-1 says no time of its own and was made just now.
    assert_eq!(roots(), ["1-1", "5-1", "6-1"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    for line in [
        "proof/2-1  (UNFINISHED results, older than retention: days of the host file)",
        "proof/3-1  (results older than retention: days of the host file)",
        "proof/4-1  (results behind retention: newest of the host file)",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
}

#[test]
fn after_run_keeps_actions_temp_and_the_proof_roots() {
    keeps(
        "after-run",
        &[
            "runner/_work/_actions/actions/checkout/action.yml",
            "runner/_work/_temp/script.sh",
            "proof/1-1/run.json",
        ],
    );
}

#[test]
fn before_download_takes_actions_and_keeps_the_proof_roots_and_what_the_runner_can_delete() {
    keeps("before-download", &["proof/1-1/run.json", "runner/_work/_temp/script.sh"]);
}

#[test]
fn a_dry_run_touches_nothing_and_shows_order_reason_and_size() {
    let host = machine();
    let before = snapshot(&host.path(""));
    let output = host.clean("before-run", &["--format", "json"]);
    assert!(output.status.success());
    let plan: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assay_gates::evidence::schema::validate("assay.gates.cleanup_plan.v0", &plan).unwrap();
    let steps = plan["steps"].as_array().unwrap();
    assert!(!steps.is_empty());
    for (index, step) in steps.iter().enumerate() {
        assert_eq!(step["order"], index + 1);
        assert!(step["why"].as_str().is_some_and(|why| !why.is_empty()), "{step}");
        let none = step["action"] == "give";
        assert!(step["entries"].as_u64().is_some_and(|entries| none || entries > 0), "{step}");
    }
    assert_eq!(snapshot(&host.path("")), before);
}

#[test]
fn a_host_that_is_not_dedicated_is_planned_and_refused() {
    let host = machine();
    host.write_file(false, "");
    let before = snapshot(&host.path(""));
    let planned = host.clean("before-run", &[]);
    assert_eq!(planned.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&planned.stdout).contains("refused: the host file does not say"));
    let applied = host.clean("before-run", &["--apply"]);
    assert_eq!(applied.status.code(), Some(40));
    assert!(String::from_utf8_lossy(&applied.stderr).contains("error[AG271]"));
    assert_eq!(snapshot(&host.path("")), before);
}

#[test]
fn without_a_host_file_nothing_is_applied() {
    let host = machine();
    std::fs::remove_file(host.path("host.yaml")).unwrap();
    let before = snapshot(&host.path(""));
    assert_eq!(host.clean("before-run", &[]).status.code(), Some(0));
    let applied = host.clean("before-run", &["--apply"]);
    assert_eq!(applied.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&applied.stderr).contains("host install"));
    assert_eq!(snapshot(&host.path("")), before);
}

#[test]
fn while_a_measured_run_is_in_progress_nothing_is_applied() {
    let host = machine();
    let state = host.path("state");
    let lock = assay_gates::host::state::HostLock::take(&state, "run kernel-only").unwrap();
    let before = snapshot(&host.path(""));
    let applied = host.clean("before-run", &["--apply"]);
    assert_eq!(applied.status.code(), Some(13));
    let said = String::from_utf8_lossy(&applied.stderr).into_owned();
    assert!(said.contains("AG272") && said.contains("run kernel-only"), "{said}");
    assert_eq!(snapshot(&host.path("")), before);
    drop(lock);
    assert_eq!(host.clean("before-run", &["--apply"]).status.code(), Some(0));
}

#[test]
fn the_report_file_says_what_standard_output_says() {
    let host = machine();
    let report = host.path("cleanup.json");
    let output =
        host.clean("after-run", &["--apply", "--format", "json", "--report", report.to_str().unwrap()]);
    assert!(output.status.success());
    assert_eq!(std::fs::read(&report).unwrap(), output.stdout);
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(parsed["schema"], "assay.gates.cleanup.v0");
    assert_eq!(parsed["stayed_count"], 0);
}

#[test]
fn a_docker_that_fails_is_not_swallowed() {
    let host = Host::new();
    host.write_file(true, "docker_prune: true\n");
    let bin = host.write("bin/docker", "#!/bin/sh\necho \"no daemon for $*\" >&2\nexit 7\n");
    std::fs::set_permissions(&bin, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = assert_cmd::Command::cargo_bin("assay-gates")
        .unwrap()
        .args(["clean", "--phase", "after-run", "--apply", "--host-file"])
        .arg(host.path("host.yaml"))
        .env("PATH", bin.parent().unwrap())
        .env("ASSAY_GATES_STATE_DIR", host.path("state"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(13));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no daemon for system prune --all --volumes --force"), "{text}");
}
