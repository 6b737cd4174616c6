//! `manifest.json` of a proof pack (`assay.runner.delegated_proof_pack.v1`), field by field.
//!
//! Written with sorted keys, indented by two, newline at the end ([`files::pretty_sorted`](crate::files::pretty_sorted)).

use crate::files::Sha256Digest;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Schema id of the pack and of its list of subjects.
pub const SCHEMA: &str = "assay.runner.delegated_proof_pack.v1";
/// `kind`.
pub const KIND: &str = "delegated_runner_proof_pack";
/// `claim_ceiling`: nothing in a pack may be read as more than this.
pub const CLAIM_CEILING: &str = "delegated_gate_execution_only_not_runtime_safety";
/// `verification_modes.historical`.
pub const MODE_HISTORICAL: &str = "proof_pack_sufficient_for_recorded_run";
/// `verification_modes.current_state`.
pub const MODE_CURRENT: &str = "fresh_delegated_dispatch_required";
/// `retention_days`.
pub const RETENTION_DAYS: u32 = 365;
/// `expected_size_policy.soft_cap_bytes`.
pub const SOFT_CAP_BYTES: u64 = 50 * 1024 * 1024;
/// `expected_size_policy.action`.
pub const SIZE_ACTION: &str = "revisit retention and quota impact before expanding delegated matrices";
/// Subjects are named relative to the workspace: this is the folder that the pack stands in there.
pub const UPLOAD_FOLDER: &str = "assay-runner-proof-upload/";
/// Subject path of the eBPF object, relative to the workspace.
pub const OBJECT_SUBJECT: &str = "target/assay-ebpf.o";
/// The object itself, within the pack.
pub const OBJECT_PATH: &str = "payload/build/assay-ebpf.o";
/// How the object was built.
pub const BUILD_PROVENANCE_PATH: &str = "payload/build/assay-ebpf.provenance.json";
/// What the pack claims.
pub const CLAIMS_PATH: &str = "payload/claims.json";
/// What was found of the host before the first run.
pub const DOCTOR_PATH: &str = "payload/doctor.json";
/// The manifest.
pub const MANIFEST_PATH: &str = "manifest.json";
/// Digests of the manifest and of every subject, as `sha256sum` writes them.
pub const CHECKSUMS_PATH: &str = "subject-checksums.txt";
/// The in-toto Statement over the same subjects, unsigned.
pub const STATEMENT_PATH: &str = "statement.intoto.json";
/// A Sigstore bundle, put there by whoever signs.
pub const BUNDLE_PATH: &str = "attestation-bundle.json";
/// Members of an archive that a pack also carries by themselves, with the role `gate_json`.
pub const SELECTED_JSON: [&str; 4] =
    ["capability-surface.json", "correlation-report.json", "manifest.json", "observation-health.json"];

/// The manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`SCHEMA`].
    pub schema: String,
    /// [`KIND`].
    pub kind: String,
    /// [`CLAIM_CEILING`].
    pub claim_ceiling: String,
    /// `YYYY-MM-DDTHH:MM:SSZ`, the start of the invocation; never the time of packing.
    pub created_at: String,
    /// What an attestation covers.
    pub proof_pack: Subjects,
    /// Where the measured code came from. From the environment of the job, as the runner set it.
    pub source: SourceFacts,
    /// What the dispatch asked for.
    pub inputs: Inputs,
    /// The workflow run.
    pub workflow: WorkflowFacts,
    /// Git trees of the code that measures.
    pub content_provenance: ContentProvenance,
    /// Fixed.
    pub verification_modes: VerificationModes,
    /// [`RETENTION_DAYS`].
    pub retention_days: u32,
    /// Fixed.
    pub expected_size_policy: SizePolicy,
    /// Fixed.
    pub evidence_boundary: EvidenceBoundary,
    /// The eBPF object's provenance file.
    pub build_provenance: BuildProvenanceRow,
    /// Every gate that was selected, in order of selection.
    pub gates: Vec<GateRow>,
    /// Every file below `payload/`, sorted by path.
    pub payload_files: Vec<FileRow>,
    /// Bytes of this manifest and of the payload together.
    pub pack_size_bytes: u64,
}

/// `proof_pack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subjects {
    /// [`SCHEMA`].
    pub schema: String,
    /// The eBPF object first, then the payload sorted by path.
    pub subjects: Vec<Subject>,
}

/// A file that an attestation covers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// Relative to the workspace.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// Digest.
    pub sha256: Sha256Digest,
    /// What it is.
    pub role: Role,
}

/// What a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The kernel programs.
    EbpfObject,
    /// How they were built.
    EbpfBuildProvenance,
    /// `gate.log`.
    GateLog,
    /// `runner-*.tar.gz`.
    RunnerArchive,
    /// One of [`SELECTED_JSON`], extracted from an archive.
    GateJson,
    /// Everything else.
    Payload,
}

impl Role {
    /// The role that a path within the pack has.
    #[must_use]
    pub fn of(path: &str) -> Role {
        let name = path.rsplit('/').next().unwrap_or(path);
        match path.strip_prefix("payload/gates/") {
            _ if path == BUILD_PROVENANCE_PATH => Role::EbpfBuildProvenance,
            Some(_) if name == "gate.log" => Role::GateLog,
            Some(_) if is_archive_name(name) => Role::RunnerArchive,
            Some(rest) if rest.contains("/extract/") && SELECTED_JSON.contains(&name) => Role::GateJson,
            _ => Role::Payload,
        }
    }
}

