//! Whether one measured run shows what its gate declared.

use super::{Assertion, EffectTotals, reconcile};
use crate::capture::{CaptureProof, Operation};
use crate::evidence::effect_surface::Actor;
use crate::evidence::tool_effects::{Attribution, CallEffects, ConcurrentCalls, CountedEffect, ToolEffects};
use crate::evidence::{
    Archive, CapabilitySurface, CorrelationReport, EffectSurface, KernelEvent, ObservationHealth,
    PolicyEvent, SdkEvent,
};
use crate::gate::{Definition, ExpectedEffect, ExpectedOpen, ExpectedOperation, ExpectedSdk, Presence};
use std::collections::{BTreeMap, BTreeSet};

/// Everything that acceptance looks at, read back from disk and verified before.
#[derive(Clone, Debug, PartialEq)]
pub struct RunEvidence {
    /// Exit status of the measured process.
    pub exit_code: Option<i32>,
    /// `observation-health.json`.
    pub health: ObservationHealth,
    /// `capability-surface.json`.
    pub surface: CapabilitySurface,
    /// `correlation-report.json`.
    pub correlation: CorrelationReport,
    /// `layers/kernel.ndjson`.
    pub kernel: Vec<KernelEvent>,
    /// `layers/policy.ndjson`.
    pub policy: Vec<PolicyEvent>,
    /// `layers/sdk.ndjson`.
    pub sdk: Vec<SdkEvent>,
    /// `capture_proof.json`.
    pub proof: CaptureProof,
    /// `tool_effects.json`, call by call.
    pub calls: Vec<CallEffects>,
    /// `tool_effects.json`, calls that overlapped.
    pub concurrent: Vec<ConcurrentCalls>,
    /// `surface.json`.
    pub everything: EffectSurface,
    /// What `effects.ndjson` comes to, filtered effects included.
    pub effects: EffectTotals,
}

impl RunEvidence {
    /// Of an archive that verified, and the files beside it.
    #[must_use]
    pub fn of(
        archive: &Archive,
        proof: CaptureProof,
        tools: &ToolEffects,
        everything: EffectSurface,
        effects: EffectTotals,
    ) -> Self {
        let content = &archive.content;
        Self {
            exit_code: content.finished.exit_code,
            health: content.health.clone(),
            surface: content.surface.clone(),
            correlation: content.correlation.clone(),
            kernel: content.kernel.clone(),
            policy: content.policy.clone(),
            sdk: content.sdk.clone(),
            proof,
            calls: tools.calls.clone(),
            concurrent: tools.concurrent.clone(),
            everything,
            effects,
        }
    }
}

/// Everything that had to hold, in a fixed order. `work` is the work folder as the measured process sees it.
#[must_use]
pub fn accept(gate: &Definition, run: &RunEvidence, work: &str) -> Vec<Assertion> {
    let mut all = standing_demands(run);
    all.extend(layers(gate, run));
    all.extend(surface(gate, run, work));
    all.extend(gate.expect.opens.iter().map(|open| opened(open, run, work)));
    all.extend(correlation(gate, run));
    if let Some(expected) = &gate.expect.sdk {
        all.extend(sdk(expected, run));
    }
    all.extend(tool_effects(gate, run, work));
    all.extend(gate.expect.effects.iter().map(|effect| done(effect, run, work)));
    all
}

