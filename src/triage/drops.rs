//! Where records were lost: kernel, reader, spool and filter apart, run by run.
//!
//! A debug view. The bar stays at zero lost records; what is not recorded reads `unknown`.

use super::gather::Tree;
use crate::capture::{CaptureProof, Effect};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};

/// Producers that are listed of each run.
const TOP: usize = 5;

/// The losses of one measured run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunLosses {
    /// The gate.
    pub gate: String,
    /// From 1.
    pub run: u32,
    /// Name to value, in the order of [`ROWS`]; absent is unknown.
    pub rows: BTreeMap<String, String>,
    /// Hook to `emitted/dropped`.
    pub hooks: BTreeMap<String, String>,
    /// What produced most records, with its count.
    pub producers: Vec<(String, u64)>,
}

/// What is shown of every run: its name, and where it stands.
pub const ROWS: [(&str, Source); 12] = [
    ("kernel: records refused by the ring", Source::Seen("nothing_dropped")),
    ("kernel: programs skipped by the kernel", Source::Seen("no_recursion_misses")),
    ("kernel: losses per CPU", Source::Environment("drops.cpu")),
    ("reader: emitted", Source::Expected("emitted_equals_read")),
    ("reader: read", Source::Seen("emitted_equals_read")),
    ("reader: ring drained up to", Source::Seen("ring_drained")),
    ("reader: largest backlog", Source::Environment("ring.")),
    ("reader: largest lag", Source::Environment("reader.")),
    ("spool: kept", Source::Seen("read_equals_kept")),
    ("filter: kept as evidence", Source::Filter("kept")),
    ("filter: telemetry (not lost; in effects.ndjson)", Source::Filter("filtered")),
    ("host: load", Source::Environment("load")),
];

