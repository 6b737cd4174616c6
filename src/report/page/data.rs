//! What the page shows, read from a proof root or a pack. What can't be read is named, never left out silently.

use crate::capture::{Effect, Operation};
use crate::evidence::{PolicyEvent, SdkEvent};
use crate::judge::GateVerdict;
use crate::judge::scenario::rows::{ProofPackReference, SemanticGapVerdict};
use crate::pack::claims::Claims;
use crate::run::RunRecord;
use crate::triage::gather::Tree;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read};

/// Effects of no call and no finding that are kept of one run; more are counted by what they did and where.
const MOST_EFFECTS: usize = 4000;
/// Effects of calls and findings that are kept of one run; more are counted as well.
const MOST_OF_CALLS: usize = 20_000;
/// Kinds of effects that are counted apart; what is of other kinds is counted together.
const MOST_KINDS: usize = 200;
/// Longest line of effects, and most bytes of them.
const LARGEST_LINE: u64 = 1 << 20;
const LARGEST_EFFECTS: u64 = 1 << 30;
/// Most text that effects are looked for in.
const MOST_SAID: usize = 64 << 10;

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
    /// The semantic gaps that were concluded.
    pub gaps: Vec<Gap>,
    /// It is a pack; else a proof root.
    pub packed: bool,
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

/// A measured effect that the report of its call does not contain.
#[derive(Debug)]
pub struct Gap {
    /// The scenario.
    pub scenario: String,
    /// The gate that showed it.
    pub gate: String,
    /// The call.
    pub call: Option<String>,
    /// `reason` of `scenario-verdict.json`: it names what was measured.
    pub reason: String,
    /// `finding.md`, when there is one.
    pub finding: Option<String>,
}

impl Gap {
    /// Whether `effect` is what makes the gap.
    #[must_use]
    pub fn is_of(&self, effect: &Effect) -> bool {
        effect.call == self.call && names(&self.reason, effect)
    }
}

/// Whether `text` names the file or the endpoint of `effect`, as a word of its own.
fn names(text: &str, effect: &Effect) -> bool {
    let paths = [&effect.path, &effect.target].into_iter().flatten().map(|path| path.value.as_str());
    let bounded = |name: &str| {
        let apart = |c: Option<char>| c.is_none_or(|c| c.is_whitespace() || ",;()\"'`:".contains(c));
        !name.is_empty()
            && text.match_indices(name).any(|(at, _)| {
                apart(text[..at].chars().next_back()) && apart(text[at + name.len()..].chars().next())
            })
    };
    paths.chain(effect.endpoint.as_deref()).any(bounded)
}

/// One measured run.
#[derive(Debug, Default)]
pub struct Run {
    /// From 1.
    pub number: u32,
    /// In the order of the ring: those of calls and findings, births and ends, and the first of the others.
    pub effects: Vec<Effect>,
    /// `seq` of the effects that a finding or a reason names.
    pub named: BTreeSet<u64>,
    /// Effects beyond those that are kept, in words and by number.
    pub left_out: BTreeMap<String, u64>,
    /// What the agent reported.
    pub sdk: Vec<SdkEvent>,
    /// What the proxy decided.
    pub policy: Vec<PolicyEvent>,
}

/// Reads a proof root (`prefix` empty) or a pack (`prefix` `payload/`).
#[must_use]
pub fn read(tree: &mut Tree, prefix: &str, source: &str) -> Document {
    let packed = !prefix.is_empty();
    let mut document = Document { source: source.to_owned(), packed, ..Document::default() };
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
    document.gaps = gaps(tree, prefix, &mut document.missing);
    for id in ids {
        let folder = format!("{base}{id}/");
        let verdict = json(tree, &format!("{folder}verdict.json"), &mut document.missing);
        let runs = (1..=9)
            .filter(|number| {
                let run = format!("{folder}run-{number}/");
                tree.names().iter().any(|name| name.starts_with(&run))
            })
            .collect::<Vec<u32>>();
        let mut said = String::new();
        let gaps = document.gaps.iter().filter(|gap| gap.gate == id).map(|gap| &gap.reason);
        for reason in gaps.chain(verdict.iter().flat_map(|verdict: &GateVerdict| &verdict.reasons)) {
            if said.len() + reason.len() < MOST_SAID {
                said += reason;
                said.push('\n');
            }
        }
        let runs = runs
            .into_iter()
            .map(|number| run(tree, &format!("{folder}run-{number}/"), number, &said, &mut document.missing));
        document.gates.push(Gate { runs: runs.collect(), id, verdict });
    }
    document
}

