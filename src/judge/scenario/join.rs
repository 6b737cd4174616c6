//! One run: by what the SDK's report, the proxy's decision and the kernel's effects are joined.

use super::{Run, Stop};
use crate::error::Exit;
use crate::evidence::SdkEvent;
use crate::evidence::origins::agents_layers;
use crate::evidence::tool_effects::{Attribution, CallEffects};

/// How the layers of a run are joined. Anything less than these two is a [`Stop`].
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Join<'a> {
    /// The same id in the SDK's events, in the one decision, and on the effects that are stamped with one call.
    Strong(Call<'a>),
    /// One call, one decision, one window: but the id that the SDK reported is nowhere else.
    ByOrder(Call<'a>),
}

/// The one call of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Call<'a> {
    /// As the SDK reports it.
    pub reported: &'a str,
    pub tool: &'a str,
    pub sdk_name: &'a str,
    pub sdk_version: &'a str,
    /// `seq` of start and completion.
    pub sdk_seqs: [u64; 2],
    /// What the kernel stamped with the call.
    pub effects: &'a CallEffects,
}

impl<'a> Join<'a> {
    pub(super) fn call(&self) -> &Call<'a> {
        match self {
            Join::Strong(call) | Join::ByOrder(call) => call,
        }
    }

    /// Joins a run, or says which condition stops it. Never by time: order and tool alone give [`Join::ByOrder`].
    pub(super) fn of(run: &Run<'a>) -> Result<Self, Stop> {
        clean_health(run)?;
        let agents = agents_layers(run.origins);
        if agents > 1 {
            return stop(format!(
                "expected at most one layer that is the agent's own word, found {agents}: such layers vouch for nothing together"
            ));
        }
        let (started, completed) = reported_call(run)?;
        let id = started.tool_call_id.as_deref().unwrap_or_default();
        let tool = started.tool.as_deref().unwrap_or_default();
        let [decision] = run.policy else {
            return stop(format!("expected exactly one decision, found {}", run.policy.len()));
        };
        if decision.decision != "allow" || decision.tool != tool {
            return stop(format!(
                "expected the decision allow on {tool}, found {} on {}",
                decision.decision, decision.tool
            ));
        }
        let effects = measured_call(run, &decision.tool_call_id, tool)?;
        let strong = decision.tool_call_id == id;
        correlated(run, &decision.tool_call_id, id, strong)?;
        let call = Call {
            reported: id,
            tool,
            sdk_name: started.sdk_name.as_deref().unwrap_or_default(),
            sdk_version: started.sdk_version.as_deref().unwrap_or_default(),
            sdk_seqs: [started.seq, completed.seq],
            effects,
        };
        if call.sdk_name.is_empty() || call.sdk_version.is_empty() {
            return stop("the SDK's events don't name their package".to_owned());
        }
        Ok(if strong { Join::Strong(call) } else { Join::ByOrder(call) })
    }
}

fn stop<T>(reason: String) -> Result<T, Stop> {
    Err(Stop { exit: Some(Exit::CaptureIncomplete), reason })
}

/// Complete, nothing lost, clean, all three layers there, and all of the same run.
fn clean_health(run: &Run) -> Result<(), Stop> {
    let health = run.health;
    for (field, expected, found) in [
        ("kernel_layer", "complete", health.kernel_layer.as_str()),
        ("cgroup_correlation", "clean", health.cgroup_correlation.as_str()),
        ("policy_layer", "present", health.policy_layer.as_str()),
        ("sdk_layer", "self_reported", health.sdk_layer.as_str()),
        ("platform", "linux", health.platform.as_str()),
    ] {
        if expected != found {
            return stop(format!("expected {field} {expected}, found {found}"));
        }
    }
    if health.ringbuf_drops != 0 {
        return stop(format!("expected no lost records, found ringbuf_drops={}", health.ringbuf_drops));
    }
    if health.capture_origin.is_some() {
        return stop("the capture is not our own".to_owned());
    }
    let ids = [&run.correlation.run_id, &run.effects.run_id];
    if let Some(other) = ids.into_iter().find(|id| **id != health.run_id) {
        return stop(format!("expected one run id, found {} and {other}", health.run_id));
    }
    Ok(())
}

/// Exactly one call, started before it completed, in a run that finished.
fn reported_call<'a>(run: &Run<'a>) -> Result<(&'a SdkEvent, &'a SdkEvent), Stop> {
    let types: Vec<&str> = run.sdk.iter().map(|event| event.event_type.as_str()).collect();
    let [started, completed, _] = run.sdk else {
        return stop(format!("expected three SDK events, found [{}]", types.join(", ")));
    };
    if types != ["tool_call_started", "tool_call_completed", "run_finished"] {
        return stop(format!(
            "expected one call that completed and a run that finished, found [{}]",
            types.join(", ")
        ));
    }
    if started.tool_call_id.as_deref().unwrap_or_default().is_empty() {
        return stop("the SDK reported a call without an id".to_owned());
    }
    if started.tool_call_id != completed.tool_call_id || started.tool != completed.tool {
        return stop("the SDK started one call and completed another".to_owned());
    }
    Ok((started, completed))
}

/// The call's own effects, told from all others by the stamp that the kernel gave them.
fn measured_call<'a>(run: &Run<'a>, id: &str, tool: &str) -> Result<&'a CallEffects, Stop> {
    let [call] = run.effects.calls.as_slice() else {
        return stop(format!("expected the effects of exactly one call, found {}", run.effects.calls.len()));
    };
    if call.tool_call_id != id || call.tool != tool {
        return stop(format!(
            "expected the effects of {tool} {id}, found those of {} {}",
            call.tool, call.tool_call_id
        ));
    }
    if call.attribution != Attribution::Exact || !run.effects.ambiguous.is_empty() {
        return stop("the effects can't be told from those of another call".to_owned());
    }
    if call.decision.as_deref() != Some("allow") {
        return stop("the measured call has no decision of its own".to_owned());
    }
    if call.effects.is_empty() {
        return stop("nothing was measured inside the call".to_owned());
    }
    Ok(call)
}

/// The correlation report says the same as the layers.
fn correlated(run: &Run, decided: &str, reported: &str, strong: bool) -> Result<(), Stop> {
    let report = run.correlation;
    let ambiguities: Vec<String> =
        if strong { Vec::new() } else { vec![format!("sdk_tool_call_without_policy_binding:{reported}")] };
    let status = if strong { "clean" } else { "partial" };
    if report.status != status || report.ambiguities != ambiguities {
        return stop(format!(
            "expected correlation {status} [{}], found {} [{}]",
            ambiguities.join(", "),
            report.status,
            report.ambiguities.join(", ")
        ));
    }
    let [binding] = report.bindings.as_slice() else {
        return stop(format!("expected one binding, found {}", report.bindings.len()));
    };
    let whole = binding.tool_call_id == decided
        && binding.policy_decision.as_deref() == Some("allow")
        && binding.cgroup_id.is_some()
        && binding.kernel_event_count == run.kernel.len() as u64
        && binding.kernel_event_count > 0
        && (binding.window.start.as_str(), binding.window.end.as_str()) == ("run_started", "run_finished");
    if whole {
        Ok(())
    } else {
        stop(format!("the binding of {decided} does not cover the run's kernel records"))
    }
}
