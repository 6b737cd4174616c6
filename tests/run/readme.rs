//! What the README says, done word for word.

use crate::support;
use assert_cmd::cargo::cargo_bin;
use std::process::Command;

/// The fenced shell block below a heading of the README.
fn block(heading: &str) -> String {
    let text = std::fs::read_to_string("README.md").unwrap();
    let section = text.split_once(&format!("## {heading}\n")).unwrap().1;
    let block = section.split_once("```sh\n").unwrap().1;
    block.split_once("```").unwrap().0.to_owned()
}

#[test]
fn your_own_gate_in_five_minutes_works_as_written() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let binary = cargo_bin("assay-gates");
    let path = format!("{}:{}", binary.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let output = Command::new("sh")
        .args(["-e", "-c", &block("Your own gate in five minutes")])
        .current_dir(folder.path())
        .env("PATH", path)
        .env("ASSAY_GATES_STATE_DIR", folder.path().join("state"))
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{err}", String::from_utf8_lossy(&output.stdout));
    assert!(err.contains("my-agent: passed (runs agree"), "{err}");
    let baseline = std::fs::read_to_string(folder.path().join("gates/my-agent/baseline.json")).unwrap();
    assert!(baseline.contains("/run/assay-gates/work/notes.txt"), "{baseline}");
}

#[test]
fn every_script_that_make_calls_can_be_executed() {
    use std::os::unix::fs::PermissionsExt;
    let makefile = std::fs::read_to_string("Makefile").unwrap();
    let scripts: Vec<&str> = makefile
        .split_whitespace()
        .map(|word| word.trim_start_matches('@'))
        .filter(|word| word.starts_with("scripts/"))
        .collect();
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        let mode = std::fs::metadata(script).unwrap().permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{script} has mode {mode:o}");
    }
}

#[test]
fn every_path_that_the_pages_for_developers_name_is_there() {
    let mut named = 0;
    for page in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"] {
        let text = std::fs::read_to_string(page).unwrap();
        // Outside of fenced blocks; what stands in backticks, and where links lead.
        let prose: Vec<&str> = text.split("```").step_by(2).collect();
        let quoted = prose.iter().flat_map(|part| part.split('`').skip(1).step_by(2));
        let linked =
            prose.iter().flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next());
        for path in quoted.chain(linked) {
            let first = path.split('/').next().unwrap_or_default();
            let ours =
                ["src", "tests", "ebpf", "gates", "runbook", "proof-pack", "scripts", "benches", ".github"];
            let page_of_ours = !path.contains('/') && path.ends_with(".md");
            if path.contains(['<', '*', ' ', '{'])
                || !(page_of_ours || path.contains('/') && ours.contains(&first))
            {
                continue;
            }
            named += 1;
            assert!(std::path::Path::new(path).exists(), "{page} names {path}");
        }
    }
    assert!(named > 40, "{named}");
}
