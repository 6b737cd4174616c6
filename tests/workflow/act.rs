//! `gates.yml` itself, run by a workflow engine: cleanup, the real kernel, the real SDKs, pack, upload, summary.

use crate::stage::Stage;
use crate::support::need_root;
use std::io::Read;
use std::path::Path;
use std::process::Command;

const BEFORE_THE_GATES: [&str; 6] = [
    "Clean before actions are downloaded",
    "Clean before the run",
    "Check out",
    "Build",
    "Install what the fixtures need",
    "Doctor",
];
const AFTER_THE_GATES: [&str; 4] = ["Pack", "Upload", "Summary", "Clean after the run"];

fn member(zip: &Path, name: &str) -> serde_json::Value {
    let mut zip = zip::ZipArchive::new(std::fs::File::open(zip).unwrap()).unwrap();
    let mut text = String::new();
    zip.by_name(name).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[track_caller]
fn verifies(zip: &Path) {
    let output =
        assert_cmd::Command::cargo_bin("assay-gates").unwrap().arg("verify").arg(zip).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn gates(zip: &Path) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let manifest = member(zip, "manifest.json");
    manifest["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (text(&row["gate"]), text(&row["status"])))
        .collect()
}

#[test]
fn a_dispatch_of_all_gates_ends_green_with_a_pack_that_verifies() {
    if !need_root() {
        return;
    }
    let stage = Stage::new();
    // What an earlier job left behind, some of it in a way that the runner itself could not delete.
    let left = stage.path("runner/_work/app/app/left/immutable");
    std::fs::create_dir_all(left.parent().unwrap()).unwrap();
    std::fs::write(&left, "x").unwrap();
    assert!(Command::new("chattr").arg("+i").arg(&left).status().unwrap().success());
    std::fs::create_dir_all(stage.path("runner/_work/_actions/actions/checkout")).unwrap();
    std::fs::create_dir_all(stage.path("proof/0-1/gates/kernel-only")).unwrap();
    std::fs::write(stage.path("proof/0-1/run.json"), r#"{"started_at": "2020-01-01T00:00:00Z"}"#).unwrap();
    std::fs::create_dir_all(stage.path("proof/0-2")).unwrap();

    let ended = stage.dispatch("all");

    let expected: Vec<(&str, bool)> = BEFORE_THE_GATES
        .into_iter()
        .chain([
            "Gate: kernel-only",
            "Gate: kernel-policy",
            "Gate: openai-agents-kernel-policy",
            "Gate: openai-agents-hidden-write",
            "Gate: gemini-google-genai-kernel-policy",
        ])
        .chain(AFTER_THE_GATES)
        .map(|step| (step, true))
        .collect();
    assert_eq!(ended.steps(), expected, "{}", ended.log);
    assert!(ended.success, "{}", ended.log);
    assert!(!left.exists() && stage.path("runner/_work/app/app").is_dir());
    assert!(!stage.path("runner/_work/_actions").exists());
    assert!(!stage.path("proof/0-1").exists());

    let zip = stage.artifact();
    verifies(&zip);
    let gates = gates(&zip);
    assert_eq!(gates.len(), 5, "{gates:?}");
    assert!(gates.iter().all(|(_, status)| status == "passed"), "{gates:?}");
    let manifest = member(&zip, "manifest.json");
    assert_eq!(manifest["inputs"], serde_json::json!({"gates": "all", "build_ebpf": "true"}));
    assert_eq!(manifest["source"]["repository"], "example/agents");
    let cleanup = member(&zip, "payload/cleanup.json");
    assert_eq!((&cleanup["phase"], &cleanup["clean"]), (&"before-run".into(), &true.into()));
    for line in [
        "| kernel-only | 3 of 3 accepted | yes | 0 |",
        "| openai-agents-hidden-write | 3 of 3 accepted | yes | 0 |",
        "### What this shows",
        "Next: `assay-gates verify",
    ] {
        assert!(ended.log.contains(line), "no {line:?} in the summary:\n{}", ended.log);
    }
    assert!(!ended.log.contains("Actions.Results"), "the runtime token was printed");
}

#[test]
fn a_gate_that_fails_leaves_the_run_red_and_the_pack_uploaded() {
    if !need_root() {
        return;
    }
    let stage = Stage::new();
    let definition = stage.path("checkout/gates/openai-agents-kernel-policy/gate.yaml");
    let text = std::fs::read_to_string(&definition).unwrap();
    let paths = "work_paths: [openai-agents-input.txt";
    let broken = text.replacen(paths, &format!("{paths}, never-written.txt"), 1);
    assert_ne!(text, broken, "the gate expects paths");
    std::fs::write(&definition, broken).unwrap();
    stage.commit("expect what does not happen");

    let ended = stage.dispatch("hidden_write");

    assert!(!ended.success, "{}", ended.log);
    let steps = ended.steps();
    let names: Vec<&str> = steps.iter().map(|(name, _)| *name).collect();
    let expected: Vec<&str> = BEFORE_THE_GATES
        .into_iter()
        .chain(["Gate: openai-agents-kernel-policy", "Gate: openai-agents-hidden-write"])
        .chain(AFTER_THE_GATES)
        .collect();
    assert_eq!(names, expected, "{}", ended.log);
    for (name, succeeded) in &steps {
        if !name.starts_with("Gate: ") {
            assert!(succeeded, "{name}\n{}", ended.log);
        }
    }
    assert!(steps.contains(&("Gate: openai-agents-kernel-policy", false)), "{}", ended.log);

    let zip = stage.artifact();
    verifies(&zip);
    assert_eq!(gates(&zip)[0], ("openai-agents-kernel-policy".to_owned(), "failed".to_owned()));
    let claims = member(&zip, "payload/claims.json");
    assert!(claims["claims"].as_array().unwrap().iter().all(|claim| claim["earned"] == false), "{claims}");
    assert!(ended.log.contains("**failed** (exit 10)"), "{}", ended.log);
    assert!(ended.log.contains("Gate openai-agents-kernel-policy"), "no annotation:\n{}", ended.log);
    assert!(ended.log.contains("not earned"), "{}", ended.log);
}
