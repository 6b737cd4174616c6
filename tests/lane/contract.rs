//! The shipped `gates/lanes.yaml`.

use assay_gates::gate::Catalog;
use assay_gates::lane::{Decision, LaneContract};
use std::path::Path;
use std::process::Command;

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn contract() -> LaneContract {
    LaneContract::load(&here().join("gates/lanes.yaml")).unwrap()
}

fn tracked() -> Vec<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(here()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout)
        .unwrap()
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_tracked_file_matches_exactly_one_rule() {
    let contract = contract();
    let tracked = tracked();
    assert!(tracked.len() > 50, "only {} tracked files", tracked.len());
    let wrong: Vec<String> = tracked
        .iter()
        .map(|path| (path, contract.matching(path)))
        .filter(|(_, rules)| rules.len() != 1)
        .map(|(path, rules)| format!("{path}: {:?}", rules.iter().map(|rule| &rule.id).collect::<Vec<_>>()))
        .collect();
    assert!(wrong.is_empty(), "not decided by exactly one rule:\n{}", wrong.join("\n"));
}

#[test]
fn every_gate_that_a_rule_names_exists() {
    let catalog = Catalog::load(&here().join("gates")).unwrap();
    for gate in contract().gates() {
        let entry = catalog.get(gate).unwrap();
        assert_eq!(entry.definition.id, gate, "an alias would not match the pack's key");
    }
}

#[test]
fn paths_need_the_gate_that_the_table_says() {
    const TABLE: &[(&str, &str)] = &[
        ("ebpf/probes.bpf.c", "all"),
        ("ebpf/README.md", "none"),
        ("ebpf/include/types.h", "all"),
        ("build.rs", "all"),
        ("src/capture/mod.rs", "all"),
        ("src/capture/drain.rs", "all"),
        ("src/host/cgroup.rs", "all"),
        ("src/host/cleanup/tree.rs", "all"),
        ("src/evidence/filter.yaml", "all"),
        ("src/evidence/archive.rs", "all"),
        ("src/files/digest.rs", "all"),
        ("proof-pack/schemas/kernel_event.json", "all"),
        ("proof-pack/README.md", "none"),
        ("src/gate/definition.rs", "all"),
        ("src/judge/verdict.rs", "all"),
        ("src/run/mod.rs", "all"),
        ("src/pack/manifest.rs", "all"),
        ("src/lane/proof.rs", "all"),
        ("src/lib.rs", "all"),
        ("src/main.rs", "all"),
        ("src/error.rs", "all"),
        ("src/cli/run.rs", "all"),
        ("src/github/artifact.rs", "all"),
        ("src/report/human.rs", "all"),
        ("src/triage/rules.rs", "all"),
        ("Cargo.toml", "all"),
        ("Cargo.lock", "all"),
        ("ebpf/Cargo.lock", "all"),
        ("gates/kernel-policy/package-lock.json", "kernel-policy"),
        ("gates/openai-agents-kernel-policy/package-lock.json", "openai-agents-hidden-write"),
        ("gates/openai-agents-kernel-policy/package.json", "openai-agents-hidden-write"),
        ("gates/gemini-google-genai-kernel-policy/requirements.txt", "gemini-google-genai-kernel-policy"),
        (
            "gates/gemini-google-genai-kernel-policy/requirements.lock.txt",
            "gemini-google-genai-kernel-policy",
        ),
        ("gates/new-gate/package-lock.json", "all"),
        ("package-lock.json", "all"),
        (".github/actions/upload-proof-pack/package-lock.json", "all"),
        (".github/workflows/gates.yml", "all"),
        (".github/workflows/README.md", "none"),
        (".github/actions/upload-proof-pack/index.js", "all"),
        (".github/actions/upload-proof-pack/action.yml", "all"),
        (".github/dependabot.yml", "all"),
        ("Makefile", "all"),
        ("scripts/setup.sh", "all"),
        (".ci/run", "all"),
        ("gates/lanes.yaml", "all"),
        ("src/policy/rules.rs", "kernel-policy"),
        ("src/policy/proxy/mod.rs", "kernel-policy"),
        ("gates/kernel-only/gate.yaml", "kernel-only"),
        ("gates/kernel-only/agent.sh", "kernel-only"),
        ("gates/kernel-only/README.md", "none"),
        ("gates/kernel-policy/gate.yaml", "kernel-policy"),
        ("gates/kernel-policy/fixture/agent.py", "kernel-policy"),
        ("gates/kernel-policy-deny/gate.yaml", "kernel-policy"),
        ("gates/hidden_write/gate.yaml", "openai-agents-hidden-write"),
        ("gates/openai-agents-kernel-policy/agent.mjs", "openai-agents-hidden-write"),
        ("gates/openai-agents-kernel-policy/policy.yaml", "openai-agents-hidden-write"),
        ("gates/gemini-google-genai-kernel-policy/agent.py", "gemini-google-genai-kernel-policy"),
        ("gates/scenarios/path_rewrite/gate.yaml", "openai-agents-hidden-write"),
        ("gates/negative/two_decisions/gate.yaml", "openai-agents-hidden-write"),
        ("tests/clean/main.rs", "none"),
        ("tests/lane/contract.rs", "none"),
        ("tests/tools/package-lock.json", "none"),
        ("tests/README.md", "none"),
        ("benches/capture.rs", "none"),
        ("README.md", "none"),
        ("ARCHITECTURE.md", "none"),
        ("docs/gates.md", "none"),
        ("docs/images/flow.svg", "none"),
        ("runbook/AG270.md", "none"),
        ("LICENSE-MIT", "none"),
        (".gitignore", "none"),
        ("clippy.toml", "none"),
        ("rustfmt.toml", "none"),
        ("deny.toml", "none"),
        ("new-folder/thing", "all"),
        ("gates/new-gate/gate.yaml", "all"),
        ("srcx/policy/x.rs", "all"),
        ("docs", "all"),
        ("odd\nname.md", "none"),
        ("src/policy", "all"),
    ];
    assert!(TABLE.len() >= 60);
    let contract = contract();
    let wrong: Vec<String> = TABLE
        .iter()
        .filter_map(|(path, expected)| {
            let changed = [(*path).to_owned()].into();
            let decision = Decision::new(&contract, "b".into(), "h".into(), &changed, &Default::default());
            let found = String::from(decision.required);
            (found != *expected).then(|| format!("{path}: expected {expected}, found {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
