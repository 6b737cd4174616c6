//! `doctor` on this very kernel, and on hosts that something is wrong with.

use crate::support::need_root;
use std::path::Path;
use std::process::Command;

fn doctor(state: &Path, options: &[&str]) -> (Option<i32>, serde_json::Value, String) {
    let said = Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["doctor", "--offline", "--gates-dir", "/nonexistent", "--format", "json"])
        .args(options)
        .env("ASSAY_GATES_STATE_DIR", state)
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&said.stderr).into_owned();
    (said.status.code(), serde_json::from_slice(&said.stdout).unwrap_or_default(), err)
}

fn check<'a>(report: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let checks = report["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name} in {report}"))
}

#[test]
fn a_fit_host_measures_true_and_every_line_that_is_not_pass_says_what_to_do() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let (code, report, err) = doctor(&home.path().join("state"), &[]);
    assert_eq!((code, &report["fit"]), (Some(0), &true.into()), "{report:#}\n{err}");
    assay_gates::evidence::schema::validate("assay.gates.doctor.v0", &report).unwrap();
    for name in ["root", "kernel", "btf", "kernel-programs", "cgroup", "sandbox", "measurement"] {
        assert_eq!(check(&report, name)["status"], "PASS", "{report:#}");
    }
    assert!(check(&report, "measurement")["found"].as_str().unwrap().ends_with("0 lost, complete"));
    for check in report["checks"].as_array().unwrap() {
        assert_eq!(check["status"] == "PASS", check.get("fix").is_none(), "{check}");
    }
}

#[test]
fn what_a_killed_run_left_is_named_with_the_line_that_mends_it() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    std::fs::create_dir_all(state.join("spool/run-old")).unwrap();
    let holder = r#"{"pid":1,"start_time":7,"since":"2026-01-01T00:00:00Z","what":"run_old"}"#;
    std::fs::write(state.join("lock"), holder).unwrap();
    let (code, report, _) = doctor(&state, &[]);
    assert_eq!(code, Some(0));
    for (name, said) in
        [("lock", "stale: process 1 (measuring run_old"), ("leftovers", "records of a run that was never")]
    {
        let found = check(&report, name);
        assert!(found["status"] == "WARN" && found["found"].as_str().unwrap().contains(said), "{found}");
        assert_eq!(found["fix"], "sudo assay-gates clean --phase before-run --apply");
    }
}

#[test]
fn a_host_that_is_busy_or_asked_for_the_impossible_is_unfit() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state");
    let _held = assay_gates::host::state::HostLock::take(&state, "run_other").unwrap();
    let (code, report, _) = doctor(&state, &["--user", "root"]);
    assert_eq!((code, &report["fit"]), (Some(40), &false.into()));
    assert!(check(&report, "lock")["found"].as_str().unwrap().contains("measures run_other"));
    assert!(check(&report, "measured-user")["found"].as_str().unwrap().contains("never runs as root"));
    assert_eq!(check(&report, "measurement")["status"], "FAIL");
}

/// A server that answers one request with a clock that is off by `seconds`.
fn server_ahead(seconds: i64) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let _request = client.read(&mut [0; 4096]).unwrap();
        let date = (chrono::Utc::now() + chrono::TimeDelta::seconds(seconds)).to_rfc2822();
        let date = date.replace("+0000", "GMT");
        let answer = format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).unwrap();
    });
    url
}

#[test]
fn a_clock_that_is_off_by_what_the_server_says_is_unfit() {
    let home = tempfile::tempdir().unwrap();
    for (ahead, status) in [(0, "PASS"), (3600, "FAIL"), (-3600, "FAIL")] {
        let said = Command::new(env!("CARGO_BIN_EXE_assay-gates"))
            .args(["doctor", "--gates-dir", "/nonexistent", "--format", "json"])
            .env("ASSAY_GATES_STATE_DIR", home.path().join("state"))
            .env("GITHUB_API_URL", server_ahead(ahead))
            .output()
            .unwrap();
        let report: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        let clock = check(&report, "clock");
        assert_eq!(clock["status"], status, "{clock}");
        let found = clock["found"].as_str().unwrap();
        let skew: i64 = found.split(' ').next().unwrap().parse().unwrap();
        assert!((skew + ahead).abs() <= 3, "{found}");
    }
}
