//! `assay.runner.capability_diff.v0`: two runs of one runtime, compared by their surfaces.

use super::sets::{SetDiff, SurfaceDiff};
use super::side::Side;
use crate::error::{Code, Error, Exit, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The note of two equal, clean sides.
const IDEMPOTENT: &str = "capability_diff_idempotent: base and head evidence sets are identical";

/// The document, field by field in its written order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapabilityDiff {
    /// [`CapabilityDiff::SCHEMA`].
    pub schema: String,
    /// Base's run.
    pub base_run_id: String,
    /// Head's run.
    pub head_run_id: String,
    /// `clean`, `partial:health`, `partial:correlation`.
    pub status: String,
    /// What must hold for the comparison to mean anything.
    pub preconditions: Preconditions,
    /// What is compared, and what is not.
    pub scope: Scope,
    /// The surfaces.
    pub surface: SurfaceDiff,
    /// Tool calls that were decided on.
    pub binding_ids: SetDiff,
    /// Decisions on tool calls of both sides.
    pub policy_outcomes: PolicyOutcomes,
    /// Always empty in v0.
    pub unbound: Unbound,
    /// Always empty in v0.
    pub ambiguities: Vec<String>,
    /// The idempotent note, or nothing.
    pub notes: Vec<String>,
}

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preconditions {
    /// Base: everything observed without loss.
    pub base_health_clean: bool,
    /// Head: everything observed without loss.
    pub head_health_clean: bool,
    /// Base: joined without a doubt.
    pub base_correlation_clean: bool,
    /// Head: joined without a doubt.
    pub head_correlation_clean: bool,
    /// True.
    pub stable_tool_call_ids_required: bool,
    /// Both sides name tool calls.
    pub stable_tool_call_ids_present: bool,
}

impl Preconditions {
    /// Of two sides.
    #[must_use]
    pub fn of(base: &Side, head: &Side) -> Self {
        Self {
            base_health_clean: base.health_clean(),
            head_health_clean: head.health_clean(),
            base_correlation_clean: base.correlation_clean(),
            head_correlation_clean: head.correlation_clean(),
            stable_tool_call_ids_required: true,
            stable_tool_call_ids_present: !base.correlation.bindings.is_empty()
                && !head.correlation.bindings.is_empty(),
        }
    }

    /// The status that follows.
    #[must_use]
    pub fn status(&self) -> &'static str {
        if !(self.base_health_clean && self.head_health_clean) {
            "partial:health"
        } else if !(self.base_correlation_clean
            && self.head_correlation_clean
            && self.stable_tool_call_ids_present)
        {
            "partial:correlation"
        } else {
            "clean"
        }
    }
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// `surface_set`.
    pub projection: String,
    /// False.
    pub uses_raw_telemetry: bool,
    /// False.
    pub uses_proof_pack: bool,
    /// False.
    pub per_binding_capability_values: bool,
}

impl Default for Scope {
    fn default() -> Self {
        Self {
            projection: "surface_set".to_owned(),
            uses_raw_telemetry: false,
            uses_proof_pack: false,
            per_binding_capability_values: false,
        }
    }
}

/// Decisions that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyOutcomes {
    /// By tool call, sorted.
    pub changed: Vec<OutcomeChange>,
}

/// One decision that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutcomeChange {
    /// The call.
    pub tool_call_id: String,
    /// Base's decision.
    pub base: String,
    /// Head's decision.
    pub head: String,
}

impl PolicyOutcomes {
    /// Of the tool calls that both sides have. A binding without a decision reads as `none`.
    #[must_use]
    pub fn of(base: &Side, head: &Side) -> Self {
        let (base, head) = (base.outcomes(), head.outcomes());
        let name = |decision: &Option<&str>| decision.unwrap_or("none").to_owned();
        let changed = base
            .iter()
            .filter_map(|(id, before)| {
                let after = head.get(id).filter(|after| *after != before)?;
                Some(OutcomeChange { tool_call_id: (*id).to_owned(), base: name(before), head: name(after) })
            })
            .collect();
        Self { changed }
    }
}

/// Five lists that v0 leaves empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unbound {
    /// Empty.
    pub filesystem_paths: Vec<String>,
    /// Empty.
    pub network_endpoints: Vec<String>,
    /// Empty.
    pub process_execs: Vec<String>,
    /// Empty.
    pub mcp_tools: Vec<String>,
    /// Empty.
    pub policy_decisions: Vec<String>,
}

impl CapabilityDiff {
    /// Schema id.
    pub const SCHEMA: &str = "assay.runner.capability_diff.v0";

    /// Compares two sides.
    ///
    /// # Errors
    /// `EvidenceInvalid` when the same tool calls give other decisions by tool and yet no decision on a call changed: the
    /// documents contradict each other.
    pub fn of(base: &Side, head: &Side) -> Result<Self> {
        let preconditions = Preconditions::of(base, head);
        let ids = |side: &Side| -> BTreeSet<String> {
            side.correlation.bindings.iter().map(|binding| binding.tool_call_id.clone()).collect()
        };
        let surface = SurfaceDiff::of(&base.surface, &head.surface);
        let binding_ids = SetDiff::of(&ids(base), &ids(head));
        let policy_outcomes = PolicyOutcomes::of(base, head);
        if !binding_ids.unchanged.is_empty()
            && binding_ids.is_same()
            && !surface.policy_decisions.is_same()
            && policy_outcomes.changed.is_empty()
        {
            return Err(Error::new(
                Code::EvidenceInvalid,
                "expected a changed decision on a tool call, found only other policy_decisions on the same calls",
            )
            .at("capability-surface.json"));
        }
        let status = preconditions.status();
        let same = surface.is_same() && binding_ids.is_same() && policy_outcomes.changed.is_empty();
        Ok(Self {
            schema: Self::SCHEMA.to_owned(),
            base_run_id: base.health.run_id.clone(),
            head_run_id: head.health.run_id.clone(),
            status: status.to_owned(),
            preconditions,
            scope: Scope::default(),
            surface,
            binding_ids,
            policy_outcomes,
            unbound: Unbound::default(),
            ambiguities: Vec::new(),
            notes: if same && status == "clean" { vec![IDEMPOTENT.to_owned()] } else { Vec::new() },
        })
    }

    /// Nothing differs.
    #[must_use]
    pub fn is_same(&self) -> bool {
        self.surface.is_same() && self.binding_ids.is_same() && self.policy_outcomes.changed.is_empty()
    }

    /// 0 when comparable and equal, 11 when comparable and different, 12 when the preconditions don't hold.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match (self.status.as_str(), self.is_same()) {
            ("clean", true) => Exit::Passed,
            ("clean", false) => Exit::RunsDisagree,
            _ => Exit::CaptureIncomplete,
        }
    }
}
