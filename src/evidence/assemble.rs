//! One run's records and logs to everything that is kept of it.

use super::archive::{Archive, Members, safe_run_id, write};
use super::contract::{
    CapabilitySurface, CorrelationReport, ObservationHealth, PolicyEvent, RunFinished, RunStarted, schema,
};
use super::correlation::correlate;
use super::effect_surface::SurfaceBuilder;
use super::effects;
use super::filter::{Filter, FilterReport};
use super::health::{Counts, health};
use super::kernel::{KernelVersion, MAX_BYTES, Normalised, Normaliser, Sorted};
use super::kernel_set::KernelSet;
use super::logs::Logs;
use super::redaction::{RedactionKey, Redactor};
use super::surface::surface;
use super::tool_effects::Grouping;
use crate::capture::{CallWindow, CaptureProof, Effect, Operation, Summary};
use crate::error::{Code, Error, Result};
use crate::files::{RootPath, Sha256Digest, pretty_sorted, sha256};
use serde::Serialize;
use std::collections::BTreeSet;

/// What the driver knows of a run besides its recording.
#[derive(Clone, Copy, Debug)]
pub struct RunFacts<'a> {
    /// The run; letters, digits, `_`, `-`.
    pub run_id: &'a str,
    /// `none`, `openai-agents`, `gemini-google-genai`.
    pub agent_shim: &'a str,
    /// argv of the measured root process.
    pub command: &'a [String],
    /// Names of the variables that the driver added; sorted here.
    pub env_keys: &'a [String],
    /// The work folder as the measured program sees it, when it has one of its own.
    pub work: Option<&'a str>,
    /// What kernel events are written as.
    pub kernel_event: KernelVersion,
}

/// Where the results go.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The archive.
    pub archive: RootPath,
    /// A folder for effects.ndjson, surface.json, kernel_set.json, tool_effects.json, filter.json, capture_proof.json.
    pub details: Option<RootPath>,
    /// A folder for the archive's eight members.
    pub extract: Option<RootPath>,
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Written {
    /// Digest of the archive.
    pub sha256: Sha256Digest,
    /// Length of the archive.
    pub bytes: u64,
    /// Effects recorded.
    pub effects: u64,
    /// Kernel events kept as evidence.
    pub kernel_events: u64,
    /// Opens that were telemetry.
    pub filtered: u64,
    /// As in the archive.
    pub health: ObservationHealth,
    /// As in the archive.
    pub surface: CapabilitySurface,
    /// As in the archive.
    pub correlation: CorrelationReport,
    /// As in `kernel_set.json`.
    pub kernel_set: KernelSet,
}

/// Assembles the evidence of one run and writes it, each file whole or not at all, the archive last.
///
/// Effects are streamed. When a budget is passed, or something can't be written in the contract's form, no archive is
/// written; effects.ndjson and capture_proof.json stand all the same, so that what was recorded is not lost.
///
/// # Errors
/// `RunIdInvalid`; `BudgetExceeded`, `NotRepresentable` and `RedactionIncomplete` as above; `Io`; what the effects give.
pub fn assemble(
    facts: &RunFacts<'_>,
    summary: &Summary,
    recording: impl IntoIterator<Item = Result<Effect>>,
    logs: &Logs,
    key: &RedactionKey,
    outputs: &Outputs,
) -> Result<Written> {
    if !safe_run_id(facts.run_id) || facts.run_id != summary.run_id {
        return Err(Error::new(
            Code::RunIdInvalid,
            format!(
                "expected the recording's run id, of letters, digits, _ and -, found {}",
                facts.run_id.escape_debug()
            ),
        ));
    }
    let filter = Filter::embedded()?;
    let details = outputs.details.as_ref();
    let mut aside = Redactor::new(key)?;
    if let Some(folder) = details {
        let proof = redacted_proof(&summary.proof, &mut aside);
        write_swept(&folder.join("capture_proof.json"), &proof, &aside)?;
    }
    let windows: Vec<CallWindow> =
        summary.calls.iter().map(|window| redacted_window(window, &mut aside)).collect();
    let mut redactor = Redactor::new(key)?;

    let mut grouping = Grouping::new(&windows, filter, facts.work);
    let normaliser = Normaliser::new(facts.run_id, filter, facts.work).version(facts.kernel_event);
    let mut all = SurfaceBuilder::new(&windows, filter, facts.work);
    let mut streamed =
        stream(facts.run_id, normaliser, recording, details, &mut aside, (&mut grouping, &mut all))?;
    let processes = std::mem::take(&mut streamed.kernel.processes);
    let kernel_events = streamed.kernel.events.len() as u64;
    let filtered = streamed.kernel.tally.total();
    let filter_report = streamed.kernel.tally.report(filter, facts.run_id, facts.work, kernel_events);

    let members = members(facts, summary, streamed.kernel, &streamed.raw, logs, &mut redactor);
    let bytes = members.bytes()?;
    for (path, bytes) in &bytes {
        redactor.sweep(path, &String::from_utf8_lossy(bytes))?;
    }
    let kernel_bytes = bytes.get(super::archive::member::KERNEL).map_or(0, Vec::len);
    if kernel_bytes > MAX_BYTES {
        return Err(Error::new(
            Code::BudgetExceeded,
            format!("expected at most {MAX_BYTES} bytes of kernel events, found {kernel_bytes}"),
        ));
    }
    let archive = write(&bytes)?;
    // What we would refuse to read must not be written.
    let read_back = Archive::from_bytes(&archive)?;

    let kernel_set = KernelSet::of(facts.run_id, &members.kernel, &processes);
    if let Some(folder) = details {
        write_swept(&folder.join("kernel_set.json"), &kernel_set, &aside)?;
        write_swept(&folder.join("surface.json"), &all.finish(facts.run_id), &aside)?;
        write_swept(
            &folder.join("tool_effects.json"),
            &grouping.finish(facts.run_id, &members.policy),
            &aside,
        )?;
        write_swept(&folder.join("filter.json"), &redacted_report(filter_report, &mut aside), &aside)?;
    }
    if let Some(folder) = &outputs.extract {
        read_back.extract_to(folder)?;
    }
    outputs.archive.write(&archive)?;
    Ok(Written {
        sha256: sha256(&archive),
        bytes: archive.len() as u64,
        effects: streamed.effects,
        kernel_events,
        filtered,
        health: members.health,
        surface: members.surface,
        correlation: members.correlation,
        kernel_set,
    })
}

