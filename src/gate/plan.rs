//! From names on a command line to what will be done, in order.

use super::catalog::{Catalog, Entry};
use crate::error::Result;
use serde::Serialize;
use std::path::PathBuf;

/// The gates of one invocation, in order; a baseline stands before the gate that needs it.
#[derive(Clone, Debug, PartialEq)]
pub struct Selection {
    /// The gates.
    pub gates: Vec<Entry>,
    /// Ids that were not asked for, but are needed as a baseline.
    pub added: Vec<String>,
}

impl Selection {
    pub(super) fn with_baselines(catalog: &Catalog, asked: Vec<Entry>) -> Result<Self> {
        let mut gates: Vec<Entry> = Vec::new();
        let mut added = Vec::new();
        for entry in asked.iter().cloned() {
            if let Some(name) =
                entry.definition.scenario.as_ref().and_then(|scenario| scenario.baseline.as_deref())
            {
                let baseline = catalog.get(name)?;
                let id = &baseline.definition.id;
                if !asked.iter().any(|other| other.definition.id == *id) && !added.contains(id) {
                    added.push(id.clone());
                    gates.push(baseline.clone());
                }
            }
            gates.push(entry);
        }
        Ok(Self { gates, added })
    }
}

/// What an invocation will do; printed by `run --dry-run`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// `assay.gates.plan.v0`.
    pub schema: String,
    /// The proof root.
    pub root: PathBuf,
    /// Measured runs of each gate.
    pub runs: u32,
    /// The gates, in order.
    pub gates: Vec<PlannedGate>,
}

/// One gate of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedGate {
    /// The gate.
    pub id: String,
    /// One line for people.
    pub title: String,
    /// Why it is here: `selected` or `baseline`.
    pub because: String,
    /// argv, placeholders included.
    pub command: Vec<String>,
    /// The archive each run will leave.
    pub archive: String,
}

impl Plan {
    /// The plan of a selection.
    #[must_use]
    pub fn new(selection: &Selection, root: PathBuf, runs: u32) -> Self {
        let gates = selection
            .gates
            .iter()
            .map(|entry| PlannedGate {
                id: entry.definition.id.clone(),
                title: entry.definition.title.clone(),
                because: if selection.added.contains(&entry.definition.id) { "baseline" } else { "selected" }
                    .to_owned(),
                command: entry.definition.command.clone(),
                archive: entry.definition.archive.clone(),
            })
            .collect();
        Self { schema: "assay.gates.plan.v0".to_owned(), root, runs, gates }
    }
}
