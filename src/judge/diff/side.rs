//! One side of a comparison: the documents of one run, and what they allow to be compared.

use super::cross::Sdk;
use crate::error::{Code, Error, Result};
use crate::evidence::contract::schema;
use crate::evidence::{Archive, CapabilitySurface, CorrelationReport, ObservationHealth, SdkEvent};
use std::collections::{BTreeMap, BTreeSet};

/// One side, checked: one run, known schemas, no tool call twice.
#[derive(Clone, Debug)]
pub struct Side {
    /// `observation-health.json`.
    pub health: ObservationHealth,
    /// `capability-surface.json`.
    pub surface: CapabilitySurface,
    /// `correlation-report.json`.
    pub correlation: CorrelationReport,
    /// The agent's shim, from `events.ndjson`.
    pub agent_shim: String,
    /// `layers/sdk.ndjson`.
    pub sdk: Vec<SdkEvent>,
}

impl Side {
    /// The side of a verified archive.
    ///
    /// # Errors
    /// As [`Self::checked`].
    pub fn of_archive(archive: &Archive) -> Result<Self> {
        Self {
            health: archive.health.clone(),
            surface: archive.surface.clone(),
            correlation: archive.correlation.clone(),
            agent_shim: archive.started.agent_shim.clone(),
            sdk: archive.sdk.clone(),
        }
        .checked()
    }

    /// Checks what a comparison rests on.
    ///
    /// # Errors
    /// `EvidenceInvalid`: another schema, documents of two runs, a tool call that is bound twice.
    pub fn checked(self) -> Result<Self> {
        let wrong = |place: &str, expected: &str, found: &str| {
            Err(Error::new(Code::EvidenceInvalid, format!("expected {expected}, found {found}")).at(place))
        };
        let run_id = &self.health.run_id;
        for (place, expected, found, run) in [
            ("observation-health.json", schema::OBSERVATION_HEALTH, &self.health.schema, run_id),
            (
                "capability-surface.json",
                schema::CAPABILITY_SURFACE,
                &self.surface.schema,
                &self.surface.run_id,
            ),
            (
                "correlation-report.json",
                schema::CORRELATION_REPORT,
                &self.correlation.schema,
                &self.correlation.run_id,
            ),
        ] {
            if found != expected {
                return wrong(place, &format!("schema {expected}"), found);
            }
            if run != run_id {
                return wrong(place, &format!("run_id {run_id}, as in observation-health.json"), run);
            }
        }
        let mut seen = BTreeSet::new();
        for binding in &self.correlation.bindings {
            if !seen.insert(&binding.tool_call_id) {
                let expected = "each tool call bound once";
                return wrong(
                    "correlation-report.json",
                    expected,
                    &format!("{} twice", binding.tool_call_id),
                );
            }
        }
        Ok(self)
    }

    /// The SDKs that the events name; side-band, never compared.
    #[must_use]
    pub fn sdks(&self) -> BTreeSet<Sdk> {
        let named = |event: &SdkEvent| {
            Some(Sdk { sdk_name: event.sdk_name.clone()?, sdk_version: event.sdk_version.clone()? })
        };
        self.sdk.iter().filter_map(named).collect()
    }

    /// Everything was observed, by all three layers, without loss.
    #[must_use]
    pub fn health_clean(&self) -> bool {
        let health = &self.health;
        health.kernel_layer == "complete"
            && health.ringbuf_drops == 0
            && health.policy_layer == "present"
            && health.sdk_layer == "self_reported"
            && health.cgroup_correlation == "clean"
    }

    /// The layers were joined without a doubt.
    #[must_use]
    pub fn correlation_clean(&self) -> bool {
        self.correlation.status == "clean"
    }

    /// Decision by tool call.
    #[must_use]
    pub fn outcomes(&self) -> BTreeMap<&str, Option<&str>> {
        self.correlation
            .bindings
            .iter()
            .map(|binding| (binding.tool_call_id.as_str(), binding.policy_decision.as_deref()))
            .collect()
    }
}
