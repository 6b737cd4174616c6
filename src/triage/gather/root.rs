//! A proof root or a pack on disk to facts.

use super::flatten::flatten;
use super::logs;
use super::tree::Tree;
use crate::evidence::Archive;
use crate::pack::claims::Claims;
use crate::triage::facts::{Case, Confidence, Fact, FactKind, Place};
use crate::triage::log::{Dressing, scan_as};
use crate::triage::rules::Rules;
use serde_json::Value;
use std::collections::BTreeSet;

/// The status of a gate whose measuring was ended by whoever started it.
const INTERRUPTED: &str = "interrupted";
use crate::judge::INTERRUPTED as INTERRUPTED_BETWEEN;
/// An archive is at most this large.
const LARGEST_ARCHIVE: u64 = 100 << 20;

/// Reads a proof root (`prefix` empty) or the payload of a pack (`prefix` `payload/`).
pub fn gather(rules: &Rules, tree: &mut Tree, prefix: &str, case: &mut Case) {
    let top = Place::default();
    let run = json(tree, &format!("{prefix}run.json"), "run.json", &top, case);
    let manifest = json(tree, "manifest.json", "manifest.json", &top, case);
    for name in ["cleanup.json", "doctor.json"] {
        json(tree, &format!("{prefix}{name}"), name, &top, case);
    }
    case.claims = claims(tree, &format!("{prefix}claims.json"), case);
    let gates_at = format!("{prefix}gates/");
    let found: BTreeSet<String> = tree
        .names()
        .iter()
        .filter_map(|name| Some(name.strip_prefix(&gates_at)?.split_once('/')?.0.to_owned()))
        .collect();
    let selected = selection(run.as_ref(), manifest.as_ref());
    let mut gates = found.clone();
    gates.extend(selected.iter().flatten().cloned());
    let mut statuses = Vec::new();
    for gate in &gates {
        let status = if found.contains(gate) {
            let listed = manifest.as_ref().and_then(|manifest| status_in(manifest, gate));
            one_gate(rules, tree, &gates_at, gate, listed, case)
        } else {
            "missing".to_owned()
        };
        statuses.push((gate.clone(), status));
    }
    let stopped = run.as_ref().is_some_and(|run| stopped(run, case));
    // Behind an end before the end nothing ran, and nobody says that it did.
    let killed = run.as_ref().is_some_and(|run| run.get("exit") == Some(&Value::Null));
    let interrupted = stopped || killed || statuses.iter().any(|(_, status)| status == INTERRUPTED);
    let mut passed = Vec::new();
    for (gate, mut status) in statuses {
        let place =
            Place { gate: Some(gate.clone()), file: Some(format!("{gates_at}{gate}")), ..Place::default() };
        if status == "passed" {
            passed.push(gate);
        } else if status == "missing" && interrupted {
            "not_reached".clone_into(&mut status);
        }
        case.push(Fact::new(FactKind::Gate, "status", status, place));
    }
    match selected {
        Some(selected) if !selected.is_empty() && passed.len() == gates.len() && !stopped => {
            let top = Place { file: Some("gates".to_owned()), ..top };
            case.push(Fact::new(FactKind::Run, "green_with", passed.join(", "), top));
        }
        Some(_) => {}
        None => case.missing.push(format!("{prefix}run.json: which gates were selected is not known")),
    }
    environment(case, run.as_ref(), manifest.as_ref());
}

/// Adds what ended the invocation before its end, as the driver wrote it; gives whether anything did.
fn stopped(run: &Value, case: &mut Case) -> bool {
    let text = |name: &str| run.pointer(&format!("/stopped/{name}")).and_then(Value::as_str);
    let Some(code) = text("code") else { return false };
    let place = Place { file: Some("run.json".to_owned()), ..Place::default() };
    let mut fact = Fact::new(FactKind::Code, "code", code, place);
    fact.confidence = Confidence::Certain;
    fact.context = vec![format!("> {}", text("reason").unwrap_or_default())];
    case.push(fact);
    true
}

/// What the invocation may be cited for; nothing when it can't be read.
fn claims(tree: &mut Tree, path: &str, case: &mut Case) -> Option<Claims> {
    let read = match tree.read(path) {
        Ok(Some(bytes)) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
        Ok(None) => return None,
        Err(error) => Err(error),
    };
    read.map_err(|error| case.missing.push(format!("{path}: {error}"))).ok()
}

