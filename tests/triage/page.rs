//! The page in a real browser: it renders without a script, in light and dark, and what a program named stays text.

use super::situations::command;
use serde_json::json;
use std::path::Path;
use std::process::Command;

fn browser() -> Option<&'static str> {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    if found.is_none() {
        let reason = "no chromium: apt-get install chromium";
        assert!(
            std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(),
            "ASSAY_GATES_NO_SKIP is set, but: {reason}"
        );
        eprintln!("SKIPPED: {reason}");
    }
    found
}

/// A proof root with one gate, one call, a process that names a file like markup, and a drift.
fn root(at: &Path) {
    let run = at.join("gates/kernel-policy/run-1");
    std::fs::create_dir_all(run.join("extract/layers")).unwrap();
    let effect = |seq: u64, operation: &str, path: &str, call: Option<&str>| {
        json!({"schema": "assay.gates.effect.v0", "run_id": "r", "seq": seq, "time_ns": 1000 + seq * 50, "pid": 7, "tid": 7, "process": 0, "cgroup_id": 1,
            "call": call, "operation": operation, "syscall": operation, "path": {"value": path, "state": "resolved"}, "flags": 577, "return_value": 3})
    };
    let effects = [
        effect(0, "exec", "/usr/bin/node", None),
        effect(1, "open", "/run/assay-gates/work/<script>document.title='owned'</script>", Some("tc_1")),
    ];
    let lines: Vec<String> = effects.iter().map(ToString::to_string).collect();
    std::fs::write(run.join("effects.ndjson"), lines.join("\n")).unwrap();
    let decision = json!({"schema": "assay.runner.policy_event.v0", "run_id": "r", "seq": 0, "source_event_type": "assay.tool.decision",
        "source": "assay://x", "tool_call_id": "tc_1", "tool": "read_file", "decision": "allow"});
    std::fs::write(run.join("extract/layers/policy.ndjson"), decision.to_string()).unwrap();
    let verdict = json!({"schema": "assay.gates.verdict.v0", "gate": "kernel-policy", "status": "failed", "exit": 11, "reasons": ["runs 1 and 2 differ in kernel_set.json"],
        "runs": [], "elapsed_ms": 5, "determinism": {"agree": false, "runs": 2, "compared": [],
            "divergence": {"artifact": "kernel_set.json", "runs": [1, 2], "kind": "evidence", "diff": "-a\n+b\n"}}});
    std::fs::write(at.join("gates/kernel-policy/verdict.json"), verdict.to_string()).unwrap();
}

fn page(at: &Path) -> String {
    root(&at.join("proof"));
    let (exit, _, err) = command(&["report", "proof", "--html", "report.html"], at);
    assert_eq!(exit, 0, "{err}");
    std::fs::read_to_string(at.join("report.html")).unwrap()
}

#[test]
fn the_page_says_everything_as_text_and_fetches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let text = page(folder.path());
    for part in [
        "Gates: not passed",
        "runs 1 and 2 differ in kernel_set.json",
        "tc_1",
        "allow read_file",
        "process 0",
        "nothing is claimed",
        "does_not_claim_malicious_behavior",
        "href=\"#main\"",
        "prefers-color-scheme: dark",
        ":focus-visible",
        "not there",
    ] {
        assert!(text.contains(part), "{part}");
    }
    for forbidden in ["<script", "http://", "https://", "src=", "@import", "url("] {
        assert!(!text.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn a_browser_shows_the_page_in_light_and_dark_and_runs_nothing_in_it() {
    let Some(browser) = browser() else { return };
    let folder = tempfile::tempdir().unwrap();
    page(folder.path());
    let url = format!("file://{}", folder.path().join("report.html").display());
    let run = |arguments: &[&str]| {
        let output = Command::new(browser)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--window-size=1000,1400",
            ])
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .args(arguments)
            .arg(&url)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let dom = run(&["--dump-dom"]);
    assert!(dom.contains("<title>Gates: not passed</title>"), "{dom}");
    let shot = |name: &str, more: &[&str]| {
        let path = folder.path().join(name);
        let mut arguments = vec![format!("--screenshot={}", path.display())];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        std::fs::read(path).unwrap()
    };
    let (light, dark) =
        (shot("light.png", &[]), shot("dark.png", &["--blink-settings=preferredColorScheme=0"]));
    for picture in [&light, &dark] {
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "{}", picture.len());
    }
    assert_ne!(light, dark, "the dark page looks like the light one");
}
