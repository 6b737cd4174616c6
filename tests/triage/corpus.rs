//! The corpus of labelled logs, each in every form in which people have it: what is found, and that the form changes
//! nothing. The table of the outcome stands in the runbook.

use super::github::zip_of;
use assay_gates::triage::{Case, Confidence, Diagnosis, Rules, diagnose, gather};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Labelled {
    name: String,
    class: String,
    step: String,
    run: String,
    #[serde(default)]
    exit: Option<i32>,
    out: Vec<String>,
}

fn corpus() -> Vec<Labelled> {
    serde_yaml::from_str(include_str!("corpus.yaml")).unwrap()
}

fn rules() -> &'static Rules {
    static RULES: OnceLock<Rules> = OnceLock::new();
    RULES.get_or_init(|| Rules::embedded().unwrap())
}

/// A step of a job: its name, its script if it has one, what came.
struct Step {
    name: String,
    title: Option<String>,
    script: Vec<String>,
    lines: Vec<String>,
}

impl Labelled {
    fn steps(&self) -> Vec<Step> {
        let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        let setup = Step {
            name: "Set up job".to_owned(),
            title: None,
            script: Vec::new(),
            lines: own(&[
                "Current runner version: '2.336.0'",
                "Runner name: 'bpf-7'",
                "Prepare workflow directory",
                "Getting action download info",
            ]),
        };
        let green = Step {
            name: "Versions".to_owned(),
            title: Some("Run cc --version".to_owned()),
            script: own(&["cc --version", "df -h / || echo 'error[AG001]: No space left on device'"]),
            lines: own(&["cc (Debian 14.2.0) 14.2.0", "/dev/vda 40G 12G 28G 30% /"]),
        };
        let mut lines = self.out.clone();
        if let Some(code) = self.exit.filter(|code| *code != 0) {
            lines.push(format!("##[error]Process completed with exit code {code}."));
        }
        let failing = Step {
            name: self.step.clone(),
            title: Some(format!("Run {}", self.run)),
            script: vec![self.run.clone()],
            lines,
        };
        vec![setup, green, failing]
    }
}

const FORMS: [&str; 7] = ["runner", "runner without times", "gh", "act", "page", "zip", "folder"];

/// The lines of a step as the runner writes them, without times.
fn as_runner(step: &Step) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(title) = &step.title {
        lines.push(format!("##[group]{title}"));
        lines.extend(step.script.iter().map(|line| format!("\u{1b}[36;1m{line}\u{1b}[0m")));
        lines
            .extend(["shell: /usr/bin/bash -e {0}", "env:", "  CI: true", "##[endgroup]"].map(str::to_owned));
    }
    lines.extend(step.lines.iter().cloned());
    lines
}

fn stamped(lines: Vec<String>) -> Vec<String> {
    let stamp = |(n, line)| format!("2026-02-03T12:{:02}:{:02}.4206727Z {line}", n / 60 % 60, n % 60);
    lines.into_iter().enumerate().map(stamp).collect()
}

fn as_act(step: &Step) -> Vec<String> {
    let mut lines = vec![format!("⭐ Run Main {}", step.name)];
    for line in &step.lines {
        if let Some(code) = line
            .strip_prefix("##[error]Process completed with exit code ")
            .and_then(|rest| rest.strip_suffix('.'))
        {
            lines.push(format!("  ❌  Failure - Main {} [1.2s]", step.name));
            lines.push(format!("exitcode '{code}': failure"));
        } else if let Some(text) = line.strip_prefix("##[error]") {
            lines.push(format!("  ❗  ::error::{text}"));
        } else if let Some(text) = line.strip_prefix("##[warning]") {
            lines.push(format!("  🚧  ::warning::{text}"));
        } else if line.starts_with("::stop-commands::") || line.ends_with("::") && line.starts_with("::") {
            lines.push(format!("  ⚙  {line}"));
        } else {
            lines.push(format!("  | {line}"));
        }
    }
    lines.into_iter().map(|line| format!("[Gates/Measure] {line}")).collect()
}

fn as_page(step: &Step) -> Vec<String> {
    let as_words = |line: String| match line.strip_prefix("##[error]") {
        Some(text) => Some(format!("Error: {text}")),
        None if line == "##[endgroup]" => None,
        None => Some(line.replace("##[group]", "").replace("##[warning]", "Warning: ")),
    };
    as_runner(step)
        .into_iter()
        .filter_map(as_words)
        .map(|line| line.replace("\u{1b}[36;1m", "").replace("\u{1b}[0m", ""))
        .collect()
}

