//! Situations as a maintainer meets them, each run through the command, each with the class that is expected.

use super::github::{RunOf, mount_lists, mount_run, run_answer, zip_of};
use assay_gates::triage::Rules;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use wiremock::MockServer;

/// What stands in `situations.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Situation {
    name: String,
    class: String,
    rerun: String,
    #[serde(default)]
    confidence: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    gate: Option<String>,
    /// Part of something that was missing.
    #[serde(default)]
    missing: Option<String>,
    #[serde(default)]
    also: Vec<String>,
    /// A run on GitHub.
    #[serde(default)]
    run: Option<RunOf>,
    /// Ask for the job of that index by its URL.
    #[serde(default)]
    job: Option<usize>,
    /// Files: a proof root or a pack.
    #[serde(default)]
    folder: Option<BTreeMap<String, String>>,
    /// Files of a zip: a pack or logs.
    #[serde(default)]
    zip: Option<BTreeMap<String, String>>,
    /// A log.
    #[serde(default)]
    log: Option<String>,
}

fn situations() -> Vec<Situation> {
    serde_yaml::from_str(include_str!("situations.yaml")).unwrap()
}

/// Runs the command in an empty environment; gives its exit code, stdout and stderr.
pub fn command(arguments: &[&str], at: &Path) -> (i32, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(arguments)
        .current_dir(at)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", at)
        .env("GH_TOKEN", "test-token")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn write_all(root: &Path, files: &BTreeMap<String, String>) {
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

async fn diagnosis_of(situation: &Situation) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().to_owned();
    let mut arguments: Vec<String> = vec!["triage".into()];
    let server;
    if let Some(run) = &situation.run {
        server = MockServer::start().await;
        mount_run(&server, 100, run).await;
        let listed = [run_answer(100, run)];
        mount_lists(&server, &listed, &[]).await;
        match situation.job {
            Some(job) => {
                arguments.push(format!("https://github.com/o/r/actions/runs/100/job/{}", 1000 + job))
            }
            None => arguments.push("100".into()),
        }
        arguments.extend(["--repo".into(), "o/r".into(), "--api-url".into(), server.uri()]);
    } else if let Some(files) = &situation.folder {
        let root = at.join("proof");
        write_all(&root, files);
        arguments.push(root.display().to_string());
    } else if let Some(files) = &situation.zip {
        let path = at.join("x.zip");
        std::fs::write(&path, zip_of(files)).unwrap();
        arguments.push(path.display().to_string());
    } else {
        let path = at.join("x.log");
        std::fs::write(&path, situation.log.as_ref().unwrap()).unwrap();
        arguments.push(path.display().to_string());
    }
    arguments.extend(["--format".into(), "json".into()]);
    let name = situation.name.clone();
    let (exit, out, err) = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        command(&arguments, &at)
    })
    .await
    .unwrap();
    assert_eq!(exit, 0, "{name}: {err}");
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{name}: {error}: {out}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_situation_gets_its_class() {
    let situations = situations();
    assert!(situations.len() >= 40, "{}", situations.len());
    let running: Vec<_> = situations
        .iter()
        .cloned()
        .map(|situation| tokio::spawn(async move { diagnosis_of(&situation).await }))
        .collect();
    let mut confusion: BTreeMap<(String, String), u32> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (situation, running) in situations.iter().zip(running) {
        let found = running.await.unwrap();
        let class = found["class"].as_str().unwrap().to_owned();
        *confusion.entry((situation.class.clone(), class.clone())).or_default() += 1;
        let mut demand = |what: &str, expected: &str, got: &str| {
            if expected != got {
                wrong.push(format!("{}: {what}: expected {expected}, found {got}", situation.name));
            }
        };
        demand("class", &situation.class, &class);
        let (answer, why) = (found["rerun"]["answer"].as_str().unwrap(), &found["rerun"]["why"]);
        demand(
            "rerun",
            &situation.rerun,
            if answer == situation.rerun { answer } else { why.as_str().unwrap() },
        );
        for (what, expected) in
            [("confidence", &situation.confidence), ("detail", &situation.detail), ("gate", &situation.gate)]
        {
            if let Some(expected) = expected {
                demand(what, expected, found[what].as_str().unwrap_or("null"));
            }
        }
        if let Some(part) = &situation.missing {
            let all = found["missing"].to_string();
            demand("missing", part, if all.contains(part.as_str()) { part } else { &all });
        }
        let also: BTreeSet<&str> =
            found["also"].as_array().unwrap().iter().filter_map(|also| also["class"].as_str()).collect();
        for class in &situation.also {
            demand("also", class, if also.contains(class.as_str()) { class } else { "not there" });
        }
    }
    assert!(wrong.is_empty(), "{}\n\n{}", wrong.join("\n"), table(&confusion));
    // Every class is met at least once, and nothing stands beside the diagonal.
    let rules = Rules::embedded().unwrap();
    for class in rules.classes() {
        let key = (class.id.clone(), class.id.clone());
        assert!(confusion.contains_key(&key), "no situation for {}", class.id);
    }
    insta::assert_snapshot!("confusion", table(&confusion));
}

/// Expected classes down, found classes across; only cells that aren't empty.
fn table(confusion: &BTreeMap<(String, String), u32>) -> String {
    let rows =
        confusion.iter().map(|((expected, found), count)| format!("{expected:<30} {found:<30} {count}"));
    format!("{:<30} {:<30} situations\n{}", "expected", "found", rows.collect::<Vec<_>>().join("\n"))
}
