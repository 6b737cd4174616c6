//! What may be believed of a run's layers, in the contract's words.

use super::contract::{ObservationHealth, schema};
use super::filter::Tally;
use super::kernel::Endpoints;
use crate::capture::{HookCount, Summary};
use std::fmt::Write;

/// What [`health`] speaks of, besides the recording's accounting.
#[derive(Clone, Copy, Debug)]
pub struct Counts<'a> {
    /// Kernel events after filtering.
    pub kernel_events: u64,
    /// IP endpoints among them.
    pub endpoints: Endpoints,
    /// What was filtered.
    pub filtered: &'a Tally,
    /// Decisions, when a decision log was asked for.
    pub decisions: Option<u64>,
    /// SDK events and distinct tool calls, when an SDK log was asked for.
    pub sdk: Option<(u64, u64)>,
}

/// The health of one measured run.
///
/// Records lost, records of a wrong size, and any invariant of completeness that did not hold keep the kernel layer
/// from being complete; a tree that left its cgroup makes it absent, as does a run without a capture.
#[must_use]
pub fn health(summary: &Summary, counts: &Counts<'_>) -> ObservationHealth {
    let lost = summary.ringbuf_drops + summary.size_mismatches;
    let kernel_layer = if !summary.cgroup_clean {
        "absent"
    } else if lost > 0 || !summary.proof.complete {
        "partial_ringbuf_drops"
    } else {
        "complete"
    };
    let (coverage, scope) = network(kernel_layer, summary, counts.endpoints);
    let mut notes = match summary.captured {
        true => vec![kernel_note(summary, counts, coverage, scope)],
        false => vec![CONTRACT_ONLY.to_owned()],
    };
    if summary.captured && !summary.proof.complete {
        notes.push(format!("capture_proof: incomplete: {}", summary.proof.reasons.join("; ")));
    }
    if let Some(decisions) = counts.decisions {
        notes.push(format!("s4_policy_capture: decision_events={decisions}"));
    }
    if let Some((events, calls)) = counts.sdk {
        notes.push(format!("s5_sdk_capture: sdk_events={events} sdk_tool_calls={calls}"));
    }
    ObservationHealth {
        schema: schema::OBSERVATION_HEALTH.to_owned(),
        run_id: summary.run_id.clone(),
        platform: std::env::consts::OS.to_owned(),
        kernel_layer: kernel_layer.to_owned(),
        capture_origin: None,
        ringbuf_drops: if kernel_layer == "absent" { 0 } else { summary.ringbuf_drops },
        policy_layer: if counts.decisions.is_some() { "present" } else { "absent" }.to_owned(),
        sdk_layer: if counts.sdk.is_some() { "self_reported" } else { "absent" }.to_owned(),
        cgroup_correlation: if summary.cgroup_clean { "clean" } else { "partial" }.to_owned(),
        network_protocol_coverage: coverage.to_owned(),
        network_endpoint_claim_scope: scope.to_owned(),
        redaction: None,
        notes,
    }
}

/// The note of a run without a capture.
pub const CONTRACT_ONLY: &str = "contract_only_mode: kernel and cgroup capture not wired in this revision";

/// Network hooks, in the order of the note.
const NETWORK_HOOKS: [&str; 3] = ["connect", "sendto", "sendmsg"];
/// All hooks that the note names, in its order.
const NOTED_HOOKS: [&str; 5] = ["openat", "openat2", "connect", "sendto", "sendmsg"];

fn network(kernel_layer: &str, summary: &Summary, endpoints: Endpoints) -> (&'static str, &'static str) {
    let dropped = NETWORK_HOOKS.iter().any(|hook| summary.hooks.get(*hook).is_some_and(|h| h.dropped > 0));
    let coverage = match (endpoints.connect > 0, endpoints.send > 0) {
        _ if kernel_layer == "absent" => "absent",
        (true, true) => "connect_and_datagram_peer_observed",
        (true, false) => "connect_only",
        (false, true) => "datagram_peer_observed",
        (false, false) if dropped || kernel_layer != "complete" => "unknown",
        (false, false) => "absent",
    };
    let scope = match coverage {
        "unknown" => "unknown",
        "absent" => "not_applicable",
        _ => "diagnostic_only",
    };
    (coverage, scope)
}

