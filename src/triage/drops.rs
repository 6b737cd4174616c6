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
    /// Hook to `emitted/refused`, of the hooks that recorded anything; empty is unknown.
    pub hooks: BTreeMap<String, String>,
    /// CPU to the records that the ring refused there; empty is unknown.
    pub cpus: BTreeMap<u32, u64>,
    /// Bytes that waited in the ring: the width of a slot of time, then the most of each slot.
    pub backlog: Option<String>,
    /// What produced most records, with its count.
    pub producers: Vec<(String, u64)>,
}

/// What is shown of every run: its name, and where it stands.
pub const ROWS: [(&str, Source); 13] = [
    ("kernel: size of the ring, bytes", Source::Environment("ring.bytes")),
    ("kernel: records refused by the ring", Source::Seen("nothing_dropped")),
    ("kernel: programs skipped by the kernel", Source::Seen("no_recursion_misses")),
    ("reader: emitted by the kernel", Source::Expected("emitted_equals_read")),
    ("reader: read", Source::Seen("emitted_equals_read")),
    ("reader: bytes put into the ring", Source::Expected("ring_drained")),
    ("reader: bytes taken out of it", Source::Seen("ring_drained")),
    ("reader: largest backlog, bytes", Source::Environment("ring.max_backlog_bytes")),
    ("reader: longest without a look, ms", Source::Environment("reader.max_lag_ms")),
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
    /// An entry of the proof's environment.
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
            Source::Environment(key) => proof.as_ref().and_then(|proof| proof.environment.get(key).cloned()),
        };
        if let Some(value) = value {
            losses.rows.insert(name.to_owned(), value);
        }
    }
    if let Some(proof) = &proof {
        let starting = |start| {
            let all = proof.environment.iter();
            all.filter_map(move |(key, value)| Some((key.strip_prefix(start)?, value)))
        };
        losses.hooks = starting("records.")
            .filter(|(_, counts)| *counts != "0/0")
            .map(|(hook, counts)| (hook.to_owned(), counts.clone()))
            .collect();
        losses.cpus = starting("drops.cpu")
            .filter_map(|(cpu, refused)| Some((cpu.parse().ok()?, refused.parse().ok()?)))
            .collect();
        losses.backlog = proof.environment.get("ring.backlog_over_time").cloned();
    }
    losses.producers = producers(tree, &format!("{folder}effects.ndjson"));
    losses
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
            out.push_str(&beneath(run));
        }
    }
    out
}

/// What of a run does not fit into a column.
fn beneath(run: &RunLosses) -> String {
    let known = |text: String| if text.is_empty() { "unknown".to_owned() } else { text };
    let hooks: Vec<String> = run.hooks.iter().map(|(hook, counts)| format!("{hook} {counts}")).collect();
    let refusing: Vec<String> = run
        .cpus
        .iter()
        .filter(|(_, refused)| **refused > 0)
        .map(|(cpu, refused)| format!("cpu{cpu} {refused}"))
        .collect();
    let cpus = match (run.cpus.len(), refusing.is_empty()) {
        (0, _) => String::new(),
        (count, true) => format!("none on any of {count}"),
        (_, false) => refusing.join(", "),
    };
    let backlog = run.backlog.clone().unwrap_or_default();
    let mut out = format!("  run {}: per hook, emitted/refused: {}\n", run.run, known(hooks.join(", ")));
    out.push_str(&format!("    per CPU, refused: {}\n", known(cpus)));
    out.push_str(&format!("    backlog over time, bytes by slots of {}\n", known(backlog)));
    for (what, count) in &run.producers {
        out.push_str(&format!("    {count:>8} × {what}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_recorded_reads_unknown() {
        let run = RunLosses { gate: "g".to_owned(), run: 1, ..RunLosses::default() };
        let text = drops_view(&[run], None);
        assert!(text.lines().filter(|line| line.contains("unknown")).count() > ROWS.len());
    }
}
