//! What is claimed is what `claims.json` says, in every view of every kind of run.

use crate::fixture::{self, definition, provenance, put, run_record};
use assay_gates::files::RootPath;
use assay_gates::host::rights::Rights;
use assay_gates::judge::GateVerdict;
use assay_gates::judge::claims::ClaimClass::{self, KernelAlone, KernelAndPolicy, ThreeLayers};
use assay_gates::pack::{self, claims};
use assay_gates::report::page::{read, render};
use assay_gates::triage::{self, Rules, diagnose, gather};
use assay_gates::{files, report};
use std::path::Path;

/// A kind of run: its name, how its root is made, the classes that it earns, and what keeps it from the others.
type Kind = (&'static str, fn(&Path), &'static [ClaimClass], &'static str);

/// A root of gates that passed, one for each of these.
fn measured(root: &Path, gates: &[(&str, ClaimClass)]) {
    let all: Vec<String> = gates.iter().map(|(gate, class)| definition(gate, *class, false)).collect();
    fixture::measured(root, &all);
}

fn replace(root: &Path, file: &str, from: &str, to: &str) {
    let text = std::fs::read_to_string(root.join(file)).unwrap();
    assert!(text.contains(from), "{file}: {text}");
    put(root, file, text.replace(from, to));
}

const NO_LAYERS: &str = "no gate was measured with these layers";
const KINDS: &[Kind] = &[
    ("the kernel alone", |root| measured(root, &[("shell", KernelAlone)]), &[KernelAlone], NO_LAYERS),
    (
        "kernel and policy",
        |root| measured(root, &[("proxy", KernelAndPolicy)]),
        &[KernelAndPolicy],
        NO_LAYERS,
    ),
    ("three layers", |root| measured(root, &[("agents", ThreeLayers)]), &[ThreeLayers], NO_LAYERS),
    (
        "all",
        |root| measured(root, &[("a", KernelAlone), ("b", KernelAndPolicy), ("c", ThreeLayers)]),
        &[ThreeLayers, KernelAndPolicy, KernelAlone],
        "",
    ),
    (
        "one gate of two failed",
        |root| {
            measured(root, &[("a", KernelAlone), ("c", ThreeLayers)]);
            put(root, "gates/a/status.txt", "failed\n");
            replace(root, "gates/a/verdict.json", "\"status\": \"passed\"", "\"status\": \"failed\"");
        },
        &[],
        "gate a is failed",
    ),
    (
        "a gate that was skipped",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            replace(root, "run.json", "\"c\"\n", "\"c\",\n    \"d\"\n");
            put(root, "gates/d/status.txt", "skipped\n");
        },
        &[],
        "gate d is skipped",
    ),
    (
        "interrupted",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            put(root, "gates/c/status.txt", "incomplete\n");
        },
        &[],
        "gate c is incomplete",
    ),
    ("a gate that never ran", |root| run_record(root, &["c"]), &[], "gate c is missing"),
    ("nothing", |root| run_record(root, &[]), &[], "no gate was selected"),
    (
        "changes that are not committed",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            replace(root, "run.json", "\"dirty\": false", "\"dirty\": true");
        },
        &[],
        "the checkout had uncommitted changes",
    ),
    (
        "no commit",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            replace(root, "run.json", "0123456789012345678901234567890123456789", "unknown");
        },
        &[],
        "it is not known which commit was measured",
    ),
    (
        "no record",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            std::fs::remove_file(root.join("run.json")).unwrap();
        },
        &[],
        "there is no record of the invocation",
    ),
    (
        "two runs",
        |root| {
            measured(root, &[("c", ThreeLayers)]);
            std::fs::remove_dir_all(root.join("gates/c/run-3")).unwrap();
        },
        &[],
        "attribution_stable_over_three_runs is refuted",
    ),
];

