//! The published v0 artifacts, field by field in their written order.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Schema ids.
pub mod schema {
    /// `manifest.json`.
    pub const ARCHIVE_MANIFEST: &str = "assay.runner.archive_manifest.v0";
    /// `events.ndjson`.
    pub const EVENT: &str = "assay.runner.event.v0";
    /// `layers/kernel.ndjson`.
    pub const KERNEL_EVENT: &str = "assay.runner.kernel_event.v0";
    /// The same with `exclusive` at O_EXCL.
    pub const KERNEL_EVENT_V1: &str = "assay.runner.kernel_event.v1";
    /// `observation-health.json`.
    pub const OBSERVATION_HEALTH: &str = "assay.runner.observation_health.v0";
    /// `capability-surface.json`.
    pub const CAPABILITY_SURFACE: &str = "assay.runner.capability_surface.v0";
    /// `correlation-report.json`.
    pub const CORRELATION_REPORT: &str = "assay.runner.correlation_report.v0";
    /// `layers/policy.ndjson`.
    pub const POLICY_EVENT: &str = "assay.runner.policy_event.v0";
    /// `layers/sdk.ndjson`.
    pub const SDK_EVENT: &str = "assay.runner.sdk_event.v0";
}

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveManifest {
    /// [`schema::ARCHIVE_MANIFEST`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// The seven other members by path.
    pub files: BTreeMap<String, ManifestFile>,
}

/// One member in [`ArchiveManifest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Equal to the key.
    pub path: String,
    /// Digest of the member's bytes.
    pub sha256: crate::files::Sha256Digest,
    /// Length of the member.
    pub bytes: u64,
}

/// First line of `events.ndjson`. Written by the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunStarted {
    /// [`schema::EVENT`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// 0.
    pub seq: u64,
    /// `run_started`.
    pub r#type: String,
    /// `none`, `openai-agents`, `gemini-google-genai`.
    pub agent_shim: String,
    /// argv.
    pub command: Vec<String>,
    /// Names of the variables that the driver added, sorted; values are never recorded.
    pub env_keys: Vec<String>,
    /// 0.
    pub window_elapsed_ms: u64,
}

/// Last line of `events.ndjson`. Written by the driver, from waitid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFinished {
    /// [`schema::EVENT`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// 1.
    pub seq: u64,
    /// `run_finished`.
    pub r#type: String,
    /// Exit status of the root process.
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    pub signal: Option<i32>,
    /// Exit status 0.
    pub success: bool,
    /// Milliseconds since the start.
    pub window_elapsed_ms: u64,
}

/// A line of `layers/kernel.ndjson`. Written from kernel records only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelEvent {
    /// [`schema::KERNEL_EVENT`] or [`schema::KERNEL_EVENT_V1`], the same in all lines of a layer.
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Contiguous from 0 after filtering.
    pub seq: u64,
    /// tgid.
    pub pid: u32,
    /// See `kind`: openat 1, connect 2, exec 4, sendto 6, sendmsg 7; other producers: file_blocked 10, connect_blocked 20.
    pub event_type: u32,
    /// `openat`, `connect`, `exec`, `sendto`, `sendmsg`; other producers: `file_blocked`, `connect_blocked`.
    pub kind: String,
    /// Path or endpoint; never empty; null when it could not be read whole.
    pub value: Option<String>,
    /// `connect_blocked` only; never written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// `connect_blocked` only; never written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_destination: Option<String>,
    /// `connect_blocked` only; never written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_port: Option<u16>,
    /// `connect_blocked` only; never written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_id: Option<u32>,
    /// Opens only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u64>,
    /// Opens only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u64>,
    /// openat2 only, when not zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<u64>,
    /// Opens only; negative is -errno.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_value: Option<i64>,
    /// Opens only: `read`, `write`, `read_write`, `unknown`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    /// Opens only: `create`, `truncate`, `append`, `exclusive`, by the table of the line's schema.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operation_flags: Vec<String>,
    /// Opens only: `success`, `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// A line of `layers/policy.ndjson`. Written by the proxy, stripped on ingestion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyEvent {
    /// [`schema::POLICY_EVENT`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// From 0.
    pub seq: u64,
    /// `assay.tool.decision`.
    pub source_event_type: String,
    /// The event source URI.
    pub source: String,
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool: String,
    /// `allow`, `deny`, `error`.
    pub decision: String,
}

