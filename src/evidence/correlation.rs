//! The join of the three layers: one binding per decision, and every doubt by name.

use super::contract::{Binding, CorrelationReport, PolicyEvent, SdkEvent, Window, schema};
use std::collections::BTreeSet;

/// Decisions were logged and the kernel layer is empty.
pub const WITHOUT_KERNEL: &str = "policy_events_without_kernel_events";
/// The session's cgroup can't stand for more or less than one decision.
pub const SESSION_AMBIGUOUS: &str = "session_cgroup_ambiguous_for_multiple_policy_events";
/// Begins the doubt about an SDK call that no decision names.
pub const SDK_UNBOUND: &str = "sdk_tool_call_without_policy_binding:";

/// Joins the layers of a run. A layer that was not asked for is `None`.
///
/// The order is part of the contract: kernel, then policy, then SDK. Duplicated ids are kept apart.
#[must_use]
pub fn correlate(
    run_id: &str,
    kernel_events: u64,
    policy: Option<&[PolicyEvent]>,
    sdk: Option<&[SdkEvent]>,
    session_cgroup: Option<u64>,
) -> CorrelationReport {
    let mut ambiguities = Vec::new();
    let mut bindings = Vec::new();
    if let Some(decisions) = policy {
        if kernel_events == 0 {
            ambiguities.push(WITHOUT_KERNEL.to_owned());
        }
        if session_cgroup.is_some() && decisions.len() != 1 {
            ambiguities.push(SESSION_AMBIGUOUS.to_owned());
        }
        bindings = decisions
            .iter()
            .map(|decision| Binding {
                tool_call_id: decision.tool_call_id.clone(),
                policy_decision: Some(decision.decision.clone()),
                cgroup_id: session_cgroup.filter(|_| decisions.len() == 1),
                kernel_event_count: kernel_events,
                window: Window { start: "run_started".to_owned(), end: "run_finished".to_owned() },
            })
            .collect();
        if !decisions.is_empty() {
            let bound: BTreeSet<&str> =
                decisions.iter().map(|decision| decision.tool_call_id.as_str()).collect();
            let reported: BTreeSet<&str> =
                sdk.unwrap_or_default().iter().filter_map(|event| event.tool_call_id.as_deref()).collect();
            ambiguities.extend(reported.difference(&bound).map(|id| format!("{SDK_UNBOUND}{id}")));
        }
    }
    CorrelationReport {
        schema: schema::CORRELATION_REPORT.to_owned(),
        run_id: run_id.to_owned(),
        status: if ambiguities.is_empty() { "clean" } else { "partial" }.to_owned(),
        bindings,
        ambiguities,
    }
}
