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

/// The record of an invocation of `gates`.
fn record(at: &Path, gates: &[&str], finished: Option<&str>) {
    let source = json!({"head_sha": "abc", "dirty": false, "ref": "refs/heads/main", "repository": "o/n"});
    let record = json!({"schema": "assay.gates.run.v0", "session": "session_0", "started_at": "2026-01-01T00:00:00Z",
        "finished_at": finished, "exit": null, "tool_version": "0", "object_sha256": null, "source": source,
        "selection": gates.join(","), "gates": gates, "added": [], "runs": 3,
        "host": {"system": "Linux", "kernel": "6.8", "architecture": "x86_64"}});
    std::fs::write(at.join("run.json"), record.to_string()).unwrap();
}

/// A verdict without drift.
fn verdict(at: &Path, gate: &str, status: &str, reasons: &[&str]) {
    let folder = at.join("gates").join(gate);
    std::fs::create_dir_all(&folder).unwrap();
    let exit = if status == "passed" { 0 } else { 10 };
    let verdict = json!({"schema": "assay.gates.verdict.v0", "gate": gate, "status": status, "exit": exit, "reasons": reasons, "runs": [],
        "determinism": null, "elapsed_ms": 5});
    std::fs::write(folder.join("verdict.json"), verdict.to_string()).unwrap();
}

/// `effects` as those of the first run of `gate`.
fn measured(
    at: &Path,
    gate: &str,
    effects: impl Iterator<Item = (&'static str, String, Option<&'static str>)>,
) {
    let run = at.join("gates").join(gate).join("run-1/extract/layers");
    std::fs::create_dir_all(&run).unwrap();
    let mut text = String::new();
    for (seq, (operation, path, call)) in effects.enumerate() {
        let flags = if operation == "write" { 577 } else { 0 };
        let line = json!({"schema": "assay.gates.effect.v0", "run_id": "r", "seq": seq, "time_ns": 1000 + seq, "pid": 7, "tid": 7, "process": 0,
            "cgroup_id": 1, "call": call, "operation": "open", "syscall": "openat", "path": {"value": path, "state": "resolved"},
            "flags": flags, "return_value": 3});
        text += &format!("{line}\n");
    }
    std::fs::write(at.join("gates").join(gate).join("run-1/effects.ndjson"), text).unwrap();
}

/// What the agent reported and what was decided of the call of [`GAP`].
fn told(at: &Path, gate: &str) {
    let layers = at.join("gates").join(gate).join("run-1/extract/layers");
    let decision = json!({"schema": "assay.runner.policy_event.v0", "run_id": "r", "seq": 0, "source_event_type": "assay.tool.decision",
        "source": "assay://x", "tool_call_id": GAP, "tool": "read_file", "decision": "allow"});
    std::fs::write(layers.join("policy.ndjson"), decision.to_string()).unwrap();
    let report = json!({"schema": "assay.runner.sdk_event.v0", "run_id": "r", "seq": 0, "event_type": "tool_call_started", "source": "s",
        "tool_call_id": GAP, "tool": "read_file"});
    std::fs::write(layers.join("sdk.ndjson"), report.to_string()).unwrap();
}

const GAP: &str = "tc_runner_policy_001";
const HIDDEN: &str = "/run/assay-gates/work/hidden-write-output.txt";
const HIDES: &str = "openai-agents-hidden-write";

