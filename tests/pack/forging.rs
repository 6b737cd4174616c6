//! Packs of a forger who knows the format: the root is changed and packed anew, so that every digest, list and claim is
//! right. Each is refused with its own reason, or what nobody can check stands under `not shown`.

use crate::fixture::{ARCHIVE, GATE, HEAD, copy, passed_root, provenance, put, rechain};
use assay_gates::files::{pretty_sorted, sha256};
use assay_gates::pack::{self, Verification};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex};

static VALID: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    passed_root(&folder.path().join("root"));
    folder
});

fn gate(name: &str) -> String {
    format!("gates/{GATE}/{name}")
}

fn run(number: u32, name: &str) -> String {
    format!("gates/{GATE}/run-{number}/{name}")
}

fn read(root: &Path, path: &str) -> String {
    std::fs::read_to_string(root.join(path)).unwrap()
}

fn edit(root: &Path, path: &str, from: &str, to: &str) {
    let text = read(root, path);
    assert!(text.contains(from), "{path} has no {from}:\n{text}");
    put(root, path, text.replacen(from, to, 1));
}

/// Changes a JSON file and writes it as this tool does.
fn json_of(root: &Path, path: &str, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_str(&read(root, path)).unwrap();
    change(&mut value);
    put(root, path, pretty_sorted(&value).unwrap());
}

/// Changes what the verdict says of run 1, and `result.json` with it.
fn run_one(root: &Path, change: fn(&mut Value)) {
    json_of(root, &gate("verdict.json"), |verdict| change(&mut verdict["runs"][0]));
    json_of(root, &run(1, "result.json"), change);
}

/// Run 1 in the place of runs 2 and 3, with verdict and log that go with it.
fn one_run_three_times(root: &Path, disguise: fn(&Path, u32)) {
    for number in [2, 3] {
        let folder = root.join(format!("gates/{GATE}/run-{number}"));
        std::fs::remove_dir_all(&folder).unwrap();
        copy(&root.join(format!("gates/{GATE}/run-1")), &folder);
        json_of(root, &run(number, "result.json"), |result| {
            result["run"] = json!(number);
            result["archive"]["path"] = json!(format!("gates/{GATE}/run-{number}/{ARCHIVE}"));
        });
        disguise(root, number);
    }
    json_of(root, &gate("verdict.json"), |verdict| {
        for at in [1, 2] {
            let first = verdict["runs"][0].clone();
            verdict["runs"][at] = first;
            verdict["runs"][at]["run"] = json!(at + 1);
            verdict["runs"][at]["archive"]["path"] = json!(format!("gates/{GATE}/run-{}/{ARCHIVE}", at + 1));
        }
        for compared in verdict["determinism"]["compared"].as_array_mut().unwrap() {
            let first = compared["sha256"][0].clone();
            compared["sha256"] = json!([first, first, first]);
        }
    });
}

fn another_canary(root: &Path, number: u32) {
    for name in ["canary.begin", "canary.end"] {
        json_of(root, &run(number, "capture_proof.json"), |proof| {
            proof["environment"][name] = json!(sha256(format!("{name}{number}").as_bytes()).hex()[..32]);
        });
    }
}

/// Takes effects out of run 1 and numbers the rest anew.
fn without(root: &Path, fits: fn(&Value) -> bool) {
    let mut lines = Vec::new();
    for line in read(root, &run(1, "effects.ndjson")).lines() {
        let mut effect: Value = serde_json::from_str(line).unwrap();
        if !fits(&effect) {
            effect["seq"] = json!(lines.len());
            lines.push(effect.to_string() + "\n");
        }
    }
    put(root, &run(1, "effects.ndjson"), lines.concat());
}

fn counter(root: &Path, hook: &str, value: &str) {
    json_of(root, &run(1, "capture_proof.json"), |proof| {
        proof["environment"][format!("records.{hook}")] = json!(value);
    });
}

