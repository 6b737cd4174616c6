//! Evidence to verdict: acceptance, determinism, scenario rows, claims. Pure: values in, values out.

mod acceptance;
mod assertion;
pub mod claims;
mod determinism;
pub mod diff;
mod reconcile;
mod run;
pub mod scenario;
mod verdict;

pub use acceptance::{RunEvidence, accept};
pub use assertion::Assertion;
pub use determinism::{Compared, Determinism, Divergence, Drift, DriftKind, RunArtifacts, compare};
pub use reconcile::{EffectTotals, reconcile};
pub use run::{
    RunAccount, acceptance_line, baseline_missing, declared_failure, determinism_line, run_verdict,
};
pub use verdict::{ArchiveRef, GateStatus, GateVerdict, INTERRUPTED, RunVerdict};
