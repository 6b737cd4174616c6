//! `kernel_set.json`: a run's kernel evidence as a set that runs can be compared by.
//!
//! Pids become process ordinals and descriptor numbers go, since both differ between equal runs; what is left must not,
//! so each record carries how often it stands there. An extra write of a second run shows as a count.

use super::contract::KernelEvent;
use super::kernel::KernelVersion;
use crate::capture::Effect;
use crate::error::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `kernel_set.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelSet {
    /// [`KernelSet::SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Kernel events in total.
    pub events: u64,
    /// Distinct records with their counts, sorted.
    pub records: Vec<KernelRecord>,
}

/// One record of [`KernelSet`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelRecord {
    /// Stable ordinal of the process: 0 is the measured root.
    pub process: u32,
    /// As in the kernel event.
    pub kind: String,
    /// As in the kernel event.
    pub value: Option<String>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u64>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u64>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<u64>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_mode: Option<String>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub operation_flags: Vec<String>,
    /// As in the kernel event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The error, when it failed: the return value negated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i64>,
    /// How often.
    pub count: u64,
}

impl KernelSet {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.kernel_set.v0";

    /// The set that the lines of an effects.ndjson give; equal to the kernel_set.json beside it.
    ///
    /// # Errors
    /// As [`super::kernel::normalise`].
    pub fn of_effects(
        run_id: &str,
        work: Option<&str>,
        version: KernelVersion,
        effects: impl IntoIterator<Item = Result<Effect>>,
    ) -> Result<Self> {
        let kernel = super::kernel::normalise(run_id, work, version, effects)?;
        Ok(Self::of(run_id, &kernel.events, &kernel.processes))
    }

    /// The set of `events`, of which `processes` gives the ordinals in the same order.
    #[must_use]
    pub fn of(run_id: &str, events: &[KernelEvent], processes: &[u32]) -> Self {
        let mut counts: BTreeMap<KernelRecord, u64> = BTreeMap::new();
        for (event, process) in events.iter().zip(processes) {
            let record = KernelRecord {
                process: *process,
                kind: event.kind.clone(),
                value: event.value.clone(),
                flags: event.flags,
                mode: event.mode,
                resolve: event.resolve,
                access_mode: event.access_mode.clone(),
                operation_flags: event.operation_flags.clone(),
                status: event.status.clone(),
                errno: event.return_value.filter(|value| *value < 0).map(|value| -value),
                count: 0,
            };
            *counts.entry(record).or_default() += 1;
        }
        Self {
            schema: Self::SCHEMA.to_owned(),
            run_id: run_id.to_owned(),
            events: events.len() as u64,
            records: counts.into_iter().map(|(record, count)| KernelRecord { count, ..record }).collect(),
        }
    }
}
