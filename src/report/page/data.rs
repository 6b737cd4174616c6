//! What the page shows, read from a proof root or a pack. What can't be read is named, never left out silently.

use crate::capture::Effect;
use crate::evidence::{PolicyEvent, SdkEvent};
use crate::judge::GateVerdict;
use crate::pack::claims::Claims;
use crate::run::RunRecord;
use crate::triage::gather::Tree;
use serde::de::DeserializeOwned;

/// Effects that are kept of one run; more are counted.
const MOST_EFFECTS: usize = 4000;

/// The whole invocation.
#[derive(Debug, Default)]
pub struct Document {
    /// What was read, as the user named it.
    pub source: String,
    /// `run.json`.
    pub record: Option<RunRecord>,
    /// `claims.json`.
    pub claims: Option<Claims>,
    /// The gates, in the order of the invocation.
    pub gates: Vec<Gate>,
    /// What could not be read.
    pub missing: Vec<String>,
}

/// One gate.
#[derive(Debug)]
pub struct Gate {
    /// Its id.
    pub id: String,
    /// `verdict.json`.
    pub verdict: Option<GateVerdict>,
    /// Its runs.
    pub runs: Vec<Run>,
}

/// One measured run.
#[derive(Debug, Default)]
pub struct Run {
    /// From 1.
    pub number: u32,
    /// In the order of the ring.
    pub effects: Vec<Effect>,
    /// Effects beyond those that are kept.
    pub left_out: u64,
    /// What the agent reported.
    pub sdk: Vec<SdkEvent>,
    /// What the proxy decided.
    pub policy: Vec<PolicyEvent>,
}

/// Reads a proof root (`prefix` empty) or a pack (`prefix` `payload/`).
#[must_use]
pub fn read(tree: &mut Tree, prefix: &str, source: &str) -> Document {
    let mut document = Document { source: source.to_owned(), ..Document::default() };
    document.record = json(tree, &format!("{prefix}run.json"), &mut document.missing);
    document.claims = json(tree, &format!("{prefix}claims.json"), &mut document.missing);
    let base = format!("{prefix}gates/");
    let mut ids = document.record.as_ref().map(|record| record.gates.clone()).unwrap_or_default();
    let there =
        tree.names().iter().filter_map(|name| Some(name.strip_prefix(&base)?.split_once('/')?.0.to_owned()));
    for id in there.collect::<Vec<_>>() {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    for id in ids {
        let folder = format!("{base}{id}/");
        let verdict = json(tree, &format!("{folder}verdict.json"), &mut document.missing);
        let runs = (1..=9)
            .filter(|number| {
                let run = format!("{folder}run-{number}/");
                tree.names().iter().any(|name| name.starts_with(&run))
            })
            .collect::<Vec<u32>>();
        let runs = runs
            .into_iter()
            .map(|number| run(tree, &format!("{folder}run-{number}/"), number, &mut document.missing));
        document.gates.push(Gate { runs: runs.collect(), id, verdict });
    }
    document
}

fn run(tree: &mut Tree, folder: &str, number: u32, missing: &mut Vec<String>) -> Run {
    let mut run = Run { number, ..Run::default() };
    let effects: Vec<Effect> = lines(tree, &format!("{folder}effects.ndjson"), missing);
    run.left_out = effects.len().saturating_sub(MOST_EFFECTS) as u64;
    run.effects = effects.into_iter().take(MOST_EFFECTS).collect();
    run.sdk = lines(tree, &format!("{folder}extract/layers/sdk.ndjson"), missing);
    run.policy = lines(tree, &format!("{folder}extract/layers/policy.ndjson"), missing);
    run
}

fn json<T: DeserializeOwned>(tree: &mut Tree, name: &str, missing: &mut Vec<String>) -> Option<T> {
    let bytes = bytes(tree, name, missing)?;
    serde_json::from_slice(&bytes).map_err(|error| missing.push(format!("{name}: {error}"))).ok()
}

fn lines<T: DeserializeOwned>(tree: &mut Tree, name: &str, missing: &mut Vec<String>) -> Vec<T> {
    let Some(bytes) = bytes(tree, name, missing) else { return Vec::new() };
    let text = String::from_utf8_lossy(&bytes);
    let mut out = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_str(line) {
            Ok(value) => out.push(value),
            Err(error) => {
                missing.push(format!("{name}:{}: {error}", at + 1));
                break;
            }
        }
    }
    out
}

fn bytes(tree: &mut Tree, name: &str, missing: &mut Vec<String>) -> Option<Vec<u8>> {
    match tree.read(name) {
        Ok(Some(bytes)) => return Some(bytes),
        Ok(None) => missing.push(format!("{name}: not there")),
        Err(error) => missing.push(format!("{name}: {error}")),
    }
    None
}