fn invariant(root: &Path, name: &str, change: impl Fn(&mut Value)) {
    json_of(root, &run(1, "capture_proof.json"), |proof| {
        let all = proof["invariants"].as_array_mut().unwrap();
        change(all.iter_mut().find(|one| one["name"] == name).unwrap());
    });
}

/// A gate with a reason of the driver's alone, which nobody can recompute.
fn stopped(root: &Path) {
    put(root, &gate("status.txt"), "failed\n");
    json_of(root, &gate("verdict.json"), |verdict| {
        verdict["status"] = json!("failed");
        verdict["exit"] = json!(10);
        verdict["reasons"] = json!(["the host went away"]);
    });
}

const ROWS: &str = "runs/matched_safe_read/";

/// What the forger says, the reason that it is refused for, and how it is done.
type Forgery = (&'static str, &'static str, fn(&Path));

const FORGERIES: &[Forgery] = &[
    ("one run three times", "run_twice", |root| one_run_three_times(root, |_, _| {})),
    ("one run three times with other canaries", "run_times", |root| {
        one_run_three_times(root, another_canary)
    }),
    ("a run without a canary's nonce", "run_twice", |root| {
        json_of(root, &run(2, "capture_proof.json"), |proof| {
            proof["environment"].as_object_mut().unwrap().remove("canary.end");
        });
    }),
    ("a canary's nonce of another form", "run_twice", |root| {
        json_of(root, &run(2, "capture_proof.json"), |proof| proof["environment"]["canary.end"] = json!("1"));
    }),
    ("an exec taken out of the effects", "effects", |root| without(root, |e| e["operation"] == "exec")),
    ("a filtered open taken out of the effects", "filter", |root| {
        without(root, |e| e["path"]["value"].as_str().is_some_and(|path| path.contains("libc")));
    }),
    ("more workers of the canaries' rings than these have requests", "counters", |root| {
        json_of(root, &run(1, "capture_proof.json"), |proof| {
            proof["environment"]["canary.workers"] = json!("99")
        });
    }),
    ("an end of a task taken out of the effects", "counters", |root| {
        without(root, |e| e["operation"] == "exit");
    }),
    ("all effects taken out", "effects", |root| without(root, |_| true)),
    ("a kernel counter of opens that the effects don't have", "counters", |root| {
        counter(root, "openat", "9/0")
    }),
    ("a kernel counter of births that the effects don't have", "counters", |root| {
        counter(root, "birth", "3/0")
    }),
    ("a kernel counter that is no number", "counters", |root| counter(root, "exit", "some")),
    ("records that were dropped", "counters", |root| counter(root, "exec", "3/1")),
    ("a proof without its invariants", "counters", |root| {
        json_of(root, &run(1, "capture_proof.json"), |proof| proof["invariants"] = json!([]));
    }),
    ("a proof without one invariant", "counters", |root| {
        json_of(root, &run(1, "capture_proof.json"), |proof| {
            proof["invariants"].as_array_mut().unwrap().remove(6);
        });
    }),
    ("a proof with an invariant twice", "counters", |root| {
        json_of(root, &run(1, "capture_proof.json"), |proof| {
            let first = proof["invariants"][0].clone();
            proof["invariants"].as_array_mut().unwrap().push(first);
        });
    }),
    ("a broken invariant of a complete capture", "capture_proof", |root| {
        invariant(root, "nothing_escaped", |one| one["held"] = json!(false));
    }),
    ("an invariant whose sides differ", "counters", |root| {
        invariant(root, "ring_drained", |one| one["seen"] = json!("1"));
    }),
    ("deaths that the counter does not have", "counters", |root| {
        invariant(root, "deaths_recorded", |one| {
            one["seen"] = json!("7");
            one["expected"] = json!("7");
        });
    }),
    ("another kernel than the proof's invariant names", "counters", |root| {
        json_of(root, &run(1, "capture_proof.json"), |proof| {
            proof["environment"]["kernel_release"] = json!("9")
        });
    }),
    ("an assertion left out", "run_verdict", |root| {
        run_one(root, |run| {
            run["assertions"].as_array_mut().unwrap().pop();
        });
    }),
    ("an assertion of another outcome", "run_verdict", |root| {
        run_one(root, |run| run["assertions"][0]["found"] = json!("complete as ever"));
    }),
    ("an assertion that nobody made", "run_verdict", |root| {
        run_one(root, |run| {
            let first = run["assertions"][0].clone();
            run["assertions"].as_array_mut().unwrap().push(first);
        });
    }),
    ("another exit code", "run_verdict", |root| run_one(root, |run| run["exit_code"] = json!(1))),
    ("a signal beside an exit code", "run_verdict", |root| run_one(root, |run| run["signal"] = json!(9))),
    ("a time limit that the proof does not know", "run_verdict", |root| {
        run_one(root, |run| run["timed_out"] = json!(true));
    }),
    ("an interruption that the proof does not know", "run_verdict", |root| {
        run_one(root, |run| run["interrupted"] = json!(true));
    }),
    ("more effects than there are", "run_verdict", |root| run_one(root, |run| run["effects"] = json!(1000))),
    ("more evidence than there is", "run_verdict", |root| {
        run_one(root, |run| run["kernel_events"] = json!(1000))
    }),
    ("lost records of a complete run", "run_verdict", |root| run_one(root, |run| run["lost"] = json!(2))),
    ("an archive that no verdict names", "run_verdict", |root| {
        run_one(root, |run| run["archive"] = Value::Null);
    }),
    ("a verdict without one of its runs", "run_verdict", |root| {
        json_of(root, &gate("verdict.json"), |verdict| {
            verdict["runs"].as_array_mut().unwrap().pop();
        });
    }),
    ("a result that its verdict does not repeat", "run_result", |root| {
        json_of(root, &run(2, "result.json"), |result| result["elapsed_ms"] = json!(1));
    }),
    ("a definition that asks for less", "run_verdict", |root| {
        edit(
            root,
            &gate("definition.yaml"),
            "    - {path: input.txt, access: read}",
            "    - {path: input.txt, access: read, count: 1, flags: []}",
        );
        edit(root, &gate("definition.yaml"), "  execs: [/usr/bin/node]\n", "");
    }),
    ("a definition of another gate", "gate_definition", |root| {
        edit(root, &gate("definition.yaml"), &format!("id: {GATE}"), "id: another");
    }),
    ("a definition that does not validate", "gate_definition", |root| {
        edit(root, &gate("definition.yaml"), "agent_shim: openai-agents", "agent_shim: none-at-all");
    }),
    ("no definition", "gate_definition", |root| {
        std::fs::remove_file(root.join(gate("definition.yaml"))).unwrap();
    }),
    ("another label than the log's", "pass_lines", |root| {
        edit(root, &gate("definition.yaml"), "label: OpenAI Agents kernel+policy", "label: something else");
    }),
    ("one PASS line too many", "pass_lines", |root| {
        let text = read(root, &gate("gate.log"));
        put(root, &gate("gate.log"), text + "PASS: everything\n");
    }),
    ("another policy than decided", "policy", |root| {
        put(root, &gate("policy.yaml"), "tools: {allow: ['*']}\n")
    }),
    ("no policy", "policy", |root| std::fs::remove_file(root.join(gate("policy.yaml"))).unwrap()),
    ("a decision by another policy", "policy", |root| {
        edit(root, &run(2, "policy-decisions.ndjson"), "sha256:", "sha256:0");
    }),
    ("a baseline that the gate outgrew", "baseline", |root| {
        put(root, &gate("baseline.json"), read(root, "baseline-of-nothing.json"));
    }),
    ("a comparison without its baseline", "baseline", |root| put(root, &gate("baseline_diff.json"), "{}\n")),
    ("a weaker join in the row", "review_row", |root| {
        edit(root, &format!("{ROWS}join-result.json"), "\"strong\"", "\"weak\"");
    }),
    ("another verdict in the row", "review_row", |root| {
        edit(root, &format!("{ROWS}scenario-verdict.json"), "positive_join", "semantic_gap");
    }),
    ("another sentence in the summary", "review_row", |root| {
        let text = read(root, &format!("{ROWS}summary.md"));
        put(root, &format!("{ROWS}summary.md"), text + "It is safe.\n");
    }),
    ("a row more", "review_row", |root| put(root, &format!("{ROWS}more.json"), "{}\n")),
    ("a row less", "file_present", |root| {
        std::fs::remove_file(root.join(format!("{ROWS}scenario-verdict.json"))).unwrap();
    }),
    ("rows that no gate defines", "review_row", |root| {
        put(root, "runs/hidden_write/finding.md", "It is safe.\n")
    }),
    ("rows of another head", "review_row", |root| edit(root, "run.json", HEAD, &"f".repeat(40))),
    ("rows of another selection", "review_row", |root| {
        json_of(root, "run.json", |record| record["selection"] = json!("some"));
    }),
    ("more runs asked for than measured", "verdict", |root| {
        json_of(root, "run.json", |record| record["runs"] = json!(4));
    }),
    ("a record with a key that nobody knows", "run_record", |root| {
        json_of(root, "run.json", |record| record["trusted"] = json!(true));
    }),
    ("a record without its source", "run_record", |root| {
        json_of(root, "run.json", |record| {
            record.as_object_mut().unwrap().remove("source");
        });
    }),
    ("a filter of the forger's own", "filter", |root| {
        json_of(root, &run(2, "filter.json"), |filter| {
            filter["filter_sha256"] = json!(sha256(b"rules: []").to_string());
        });
    }),
    ("a filter of the forger's own, and evidence that no effect gives", "filter", |root| {
        json_of(root, &run(1, "filter.json"), |filter| {
            filter["filter_sha256"] = json!(sha256(b"rules: []").to_string());
        });
        without(root, |e| e["operation"] == "exec");
    }),
    ("a filter that spares another folder", "filter", |root| {
        json_of(root, &run(1, "filter.json"), |filter| filter["work"] = json!("/usr"));
    }),
    ("no record of the invocation", "run_record", |root| {
        std::fs::remove_file(root.join("run.json")).unwrap();
    }),
    ("a record of other gates", "run_record", |root| {
        json_of(root, "run.json", |record| record["gates"] = json!(["another"]));
    }),
    ("a record that names no kernel programs", "measuring_object", |root| {
        json_of(root, "run.json", |record| record["object_sha256"] = Value::Null);
    }),
    ("no log of decisions", "file_present", |root| {
        std::fs::remove_file(root.join(run(3, "policy-decisions.ndjson"))).unwrap();
    }),
    ("a decision that the layer does not have", "layer", |root| {
        edit(root, &run(3, "policy-decisions.ndjson"), "read_file", "write_file");
    }),
    ("a decision more than the layer has", "layer", |root| {
        let line = read(root, &run(3, "policy-decisions.ndjson"));
        put(root, &run(3, "policy-decisions.ndjson"), line.repeat(2));
    }),
    ("no log of the SDK", "file_present", |root| {
        std::fs::remove_file(root.join(run(3, "sdk-events.ndjson"))).unwrap();
    }),
    ("an SDK log that the layer does not have", "layer", |root| {
        edit(root, &run(3, "sdk-events.ndjson"), "read_file", "read_more");
    }),
    ("a kernel layer beside the archive that is not in it", "extract", |root| {
        edit(root, &run(2, "extract/layers/kernel.ndjson"), "\"success\"", "\"error\"");
    }),
    ("no result of a run", "file_present", |root| {
        std::fs::remove_file(root.join(run(2, "result.json"))).unwrap()
    }),
    ("no report on the host", "doctor", |root| std::fs::remove_file(root.join("doctor.json")).unwrap()),
    ("a shard without a report on its host", "doctor", |root| {
        std::fs::remove_file(root.join("doctor.json")).unwrap();
        json_of(root, "run.json", |record| record["shards"] = json!([record.clone()]));
    }),
    ("a shard whose host was not fit", "doctor", |root| {
        let report: Value = serde_json::from_str(&read(root, "doctor.json")).unwrap();
        std::fs::remove_file(root.join("doctor.json")).unwrap();
        json_of(root, "run.json", |record| {
            let mut shard = record.clone();
            shard["doctor"] = report;
            shard["doctor"]["fit"] = json!(false);
            record["shards"] = json!([shard]);
        });
    }),
    ("a reference to a line that says another thing", "evidence_ref", |root| {
        let text = read(root, &format!("{ROWS}claim-class-cells.json"));
        let (_, rest) = text.split_once("kernel.ndjson#seq=").unwrap();
        let seq: String = rest.chars().take_while(char::is_ascii_digit).collect();
        let other = if seq == "0" { "1" } else { "0" };
        edit(
            root,
            &format!("{ROWS}claim-class-cells.json"),
            &format!("kernel.ndjson#seq={seq}"),
            &format!("kernel.ndjson#seq={other}"),
        );
    }),
    ("a claim that stands on another layer", "evidence_ref", |root| {
        edit(
            root,
            &format!("{ROWS}claim-class-cells.json"),
            "layers/policy.ndjson#seq=0",
            "layers/sdk.ndjson#seq=0",
        );
    }),
    ("rows of a gate that the driver stopped", "review_row", |root| {
        stopped(root);
        edit(root, &format!("{ROWS}join-result.json"), "\"strong\"", "\"weak\"");
    }),
    ("a PASS line of a gate that the driver stopped", "pass_lines", |root| {
        stopped(root);
        let text = read(root, &gate("gate.log"));
        put(root, &gate("gate.log"), text + "PASS: everything\n");
    }),
    ("a gate without its chain", "chain", |root| {
        std::fs::remove_file(root.join(gate("chain.ndjson"))).unwrap();
    }),
    ("output of a run that its chain does not have", "chain", |root| {
        put(root, &run(1, "stdout.log"), "something else\n");
        put(root, "unchained", "");
    }),
    ("a file of a run that its chain does not have", "chain", |root| {
        put(root, &run(1, "more.log"), "something else\n");
        put(root, "unchained", "");
    }),
    ("a chain without its end", "chain", |root| {
        let text = read(root, &gate("chain.ndjson"));
        let lines: Vec<&str> = text.lines().collect();
        put(root, &gate("chain.ndjson"), lines[..lines.len() - 1].join("\n") + "\n");
    }),
    ("a chain that begins with a run", "chain", |root| {
        let text = read(root, &gate("chain.ndjson"));
        put(
            root,
            &gate("chain.ndjson"),
            text.lines().skip(1).map(|line| format!("{line}\n")).collect::<String>(),
        );
    }),
    ("a chain with a link exchanged", "chain", |root| {
        edit(root, &gate("chain.ndjson"), "\"nonce\":\"", "\"nonce\":\"0");
    }),
    ("a chain with a link taken out", "chain", |root| {
        let text = read(root, &gate("chain.ndjson"));
        let lines = text.lines().enumerate().filter(|(at, _)| *at != 2);
        put(root, &gate("chain.ndjson"), lines.map(|(_, line)| format!("{line}\n")).collect::<String>());
    }),
    ("a reason against a gate that passed", "verdict", |root| {
        json_of(root, &gate("verdict.json"), |verdict| verdict["reasons"] = json!(["none that counts"]));
    }),
    ("another exit code of the gate", "verdict", |root| {
        json_of(root, &gate("verdict.json"), |verdict| verdict["exit"] = json!(10));
    }),
];

