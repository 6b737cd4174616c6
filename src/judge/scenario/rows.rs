//! The review rows, field by field in their written order (family `agent-observability-fidelity-2026-05`).

use serde::{Deserialize, Serialize};

/// Schema ids.
pub mod schema {
    /// `join-result.json`.
    pub const JOIN_RESULT: &str = "assay.observability.join_result.v0";
    /// Each cell of `claim-class-cells.json`.
    pub const CLAIM_CLASS_CELL: &str = "assay.observability.claim_class_cell.v0";
    /// `scenario-verdict.json`.
    pub const SEMANTIC_GAP_VERDICT: &str =
        "assay.experiment.agent_observability_fidelity.semantic_gap_verdict.v0";
    /// `redaction-manifest.json`.
    pub const REDACTION_MANIFEST: &str =
        "assay.experiment.agent_observability_fidelity.redaction_manifest.v0";
}

/// `join-result.json`: by what, and how well, the report and the measurement are joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinResult {
    /// [`schema::JOIN_RESULT`].
    pub schema: String,
    /// `external_receipt`: what SDK and proxy say.
    pub left_artifact_role: String,
    /// `measured_run_archive`: what the kernel shows.
    pub right_artifact_role: String,
    /// `tool_call_id`, or `timestamp_or_order` where there is no id to join by.
    pub join_key: String,
    /// The call; null where nothing is joined.
    pub join_value: Option<String>,
    /// `strong`, `weak`, `diagnostic`, `failed`.
    pub join_grade: String,
    /// `tool_call` or `diagnostic`.
    pub scope: String,
    /// No other call of the scenario has that id.
    pub unique_within_scope: bool,
    /// Something weaker than the id was used.
    pub fallback_used: bool,
    /// Records inside the pack.
    pub evidence_refs: Vec<String>,
    /// For people.
    pub notes: Vec<String>,
}

/// One cell of `claim-class-cells.json`: what may be said of one thing, and on what ground.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimClassCell {
    /// [`schema::CLAIM_CLASS_CELL`].
    pub schema: String,
    /// What is claimed.
    pub claim_type: String,
    /// Which artifact carries it; `none` with an absent claim.
    pub artifact_role: String,
    /// `strong`, `partial`, `weak`, `absent`.
    pub claim_strength: String,
    /// `reported`, `measured`, `derived`, `inferred`.
    pub claim_basis: String,
    /// Records inside the pack; none with an absent claim.
    pub evidence_refs: Vec<String>,
    /// For people.
    pub notes: Vec<String>,
    /// What the cell does not claim.
    pub non_claims: Vec<String>,
}

/// `scenario-verdict.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SemanticGapVerdict {
    /// [`schema::SEMANTIC_GAP_VERDICT`].
    pub schema: String,
    /// Which of the six.
    pub scenario_id: String,
    /// `baseline`, `gap`, `fallback`.
    pub role: String,
    /// `positive_join`, `semantic_gap`, `diagnostic_only`, `inconclusive`.
    pub verdict: String,
    /// `diagnostic`, `semantic_gap`, `positive_join`.
    pub evidence_pack_claim_class: String,
    /// `clean`, `inconclusive`.
    pub runner_health_status: String,
    /// Whether the report could be lined up with the measurement: `clean`, `lossy`, `inconclusive`.
    pub trace_calibration_status: String,
    /// As in the join.
    pub join_key: String,
    /// As in the join.
    pub join_grade: String,
    /// As in the join.
    pub fallback_used: bool,
    /// Why this verdict.
    pub reason: String,
    /// What the row does not claim.
    pub non_claims: Vec<String>,
}

/// `redaction-manifest.json`: what the pack leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedactionManifest {
    /// [`schema::REDACTION_MANIFEST`].
    pub schema: String,
    /// RFC 3339.
    pub created_at: String,
    /// The mode of redaction.
    pub policy: String,
    /// Something was replaced.
    pub redaction_applied: bool,
    /// What is never kept.
    pub omitted_content: Vec<String>,
    /// For people.
    pub notes: Vec<String>,
}

