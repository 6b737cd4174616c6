//! The capability surface: what was touched, as sets.

use super::contract::{CapabilitySurface, KernelEvent, PolicyEvent, schema};

/// The surface of a run: a projection of its kernel events and decisions. SDK events add nothing to it.
#[must_use]
pub fn surface(run_id: &str, kernel: &[KernelEvent], policy: &[PolicyEvent]) -> CapabilitySurface {
    let values = |kinds: &[&str]| {
        kernel
            .iter()
            .filter(|event| kinds.contains(&event.kind.as_str()))
            .filter_map(|event| event.value.clone())
            .collect()
    };
    CapabilitySurface {
        schema: schema::CAPABILITY_SURFACE.to_owned(),
        run_id: run_id.to_owned(),
        filesystem_paths: values(&["openat", "file_blocked"]),
        network_endpoints: values(&["connect", "connect_blocked", "sendto", "sendmsg"]),
        process_execs: values(&["exec"]),
        mcp_tools: policy.iter().map(|event| event.tool.clone()).collect(),
        policy_decisions: policy.iter().map(|event| format!("{}:{}", event.decision, event.tool)).collect(),
    }
}