/// The review of a hidden write, as this build writes it.
fn review(at: &Path) {
    let to = at.join("runs/hidden_write");
    std::fs::create_dir_all(&to).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("proof-pack/examples/review");
    for name in ["scenario-verdict.json", "finding.md"] {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(from.join("proof-pack-reference.json")).unwrap();
    let mut reference: serde_json::Value = serde_json::from_str(&text).unwrap();
    reference["proof_pack"]["gate"] = HIDES.into();
    std::fs::write(to.join("proof-pack-reference.json"), reference.to_string()).unwrap();
}

/// The page of a root that `made` writes.
fn page_of(made: impl FnOnce(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().join("proof");
    std::fs::create_dir_all(at.join("gates")).unwrap();
    made(&at);
    let (exit, _, err) = command(&["report", "proof", "--html", "report.html"], folder.path());
    assert_eq!(exit, 0, "{err}");
    std::fs::read_to_string(folder.path().join("report.html")).unwrap()
}

/// Asserts that `parts` stand in the page in this order.
fn in_order(page: &str, parts: &[&str]) {
    let mut rest = page;
    for part in parts {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not there, or not in this order"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn the_headline_of_each_kind_of_run_names_the_reason_and_the_next_command() {
    let lead = "<p class=\"lead\">";
    let green = page_of(|at| verdict(at, "a", "passed", &[]));
    in_order(
        &green,
        &["Gates: passed", lead, "1 gate passed.", "Next: <code>assay-gates pack --root proof --out PACK"],
    );
    let red = page_of(|at| {
        verdict(at, "a", "passed", &[]);
        verdict(at, "b", "failed", &["run 1: the input was <b>not</b> read", "run 2: neither"]);
    });
    in_order(
        &red,
        &[
            "Gates: not passed",
            lead,
            "1 of 2 gates did not pass. b: run 1: the input was &lt;b&gt;not&lt;/b&gt; read",
            "Next: <code>assay-gates triage proof</code>",
            "<a href=\"#b\">",
            "<a href=\"#a\">",
            "<section id=\"b\">",
            "<section id=\"a\">",
        ],
    );
    let unjudged = page_of(|at| {
        record(at, &["a"], Some("2026-01-01T00:00:05Z"));
        measured(at, "a", [("read", "/x".to_owned(), None)].into_iter());
    });
    in_order(&unjudged, &["Gates: not passed", lead, "1 of 1 gate did not pass. a: no verdict was written"]);
    let empty = page_of(|at| record(at, &[], Some("2026-01-01T00:00:05Z")));
    in_order(
        &empty,
        &["Gates: not passed", lead, "No gate was measured.", "Next: <code>assay-gates doctor</code>"],
    );
}

#[test]
fn a_semantic_gap_is_on_top_with_report_decision_and_measurement_side_by_side() {
    let page = page_of(|at| {
        verdict(at, HIDES, "passed", &[]);
        // More effects than are listed stand before the call, and the two of the call in one place of the picture.
        let before = (0..6000).map(|n| ("read", format!("/usr/lib/{n}"), None));
        let call = [
            ("read", "/run/assay-gates/work/in.txt".to_owned(), Some(GAP)),
            ("write", HIDDEN.to_owned(), Some(GAP)),
        ];
        measured(at, HIDES, before.chain(call));
        told(at, HIDES);
        review(at);
    });
    in_order(
        &page,
        &[
            "A semantic gap was measured: hidden_write",
            "<main",
            "Semantic gap: hidden_write",
            "Reported by the SDK",
            "tool_call_started read_file",
            "Decided by the policy",
            "allow read_file",
            "Measured by the kernel",
            &format!("<mark>write (openat) {HIDDEN}: not in the report</mark>"),
            "read (openat) /run/assay-gates/work/in.txt</li>",
            "Finding: hidden_write",
            "Overview",
            "<rect class=\"read\"",
            "<rect class=\"write\"",
            &format!("<mark>not in the report: write (openat) {HIDDEN}</mark>"),
            "<li>6000 process 0 openat /run/assay-gates/work/in.txt</li>",
            &format!("<li><mark>6001 process 0 openat {HIDDEN}</mark></li>"),
            "5000 more stand in effects.ndjson",
        ],
    );
}

#[test]
fn a_hundred_thousand_effects_are_a_page_of_bounded_size_that_counts_them_all() {
    let page = page_of(|at| {
        verdict(at, "many", "failed", &["run 1: expected no open of /secret/key, found one"]);
        let noise = (0..100_000).map(|n| ("read", format!("/data/{}/{n}", n % 7), None));
        let last =
            [("write", "/work/late".to_owned(), Some("tc_late")), ("read", "/secret/key".to_owned(), None)];
        measured(at, "many", noise.chain(last));
    });
    assert!(page.len() < 1 << 20, "{} bytes", page.len());
    for part in [
        "100002 effects",
        "100000 process 0 openat /work/late",
        "<mark>100001 process 0 openat /secret/key</mark>",
        "not reported; not decided",
        "times openat below /data/3/, outside any call",
    ] {
        assert!(page.contains(part), "{part}");
    }
}

#[test]
fn an_invocation_that_did_not_finish_says_how_to_go_on() {
    let page = page_of(|at| {
        verdict(at, "a", "passed", &[]);
        record(at, &["a", "b"], None);
    });
    in_order(
        &page,
        &[
            "1 of 2 gates did not pass. b: no verdict",
            "sudo assay-gates run --gates a,b --resume --root proof",
        ],
    );
}

/// The file that `report --sarif` writes of a root that `made` writes, held against the schema of SARIF 2.1.0 as OASIS publishes it.
fn sarif_of(made: impl FnOnce(&Path)) -> serde_json::Value {
    let folder = tempfile::tempdir().unwrap();
    let gates = folder.path().join("gates");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("gates");
    for gate in ["hidden_write", "openai-agents-kernel-policy", "kernel-only"] {
        std::fs::create_dir_all(gates.join(gate)).unwrap();
        for file in std::fs::read_dir(from.join(gate)).unwrap().map(|file| file.unwrap().path()) {
            if file.is_file() {
                std::fs::copy(&file, gates.join(gate).join(file.file_name().unwrap())).unwrap();
            }
        }
    }
    let at = folder.path().join("proof");
    std::fs::create_dir_all(at.join("gates")).unwrap();
    made(&at);
    let (exit, out, err) = command(
        &["report", "proof", "--sarif", "out.sarif", "--junit", "out.xml", "--format", "github"],
        folder.path(),
    );
    assert_eq!(exit, 0, "{err}");
    assert!(std::fs::read_to_string(folder.path().join("out.xml")).unwrap().contains("<testsuites"));
    let log: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("out.sarif")).unwrap()).unwrap();
    // The pattern of `language`, which is not written here, has a bracket that strict readers of patterns refuse.
    let schema = include_str!("sarif-schema-2.1.0.json").replace("{2}]?$", r"{2}\\]?$");
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    let wrong: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&log)
        .map(|error| error.to_string())
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    // Annotations point to the same line.
    for result in log["runs"][0]["results"].as_array().unwrap().iter().filter(|one| one["level"] == "error") {
        let place = &result["locations"][0]["physicalLocation"];
        let uri = place["artifactLocation"]["uri"].as_str().unwrap();
        let at = format!("::error file={uri},line={},", place["region"]["startLine"]);
        assert!(out.contains(&at) || uri == "gates/nowhere%20%3Cb%3E/gate.yaml", "{at} is not in {out}");
    }
    log
}