/// The gates that had to run.
fn selection(run: Option<&Value>, manifest: Option<&Value>) -> Option<BTreeSet<String>> {
    let names = |value: &Value| -> Option<BTreeSet<String>> {
        let items = value.as_array()?.iter();
        Some(
            items
                .filter_map(|item| item.as_str().or_else(|| item.get("gate")?.as_str()).map(str::to_owned))
                .collect(),
        )
    };
    let of = |value: Option<&Value>| value.and_then(|value| value.get("gates")).and_then(names);
    of(run).or_else(|| of(manifest))
}

fn status_in(manifest: &Value, gate: &str) -> Option<String> {
    let rows = manifest.get("gates")?.as_array()?;
    let row = rows.iter().find(|row| row.get("gate").and_then(Value::as_str) == Some(gate))?;
    row.get("status")?.as_str().map(str::to_owned)
}

/// Adds what is known of one gate; gives its status.
fn one_gate(
    rules: &Rules,
    tree: &mut Tree,
    at: &str,
    gate: &str,
    listed: Option<String>,
    case: &mut Case,
) -> String {
    let folder = format!("{at}{gate}/");
    let place = |file: &str, run: Option<u32>| Place {
        gate: Some(gate.to_owned()),
        step: Some(format!("Gate: {gate}")),
        run,
        file: Some(file.to_owned()),
        ..Place::default()
    };
    let verdict_file = format!("{folder}verdict.json");
    let mut found = Vec::new();
    let verdict = read_json(tree, &verdict_file, &place(&verdict_file, None), case);
    let interrupted = verdict.as_ref().map(interrupted_runs).unwrap_or_default();
    let between = verdict.as_ref().and_then(interrupted_between);
    let passed = verdict.as_ref().map(|verdict| runs_with(verdict, "passed")).unwrap_or_default();
    if let Some(verdict) = &verdict {
        let place = place(&verdict_file, None);
        flatten("verdict.json", &without_runs(verdict, &interrupted, between.is_some()), &place, &mut found);
        case.facts.append(&mut found);
        for run in &interrupted {
            let place = Place { run: Some(*run), ..place.clone() };
            case.push(Fact::new(FactKind::Gate, "interrupted", format!("run {run}"), place));
        }
        if let Some(why) = &between {
            case.push(Fact::new(FactKind::Gate, "interrupted", why.clone(), place.clone()));
        }
    }
    let mut archives = 0;
    let numbers: BTreeSet<u32> = tree
        .names()
        .iter()
        .filter_map(|name| name.strip_prefix(&folder)?.strip_prefix("run-")?.split_once('/')?.0.parse().ok())
        .collect();
    for run in numbers {
        let runs = format!("{folder}run-{run}/");
        for (file, name) in [
            ("result.json", "result.json"),
            ("capture_proof.json", "capture_proof.json"),
            ("extract/observation-health.json", "observation-health.json"),
            ("extract/correlation-report.json", "correlation-report.json"),
        ] {
            // The verdict repeats every result; a second copy would only say it twice. What an interrupted run lacks
            // follows from the interruption.
            if name == "result.json" && verdict.is_some() || interrupted.contains(&run) {
                continue;
            }
            let path = format!("{runs}{file}");
            json(tree, &path, name, &place(&path, Some(run)), case);
        }
        archives += verify_archives(tree, &runs, &place("", Some(run)), case);
        sdk_versions(tree, &runs, case);
        // A run that passed has no failure that its program could explain.
        for measured in ["stdout.log", "stderr.log"] {
            if passed.contains(&run) {
                continue;
            }
            log(
                rules,
                tree,
                &format!("{runs}{measured}"),
                place(&format!("{runs}{measured}"), Some(run)),
                true,
                case,
            );
        }
    }
    let log_file = format!("{folder}gate.log");
    let before = case.facts.len();
    log(rules, tree, &log_file, place(&log_file, None), false, case);
    let of_interrupted = |fact: &Fact| {
        let named = |run: &u32| fact.value.contains(&format!("run {run}: "));
        interrupted.iter().any(named) && fact.kind == FactKind::Log
    };
    let mut index = 0;
    case.facts.retain(|fact| {
        index += 1;
        index <= before || !of_interrupted(fact)
    });
    if !interrupted.is_empty() || between.is_some() {
        return INTERRUPTED.to_owned();
    }
    let explained = verdict
        .as_ref()
        .and_then(|verdict| verdict.get("reasons")?.as_array())
        .is_some_and(|reasons| !reasons.is_empty());
    let status_file = format!("{folder}status.txt");
    match tree.read(&status_file) {
        Ok(Some(text)) if archives == 0 && text.trim_ascii() == b"passed" => {
            case.missing.push(format!("{folder}: a passed gate without archives shows nothing"));
            "incomplete".to_owned()
        }
        Ok(Some(text)) => {
            let word = String::from_utf8_lossy(&text).trim().to_owned();
            // The driver says why, and its exit code says that it did not pass.
            if word == "skipped" && explained {
                return "skipped_with_reason".to_owned();
            }
            if matches!(word.as_str(), "passed" | "failed" | "skipped" | "incomplete") {
                word
            } else {
                "incomplete".to_owned()
            }
        }
        Ok(None) if listed.as_deref() == Some("passed") && archives == 0 => {
            case.missing.push(format!("{folder}: a passed gate without archives shows nothing"));
            "incomplete".to_owned()
        }
        Ok(None) => listed.unwrap_or_else(|| {
            case.missing.push(status_file);
            "incomplete".to_owned()
        }),
        Err(error) => {
            case.missing.push(format!("{status_file}: {error}"));
            "incomplete".to_owned()
        }
    }
}