/// An effect of any operation, exactly as often as declared.
fn done(expected: &ExpectedOperation, run: &RunEvidence, work: &str) -> Assertion {
    let absolute =
        |path: &String| if path.starts_with('/') { path.clone() } else { format!("{work}/{path}") };
    let (path, target) = (expected.path.as_ref().map(absolute), expected.target.as_ref().map(absolute));
    let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    let count: u64 = run
        .everything
        .effects
        .iter()
        .filter(|one| {
            let effect = &one.effect;
            let place = match (expected.call.as_deref(), &one.actor) {
                (None, _) => true,
                (Some("outside"), actor) => *actor == Actor::Outside,
                (Some(id), Actor::Call { id: found, .. }) => id == found,
                (Some(_), _) => false,
            };
            place
                && effect.operation == expected.operation
                && same(&path, &effect.path)
                && same(&target, &effect.target)
                && same(&expected.endpoint, &effect.endpoint)
                && same(&expected.detail, &effect.detail)
                && expected.access.as_deref().is_none_or(|access| access == access_mode(effect.flags.unwrap_or(0)))
                && (expected.status == "error") == effect.errno.is_some()
                // What is not known can't satisfy, and can't be ruled out.
                && (effect.is_established() || expected.count == 0)
        })
        .map(|one| one.effect.count)
        .sum();
    let mut what = format!("{} {}", expected.status, expected.operation.name());
    for (prefix, part) in [
        ("", &path),
        ("-> ", &target),
        ("", &expected.endpoint),
        ("", &expected.detail),
        ("", &expected.access),
        ("in ", &expected.call),
    ] {
        if let Some(part) = part {
            what = format!("{what} {prefix}{part}");
        }
    }
    Assertion::equal("surface.effects", format!("{} × {what}", expected.count), format!("{count} × {what}"))
}

/// What every gate demands.
fn standing_demands(run: &RunEvidence) -> Vec<Assertion> {
    let health = &run.health;
    let unbalanced: Vec<String> =
        reconcile(&run.proof, &run.effects).iter().map(ToString::to_string).collect();
    vec![
        Assertion::equal("health.kernel_layer", "complete", &health.kernel_layer),
        Assertion::equal("health.ringbuf_drops", 0, health.ringbuf_drops),
        Assertion::equal("health.cgroup_correlation", "clean", &health.cgroup_correlation),
        Assertion::that(
            "capture.complete",
            run.proof.complete,
            "every invariant holds",
            if run.proof.complete { "it does".to_owned() } else { run.proof.reasons.join(", ") },
        ),
        Assertion::that(
            "capture.books",
            unbalanced.is_empty(),
            "a proof that agrees with itself and with the effects",
            if unbalanced.is_empty() { "it does".to_owned() } else { unbalanced.join("; ") },
        ),
        Assertion::that("kernel.records", !run.kernel.is_empty(), "at least 1", run.kernel.len()),
    ]
}

fn layers(gate: &Definition, run: &RunEvidence) -> Vec<Assertion> {
    let word = |presence, present| if presence == Presence::Required { present } else { "absent" };
    let expected_lines =
        gate.expect.decisions.iter().map(|d| format!("{}:{}:{}", d.decision, d.tool, d.tool_call_id));
    let found_lines = run.policy.iter().map(|d| format!("{}:{}:{}", d.decision, d.tool, d.tool_call_id));
    let mut all = vec![
        Assertion::equal(
            "health.policy_layer",
            word(gate.layers.policy, "present"),
            &run.health.policy_layer,
        ),
        Assertion::equal("health.sdk_layer", word(gate.layers.sdk, "self_reported"), &run.health.sdk_layer),
        Assertion::equal("policy.decisions", list(expected_lines), list(found_lines)),
    ];
    if gate.layers.sdk == Presence::Absent {
        all.push(Assertion::equal("sdk.events", 0, run.sdk.len()));
    }
    if gate.layers.policy == Presence::Required {
        // A definition may ask for less; where it says nothing, the agent's own word is not enough.
        all.push(Assertion::equal(
            "capture.policy_origin",
            gate.expect.policy_origin.as_deref().unwrap_or("corroborated"),
            run.proof.policy_origin.as_deref().unwrap_or("absent"),
        ));
    }
    all
}

