//! Who changes one thing and makes every digest above it right again, in all runs alike: only what is meant can tell.

use super::edits::{self, Edit};
use crate::fixture::{ARCHIVE, GATE, put};
use assay_gates::evidence::archive::{examine, member, write};
use assay_gates::files::{pretty_sorted, sha256};
use assay_gates::judge::{RunArtifacts, compare};
use assay_gates::pack::{self, Manifest, Source, claims};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A pack's files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What is changed alike: a file, the same file of each run, or a member of each run's archive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    Top(String),
    Run(String),
    Member(&'static str),
}

impl Unit {
    /// As the table names it.
    pub fn name(&self) -> String {
        let scenario = |path: &str| path.replace("runs/matched_safe_read/", "runs/*/");
        match self {
            Self::Top(path) => {
                let below = path.strip_prefix("payload/").unwrap_or(path);
                scenario(&below.replace(&format!("gates/{GATE}/"), "gates/*/"))
            }
            Self::Run(name) => format!("gates/*/run-N/{name}"),
            Self::Member(name) => format!("runner-*.tar.gz!{name}"),
        }
    }
}

fn run(number: u32, name: &str) -> String {
    format!("payload/gates/{GATE}/run-{number}/{name}")
}

/// The units of a pack, each with the bytes of the first.
pub fn units(files: &Files) -> BTreeMap<Unit, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (path, bytes) in files {
        match path.strip_prefix(&run(1, "")) {
            Some(ARCHIVE) => {
                let archive = examine(bytes).unwrap();
                for name in member::ALL {
                    all.insert(Unit::Member(name), archive.member(name).unwrap().to_vec());
                }
            }
            // What stands beside an archive is changed with it; alone it is another file.
            Some(name) => {
                all.insert(Unit::Run(name.to_owned()), bytes.clone());
            }
            None if path.contains("/run-2/") || path.contains("/run-3/") => {}
            None => {
                all.insert(Unit::Top(path.clone()), bytes.clone());
            }
        }
    }
    all
}

/// A copy of the pack that is changed and put back.
pub struct Forger<'a> {
    pristine: &'a Files,
    folder: PathBuf,
    changed: Files,
    gone: Vec<String>,
}

impl<'a> Forger<'a> {
    pub fn new(pristine: &'a Files, folder: PathBuf) -> Self {
        for (path, bytes) in pristine {
            put(&folder, path, bytes);
        }
        Self { pristine, folder, changed: Files::new(), gone: Vec::new() }
    }