/// Rule and line of each result: the line as the definition has it.
fn found(log: &serde_json::Value) -> Vec<(String, String)> {
    let results = log["runs"][0]["results"].as_array().unwrap();
    let text = |result: &serde_json::Value| {
        let place = &result["locations"][0]["physicalLocation"];
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join(place["artifactLocation"]["uri"].as_str().unwrap());
        let line = usize::try_from(place["region"]["startLine"].as_u64().unwrap()).unwrap();
        std::fs::read_to_string(file)
            .map_or_else(|_| "none".to_owned(), |text| text.lines().nth(line - 1).unwrap().to_owned())
    };
    results.iter().map(|result| (result["ruleId"].as_str().unwrap().to_owned(), text(result))).collect()
}

#[test]
fn findings_are_sarif_at_the_line_of_the_definition_that_they_are_about() {
    let log = sarif_of(|at| {
        root(at);
        std::fs::rename(at.join("gates/kernel-policy"), at.join("gates/kernel-only")).unwrap();
        let drifted = at.join("gates/kernel-only/verdict.json");
        let text = std::fs::read_to_string(&drifted).unwrap().replace("kernel-policy", "kernel-only");
        std::fs::write(drifted, text).unwrap();
        verdict(at, HIDES, "passed", &[]);
        review(at);
        verdict(
            at,
            "openai-agents-kernel-policy",
            "failed",
            &["baseline: run 1: not in the baseline: filesystem_paths /x", "run 2: killed at the time limit"],
        );
        verdict(at, "nowhere <b>", "incomplete", &["run 1: \u{1b}[2Jcapture incomplete"]);
    });
    let kinds: Vec<(String, String)> = found(&log);
    let gap = &kinds[0];
    assert!(gap.0 == "semantic-gap" && gap.1.starts_with("scenario:"), "{gap:?}");
    let of = |rule: &str, line: &str| (rule.to_owned(), line.to_owned());
    let mut rest = kinds[1..].to_vec();
    rest.sort();
    assert_eq!(
        rest,
        [
            of("baseline-exceeded", "id: openai-agents-kernel-policy"),
            of("drift", "id: kernel-only"),
            of("not-passed", "id: openai-agents-kernel-policy"),
            of("not-passed", "none"),
        ]
    );
    let prints: std::collections::BTreeSet<String> = log["runs"][0]["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["partialFingerprints"].to_string())
        .collect();
    assert_eq!(prints.len(), kinds.len(), "each finding is an alert of its own");
}

#[test]
fn a_green_invocation_has_no_finding() {
    let log = sarif_of(|at| verdict(at, "kernel-only", "passed", &[]));
    assert!(found(&log).is_empty());
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