/// What `runs/<scenario>/` concludes to be a semantic gap.
fn gaps(tree: &mut Tree, prefix: &str, missing: &mut Vec<String>) -> Vec<Gap> {
    let folders: Vec<String> = tree
        .names()
        .iter()
        .filter_map(|name| Some(name.strip_suffix("scenario-verdict.json")?.to_owned()))
        .filter(|folder| folder.starts_with(&format!("{prefix}runs/")))
        .collect();
    let mut found = Vec::new();
    for folder in folders {
        let verdict: Option<SemanticGapVerdict> =
            json(tree, &format!("{folder}scenario-verdict.json"), missing);
        let Some(verdict) = verdict.filter(|verdict| verdict.verdict == "semantic_gap") else { continue };
        let reference: Option<ProofPackReference> =
            json(tree, &format!("{folder}proof-pack-reference.json"), missing);
        let finding = bytes(tree, &format!("{folder}finding.md"), missing);
        let evidence = reference.as_ref().and_then(|reference| reference.runner_archive_evidence.as_ref());
        found.push(Gap {
            scenario: verdict.scenario_id,
            call: evidence.map(|evidence| evidence.tool_call_id.clone()),
            gate: reference.map_or_else(String::new, |reference| reference.proof_pack.gate),
            reason: verdict.reason,
            finding: finding.map(|text| String::from_utf8_lossy(&text).into_owned()),
        });
    }
    found
}

fn run(tree: &mut Tree, folder: &str, number: u32, said: &str, missing: &mut Vec<String>) -> Run {
    let mut run = Run { number, ..Run::default() };
    let name = format!("{folder}effects.ndjson");
    let read = tree.with(&name, |reader| effects(reader, said, &mut run));
    match read {
        Ok(Some(())) => {}
        Ok(None) => missing.push(format!("{name}: not there")),
        Err(error) => missing.push(format!("{name}: {error}")),
    }
    run.sdk = lines(tree, &format!("{folder}extract/layers/sdk.ndjson"), missing);
    run.policy = lines(tree, &format!("{folder}extract/layers/policy.ndjson"), missing);
    run
}

/// Reads the effects line by line, so that any number of them fits.
fn effects(reader: &mut dyn Read, said: &str, run: &mut Run) -> Result<(), String> {
    let mut reader = BufReader::new(reader.take(LARGEST_EFFECTS));
    let (mut line, mut number, mut of_calls, mut others) = (Vec::new(), 0, 0, 0);
    loop {
        line.clear();
        number += 1;
        let read = reader.by_ref().take(LARGEST_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| error.to_string())? == 0 {
            return Ok(());
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let effect: Effect =
            serde_json::from_slice(&line).map_err(|error| format!("line {number}: {error}"))?;
        let born = matches!(effect.operation, Operation::Fork | Operation::Exec | Operation::Exit);
        let named = names(said, &effect);
        let matters = effect.call.is_some() || born || named;
        let (kept, most) = if matters { (&mut of_calls, MOST_OF_CALLS) } else { (&mut others, MOST_EFFECTS) };
        if *kept < most {
            *kept += 1;
            if named {
                run.named.insert(effect.seq);
            }
            run.effects.push(effect);
        } else {
            let kind = kind(&effect);
            let known = run.left_out.len() < MOST_KINDS || run.left_out.contains_key(&kind);
            let kind = if known { kind } else { "of other kinds".to_owned() };
            *run.left_out.entry(kind).or_default() += 1;
        }
    }
}

/// What an effect did and where, without its file.
pub(super) fn kind(effect: &Effect) -> String {
    let at = effect.path.as_ref().and_then(|path| path.value.rsplit_once('/')).map(|(folder, _)| folder);
    let at = at.map_or_else(String::new, |folder| format!(" below {folder}/"));
    let call =
        effect.call.as_ref().map_or_else(|| "outside any call".to_owned(), |call| format!("in {call}"));
    format!("{}{at}, {call}", effect.syscall)
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