    /// The first reason that the pack is refused for with this change; none when it is accepted.
    pub fn outcome(&mut self, unit: &Unit, edit: &Edit) -> Option<&'static str> {
        self.change(unit, edit);
        self.digests();
        if self.agreement() {
            self.digests();
        }
        self.chain(unit, edit);
        self.write();
        self.claims(unit);
        self.lists(unit, edit);
        let (verified, outcome) = pack::verify(&self.folder);
        let first = outcome.findings.first().map(|finding| finding.check);
        assert_eq!(verified.is_none(), first.is_some());
        self.put_back();
        first
    }

    fn bytes(&self, path: &str) -> Vec<u8> {
        self.changed.get(path).or_else(|| self.pristine.get(path)).cloned().unwrap_or_default()
    }

    fn change(&mut self, unit: &Unit, edit: &Edit) {
        let paths: Vec<String> = match unit {
            // The manifest and what lists it come last.
            Unit::Top(path) if !path.starts_with("payload/") => return,
            Unit::Top(path) => vec![path.clone()],
            Unit::Run(name) => (1..=3).map(|number| run(number, name)).collect(),
            Unit::Member(name) => {
                (1..=3).for_each(|number| self.member(number, name, edit));
                return;
            }
        };
        for path in paths {
            match edits::apply(edit, &self.pristine[&path]) {
                Some(bytes) => {
                    self.changed.insert(path, bytes);
                }
                None => self.gone.push(path),
            }
        }
    }

    /// A member of an archive, the archive's own manifest, the archive, and what stands beside it.
    fn member(&mut self, number: u32, name: &'static str, edit: &Edit) {
        let path = run(number, ARCHIVE);
        let archive = examine(&self.pristine[&path]).unwrap();
        let mut members: BTreeMap<&'static str, Vec<u8>> =
            member::ALL.map(|name| (name, archive.member(name).unwrap().to_vec())).into();
        let changed = edits::apply(edit, &members[name]).unwrap_or_default();
        if name != member::MANIFEST {
            let mut manifest: Value = serde_json::from_slice(&members[member::MANIFEST]).unwrap();
            manifest["files"][name]["sha256"] = json!(sha256(&changed).to_string());
            manifest["files"][name]["bytes"] = json!(changed.len());
            members.insert(member::MANIFEST, manifest.to_string().into_bytes());
        }
        members.insert(name, changed);
        for (name, bytes) in &members {
            let beside = run(number, &format!("extract/{name}"));
            if self.pristine.get(&beside).is_some_and(|old| old != bytes) {
                self.changed.insert(beside, bytes.clone());
            }
        }
        self.changed.insert(path, write(&members).unwrap());
    }

    /// Every digest of a changed file, wherever it stands, until no file changes any more.
    fn digests(&mut self) {
        let mut done: BTreeMap<String, String> = BTreeMap::new();
        loop {
            let mut pairs = Vec::new();
            for (path, bytes) in &self.changed {
                let (old, new) = (sha256(&self.pristine[path]).hex(), sha256(bytes).hex());
                if old != new && done.insert(path.clone(), new.clone()).as_ref() != Some(&new) {
                    pairs.push((path.clone(), old, new, bytes.len()));
                }
            }
            if pairs.is_empty() {
                return;
            }
            for path in self.pristine.keys().filter(|path| path.starts_with("payload/")) {
                let bytes = self.bytes(path);
                let Ok(text) = std::str::from_utf8(&bytes) else { continue };
                let mut other = text.to_owned();
                for (about, old, new, length) in &pairs {
                    if about.ends_with(ARCHIVE) && other.contains(old.as_str()) && path.ends_with(".json") {
                        other = sized(&other, about, *length);
                    }
                    other = other.replace(old.as_str(), new);
                }
                if other != text {
                    self.changed.insert(path.clone(), other.into_bytes());
                }
            }
        }
    }

    /// What the verdict says of the agreement, from the files as they are now.
    fn agreement(&mut self) -> bool {
        let compared = ["extract/", "kernel_set.json", "surface.json"];
        if !self
            .changed
            .keys()
            .any(|path| path.contains("/run-") && compared.iter().any(|name| path.contains(name)))
        {
            return false;
        }
        let text = |path: String| String::from_utf8(self.bytes(&path)).unwrap();
        let json = |path: String| serde_json::from_str::<Value>(&text(path)).ok();
        let artifacts: Option<Vec<RunArtifacts>> = (1..=3)
            .map(|number| {
                Some(RunArtifacts {
                    health: json(run(number, "extract/observation-health.json"))?,
                    surface: json(run(number, "extract/capability-surface.json"))?,
                    correlation: json(run(number, "extract/correlation-report.json"))?,
                    effects: serde_json::from_str(&text(run(number, "surface.json"))).ok()?,
                    kernel_set: json(run(number, "kernel_set.json"))?,
                    policy: text(run(number, "extract/layers/policy.ndjson")),
                    sdk: text(run(number, "extract/layers/sdk.ndjson")),
                })
            })
            .collect();
        let Some(artifacts) = artifacts else { return false };
        let path = format!("payload/gates/{GATE}/verdict.json");
        let Some(mut verdict) = json(path.clone()) else { return false };
        verdict["determinism"] = serde_json::to_value(compare(&artifacts).unwrap()).unwrap();
        self.changed.insert(path, pretty_sorted(&verdict).unwrap().into_bytes());
        true
    }

    /// The chain without the files that are gone, each link on the one before it; a link that is itself the change stays.
    fn chain(&mut self, unit: &Unit, edit: &Edit) {
        let path = format!("payload/gates/{GATE}/chain.ndjson");
        let after = match (*unit == Unit::Top(path.clone()), edit) {
            (false, _) => 0,
            (true, Edit::Line(at, ..)) => at + 1,
            (true, _) => return,
        };
        let (mut lines, mut previous) = (String::new(), Value::Null);
        for (at, line) in String::from_utf8(self.bytes(&path)).unwrap().lines().enumerate() {
            let mut link: Value = serde_json::from_str(line).unwrap();
            if at >= after {
                let folder = link["run"].as_u64().map(|number| format!("run-{number}/")).unwrap_or_default();
                let gone = |name: &str| self.gone.contains(&format!("payload/gates/{GATE}/{folder}{name}"));
                if let Some(files) = link["files"].as_object_mut() {
                    files.retain(|name, _| !gone(name));
                }
                link["previous"] = previous;
            }
            let line = link.to_string();
            previous = json!(sha256(line.as_bytes()).to_string());
            lines.push_str(&format!("{line}\n"));
        }
        if lines.as_bytes() != self.pristine[&path] {
            self.changed.insert(path, lines.into_bytes());
        }
    }

    fn write(&self) {
        for (path, bytes) in &self.changed {
            put(&self.folder, path, bytes);
        }
        for path in &self.gone {
            std::fs::remove_file(self.folder.join(path)).unwrap();
        }
    }

    fn claims(&mut self, unit: &Unit) {
        let path = "payload/claims.json";
        if *unit == Unit::Top(path.to_owned()) {
            return;
        }
        let manifest: Manifest = serde_json::from_slice(&self.pristine["manifest.json"]).unwrap();
        let gates: Vec<_> = manifest.gates.iter().map(Into::into).collect();
        let derived = claims::derive(&Source::open(&self.folder).unwrap(), &gates);
        let bytes = pretty_sorted(&derived).unwrap().into_bytes();
        if bytes != self.pristine[path] {
            put(&self.folder, path, &bytes);
            self.changed.insert(path.to_owned(), bytes);
        }
    }

    /// The manifest's rows, its size, checksums and Statement; and what of these is itself the change.
    fn lists(&mut self, unit: &Unit, edit: &Edit) {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let mut manifest: Value = serde_json::from_slice(&self.pristine["manifest.json"]).unwrap();
        rows(&mut manifest, &self.changed, &self.gone);
        if let Some(log) = self.changed.get(&format!("payload/gates/{GATE}/gate.log")) {
            let lines = text(log)
                .lines()
                .filter(|line| line.starts_with("PASS:"))
                .map(str::to_owned)
                .collect::<Vec<_>>();
            manifest["gates"][0]["pass_lines"] = json!(lines);
        }
        let payload: u64 = manifest["payload_files"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| row["bytes"].as_u64().unwrap())
            .sum();
        for _ in 0..5 {
            manifest["pack_size_bytes"] = json!(payload + pretty_sorted(&manifest).unwrap().len() as u64);
        }
        let top = |name: &str| *unit == Unit::Top(name.to_owned());
        let changed = |bytes: &str| edits::apply(edit, bytes.as_bytes()).map(|bytes| text(&bytes));
        let mut written = Some(pretty_sorted(&manifest).unwrap());
        if top("manifest.json") {
            written = changed(written.as_deref().unwrap());
        }
        self.top("manifest.json", written.clone());
        let written = written.unwrap_or_default();
        // The lists over a manifest that is none are those over the one that was.
        let value: Manifest =
            serde_json::from_str(&written).unwrap_or_else(|_| serde_json::from_value(manifest).unwrap());
        let named = pack::statement::subjects(&value, sha256(written.as_bytes()));
        let list = pack::statement::checksums(&named);
        let list = if top("subject-checksums.txt") { changed(&list) } else { Some(list) };
        self.top("subject-checksums.txt", list);
        let statement = pack::statement::statement(&value, &named, "workflow_dispatch", "self-hosted");
        let statement = pretty_sorted(&statement).unwrap();
        let statement = if top("statement.intoto.json") { changed(&statement) } else { Some(statement) };
        self.top("statement.intoto.json", statement);
    }

    fn top(&mut self, name: &str, text: Option<String>) {
        match text {
            Some(text) => {
                put(&self.folder, name, &text);
                self.changed.insert(name.to_owned(), text.into_bytes());
            }
            None => {
                std::fs::remove_file(self.folder.join(name)).unwrap();
                self.gone.push(name.to_owned());
            }
        }
    }

    fn put_back(&mut self) {
        for path in std::mem::take(&mut self.changed).into_keys().chain(std::mem::take(&mut self.gone)) {
            put(&self.folder, &path, &self.pristine[&path]);
        }
    }
}