/// `proof-pack-reference.json`: what in the pack the row stands on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofPackReference {
    /// `delegated_gap_reference`.
    pub kind: String,
    /// Which of the six.
    pub scenario_id: String,
    /// `delegated-gap-smoke-verified`, `…-not-citable` for a dirty or unknown head, `…-inconclusive`.
    pub status: String,
    /// RFC 3339.
    pub created_at: String,
    /// The invocation.
    pub workflow: Workflow,
    /// The pack and the gate in it.
    pub proof_pack: PackOfGate,
    /// The positive baseline of the same invocation; null for the baseline itself.
    pub same_head_positive_baseline: Option<BaselineReference>,
    /// What the archive of the first run holds; null when the runs don't carry it.
    pub runner_archive_evidence: Option<ArchiveEvidence>,
    /// Health of the first run; null without one.
    pub health: Option<Health>,
    /// Digests over the runs.
    pub determinism: Digests,
    /// What the reference does not claim.
    pub non_claims: Vec<String>,
}

/// The invocation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workflow {
    /// The workflow; `local` outside of one.
    pub name: String,
    /// The workflow run, or the session of this tool.
    pub run_id: String,
    /// Null outside of a workflow.
    pub run_url: Option<String>,
    /// Full ref.
    pub r#ref: String,
    /// The commit that was measured.
    pub head_sha: String,
    /// As given.
    pub inputs: Inputs,
}

/// What the invocation was asked for, in the names of a dispatch. Runs and state of the checkout stand in `run.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The selection.
    pub gates: String,
    /// `true` when the binary that measured was built in the host's store from the commit, `false` when a workflow measured
    /// with another, `local` outside of one.
    pub build_ebpf: String,
}

/// The pack and the gate in it. The artifact is only known after the upload: those fields are null in the pack itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PackOfGate {
    /// Known after the upload.
    pub artifact_id: Option<u64>,
    /// The name that the upload will use.
    pub artifact_name: String,
    /// Known after the upload.
    pub artifact_url: Option<String>,
    /// Known after the upload.
    pub expires_at: Option<String>,
    /// Where the pack's manifest stands.
    pub manifest_path: String,
    /// The gate.
    pub gate: String,
    /// Its status.
    pub gate_status: String,
    /// Its archives.
    pub archive_count: u64,
    /// Its `PASS:` lines.
    pub pass_lines: Vec<String>,
}

/// The baseline that passed before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaselineReference {
    /// The gate.
    pub gate: String,
    /// Its status.
    pub gate_status: String,
    /// Its archives.
    pub archive_count: u64,
    /// Its `PASS:` lines.
    pub pass_lines: Vec<String>,
    /// Digest of each archive.
    pub archive_sha256: Vec<String>,
}

/// What the archive of the first run holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchiveEvidence {
    /// The run.
    pub run_id: String,
    /// The call that the SDK reported.
    pub tool_call_id: String,
    /// Its tool.
    pub tool: String,
    /// Package name.
    pub sdk_name: String,
    /// Package version.
    pub sdk_version: String,
    /// The decision.
    pub policy_decision: String,
    /// Kernel lines.
    pub kernel_event_count: u64,
    /// The work folder, with a slash at its end.
    pub workdir_prefix: String,
    /// Files of the work folder that were opened.
    pub measured_paths: Vec<String>,
    /// The write that makes the gap; null when the gap is no write.
    pub measured_write: Option<MeasuredWrite>,
}

/// A write as the kernel layer has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredWrite {
    /// The file.
    pub path: String,
    /// `openat`.
    pub kind: String,
    /// `write`.
    pub access_mode: String,
    /// `create`, `truncate`, ...
    pub operation_flags: Vec<String>,
    /// `success`.
    pub status: String,
}

/// Health of the first run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// As in the health record.
    pub kernel_layer: String,
    /// As in the health record.
    pub ringbuf_drops: u64,
    /// As in the health record.
    pub policy_layer: String,
    /// As in the health record.
    pub sdk_layer: String,
    /// As in the health record.
    pub cgroup_correlation: String,
    /// Status of the correlation report.
    pub correlation_status: String,
    /// Number of its ambiguities.
    pub ambiguities: u64,
}

/// Digests: of the first run's files, and of every archive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// `capability-surface.json`.
    pub capability_surface_sha256: Option<String>,
    /// `correlation-report.json`.
    pub correlation_report_sha256: Option<String>,
    /// `observation-health.json`.
    pub observation_health_sha256: Option<String>,
    /// Each run's archive.
    pub archive_sha256: Vec<String>,
}