/// Where a row stands.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// `seen` of an invariant.
    Seen(&'static str),
    /// `expected` of an invariant.
    Expected(&'static str),
    /// Every entry of the proof's environment that begins so.
    Environment(&'static str),
    /// A count of filter.json.
    Filter(&'static str),
}

/// Reads the losses of every run of a proof root (`prefix` empty) or a pack (`prefix` `payload/`).
#[must_use]
pub fn losses(tree: &mut Tree, prefix: &str) -> Vec<RunLosses> {
    let base = format!("{prefix}gates/");
    let mut folders: Vec<(String, u32, String)> = tree
        .names()
        .iter()
        .filter_map(|name| {
            let (gate, rest) = name.strip_prefix(&base)?.split_once('/')?;
            let run = rest.strip_prefix("run-")?.split_once('/')?.0;
            Some((gate.to_owned(), run.parse().ok()?, format!("{base}{gate}/run-{run}/")))
        })
        .collect();
    folders.sort();
    folders.dedup();
    folders.into_iter().map(|(gate, run, folder)| one(tree, gate, run, &folder)).collect()
}

fn one(tree: &mut Tree, gate: String, run: u32, folder: &str) -> RunLosses {
    let mut losses = RunLosses { gate, run, ..RunLosses::default() };
    let read = |tree: &mut Tree, name: &str| tree.read(&format!("{folder}{name}")).ok().flatten();
    let proof: Option<CaptureProof> =
        read(tree, "capture_proof.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let filter: Option<Value> =
        read(tree, "filter.json").and_then(|bytes| serde_json::from_slice(&bytes).ok());
    for (name, source) in ROWS {
        let invariant = |wanted: &str| proof.as_ref()?.invariants.iter().find(|one| one.name == wanted);
        let value = match source {
            Source::Seen(wanted) => invariant(wanted).map(|one| one.seen.clone()),
            Source::Expected(wanted) => invariant(wanted).map(|one| one.expected.clone()),
            Source::Filter(key) => {
                filter.as_ref().and_then(|filter| filter.get(key)).map(ToString::to_string)
            }
            Source::Environment(start) => proof.as_ref().and_then(|proof| environment(proof, start)),
        };
        if let Some(value) = value {
            losses.rows.insert(name.to_owned(), value);
        }
    }
    if let Some(health) = read(tree, "extract/observation-health.json") {
        losses.hooks = hooks(&String::from_utf8_lossy(&health));
    }
    losses.producers = producers(tree, &format!("{folder}effects.ndjson"));
    losses
}

fn environment(proof: &CaptureProof, start: &str) -> Option<String> {
    let found = proof.environment.iter().filter(|(key, _)| key.starts_with(start));
    let all: Vec<(&str, &str)> = found.map(|(key, value)| (&key[start.len()..], value.as_str())).collect();
    match all.as_slice() {
        [] => None,
        [(_, value)] => Some((*value).to_owned()),
        many => {
            Some(many.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(" "))
        }
    }
}

/// `tracepoint_hooks=openat:e/d openat2:e/d …` of the health's note; only written when something was lost.
fn hooks(health: &str) -> BTreeMap<String, String> {
    let Some((_, rest)) = health.split_once("tracepoint_hooks=") else { return BTreeMap::new() };
    rest.split([' ', '"'])
        .map_while(|word| word.split_once(':').filter(|(_, counts)| counts.contains('/')))
        .map(|(hook, counts)| (hook.to_owned(), counts.to_owned()))
        .collect()
}

fn producers(tree: &mut Tree, name: &str) -> Vec<(String, u64)> {
    let counted = tree.with(name, |reader| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for line in BufReader::new(reader).lines() {
            let line = line.map_err(|error| error.to_string())?;
            let Ok(effect) = serde_json::from_str::<Effect>(&line) else { continue };
            let path = effect.path.as_ref().map_or("", |path| path.value.as_str());
            *counts.entry(format!("process {} {} {path}", effect.process, effect.syscall)).or_default() += 1;
        }
        Ok(counts)
    });
    let mut all: Vec<(String, u64)> = counted.ok().flatten().unwrap_or_default().into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    all.truncate(TOP);
    all
}

/// The view: one column per run, `green` beside it when the last green run is known.
#[must_use]
pub fn drops_view(runs: &[RunLosses], green: Option<&[RunLosses]>) -> String {
    let mut out =
        String::from("The bar is zero lost records. This view explains losses; it does not excuse them.\n");
    let mut gates: Vec<&str> = runs.iter().map(|run| run.gate.as_str()).collect();
    gates.dedup();
    if gates.is_empty() {
        out.push_str("\nno measured run is here: unknown\n");
    }
    for gate in gates {
        let here: Vec<&RunLosses> = runs.iter().filter(|run| run.gate == gate).collect();
        let before = green
            .map(|green| green.iter().filter(|run| run.gate == gate).collect::<Vec<_>>())
            .unwrap_or_default();
        out.push_str(&format!("\n{gate}\n"));
        let mut head = format!("  {:<50}", "");
        for run in &here {
            head.push_str(&format!(" {:>20}", format!("run {}", run.run)));
        }
        head.push_str(&format!(" {:>20}\n", "last green"));
        out.push_str(&head);
        let value =
            |run: &RunLosses, name: &str| run.rows.get(name).cloned().unwrap_or_else(|| "unknown".to_owned());
        for (name, _) in ROWS {
            let mut line = format!("  {name:<50}");
            for run in &here {
                line.push_str(&format!(" {:>20}", value(run, name)));
            }
            let green = before.first().map_or_else(|| "unknown".to_owned(), |run| value(run, name));
            out.push_str(&format!("{line} {green:>20}\n"));
        }
        for run in here {
            let hooks = run.hooks.iter().map(|(hook, counts)| format!("{hook} {counts}")).collect::<Vec<_>>();
            let hooks = if hooks.is_empty() {
                "unknown (recorded only with losses)".to_owned()
            } else {
                hooks.join(", ")
            };
            out.push_str(&format!("  run {}: per hook, emitted/dropped: {hooks}\n", run.run));
            for (what, count) in &run.producers {
                out.push_str(&format!("    {count:>8} × {what}\n"));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_come_from_the_note_that_losses_leave() {
        let note = r#"{"notes":["s2: drop_breakdown=tracepoint:3 tracepoint_hooks=openat:9/3 connect:1/0 filtered_loader_events=2"]}"#;
        let found = hooks(note);
        assert_eq!(found.get("openat").map(String::as_str), Some("9/3"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn what_is_not_recorded_reads_unknown() {
        let run = RunLosses { gate: "g".to_owned(), run: 1, ..RunLosses::default() };
        let text = drops_view(&[run], None);
        assert!(text.lines().filter(|line| line.contains("unknown")).count() > ROWS.len());
    }
}
