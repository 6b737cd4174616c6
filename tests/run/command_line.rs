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

/// The words of every command, found as a person would: in the help.
fn commands() -> Vec<Vec<String>> {
    fn below(words: &[String], found: &mut Vec<Vec<String>>) {
        let mut call: Vec<&str> = words.iter().map(String::as_str).collect();
        call.push("-h");
        let (code, help, _) = assay(&call);
        assert_eq!(code, 0, "{words:?}");
        let Some((_, listed)) = help.split_once("Commands:\n") else { return };
        let named = listed.lines().take_while(|line| line.starts_with("  "));
        let names =
            named.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        for name in names.filter(|name| *name != "help") {
            let command = [words, &[name.to_owned()]].concat();
            found.push(command.clone());
            below(&command, found);
        }
    }
    let mut found = Vec::new();
    below(&[], &mut found);
    assert!(found.len() > 25, "{found:?}");
    found
}

#[test]
fn each_command_has_help_a_page_and_a_line_for_who_mistypes_it() {
    let pages = tempfile::tempdir().unwrap();
    let (code, _, told) = assay(&["man", "--out", pages.path().to_str().unwrap()]);
    assert_eq!(code, 0, "{told}");
    for command in commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let (first, last) = (&words[..words.len() - 1], words[words.len() - 1]);
        let help = assay(&[&["help"], words.as_slice()].concat());
        let leaf = !help.1.contains("\nCommands:\n");
        assert!(!leaf || help.1.contains("Example"), "{words:?} --help has no example:\n{}", help.1);
        assert_eq!(help, assay(&[words.as_slice(), &["--help"]].concat()), "{words:?}");
        // Its page names the version, and is what `man` prints of it.
        let page =
            std::fs::read_to_string(pages.path().join(format!("assay-gates-{}.1", words.join("-")))).unwrap();
        let title = page.lines().find(|line| line.starts_with(".TH")).unwrap();
        assert!(title.contains(env!("CARGO_PKG_VERSION")), "{title}");
        assert_eq!(assay(&[&["man"], words.as_slice()].concat()).1, page, "{words:?}");
        // Two letters that changed places, wherever.
        for at in 1..last.len() {
            let mut letters: Vec<char> = last.chars().collect();
            letters.swap(at - 1, at);
            let word: String = letters.into_iter().collect();
            if word == last {
                continue;
            }
            let (code, _, told) = assay(&[first, &[&word]].concat());
            assert_eq!(code, 2, "{first:?} {word}: {told}");
            assert!(told.contains(&format!("'{last}'")), "{first:?} {word}: {told}");
        }
    }
}

#[test]
fn prose_of_a_help_is_wrapped_once_at_the_width_that_there_is() {
    for command in commands() {
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let output = Command::cargo_bin("assay-gates").unwrap().args(&words).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = help.lines().collect();
        for pair in lines.windows(2) {
            let prose = |line: &str| {
                line.starts_with(|c: char| c.is_alphanumeric() || c == '`') && !line.ends_with(':')
            };
            let next = pair[1].split(' ').next().unwrap_or_default();
            // A line of prose ends where its paragraph does, or where the next word has no room.
            if prose(pair[0]) && prose(pair[1]) {
                assert!(pair[0].len() + 1 + next.len() > 95, "{words:?}: {:?} {:?}", pair[0], pair[1]);
            }
        }
        // An example is one line to paste.
        let split = lines.iter().find(|line| line.starts_with("  assay-gates ") && line.ends_with(" --"));
        assert_eq!(split, None, "{words:?}");
    }
}

#[test]
fn a_folder_without_gates_and_an_unknown_revision_are_named() {
    let empty = tempfile::tempdir().unwrap();
    let folder = empty.path().to_str().unwrap();
    for selection in [["--gates", "all"], ["--gate", "kernel-only"]] {
        let (code, _, told) = assay(&[&["run"], selection.as_slice(), &["--gates-dir", folder]].concat());
        assert_ne!(code, 0);
        assert!(told.contains(folder) && told.contains("gate init"), "{told}");
    }
    let (_, _, told) = assay(&["lane", "--base", "no such\u{1b}revision"]);
    assert!(told.contains("no such\\u{1b}revision"), "{told}");
}
