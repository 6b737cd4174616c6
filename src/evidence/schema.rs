//! The JSON Schemas of artifacts, embedded: what `proof-pack/schemas` holds is what is checked.

use super::archive::Finding;
use crate::error::{Code, Error, Result};
use jsonschema::Validator;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::OnceLock;

/// Embeds the schemas named, each by its id.
macro_rules! schemas {
    ($($id:literal,)*) => {
        /// Id and text of every artifact's schema, by id.
        pub const ALL: &[(&str, &str)] = &[$(($id, include_str!(concat!("../../proof-pack/schemas/", $id, ".json"))),)*];
    };
}

// A test compares this list with the folder.
schemas! {
    "assay.ci.ebpf_build_provenance.v0",
    "assay.experiment.agent_observability_fidelity.redaction_manifest.v0",
    "assay.experiment.agent_observability_fidelity.semantic_gap_verdict.v0",
    "assay.gates.artifact.v0",
    "assay.gates.baseline.v0",
    "assay.gates.baseline_diff.v0",
    "assay.gates.capture_proof.v0",
    "assay.gates.chain.v0",
    "assay.gates.claims.v0",
    "assay.gates.cleanup.v0",
    "assay.gates.cleanup_plan.v0",
    "assay.gates.doctor.v0",
    "assay.gates.effect.v0",
    "assay.gates.effects_diff.v0",
    "assay.gates.filter.v0",
    "assay.gates.filter_report.v0",
    "assay.gates.kernel_set.v0",
    "assay.gates.lane.v0",
    "assay.gates.lane_proof.v0",
    "assay.gates.pack_result.v0",
    "assay.gates.pack_verification.v0",
    "assay.gates.policy.v0",
    "assay.gates.surface.v0",
    "assay.gates.tool_decision.v0",
    "assay.gates.tool_effects.v0",
    "assay.gates.verification.v0",
    "assay.observability.claim_class_cell.v0",
    "assay.observability.join_result.v0",
    "assay.runner.archive_manifest.v0",
    "assay.runner.capability_diff.v0",
    "assay.runner.capability_surface.v0",
    "assay.runner.correlation_report.v0",
    "assay.runner.cross_runtime_diff.v0",
    "assay.runner.delegated_proof_pack.v1",
    "assay.runner.event.v0",
    "assay.runner.kernel_event.v0",
    "assay.runner.kernel_event.v1",
    "assay.runner.observation_health.v0",
    "assay.runner.policy_event.v0",
    "assay.runner.sdk_event.v0",
}

/// Everything in which `value` differs from the schema `id`.
///
/// # Errors
/// `Internal` when no schema has that id, or it doesn't compile, which a test rules out.
pub fn faults(id: &str, value: &Value) -> Result<Vec<Finding>> {
    let validators = compiled()?;
    let validator = validators
        .get(id)
        .ok_or_else(|| Error::new(Code::Internal, format!("expected a known schema, found {id}")))?;
    Ok(validator
        .iter_errors(value)
        .map(|error| Finding {
            place: format!("#{}", error.instance_path()),
            expected: format!("a value that fits {id}"),
            found: error.to_string().chars().take(300).collect(),
        })
        .collect())
}

/// Checks `value` against the schema `id`.
///
/// # Errors
/// `EvidenceInvalid` with the first difference; `Internal` as [`faults`].
pub fn validate(id: &str, value: &Value) -> Result<()> {
    match faults(id, value)?.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(first.into_error()),
    }
}

fn compiled() -> Result<&'static BTreeMap<&'static str, Validator>> {
    static COMPILED: OnceLock<BTreeMap<&'static str, Validator>> = OnceLock::new();
    if let Some(validators) = COMPILED.get() {
        return Ok(validators);
    }
    let mut validators = BTreeMap::new();
    for (id, text) in ALL {
        let wrong = |error: String| Error::new(Code::Internal, format!("schema {id}: {error}"));
        let schema: Value = serde_json::from_str(text).map_err(|error| wrong(error.to_string()))?;
        validators.insert(*id, jsonschema::validator_for(&schema).map_err(|error| wrong(error.to_string()))?);
    }
    Ok(COMPILED.get_or_init(|| validators))
}
