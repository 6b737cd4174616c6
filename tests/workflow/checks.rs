//! Checks that need no runner.

use crate::{here, succeeds, tool};
use std::process::Command;

#[test]
fn the_upload_action_and_the_host_health_script_do_what_their_tests_say() {
    succeeds(Command::new("node").current_dir(here().join("tests/workflow")).args([
        "--test",
        "action.test.mjs",
        "host-health.test.mjs",
    ]));
}

#[test]
fn the_official_parser_accepts_every_workflow() {
    let folder = here().join("tests/workflow/parser");
    assert!(folder.join("node_modules").exists(), "not installed: scripts/setup.sh test");
    succeeds(Command::new("node").current_dir(folder).args([
        "--import",
        "./json.mjs",
        "--test",
        "workflows.test.mjs",
    ]));
}

#[test]
fn the_linter_finds_nothing_that_is_not_excused_with_a_reason() {
    succeeds(Command::new(tool("zizmor")).current_dir(here()).args([
        "--offline",
        "--persona",
        "pedantic",
        "--no-progress",
        ".github",
    ]));
}

#[test]
fn every_excuse_gives_its_reason() {
    for file in std::fs::read_dir(here().join(".github/workflows")).unwrap() {
        let path = file.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for line in text.lines().filter(|line| line.contains("zizmor: ignore")) {
            let reason = line.rsplit(']').next().unwrap().trim();
            assert!(reason.split(' ').count() >= 4, "{}: no reason: {line}", path.display());
        }
    }
}

#[test]
fn the_gates_workflow_has_a_witnessed_step_for_every_gate_of_all_and_no_other() {
    let text = std::fs::read_to_string(here().join(".github/workflows/gates.yml")).unwrap();
    let workflow: serde_json::Value = serde_yaml::from_str(&text).unwrap();
    let mut steps: Vec<&str> = workflow["jobs"]["gates"]["steps"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|step| step["name"].as_str()?.strip_prefix("Gate: "))
        .collect();
    let catalog = assay_gates::gate::Catalog::load(&here().join("gates")).unwrap();
    let mut all: Vec<&str> = catalog
        .entries()
        .iter()
        .filter(|entry| entry.definition.group == assay_gates::gate::Group::All)
        .map(|entry| entry.definition.id.as_str())
        .collect();
    steps.sort_unstable();
    all.sort_unstable();
    assert_eq!(steps, all);
}
