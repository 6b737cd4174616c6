//! A disk that is full at whatever write: the invocation and its pack are whole, or `disk_full` and nothing is claimed,
//! and what was finished is kept.

#[path = "../support/disk.rs"]
mod disk;
#[path = "../support/mod.rs"]
mod support;

use crate::fixture::{GATE, Script, definition, provenance, put, shipped};
use assay_gates::error::{Code, Result};
use assay_gates::gate::Catalog;
use assay_gates::judge::claims::ClaimClass;
use assay_gates::report::{All, Event, Recorder, Sink};
use assay_gates::run::{BaselineUse, Finished, Options, ProofRoot, Source};
use assay_gates::triage::{Confidence, Rules, diagnose, gather};
use disk::Disk;
use std::path::Path;

/// What was said while it went on.
#[derive(Default)]
struct Heard(std::rc::Rc<std::cell::RefCell<Vec<Event>>>);

impl Sink for Heard {
    fn event(&mut self, event: &Event) -> Result<()> {
        self.0.borrow_mut().push(event.clone());
        Ok(())
    }
}

struct Bench {
    catalog: Catalog,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = definition(GATE, ClaimClass::ThreeLayers, true);
        put(folder.path(), &format!("{GATE}/gate.yaml"), shipped(&text, 0));
        put(folder.path(), &format!("{GATE}/policy.yaml"), crate::fixture::POLICY);
        Self { catalog: Catalog::load(folder.path()).unwrap(), _folder: folder }
    }

    /// As the command does it: events, runs, pack; gives what was said too.
    fn go(&self, root: &Path, resume: bool) -> (Result<Finished>, Vec<Event>) {
        let heard = Heard::default();
        let said = std::rc::Rc::clone(&heard.0);
        let finished = self.carry_out(root, resume, heard);
        (finished, said.take())
    }

    fn carry_out(&self, root: &Path, resume: bool, heard: Heard) -> Result<Finished> {
        let selection = self.catalog.select(&[GATE.to_owned()])?;
        let options = Options {
            runs: 3,
            resume,
            selection: None,
            slow: 1,
            baselines: BaselineUse::None,
            source: Source {
                head_sha: crate::fixture::HEAD.to_owned(),
                dirty: false,
                r#ref: "refs/heads/main".to_owned(),
                repository: "owner/name".to_owned(),
                workflow: None,
            },
            now: || "2026-11-21T10:00:00Z".to_owned(),
            told_to_stop: || None,
        };
        let root = ProofRoot::open(root)?;
        let events = root.folder().join("events.jsonl");
        let recorder = Recorder::new(events.append()?, events.path());
        let mut views = All(vec![Box::new(recorder), Box::new(heard)]);
        let finished = assay_gates::run::run(
            &self.catalog,
            &selection,
            &options,
            &root,
            &mut Script::new(),
            &mut views,
        )?;
        let folder = root.folder();
        let provenance = assay_gates::pack::Provenance { object: None, ..provenance() };
        assay_gates::pack::build_below(
            folder,
            &folder.join("pack"),
            Some(&folder.join("pack.zip")),
            &provenance,
        )
        .inspect_err(|error| root.stop(error, (options.now)()))?;
        root.release()?;
        Ok(finished)
    }
}

fn archives(root: &Path) -> Vec<(u32, Vec<u8>)> {
    let of = |run: u32| {
        let folder = root.join(format!("gates/{GATE}/run-{run}"));
        // What is finished has its result.
        folder.join("result.json").is_file().then_some(())?;
        let name = std::fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path());
        let mut archive = name.filter(|path| path.extension().is_some_and(|end| end == "gz"));
        Some((run, std::fs::read(archive.next()?).unwrap()))
    };
    (1..=3).filter_map(of).collect()
}

/// Runs at each of these sizes, then on with room enough; gives at how many the disk was full.
fn at_each(sizes: impl Iterator<Item = String>) -> (u32, u32) {
    let (bench, rules) = (Bench::new(), Rules::embedded().unwrap());
    let (mut full, mut whole) = (0, 0);
    for size in sizes {
        let disk = Disk::new(&size);
        let root = disk.join("root");
        let (finished, said) = bench.go(&root, false);
        let passed =
            |event: &Event| matches!(event, Event::GateFinished { status, .. } if status == "passed");
        let diagnosis = |root: &Path| diagnose(&rules, &gather::from_disk(&rules, root).unwrap()).unwrap();
        let error = match finished {
            Ok(finished) => {
                whole += 1;
                assert!(finished.verdicts.iter().all(|verdict| verdict.passed()), "{size}");
                assert_eq!(diagnosis(&root).class, "passed", "{size}");
                let mut zip =
                    zip::ZipArchive::new(std::fs::File::open(root.join("pack.zip")).unwrap()).unwrap();
                for at in 0..zip.len() {
                    std::io::copy(&mut zip.by_index(at).unwrap(), &mut std::io::sink()).unwrap();
                }
                continue;
            }
            Err(error) => error,
        };
        full += 1;
        assert_eq!((error.code(), error.exit().code()), (Code::DiskFull, 40), "{size}: {error}");
        assert!(error.advice().is_some_and(|hint| hint.contains("df -i")), "{size}");
        // Said only when the verdict was on disk.
        let verdict = root.join(format!("gates/{GATE}/verdict.json"));
        assert!(!said.iter().any(passed) || verdict.is_file(), "{size}");
        let ended = said.iter().any(|event| matches!(event, Event::SessionFinished { .. }));
        assert!(!ended || root.join("claims.json").is_file(), "{size}");
        if root.join("run.json").is_file() {
            let found = diagnosis(&root);
            assert_eq!((&*found.class, found.confidence), ("disk_full", Confidence::Certain), "{size}");
        }
        // With room again it goes on, and keeps what was finished.
        let kept = archives(&root);
        disk.resize("size=64m,nr_inodes=4096");
        let (finished, _) = bench.go(&root, true);
        assert!(finished.unwrap().verdicts.iter().all(|verdict| verdict.passed()), "{size}");
        let now = archives(&root);
        assert_eq!(now.len(), 3);
        assert!(kept.iter().all(|one| now.contains(one)), "{size}: a finished run was measured again");
        assert_eq!(diagnosis(&root).class, "passed", "{size}");
        let events = std::fs::read_to_string(root.join("events.jsonl")).unwrap();
        for line in events.lines() {
            serde_json::from_str::<serde_json::Value>(line)
                .unwrap_or_else(|error| panic!("{size}: {error}: {line}"));
        }
    }
    (full, whole)
}

#[test]
fn at_whatever_size_a_disk_is_too_small_nothing_is_claimed_and_nothing_finished_is_lost() {
    if !support::need_root() {
        return;
    }
    let (full, whole) = at_each((1..=25).map(|step| format!("size={}k", step * 36)));
    assert!(full > 10 && whole > 1, "{full} full, {whole} whole");
}

#[test]
fn at_whatever_number_of_inodes_a_disk_has_too_few_nothing_is_claimed_and_nothing_finished_is_lost() {
    if !support::need_root() {
        return;
    }
    let (full, whole) = at_each((1..=23).map(|step| format!("size=64m,nr_inodes={}", step * 9)));
    assert!(full > 10 && whole > 1, "{full} full, {whole} whole");
}