fn surface(gate: &Definition, run: &RunEvidence, work: &str) -> Vec<Assertion> {
    let mut all = vec![Assertion::equal("process.exit_code", gate.expect.exit_code, code(run.exit_code))];
    for path in &gate.expect.work_paths {
        let path = format!("{work}/{path}");
        let held = run.surface.filesystem_paths.contains(&path);
        all.push(Assertion::that("surface.filesystem_paths", held, format!("contains {path}"), seen(held)));
    }
    for path in &gate.expect.absent_work_paths {
        let path = format!("{work}/{path}");
        let found = run.effects.touched.contains(&path) || run.surface.filesystem_paths.contains(&path);
        all.push(Assertion::that("effects.absent_path", !found, format!("{path} nowhere"), seen(found)));
    }
    for path in &gate.expect.execs {
        let held = run.surface.process_execs.contains(path);
        all.push(Assertion::that("surface.process_execs", held, format!("contains {path}"), seen(held)));
    }
    for name in &gate.expect.refused {
        let held = run.effects.refused.contains(name);
        all.push(Assertion::that("effects.refused", held, format!("{name} was refused"), seen(held)));
    }
    let tools: BTreeSet<&str> = gate.expect.decisions.iter().map(|decision| decision.tool.as_str()).collect();
    all.push(Assertion::equal("surface.mcp_tools", list(tools), list(&run.surface.mcp_tools)));
    let decisions: BTreeSet<String> = gate
        .expect
        .decisions
        .iter()
        .map(|decision| format!("{}:{}", decision.decision, decision.tool))
        .collect();
    all.push(Assertion::equal(
        "surface.policy_decisions",
        list(decisions),
        list(&run.surface.policy_decisions),
    ));
    all
}

fn opened(expected: &ExpectedOpen, run: &RunEvidence, work: &str) -> Assertion {
    let path = format!("{work}/{}", expected.path);
    let matching = run.kernel.iter().filter(|event| {
        event.kind == "openat"
            && event.value.as_deref() == Some(&path)
            && event.access_mode.as_deref() == Some(&expected.access)
            && event.status.as_deref() == Some(&expected.status)
            && expected.flags.iter().all(|flag| event.operation_flags.contains(flag))
    });
    let flags =
        if expected.flags.is_empty() { String::new() } else { format!(" [{}]", expected.flags.join(",")) };
    let what = format!("{} {} of {path}{flags}", expected.status, expected.access);
    Assertion::equal(
        "kernel.opens",
        format!("{} × {what}", expected.count),
        format!("{} × {what}", matching.count()),
    )
}

fn correlation(gate: &Definition, run: &RunEvidence) -> Vec<Assertion> {
    let report = &run.correlation;
    let mut all = vec![
        Assertion::equal("correlation.status", &gate.expect.correlation, &report.status),
        Assertion::equal(
            "correlation.ambiguities",
            list(&gate.expect.ambiguities),
            list(&report.ambiguities),
        ),
        Assertion::equal("correlation.bindings", gate.expect.decisions.len(), report.bindings.len()),
    ];
    for (binding, decision) in report.bindings.iter().zip(&gate.expect.decisions) {
        all.push(Assertion::equal("correlation.tool_call_id", &decision.tool_call_id, &binding.tool_call_id));
        let counted = binding.kernel_event_count;
        all.push(Assertion::that("correlation.kernel_event_count", counted > 0, "more than 0", counted));
    }
    all
}

fn sdk(expected: &ExpectedSdk, run: &RunEvidence) -> Vec<Assertion> {
    let types = run.sdk.iter().map(|event| event.event_type.as_str());
    let mut all = vec![Assertion::equal("sdk.events", list(&expected.events), list(types))];
    let pairs: [(&str, &str, fn(&SdkEvent) -> &str); 3] = [
        ("sdk.source", &expected.source, |event| event.source.as_str()),
        ("sdk.name", &expected.name, |event| event.sdk_name.as_deref().unwrap_or("null")),
        ("sdk.version", &expected.version, |event| event.sdk_version.as_deref().unwrap_or("null")),
    ];
    for (name, value, field) in pairs {
        let found: BTreeSet<&str> = run.sdk.iter().map(field).collect();
        all.push(Assertion::equal(name, list([value]), list(found)));
    }
    let mut ids: Vec<&str> = Vec::new();
    for id in run.sdk.iter().filter_map(|event| event.tool_call_id.as_deref()) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    all.push(Assertion::equal("sdk.tool_call_ids", list(&expected.tool_call_ids), list(&ids)));
    let note = format!("s5_sdk_capture: sdk_events={} sdk_tool_calls={}", run.sdk.len(), ids.len());
    all.push(Assertion::that(
        "health.s5_note",
        run.health.notes.contains(&note),
        &note,
        run.health.notes.join(" | "),
    ));
    all
}