fn verified(root: &Path, out: &Path) -> Verification {
    if root.join("unchained").exists() {
        std::fs::remove_file(root.join("unchained")).unwrap();
    } else {
        rechain(root);
    }
    pack::build(root, out, None, &provenance()).unwrap();
    pack::verify(out).1
}

#[test]
fn every_forgery_is_refused_with_its_own_reason() {
    let wrong = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, check, forge)) = FORGERIES.get(next.fetch_add(1, Ordering::Relaxed)) {
            refused(name, check, *forge).unwrap_or_else(|found| wrong.lock().unwrap().push(found));
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(FORGERIES.len() >= 40);
}

fn refused(name: &str, check: &str, forge: fn(&Path)) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    copy(&VALID.path().join("root"), &root);
    let nothing = json!({
        "schema": "assay.gates.baseline.v0", "gate": GATE, "filesystem_paths": [], "network_endpoints": [],
        "process_execs": [], "mcp_tools": [], "policy_decisions": [], "tools": [],
    });
    put(&root, "baseline-of-nothing.json", nothing.to_string());
    forge(&root);
    let findings = verified(&root, &folder.path().join("pack")).findings;
    if findings.iter().take(3).any(|finding| finding.check == check) {
        return Ok(());
    }
    let found: Vec<String> = findings.iter().take(4).map(ToString::to_string).collect();
    Err(format!("{name}: expected {check}, found {found:#?}"))
}