fn command(arguments: &[&str], folder: &Path) -> String {
    let mut command = assert_cmd::Command::cargo_bin("assay-gates").unwrap();
    let output =
        command.args(arguments).current_dir(folder).env_remove("GITHUB_STEP_SUMMARY").output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

/// Every view of the root and of its pack, by name.
fn views(folder: &Path) -> Vec<(String, String)> {
    let root = folder.join("root");
    let stated = claims::of_root(&RootPath::open(&root, Rights::own()).unwrap()).unwrap();
    put(&root, "claims.json", files::pretty_sorted(&stated).unwrap());
    let built = pack::build(&root, &folder.join("pack"), None, &provenance()).unwrap();
    assert_eq!(built.claims, stated, "a root and its pack claim the same");
    let mut verdicts: Vec<GateVerdict> = Vec::new();
    for gate in std::fs::read_dir(root.join("gates")).into_iter().flatten() {
        if let Ok(text) = std::fs::read(gate.unwrap().path().join("verdict.json")) {
            verdicts.push(serde_json::from_slice(&text).unwrap());
        }
    }
    let mut all = vec![
        ("terminal".to_owned(), report::verdicts(&verdicts, Some(&stated))),
        ("junit".to_owned(), report::junit(&verdicts, Some(&stated))),
        (
            "annotations".to_owned(),
            report::annotations(&verdicts, Some(&stated), &report::Definitions::default()),
        ),
        ("summary".to_owned(), report::summary(&verdicts, &[], Some(&stated), None)),
    ];
    let rules = Rules::embedded().unwrap();
    for (place, prefix) in [("root", ""), ("pack", "payload/")] {
        let path = folder.join(place);
        let diagnosis = diagnose(&rules, &gather::from_disk(&rules, &path).unwrap()).unwrap();
        let document = read(&mut gather::Tree::open(&path).unwrap(), prefix, place);
        all.extend([
            (format!("page of the {place}"), render(&document)),
            (format!("triage of the {place}"), triage::human(&diagnosis)),
            (format!("triage of the {place} as Markdown"), triage::markdown(&diagnosis)),
            (format!("triage of the {place} as JSON"), files::pretty_sorted(&diagnosis).unwrap()),
        ]);
    }
    all.push(("report".to_owned(), command(&["report", "root", "--format", "github"], folder)));
    // The command packs with the kernel programs of its own build only: as if they had measured.
    fixture::copy(&root, &folder.join("own"));
    if root.join("run.json").exists() {
        let stated = format!("\"{}\"", files::sha256(fixture::OBJECT));
        let record = std::fs::read_to_string(root.join("run.json")).unwrap();
        put(&folder.join("own"), "run.json", record.replace(&stated, "null"));
    }
    all.push(("pack".to_owned(), command(&["pack", "--root", "own", "--out", "again"], folder)));
    let (verified, outcome) = pack::verify(&folder.join("pack"));
    if verified.is_some() {
        all.push(("verify".to_owned(), command(&["verify", "pack"], folder)));
        all.push(("verify as JSON".to_owned(), files::pretty_sorted(&outcome).unwrap()));
    }
    all
}

/// Text without what Markdown escapes.
fn plain(text: &str) -> String {
    text.replace('\\', "")
}

#[test]
fn every_view_of_every_kind_of_run_says_what_was_earned_and_nothing_else() {
    let mut wrong = Vec::new();
    for (kind, make, earned, reason) in KINDS {
        let folder = tempfile::tempdir().unwrap();
        make(&folder.path().join("root"));
        let views = views(folder.path());
        if !earned.is_empty() {
            assert!(views.iter().any(|(name, _)| name == "verify"), "{kind} does not verify");
        }
        for (name, text) in views {
            let text = plain(&text);
            for class in ClaimClass::ALL {
                let said = text.contains(class.text());
                let denied = text.contains(&format!("claim {} not earned", class.id()));
                if said != earned.contains(&class) || denied == said {
                    wrong.push(format!("{kind}, {name}: {} said {said}, denied {denied}", class.id()));
                }
            }
            if earned.len() < 3 && !text.contains(reason) {
                wrong.push(format!("{kind}, {name}: not {reason:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