/// Recomputes every archive of a run; gives how many there are.
fn verify_archives(tree: &mut Tree, runs: &str, place: &Place, case: &mut Case) -> u32 {
    let is_archive = |name: &&String| {
        name.strip_prefix(runs).is_some_and(|file| file.starts_with("runner-") && file.ends_with(".tar.gz"))
    };
    let names: Vec<String> = tree.names().iter().filter(is_archive).cloned().collect();
    for name in &names {
        let verified = match tree.read_up_to(name, LARGEST_ARCHIVE) {
            Ok(bytes) => {
                Archive::from_bytes(&bytes.unwrap_or_default()).map(|_| ()).map_err(|error| error.to_string())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = verified {
            let place = Place { file: Some(name.clone()), ..place.clone() };
            case.push(Fact::new(FactKind::Artifact, "verify", format!("{name}: {error}"), place));
        }
    }
    u32::try_from(names.len()).unwrap_or(u32::MAX)
}

fn log(rules: &Rules, tree: &mut Tree, name: &str, place: Place, measured: bool, case: &mut Case) {
    let read = tree.with(name, |reader| {
        // The driver wrote it: no page, no other program's form.
        scan_as(reader, rules.patterns(), Dressing::Runner).map_err(|error| error.to_string())
    });
    match read {
        Ok(Some(found)) => logs::add(rules, case, &place, found, measured),
        Ok(None) => {}
        Err(error) => case.missing.push(format!("log {name}: {error}")),
    }
}

/// The runs of a verdict in which `key` is true.
fn runs_with(verdict: &Value, key: &str) -> BTreeSet<u32> {
    let runs = verdict.get("runs").and_then(Value::as_array).into_iter().flatten();
    let with = runs.filter(|run| run.get(key).and_then(Value::as_bool) == Some(true));
    with.filter_map(|run| u32::try_from(run.get("run")?.as_u64()?).ok()).collect()
}

/// Runs that whoever started them ended.
fn interrupted_runs(verdict: &Value) -> BTreeSet<u32> {
    runs_with(verdict, "interrupted")
}

/// Why a gate was ended between two of its runs, if it was.
fn interrupted_between(verdict: &Value) -> Option<String> {
    let reasons = verdict.get("reasons").and_then(Value::as_array)?;
    reasons.iter().find_map(|reason| reason.as_str()?.strip_prefix(INTERRUPTED_BETWEEN)).map(str::to_owned)
}

/// A verdict without those runs, and without the reasons that follow from their end.
fn without_runs(verdict: &Value, runs: &BTreeSet<u32>, between: bool) -> Value {
    let mut verdict = verdict.clone();
    if runs.is_empty() && !between {
        return verdict;
    }
    if let Some(all) = verdict.get_mut("runs").and_then(Value::as_array_mut) {
        let number = |run: &Value| u32::try_from(run.get("run")?.as_u64()?).ok();
        all.retain(|run| number(run).is_none_or(|number| !runs.contains(&number)));
    }
    if let Some(reasons) = verdict.get_mut("reasons").and_then(Value::as_array_mut) {
        let follows = |reason: &str| {
            reason.starts_with(INTERRUPTED_BETWEEN)
                || runs.iter().any(|run| reason.starts_with(&format!("run {run}: ")))
                || reason.ends_with("runs were measured")
                || reason == "a single run can't show agreement"
                || reason == "the runs could not be compared"
        };
        reasons.retain(|reason| reason.as_str().is_none_or(|reason| !follows(reason)));
    }
    verdict
}

/// Reads a JSON file into facts; what is there and can't be read is itself a finding.
fn json(tree: &mut Tree, path: &str, name: &str, place: &Place, case: &mut Case) -> Option<Value> {
    let value = read_json(tree, path, place, case)?;
    let place = Place { file: Some(path.to_owned()), ..place.clone() };
    flatten(name, &value, &place, &mut case.facts);
    Some(value)
}

/// Reads a JSON file; what is there and can't be read is itself a finding.
fn read_json(tree: &mut Tree, path: &str, place: &Place, case: &mut Case) -> Option<Value> {
    let bad = |error: String, case: &mut Case| {
        let place = Place { file: Some(path.to_owned()), ..place.clone() };
        case.push(Fact::new(FactKind::Artifact, "verify", format!("{path}: {error}"), place));
        None
    };
    let bytes = match tree.read(path) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return None,
        Err(error) => return bad(error, case),
    };
    match serde_json::from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(error) => bad(error.to_string(), case),
    }
}