fn kernel_note(summary: &Summary, counts: &Counts<'_>, coverage: &str, scope: &str) -> String {
    let events = counts.kernel_events;
    if !summary.cgroup_clean {
        return format!(
            "s2_kernel_capture: monitor_events={events} cgroup_correlation=Partial kernel_layer downgraded to absent"
        );
    }
    let drops = summary.ringbuf_drops;
    let mut note = format!(
        "s2_kernel_capture: monitor_events={events} ringbuf_drops={drops} \
         network_protocol_coverage={coverage} network_endpoint_claim_scope={scope}"
    );
    if drops > 0 {
        drop_breakdown(&mut note, summary, counts.filtered);
    }
    let network = summary.network;
    for (name, sendto, sendmsg) in [
        ("send_no_recoverable_peer", network.sendto_no_peer, network.sendmsg_no_peer),
        ("send_non_ip_family", network.sendto_non_ip, network.sendmsg_non_ip),
    ] {
        if sendto + sendmsg > 0 {
            let _infallible = write!(note, " {name}=sendto:{sendto} sendmsg:{sendmsg}");
        }
    }
    note
}

fn drop_breakdown(note: &mut String, summary: &Summary, filtered: &Tally) {
    // The contract's three rings, of which this capture has one: its socket programs are told apart by name.
    let is_socket = |name: &str| name.starts_with("cgroup_");
    let sum = |socket: bool, part: fn(&HookCount) -> u64| -> u64 {
        summary.hooks.iter().filter(|(name, _)| is_socket(name) == socket).map(|(_, hook)| part(hook)).sum()
    };
    let socket = sum(true, |hook| hook.dropped);
    let tracepoint = summary.ringbuf_drops.saturating_sub(socket);
    let hooks: Vec<String> = NOTED_HOOKS
        .iter()
        .map(|name| {
            let hook = summary.hooks.get(*name).copied().unwrap_or_default();
            format!("{name}:{}/{}", hook.emitted, hook.dropped)
        })
        .collect();
    let top: Vec<String> =
        filtered.top(5).into_iter().map(|(path, count)| format!("{count}x:{path}")).collect();
    let _infallible = write!(
        note,
        " drop_breakdown=tracepoint:{tracepoint} lsm:0 socket:{socket} \
         emitted=tracepoint:{} lsm:0 socket:{} tracepoint_hooks={} \
         filtered_loader_events={} filtered_loader_top=[{}]",
        sum(false, |hook| hook.emitted),
        sum(true, |hook| hook.emitted),
        hooks.join(" "),
        filtered.total(),
        top.join(",")
    );
}

/// What is wrong with a health document: what was expected, and what was found.
#[must_use]
pub fn first_fault(health: &ObservationHealth) -> Option<(String, String)> {
    let one_of = |what: &str, known: &[&str], found: &str| {
        (!known.contains(&found)).then(|| (format!("{what} one of {}", known.join(", ")), found.to_owned()))
    };
    one_of("schema", &[schema::OBSERVATION_HEALTH], &health.schema)
        .or_else(|| {
            one_of("kernel_layer", &["complete", "partial_ringbuf_drops", "absent"], &health.kernel_layer)
        })
        .or_else(|| one_of("policy_layer", &["present", "absent"], &health.policy_layer))
        .or_else(|| one_of("sdk_layer", &["present", "self_reported", "absent"], &health.sdk_layer))
        .or_else(|| one_of("cgroup_correlation", &["clean", "partial"], &health.cgroup_correlation))
        .or_else(|| {
            one_of(
                "network_protocol_coverage",
                &[
                    "unknown",
                    "absent",
                    "connect_only",
                    "datagram_peer_observed",
                    "connect_and_datagram_peer_observed",
                ],
                &health.network_protocol_coverage,
            )
        })
        .or_else(|| {
            one_of(
                "network_endpoint_claim_scope",
                &["unknown", "not_applicable", "diagnostic_only", "peer_set"],
                &health.network_endpoint_claim_scope,
            )
        })
        .or_else(|| {
            (health.ringbuf_drops > 0 && health.kernel_layer != "partial_ringbuf_drops").then(|| {
                (
                    format!("kernel_layer partial_ringbuf_drops with {} drops", health.ringbuf_drops),
                    health.kernel_layer.clone(),
                )
            })
        })
        .or_else(|| {
            (health.platform != "linux" && health.kernel_layer != "absent").then(|| {
                ("kernel_layer absent on a platform other than linux".to_owned(), health.kernel_layer.clone())
            })
        })
        .or_else(|| health.run_id.is_empty().then(|| ("a run_id".to_owned(), "an empty one".to_owned())))
}