/// Writes the log in that form; gives its path.
fn write(log: &Labelled, form: &str, folder: &Path) -> PathBuf {
    let steps = log.steps();
    let text = |lines: Vec<String>| lines.join("\n") + "\n";
    let all = |lines: &dyn Fn(&Step) -> Vec<String>| steps.iter().flat_map(lines).collect::<Vec<_>>();
    let files: BTreeMap<String, String> = {
        let mut files = BTreeMap::from([("0_Measure.txt".to_owned(), text(stamped(all(&as_runner))))]);
        for (number, step) in (1..).zip(&steps) {
            let name: String = step.name.chars().filter(|c| !":/".contains(*c)).collect();
            files.insert(format!("Measure/{number}_{name}.txt"), text(stamped(as_runner(step))));
        }
        files
    };
    let path = folder.join("log.txt");
    let lines = match form {
        "runner" => stamped(all(&as_runner)),
        "runner without times" => all(&as_runner),
        "gh" => all(&|step| {
            let lines = stamped(as_runner(step)).into_iter();
            lines.map(|line| format!("Measure\t{}\t{line}", step.name)).collect()
        }),
        "act" => all(&as_act),
        "page" => all(&as_page),
        "zip" => {
            let path = folder.join("logs.zip");
            std::fs::write(&path, zip_of(&files)).unwrap();
            return path;
        }
        _ => {
            for (name, text) in files {
                let path = folder.join("logs").join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            return folder.join("logs");
        }
    };
    std::fs::write(&path, text(lines)).unwrap();
    path
}

fn found(log: &Labelled, form: &str) -> Diagnosis {
    let folder = tempfile::tempdir().unwrap();
    let case: Case = gather::from_disk(rules(), &write(log, form, folder.path())).unwrap();
    diagnose(rules(), &case).unwrap()
}

/// What must not depend on the form.
fn answer(diagnosis: &Diagnosis) -> String {
    let also: BTreeSet<&str> = diagnosis.also.iter().map(|also| also.class.as_str()).collect();
    let (detail, gate) = (diagnosis.detail.as_deref().unwrap_or("-"), &diagnosis.gate);
    format!(
        "{} ({detail}), {:?}, rerun {:?}, gate {gate}, also {also:?}",
        diagnosis.class, diagnosis.confidence, diagnosis.rerun.answer
    )
}

#[test]
fn every_form_of_a_log_gives_one_diagnosis() {
    let mut differing = Vec::new();
    for log in corpus() {
        let first = answer(&found(&log, FORMS[0]));
        for form in &FORMS[1..] {
            let other = answer(&found(&log, form));
            if other != first {
                differing.push(format!("{}: as {}: {first}\n    as {form}: {other}", log.name, FORMS[0]));
            }
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn the_corpus_is_judged_right_and_a_wrong_answer_is_never_certain() {
    let corpus = corpus();
    let names: BTreeSet<&str> = corpus.iter().map(|log| log.name.as_str()).collect();
    assert!(
        corpus.len() >= 150 && names.len() == corpus.len(),
        "{} logs, {} names",
        corpus.len(),
        names.len()
    );
    let mut confusion: BTreeMap<(String, String), usize> = BTreeMap::new();
    let (mut wrong, mut certain_and_wrong) = (Vec::new(), Vec::new());
    for log in &corpus {
        let diagnosis = found(log, FORMS[0]);
        *confusion.entry((log.class.clone(), diagnosis.class.clone())).or_default() += 1;
        if diagnosis.class != log.class {
            wrong.push(format!("{}: expected {}, found {}", log.name, log.class, answer(&diagnosis)));
            if diagnosis.confidence == Confidence::Certain {
                certain_and_wrong.push(log.name.clone());
            }
        }
    }
    assert!(certain_and_wrong.is_empty(), "{certain_and_wrong:?}");
    assert!(
        wrong.len() * 20 <= corpus.len(),
        "{} of {} are wrong:\n{}",
        wrong.len(),
        corpus.len(),
        wrong.join("\n")
    );
    // Not knowing is the only way to be wrong.
    let guessed: Vec<_> =
        confusion.keys().filter(|(expected, found)| expected != found && found != "unknown").collect();
    assert!(guessed.is_empty(), "{guessed:?}\n{}", wrong.join("\n"));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("runbook/accuracy/README.md");
    let table = table(&confusion, corpus.len(), wrong.len());
    if std::env::var_os("ASSAY_GATES_BLESS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &table).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(there, table, "run ASSAY_GATES_BLESS=1 cargo test --test triage corpus");
}

fn table(confusion: &BTreeMap<(String, String), usize>, all: usize, wrong: usize) -> String {
    let mut text = format!(
        "# How right triage is\n\nMeasured on the labelled logs of `tests/triage/corpus.yaml`, {all} in number, made after public reports; each in {} forms:\n\
         {}. `cargo test --test triage corpus` measures again.\n\n\
         {} right, {wrong} wrong, none of them certain; every form of a log gives the same diagnosis.\n\n\
         | what it was | what triage says | logs |\n|---|---|---|\n",
        FORMS.len(),
        FORMS.join(", "),
        all - wrong,
    );
    for ((expected, found), count) in confusion {
        let _infallible = writeln!(text, "| `{expected}` | `{found}` | {count} |");
    }
    text
}

#[test]
fn what_is_no_log_is_called_what_it_is() {
    let utf16: Vec<u8> = "2026-02-03T12:43:20Z a\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, word) in [
        (&b""[..], "empty"),
        (b"\x1f\x8b\x08\x00\x00", "gzip"),
        (&utf16, "UTF-16"),
        (b"<!DOCTYPE html><html><title>Sign in</title>", "HTML page (\"Sign in\")"),
        (b"{\"message\": \"Not Found\", \"status\": \"404\"}", "answer of the API (\"Not Found\")"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        std::fs::write(&path, bytes).unwrap();
        let diagnosis = diagnose(rules(), &gather::from_disk(rules(), &path).unwrap()).unwrap();
        assert_eq!(diagnosis.class, "unknown");
        assert!(
            diagnosis.missing.iter().any(|missing| missing.contains(word)),
            "{word}: {:?}",
            diagnosis.missing
        );
    }
}