struct Streamed {
    kernel: Normalised,
    /// What the values of the kernel events were before redaction, with the surface field that they stand in.
    raw: Vec<(&'static str, String)>,
    effects: u64,
}

/// Takes every effect once: into effects.ndjson, into its call, into the kernel events, redacted before each, so that
/// whoever reads effects.ndjson derives the same.
///
/// A refusal of the last two is kept until every effect is on disk.
fn stream(
    run_id: &str,
    mut normaliser: Normaliser<'_>,
    recording: impl IntoIterator<Item = Result<Effect>>,
    details: Option<&RootPath>,
    aside: &mut Redactor<'_>,
    (grouping, all): (&mut Grouping<'_>, &mut SurfaceBuilder<'_>),
) -> Result<Streamed> {
    let mut file =
        details.map(|folder| effects::Writer::create(&folder.join("effects.ndjson"), run_id)).transpose()?;
    let mut refused = None;
    let mut raw = Vec::new();
    let mut count = 0;
    for effect in recording {
        let mut effect = match effect {
            Ok(effect) => effect,
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
        let before = raw_value(&effect);
        effects::redact(&mut effect, aside);
        if let Some(file) = &mut file {
            let line = file.write(&effect)?;
            aside.sweep("effects.ndjson", &line)?;
        }
        if refused.is_none() {
            let taken = grouping.take(&effect).and_then(|()| all.take(&effect));
            match normaliser.take(&effect).and_then(|sorted| taken.map(|()| sorted)) {
                Ok(Sorted::Evidence) => raw.extend(before),
                Ok(Sorted::Telemetry | Sorted::Other) => {}
                Err(refusal) => refused = Some(refusal),
            }
        }
        count += 1;
    }
    if let Some(file) = file {
        file.finish()?;
    }
    match refused {
        Some(refusal) => Err(refusal),
        None => Ok(Streamed { kernel: normaliser.finish(), raw, effects: count }),
    }
}

/// The value that a kernel event of this effect has, and the surface field that it stands in.
fn raw_value(effect: &Effect) -> Option<(&'static str, String)> {
    if let Some(endpoint) = &effect.endpoint {
        return Some(("network_endpoints", endpoint.clone()));
    }
    let field = if effect.operation == Operation::Exec { "process_execs" } else { "filesystem_paths" };
    effect.path.as_ref().map(|path| (field, path.value.clone()))
}

/// The members, with their secrets replaced and counted.
fn members(
    facts: &RunFacts<'_>,
    summary: &Summary,
    kernel: Normalised,
    raw: &[(&'static str, String)],
    logs: &Logs,
    redactor: &mut Redactor<'_>,
) -> Members {
    let run_id = facts.run_id;
    let events = kernel.events;
    count_hits(raw, logs.policy.as_deref().unwrap_or_default(), redactor);
    let mut logs = logs.clone();
    redact_logs(&mut logs, redactor);
    let policy = logs.policy.clone().unwrap_or_default();
    let surface = surface(run_id, &events, &policy);
    let correlation = correlate(
        run_id,
        events.len() as u64,
        logs.policy.as_deref(),
        logs.sdk.as_deref(),
        summary.session_cgroup_id,
    );
    let mut command = facts.command.to_vec();
    redactor.argv("command", &mut command);
    let mut env_keys = facts.env_keys.to_vec();
    env_keys.iter_mut().for_each(|name| redactor.text("env_keys", name));
    env_keys.sort();
    env_keys.dedup();
    let started = RunStarted {
        schema: schema::EVENT.to_owned(),
        run_id: run_id.to_owned(),
        seq: 0,
        r#type: "run_started".to_owned(),
        agent_shim: facts.agent_shim.to_owned(),
        command,
        env_keys,
        window_elapsed_ms: 0,
    };
    let finished = RunFinished {
        schema: schema::EVENT.to_owned(),
        run_id: run_id.to_owned(),
        seq: 1,
        r#type: "run_finished".to_owned(),
        exit_code: summary.outcome.exit_code,
        signal: summary.outcome.signal,
        success: summary.outcome.success(),
        window_elapsed_ms: summary.outcome.elapsed_ms,
    };
    let counts = Counts {
        kernel_events: events.len() as u64,
        endpoints: kernel.endpoints,
        filtered: &kernel.tally,
        decisions: logs.policy.as_ref().map(|events| events.len() as u64),
        sdk: logs.sdk.as_ref().map(|events| (events.len() as u64, logs.sdk_tool_calls().len() as u64)),
    };
    let mut health = health(summary, &counts);
    health.notes.iter_mut().for_each(|note| redactor.text("notes", note));
    health.redaction = Some(redactor.receipt());
    Members {
        surface,
        correlation,
        started,
        finished,
        kernel: events,
        policy,
        sdk: logs.sdk.clone().unwrap_or_default(),
        health,
    }
}

/// Counts what was redacted of the kernel layer by its key, and of the surface by its fields. The values were
/// replaced with their effects, and the surface that is written follows from the redacted layers, so that whoever
/// recomputes it finds it equal.
fn count_hits(raw: &[(&'static str, String)], policy: &[PolicyEvent], redactor: &mut Redactor<'_>) {
    let mut surface: BTreeSet<(&str, String)> = BTreeSet::new();
    for (field, value) in raw {
        redact_value(field, "value", value, redactor);
        surface.insert((field, value.clone()));
    }
    for event in policy {
        surface.insert(("mcp_tools", event.tool.clone()));
        surface.insert(("policy_decisions", format!("{}:{}", event.decision, event.tool)));
    }
    for (field, value) in &surface {
        redact_value(field, field, value, redactor);
    }
}

/// Redacts as values of the surface field `kind` are, counting under `field`.
fn redact_value(kind: &str, field: &str, value: &str, redactor: &mut Redactor<'_>) {
    let mut value = value.to_owned();
    match kind {
        "process_execs" => redactor.exec(field, &mut value),
        "network_endpoints" => redactor.address(field, &mut value),
        _ => redactor.text(field, &mut value),
    }
}

fn redact_logs(logs: &mut Logs, redactor: &mut Redactor<'_>) {
    for event in logs.policy.iter_mut().flatten() {
        redactor.text("source", &mut event.source);
        redactor.text("tool_call_id", &mut event.tool_call_id);
        redactor.text("tool", &mut event.tool);
    }
    for event in logs.sdk.iter_mut().flatten() {
        redactor.text("source", &mut event.source);
        for (field, value) in [
            ("sdk_name", &mut event.sdk_name),
            ("sdk_version", &mut event.sdk_version),
            ("tool_call_id", &mut event.tool_call_id),
            ("tool", &mut event.tool),
        ] {
            if let Some(value) = value {
                redactor.text(field, value);
            }
        }
    }
}

fn redacted_window(window: &CallWindow, redactor: &mut Redactor<'_>) -> CallWindow {
    let mut window = window.clone();
    redactor.text("tool_call_id", &mut window.tool_call_id);
    redactor.text("tool", &mut window.tool);
    redactor.text("server", &mut window.server);
    window
}

fn redacted_proof(proof: &CaptureProof, redactor: &mut Redactor<'_>) -> CaptureProof {
    let mut proof = proof.clone();
    proof.reasons.iter_mut().for_each(|reason| redactor.text("reasons", reason));
    for invariant in &mut proof.invariants {
        redactor.text("expected", &mut invariant.expected);
        redactor.text("seen", &mut invariant.seen);
    }
    proof.environment.values_mut().for_each(|value| redactor.text("environment", value));
    proof
}

fn redacted_report(mut report: FilterReport, redactor: &mut Redactor<'_>) -> FilterReport {
    for rule in &mut report.rules {
        let paths = std::mem::take(&mut rule.paths);
        for (mut path, count) in paths {
            redactor.text("paths", &mut path);
            *rule.paths.entry(path).or_default() += count;
        }
    }
    report
}

/// Writes one of our own JSON files after the sweep of its text.
fn write_swept<T: Serialize>(path: &RootPath, value: &T, redactor: &Redactor<'_>) -> Result<()> {
    let text = pretty_sorted(value)?;
    redactor.sweep(&path.path().display().to_string(), &text)?;
    path.write(text.as_bytes())
}
