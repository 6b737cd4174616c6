//! What needs no kernel: plans, errors, exit codes.

use assert_cmd::Command;

fn assay(args: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("assay-gates").unwrap().args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_dry_run_shows_the_plan_and_measures_nothing() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("never");
    let (code, out, _) =
        assay(&["run", "--gate", "kernel-only", "--dry-run", "--root", folder.to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("kernel-only  selected  3"), "{out}");
    assert!(!folder.exists());
}

#[test]
fn hidden_write_alone_plans_its_baseline_first() {
    let (code, out, _) =
        assay(&["run", "--gate", "hidden_write", "--dry-run", "--format", "json", "--root", "/r"]);
    assert_eq!(code, 0);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let gates: Vec<_> = plan["gates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|g| (g["id"].as_str().unwrap(), g["because"].as_str().unwrap()))
        .collect();
    assert_eq!(
        gates,
        [("openai-agents-kernel-policy", "baseline"), ("openai-agents-hidden-write", "selected")]
    );
}

#[test]
fn all_is_the_five_gates_in_their_order() {
    let (code, out, _) = assay(&["run", "--gates", "all", "--dry-run", "--format", "json", "--root", "/r"]);
    assert_eq!(code, 0);
    let plan: serde_json::Value = serde_json::from_str(&out).unwrap();
    let gates: Vec<_> = plan["gates"].as_array().unwrap().iter().map(|g| g["id"].as_str().unwrap()).collect();
    assert_eq!(
        gates,
        [
            "kernel-only",
            "kernel-policy",
            "openai-agents-kernel-policy",
            "openai-agents-hidden-write",
            "gemini-google-genai-kernel-policy"
        ]
    );
}

#[test]
fn the_matrix_has_a_job_for_each_gate_of_all_and_each_runner() {
    let (code, out, _) = assay(&["list", "--format", "github", "--runner", "one", "--runner", "two"]);
    assert_eq!(code, 0);
    let matrix: serde_json::Value = serde_json::from_str(out.strip_prefix("matrix=").unwrap()).unwrap();
    let jobs = matrix["include"].as_array().unwrap();
    assert_eq!(jobs.len(), 10);
    assert_eq!((jobs[0]["gate"].as_str(), jobs[0]["runner"].as_str()), (Some("kernel-only"), Some("one")));
}

#[test]
fn an_unknown_gate_is_usage_and_names_the_nearest() {
    let (code, out, err) = assay(&["run", "--gate", "kernel-onyl", "--dry-run", "--root", "/r"]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(
        err.contains("there is no gate `kernel-onyl`") && err.contains("did you mean `kernel-only`?"),
        "{err}"
    );
}

#[test]
fn a_broken_definition_names_file_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let gate = folder.path().join("g");
    std::fs::create_dir(&gate).unwrap();
    let text = std::fs::read_to_string("gates/kernel-only/gate.yaml").unwrap();
    std::fs::write(gate.join("gate.yaml"), text.replacen("title:", "titel:", 1)).unwrap();
    let (code, _, err) = assay(&[
        "run",
        "--gate",
        "kernel-only",
        "--gates-dir",
        folder.path().to_str().unwrap(),
        "--dry-run",
        "--root",
        "/r",
    ]);
    assert_eq!(code, 2);
    assert!(err.contains("g/gate.yaml:4:1: ") && err.contains("did you mean `title`?"), "{err}");
}

#[test]
fn nothing_selected_is_three() {
    let (code, _, err) = assay(&["run", "--gate", "", "--dry-run", "--root", "/r"]);
    assert_eq!(code, 3, "{err}");
}

#[test]
fn version_verbose_names_the_kernel_programs_digest() {
    let (code, out, _) = assay(&["--version", "--verbose"]);
    assert_eq!(code, 0);
    let digest = out.split_once("kernel programs: ").unwrap().1.split(' ').next().unwrap();
    assert_eq!(digest.len(), 64, "{out}");
}

#[test]
fn every_subcommand_has_help_and_examples() {
    let checked = check_help(&[]);
    assert!(checked > 15, "only {checked} subcommands were found");
}

/// Checks the help of every subcommand below `path`; how many there are.
fn check_help(path: &[&str]) -> usize {
    let (code, help, _) = assay(&[path, &["--help"]].concat());
    assert_eq!(code, 0, "{path:?}");
    let Some((_, commands)) = help.split_once("\nCommands:\n") else {
        assert!(help.contains("Example"), "{path:?} --help has no example:\n{help}");
        return 1;
    };
    let rows = commands.lines().take_while(|line| !line.is_empty());
    let names = rows.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| check_help(&[path, &[name]].concat()))
        .sum()
}