/// Whether a file is named as archives of runs are.
#[must_use]
pub fn is_archive_name(name: &str) -> bool {
    name.len() > "runner-.tar.gz".len() && name.starts_with("runner-") && name.ends_with(".tar.gz")
}

/// `source`: all strings; `local` where no workflow ran.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceFacts {
    /// `owner/name`.
    pub repository: String,
    /// Commit.
    pub head_sha: String,
    /// `refs/heads/…`.
    pub r#ref: String,
    /// Display name.
    pub workflow_name: String,
    /// `.github/workflows/….yml`.
    pub workflow_path: String,
    /// Commit of the workflow file.
    pub workflow_sha: String,
    /// Run.
    pub run_id: String,
    /// From 1.
    pub run_attempt: String,
    /// Page of the run.
    pub run_url: String,
}

/// `inputs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The selection, e.g. `all`.
    pub gates: String,
    /// `true` when the dispatch asked for the object to be built from source in that run.
    pub build_ebpf: String,
}

/// `workflow`: the same facts in the shape that older readers expect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkflowFacts {
    /// Display name.
    pub name: String,
    /// Run.
    pub run_id: String,
    /// From 1.
    pub run_attempt: String,
    /// Page of the run.
    pub run_url: String,
    /// `refs/heads/…`.
    pub r#ref: String,
    /// Commit.
    pub head_sha: String,
    /// Commit of the workflow file.
    pub workflow_sha: String,
    /// As [`Manifest::inputs`].
    pub inputs: Inputs,
}

impl WorkflowFacts {
    /// The one that follows from `source` and `inputs`.
    #[must_use]
    pub fn of(source: &SourceFacts, inputs: &Inputs) -> Self {
        Self {
            name: source.workflow_name.clone(),
            run_id: source.run_id.clone(),
            run_attempt: source.run_attempt.clone(),
            run_url: source.run_url.clone(),
            r#ref: source.r#ref.clone(),
            head_sha: source.head_sha.clone(),
            workflow_sha: source.workflow_sha.clone(),
            inputs: inputs.clone(),
        }
    }
}

/// `content_provenance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContentProvenance {
    /// By path in the repository.
    pub path_trees: BTreeMap<String, PathTree>,
    /// The payload file that states the same trees; null without one.
    pub source: Option<String>,
}

/// Git object of one path at the head commit, or why it is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PathTree {
    /// As `git rev-parse HEAD:<path>` prints it.
    pub oid: Option<String>,
    /// Why there is none.
    pub error: Option<String>,
}

/// `verification_modes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerificationModes {
    /// [`MODE_HISTORICAL`].
    pub historical: String,
    /// [`MODE_CURRENT`].
    pub current_state: String,
}

/// `expected_size_policy`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizePolicy {
    /// [`SOFT_CAP_BYTES`].
    pub soft_cap_bytes: u64,
    /// [`SIZE_ACTION`].
    pub action: String,
}

/// `evidence_boundary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceBoundary {
    /// true.
    pub separate_from_normalized_runner_evidence: bool,
    /// true.
    pub not_a_runner_emitted_artifact: bool,
}

/// `build_provenance`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BuildProvenanceRow {
    /// [`BUILD_PROVENANCE_PATH`]; null when this binary holds no object.
    pub ebpf: Option<FileRow>,
}

/// A file of the payload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileRow {
    /// `payload/…`.
    pub path: String,
    /// Length.
    pub bytes: u64,
    /// Digest.
    pub sha256: Sha256Digest,
}

/// How a gate ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GateStatus {
    /// Accepted.
    Passed,
    /// Refused.
    Failed,
    /// Not attempted, on purpose.
    Skipped,
    /// Began and did not end, or left no readable status, or passed without leaving an archive.
    Incomplete,
    /// Left nothing at all.
    Missing,
}

impl GateStatus {
    /// As it stands in `status.txt` and in the manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GateStatus::Passed => "passed",
            GateStatus::Failed => "failed",
            GateStatus::Skipped => "skipped",
            GateStatus::Incomplete => "incomplete",
            GateStatus::Missing => "missing",
        }
    }
}

/// One gate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GateRow {
    /// Key, e.g. `openai-agents-hidden-write`.
    pub gate: String,
    /// How it ended.
    pub status: GateStatus,
    /// Archives, sorted by path.
    pub archives: Vec<FileRow>,
    /// [`SELECTED_JSON`] files, sorted by path.
    pub selected_json: Vec<FileRow>,
    /// Lines of the log that begin with `PASS:`, in order.
    pub pass_lines: Vec<String>,
    /// The log, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gate_log: Option<FileRow>,
    /// What to know about it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_follows_from_the_path() {
        for (path, role) in [
            ("payload/build/assay-ebpf.provenance.json", Role::EbpfBuildProvenance),
            ("payload/build/assay-ebpf.o", Role::Payload),
            ("payload/gates/kernel-only/gate.log", Role::GateLog),
            ("payload/gates/kernel-only/run-1/runner-kernel-only.tar.gz", Role::RunnerArchive),
            ("payload/gates/kernel-only/run-1/extract/manifest.json", Role::GateJson),
            ("payload/gates/kernel-only/run-1/extract/layers/sdk.ndjson", Role::Payload),
            ("payload/gates/kernel-only/verdict.json", Role::Payload),
            ("payload/gates/kernel-only/manifest.json", Role::Payload),
            ("payload/runs/hidden_write/gate.log", Role::Payload),
        ] {
            assert_eq!(Role::of(path), role, "{path}");
        }
    }
}
