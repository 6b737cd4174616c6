//! Every line that the tool, its pages and its errors tell people to paste parses, and runs where it can.

use super::situations::command;
use assay_gates::cli::parses;
use assay_gates::triage::{Case, Fact, PAGES, Place, Rules, Subject, diagnose};
use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The words of a line, as a shell takes them apart.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut any) = (Vec::new(), String::new(), false, false);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if !quoted => word.extend(chars.next()),
            '\'' => (quoted, any) = (!quoted, true),
            c if c.is_whitespace() && !quoted => {
                if any || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                any = false;
            }
            c => word.push(c),
        }
    }
    if any || !word.is_empty() {
        words.push(word);
    }
    words
}

fn check(line: &str, wrong: &mut Vec<String>, from: &str) {
    let mut all = words(line);
    while matches!(all.first().map(String::as_str), Some("sudo" | "-n")) {
        all.remove(0);
    }
    let is_name =
        |word: &String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-');
    let names_alone = all.iter().all(is_name);
    let parsed = match all.first().map(String::as_str) {
        // A command that is only named, not meant to be pasted, is there when it has a help.
        Some("assay-gates") if names_alone => parses(all.iter().map(String::as_str).chain(["--help"])),
        Some("assay-gates") => parses(all.iter().map(String::as_str)),
        Some("gh") => {
            let known =
                ["run view", "run rerun", "run list", "run download", "auth status", "auth token", "api"];
            let rest = all[1..].join(" ");
            if known.iter().any(|known| rest.starts_with(known)) {
                Ok(())
            } else {
                Err("no such gh command".to_owned())
            }
        }
        Some("make") => {
            let makefile = include_str!("../../Makefile");
            let there = all
                .get(1)
                .is_some_and(|target| makefile.lines().any(|line| line.starts_with(&format!("{target}:"))));
            if there { Ok(()) } else { Err("no such target".to_owned()) }
        }
        _ => Err("neither this tool nor gh nor make".to_owned()),
    };
    if let Err(error) = parsed {
        wrong.push(format!("{from}: {line}: {}", error.lines().next().unwrap_or_default()));
    }
}