/// The rows that speak of changed files, and none of those that are gone.
fn rows(value: &mut Value, changed: &Files, gone: &[String]) {
    match value {
        Value::Array(items) => {
            items.retain(|item| !named(item).is_some_and(|path| gone.contains(&path)));
            items.iter_mut().for_each(|item| rows(item, changed, gone));
        }
        Value::Object(map) => {
            map.retain(|key, item| {
                key != "gate_log" || !named(item).is_some_and(|path| gone.contains(&path))
            });
            map.values_mut().for_each(|item| rows(item, changed, gone));
            if let Some(bytes) = named(value).and_then(|path| changed.get(&path)) {
                value["sha256"] = json!(sha256(bytes).to_string());
                value["bytes"] = json!(bytes.len());
            }
        }
        _ => {}
    }
}

/// The file of the payload that a row or subject speaks of.
fn named(row: &Value) -> Option<String> {
    let path = row.get("path")?.as_str()?;
    row.get("sha256")?;
    if path.ends_with("target/assay-ebpf.o") {
        return Some("payload/build/assay-ebpf.o".to_owned());
    }
    Some(path.strip_prefix("assay-runner-proof-upload/").unwrap_or(path).to_owned())
}

/// The length that a verdict states of an archive.
fn sized(text: &str, archive: &str, length: usize) -> String {
    fn walk(value: &mut Value, archive: &str, length: usize) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, archive, length)),
            Value::Object(map) => {
                if map.get("path").and_then(Value::as_str).is_some_and(|path| archive.ends_with(path)) {
                    map.insert("bytes".to_owned(), json!(length));
                }
                map.values_mut().for_each(|item| walk(item, archive, length));
            }
            _ => {}
        }
    }
    let Ok(mut value) = serde_json::from_str::<Value>(text) else { return text.to_owned() };
    walk(&mut value, archive, length);
    edits::written(&value, text)
}

/// Every file of a folder.
pub fn files(folder: &Path) -> Files {
    let source = Source::open(folder).unwrap();
    source.members().keys().map(|path| (path.clone(), std::fs::read(folder.join(path)).unwrap())).collect()
}