/// For each declared call exactly its declared effects on the work folder, and no others there.
fn tool_effects(gate: &Definition, run: &RunEvidence, work: &str) -> Vec<Assertion> {
    let mut all = Vec::new();
    let mut found: BTreeMap<&str, &CallEffects> = BTreeMap::new();
    for call in &run.calls {
        found.insert(&call.tool_call_id, call);
    }
    let words = |expected: &[ExpectedEffect]| -> Vec<String> {
        let word = |effect: &ExpectedEffect| {
            let access = effect.access.as_ref().map_or(String::new(), |access| format!(" {access}"));
            format!("{} {}{access}", effect.operation, effect.path)
        };
        expected.iter().map(word).collect()
    };
    for (id, expected) in &gate.expect.tool_effects {
        let seen = match found.get(id.as_str()) {
            None => "no such call".to_owned(),
            Some(call) => match call.attribution {
                // With those of its group, below.
                Attribution::Concurrent => continue,
                Attribution::Ambiguous => "ambiguous: something else overlapped".to_owned(),
                Attribution::None => "the call had no window".to_owned(),
                Attribution::Exact => sorted(call.effects.iter().filter_map(|effect| on_work(effect, work))),
            },
        };
        all.push(Assertion::equal(&format!("tool_effects.{id}"), sorted(words(expected)), seen));
    }
    for group in &run.concurrent {
        let named: Vec<&String> =
            group.tool_call_ids.iter().filter(|id| gate.expect.tool_effects.contains_key(*id)).collect();
        if named.is_empty() {
            continue;
        }
        // Together they do what each of them may do.
        let want = sorted(named.iter().flat_map(|id| words(&gate.expect.tool_effects[*id])));
        let seen = sorted(group.effects.iter().flat_map(|effect| {
            let once = on_work(&CountedEffect { count: 1, ..effect.clone() }, work);
            std::iter::repeat_n(once, usize::try_from(effect.count).unwrap_or(usize::MAX)).flatten()
        }));
        let name = format!("tool_effects.{}", group.tool_call_ids.join("+"));
        all.push(Assertion::equal(&name, want, seen));
    }
    all
}

/// `operation path access`, with its count when it was done more than once, for effects on the work folder.
fn on_work(effect: &CountedEffect, work: &str) -> Option<String> {
    if !effect.is_established() {
        // It may have been done there.
        return Some(format!("{} at a place that is not known", effect.named()));
    }
    let path = effect.path.as_ref()?.strip_prefix(work)?.strip_prefix('/')?;
    let operation = operation_name(effect.operation);
    let access = match (effect.operation, effect.flags) {
        (Operation::Open, Some(flags)) => format!(" {}", access_mode(flags)),
        _ => String::new(),
    };
    let count = if effect.count == 1 { String::new() } else { format!(" × {}", effect.count) };
    Some(format!("{operation} {path}{access}{count}"))
}

fn access_mode(flags: u64) -> &'static str {
    match flags & 3 {
        0 => "read",
        1 => "write",
        2 => "read_write",
        _ => "unknown",
    }
}

/// The operation's name as it is serialised.
fn operation_name(operation: Operation) -> String {
    serde_json::to_value(operation).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Effects are counted, not ordered: neither side's order means anything.
fn sorted(items: impl IntoIterator<Item = String>) -> String {
    let mut items: Vec<String> = items.into_iter().collect();
    items.sort();
    list(items)
}

fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    format!("[{}]", items.join(", "))
}

fn code(code: Option<i32>) -> String {
    code.map_or("none (killed)".to_owned(), |code| code.to_string())
}

fn seen(found: bool) -> &'static str {
    if found { "it is there" } else { "it is not" }
}