fn sdk_versions(tree: &mut Tree, runs: &str, case: &mut Case) {
    let Ok(Some(lines)) = tree.read(&format!("{runs}extract/layers/sdk.ndjson")) else { return };
    let first = String::from_utf8_lossy(&lines)
        .lines()
        .next()
        .and_then(|line| serde_json::from_str::<Value>(line).ok());
    let Some(event) = first else { return };
    let text = |key: &str| event.get(key).and_then(Value::as_str).map(str::to_owned);
    if let (Some(name), Some(version)) = (text("sdk_name"), text("sdk_version")) {
        let known = case.environment.entry("SDK versions".to_owned()).or_default();
        let one = format!("{name} {version}");
        if !known.split(", ").any(|other| other == one) {
            *known = if known.is_empty() { one } else { format!("{known}, {one}") };
        }
    }
}

fn environment(case: &mut Case, run: Option<&Value>, manifest: Option<&Value>) {
    let at = |value: Option<&Value>, pointers: &[&str]| {
        let value = value?;
        pointers.iter().find_map(|pointer| value.pointer(pointer)?.as_str().map(str::to_owned))
    };
    let head = at(run, &["/source/head_sha"]).or_else(|| at(manifest, &["/source/head_sha"]));
    let object = at(run, &["/object_sha256"]).or_else(|| at(manifest, &["/build_provenance/ebpf/sha256"]));
    let field = |case: &Case, file: &str, ends: &[&str]| {
        let fits =
            |fact: &&Fact| fact.key.starts_with(file) && ends.iter().any(|end| fact.key.ends_with(end));
        case.facts.iter().find(fits).map(|fact| fact.value.clone())
    };
    let kernel = at(run, &["/host/kernel", "/host/kernel_release"]);
    let kernel = kernel.or_else(|| {
        field(case, "capture_proof.json:/environment/", &["/kernel", "/kernel_release", "/release"])
    });
    let toolchain = field(case, "capture_proof.json:/environment/", &["/object_compiler"]);
    let lost: u64 = case
        .facts
        .iter()
        .filter(|fact| fact.key == "observation-health.json:/ringbuf_drops")
        .filter_map(|fact| fact.value.parse::<u64>().ok())
        .sum();
    let counted = case.facts.iter().any(|fact| fact.key == "observation-health.json:/ringbuf_drops");
    for (name, value) in
        [("head", head), ("eBPF object", object), ("kernel", kernel), ("toolchain", toolchain)]
    {
        if let Some(value) = value {
            case.environment.insert(name.to_owned(), value);
        }
    }
    if counted {
        case.host.insert("lost events".to_owned(), lost.to_string());
    }
    for (name, words) in [
        ("disk", ["disk", "space"]),
        ("leftovers", ["leftover", "residue"]),
        ("clock", ["clock", "time_offset"]),
    ] {
        let fits = |fact: &&Fact| {
            (fact.key.starts_with("doctor.json:/checks/") || fact.key.starts_with("run.json:/host/"))
                && words.iter().any(|word| fact.key.contains(word))
        };
        let value = case
            .facts
            .iter()
            .filter(fits)
            .max_by_key(|fact| fact.key.ends_with("/found"))
            .map(|fact| fact.value.clone());
        if let Some(value) = value {
            case.host.insert(name.to_owned(), value);
        }
    }
}