/// A line of `layers/sdk.ndjson`. Written by the measured agent: self-reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SdkEvent {
    /// [`schema::SDK_EVENT`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// From 0.
    pub seq: u64,
    /// `tool_call_started`, `tool_call_completed`, `run_finished`, `run_failed`.
    pub event_type: String,
    /// Who wrote it.
    pub source: String,
    /// Package name, from its metadata.
    #[serde(default)]
    pub sdk_name: Option<String>,
    /// Package version, from its metadata.
    #[serde(default)]
    pub sdk_version: Option<String>,
    /// The call.
    #[serde(default)]
    pub tool_call_id: Option<String>,
    /// The tool.
    #[serde(default)]
    pub tool: Option<String>,
}

/// `observation-health.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservationHealth {
    /// [`schema::OBSERVATION_HEALTH`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// `linux`, ...
    pub platform: String,
    /// `complete`, `partial_ringbuf_drops`, `absent`.
    pub kernel_layer: String,
    /// Omitted when `own`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capture_origin: Option<String>,
    /// Records refused by the ring.
    pub ringbuf_drops: u64,
    /// `present`, `absent`.
    pub policy_layer: String,
    /// `self_reported`, `absent`.
    pub sdk_layer: String,
    /// `clean`, `partial`.
    pub cgroup_correlation: String,
    /// `unknown`, `absent`, `connect_only`, `datagram_peer_observed`, `connect_and_datagram_peer_observed`.
    #[serde(default = "unknown")]
    pub network_protocol_coverage: String,
    /// `unknown`, `not_applicable`, `diagnostic_only`.
    #[serde(default = "unknown")]
    pub network_endpoint_claim_scope: String,
    /// What was redacted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redaction: Option<Redaction>,
    /// Exact strings, in order.
    #[serde(default)]
    pub notes: Vec<String>,
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// `ObservationHealth::redaction`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redaction {
    /// `shape_and_flag`, `shape_only`, `disabled_unsafe`.
    pub mode: String,
    /// Hits in total.
    pub redacted_count: u64,
    /// Hits by rule.
    pub by_rule: BTreeMap<String, u64>,
    /// Hits by surface field or JSON key.
    pub by_field: BTreeMap<String, u64>,
    /// `host_local`, `ephemeral`.
    pub key_scope: String,
    /// `hmac-sha256:` and 8 hex digits, or `none`.
    pub key_id: String,
}

/// `capability-surface.json`: sets of strings, in byte order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilitySurface {
    /// [`schema::CAPABILITY_SURFACE`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Values of opens.
    pub filesystem_paths: BTreeSet<String>,
    /// Values of connects and sends.
    pub network_endpoints: BTreeSet<String>,
    /// Values of execs.
    pub process_execs: BTreeSet<String>,
    /// Tool names of decisions.
    pub mcp_tools: BTreeSet<String>,
    /// `<decision>:<tool>`.
    pub policy_decisions: BTreeSet<String>,
}

/// `correlation-report.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorrelationReport {
    /// [`schema::CORRELATION_REPORT`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// `clean`, `partial`, `failed`.
    pub status: String,
    /// One per decision, in log order.
    pub bindings: Vec<Binding>,
    /// Exact strings.
    pub ambiguities: Vec<String>,
}

/// One decision joined to the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    /// The call.
    pub tool_call_id: String,
    /// The decision.
    pub policy_decision: Option<String>,
    /// The session's cgroup, with exactly one decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup_id: Option<u64>,
    /// Kernel lines of the run.
    pub kernel_event_count: u64,
    /// The run's window.
    pub window: Window,
}

/// The window of a binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// `run_started`.
    pub start: String,
    /// `run_finished`.
    pub end: String,
}