#[test]
fn the_next_command_of_every_class_parses_whatever_was_looked_at() {
    let rules = Rules::embedded().unwrap();
    let mut wrong = Vec::new();
    for class in rules.classes() {
        for (subject, source, run) in [
            (Subject::Run, "run 7", Some(7)),
            (Subject::Root, "it's a root", None),
            (Subject::Pack, "pack.zip", None),
            (Subject::Logs, "job.log", None),
        ] {
            let example = &class.example;
            let place = Place { step: example.step.clone(), ..Place::default() };
            let fact = Fact::new(example.fact, &*example.key, &*example.value, place);
            let repository = run.map(|_| "o/r".to_owned());
            let case = Case {
                source: source.into(),
                subject,
                run_id: run,
                repository,
                facts: vec![fact],
                ..Case::default()
            };
            let next = diagnose(&rules, &case).unwrap().next.command;
            assert!(!next.contains(['{', '}']), "{}: {next}", class.id);
            check(&next, &mut wrong, &format!("{} of {subject:?}", class.id));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The lines of this tool in a text: in code spans, and alone on a line of a block.
fn lines_of(markdown: &str) -> Vec<String> {
    let span = Regex::new(r"`((?:sudo (?:-n )?)?assay-gates [^`]+)`").unwrap();
    // A span may go on on the next line.
    let joined = markdown.replace("\n   ", " ").replace('\n', "\u{0}");
    let mut found: Vec<String> =
        span.captures_iter(&joined).map(|caught| caught[1].replace('\u{0}', " ")).collect();
    let block = Regex::new(r"^(?:sudo (?:-n )?)?assay-gates ").unwrap();
    found.extend(
        markdown
            .lines()
            .filter(|line| block.is_match(line))
            .map(|line| line.split("  #").next().unwrap().split(" #").next().unwrap().trim().to_owned()),
    );
    found.retain(|line| !line.contains('…') && !line.contains("..."));
    found
}

#[test]
fn the_lines_of_the_runbook_and_the_readme_parse() {
    let mut wrong = Vec::new();
    let mut count = 0;
    let more = [
        ("README.md", include_str!("../../README.md")),
        ("runbook/README.md", include_str!("../../runbook/README.md")),
    ];
    for (name, text) in PAGES.iter().chain(&more) {
        for line in lines_of(text) {
            count += 1;
            check(&line, &mut wrong, name);
        }
    }
    assert!(count > 40, "{count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        match entry.path() {
            path if path.is_dir() => sources(&path, found),
            path if path.extension().is_some_and(|end| end == "rs") => found.push(path),
            _ => {}
        }
    }
}

#[test]
fn the_lines_of_hints_errors_and_help_parse() {
    // A line of the tool within a text literal, to the end of the literal, of its line or of its quotes.
    let line = Regex::new(r"(?:sudo (?:-n )?)?assay-gates [a-z][^`\n;,()→]*").unwrap();
    let literal = Regex::new(r#""(?:[^"\\]|\\.)*""#).unwrap();
    let hole = Regex::new(r"\{[^{}]*\}").unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    sources(&root.join("src"), &mut files);
    let (mut wrong, mut seen) = (Vec::new(), BTreeSet::new());
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap().to_owned();
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .map(|line| format!("{line}\n"))
            .collect();
        for literal in literal.find_iter(&code) {
            let text = literal.as_str().trim_matches('"').replace("\\n", "\n");
            let advises = text.starts_with("assay-gates ")
                || text.starts_with("sudo ")
                || text.contains("hint: ")
                || text.contains(": assay-gates ")
                || text.contains(": sudo ")
                || text.contains("`assay-gates ")
                || text.contains("Example");
            for line in line.find_iter(&text).filter(|_| advises) {
                // A column of an example is told by two blanks; words of a sentence end the line.
                let line = line.as_str().split("  ").next().unwrap();
                let line = line.split(" | ").next().unwrap().split(" > ").next().unwrap();
                let line = line.split(" shows ").next().unwrap().split(" from a ").next().unwrap();
                let filled = hole.replace_all(line, "7").trim_end_matches(['.', '\'', ' ', '\\']).to_owned();
                if !filled.contains('…') && seen.insert(filled.clone()) {
                    check(&filled, &mut wrong, &file.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen.len() > 20, "{seen:?}");
}

#[test]
fn what_triage_says_to_do_with_a_root_runs() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("a root");
    for (name, text) in [
        ("run.json", r#"{"gates": ["kernel-only"], "selection": "kernel-only"}"#),
        ("gates/kernel-only/status.txt", "failed"),
        (
            "gates/kernel-only/verdict.json",
            r#"{"exit": 12, "reasons": ["run 1: killed at the time limit"], "runs": [{"run": 1, "lost": 3, "assertions": []}]}"#,
        ),
    ] {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::write(root.join(name), text).unwrap();
    }
    let rules = Rules::embedded().unwrap();
    let mut lines: BTreeSet<String> = BTreeSet::new();
    for class in rules.classes() {
        lines.insert(format!("assay-gates explain {}", class.id));
        if class.next.starts_with("assay-gates") && class.next.contains("{source}") {
            lines.insert(class.next.replace("{source}", "'a root'"));
        }
    }
    for line in lines {
        let all = words(&line);
        let arguments: Vec<&str> = all[1..].iter().map(String::as_str).collect();
        let (exit, _, err) = command(&arguments, folder.path());
        assert_eq!(exit, 0, "{line}: {err}");
    }
    assert!(folder.path().join("report.html").exists());
}

#[test]
fn nothing_from_a_log_or_a_root_moves_the_cursor_or_turns_a_line_around() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "x\u{1b}[2J\u{1b}]0;t\u{7}\r\u{202e}y\u{9b}1m";
    let log = format!("2026-02-03T12:43:20.1Z ##[error]No space left on device: {hostile}\n");
    std::fs::write(folder.path().join("x.log"), log).unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("gates/g/run-1")).unwrap();
    let verdict = serde_json::json!({"exit": 10, "reasons": [hostile], "runs": [{"run": 1, "assertions": [
        {"name": hostile, "held": false, "expected": hostile, "found": hostile}]}]});
    std::fs::write(
        root.join("run.json"),
        serde_json::json!({"gates": ["g"], "selection": hostile}).to_string(),
    )
    .unwrap();
    std::fs::write(root.join("gates/g/verdict.json"), verdict.to_string()).unwrap();
    std::fs::write(root.join("gates/g/status.txt"), hostile).unwrap();
    let pack = folder.path().join(format!("pack{}", hostile.replace('/', "")));
    std::fs::create_dir_all(pack.join("payload")).unwrap();
    std::fs::write(
        pack.join("manifest.json"),
        serde_json::json!({"schema": hostile, "gates": [hostile]}).to_string(),
    )
    .unwrap();
    let pack = pack.to_str().unwrap();
    for arguments in [
        &["triage", "x.log"][..],
        &["triage", "x.log", "--format", "markdown"],
        &["triage", "x.log", "--format", "json"],
        &["triage", "root"],
        &["triage", "root", "--format", "markdown"],
        &["triage", "root", "--format", "json"],
        &["triage", "root", "--drops"],
        &["report", "root", "--format", "github"],
        &["triage", pack],
        &["verify", pack],
        &["upload", pack],
        &["diff", pack, pack],
        &["explain", hostile],
    ] {
        let (_, out, err) = command(arguments, folder.path());
        for c in ['\u{1b}', '\u{7}', '\r', '\u{202e}', '\u{9b}'] {
            assert!(!out.contains(c) && !err.contains(c), "{arguments:?}: {c:?}\n{out:?}\n{err:?}");
        }
        assert!(!out.is_empty() || !err.is_empty(), "{arguments:?}");
    }
}

#[test]
fn on_a_terminal_with_colours_those_of_a_log_or_a_root_do_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    let hostile = "\u{1b}[31mx\u{1b}[1;4;5my\u{1b}[0m";
    let log = format!("2026-02-03T12:43:20.1Z ##[error]No space left on device: {hostile}\n");
    std::fs::write(folder.path().join("x.log"), log).unwrap();
    let root = folder.path().join("root/gates/g");
    std::fs::create_dir_all(&root).unwrap();
    let run = serde_json::json!({"gates": ["g", hostile], "selection": hostile});
    std::fs::write(folder.path().join("root/run.json"), run.to_string()).unwrap();
    let verdict = serde_json::json!({"exit": 10, "reasons": [hostile], "runs": []});
    std::fs::write(root.join("verdict.json"), verdict.to_string()).unwrap();
    for arguments in [
        "triage x.log",
        "triage root",
        "triage root --format markdown",
        "report root --format github",
        "verify root",
    ] {
        let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_assay-gates"));
        let output = std::process::Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .current_dir(folder.path())
            .env("TERM", "xterm")
            .env_remove("NO_COLOR")
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(!shown.is_empty() && !shown.contains('\u{1b}'), "{arguments}: {shown:?}");
    }
}