/// A reason that only the driver knows is taken as its word, and said to be.
#[test]
fn a_gate_that_the_driver_stopped_verifies_and_earns_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    copy(&VALID.path().join("root"), &root);
    stopped(&root);
    let outcome = verified(&root, &folder.path().join("pack"));
    assert!(outcome.verified, "{:?}", outcome.findings);
    assert!(outcome.claims.iter().all(|claim| claim.contains("not earned")), "{:?}", outcome.claims);
    assert!(outcome.not_established.iter().any(|line| line.contains("driver's word alone")));
}

/// Clocks of two boots say nothing of each other: such runs are not refused, and that they are apart is not said.
#[test]
fn equal_kernel_times_of_two_boots_are_no_contradiction_and_are_said() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    copy(&VALID.path().join("root"), &root);
    one_run_three_times(&root, another_canary);
    for (number, boot) in [(1, "a"), (2, "b"), (3, "c")] {
        json_of(&root, &run(number, "capture_proof.json"), |proof| {
            proof["environment"]["boot_id"] = json!(boot)
        });
    }
    let outcome = verified(&root, &folder.path().join("pack"));
    assert!(!outcome.findings.iter().any(|finding| finding.check == "run_times"), "{:?}", outcome.findings);
    assert!(outcome.not_established.iter().any(|line| line.contains("their boots differ")), "{outcome:?}");
}

/// What no reader of the bytes can tell is never said to be shown.
#[test]
fn what_nobody_checked_stands_under_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("pack");
    let mut invented = provenance();
    invented.source.repository = "somebody/else".to_owned();
    invented.source.run_url = "https://github.com/somebody/else/actions/runs/42".to_owned();
    invented.source.head_sha = "a".repeat(40);
    pack::build(&VALID.path().join("root"), &out, None, &invented).unwrap();
    put(&out, "attestation-bundle.json", "{}");
    let (verified, outcome) = pack::verify(&out);
    assert!(verified.is_some(), "{:?}", outcome.findings);
    for what in [
        "attestation-bundle.json",
        "repository, commit, ref",
        "who made the pack",
        "baseline",
        "definitions and policies",
    ] {
        assert!(outcome.not_established.iter().any(|line| line.contains(what)), "{what}: {outcome:?}");
        assert!(!outcome.established.iter().any(|line| line.contains(what)), "{what}");
    }
}
