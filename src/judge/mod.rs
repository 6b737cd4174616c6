//! Evidence to verdict: acceptance, determinism, scenario rows, claims. Pure: values in, values out.

mod acceptance;
mod assertion;
pub mod claims;
mod determinism;
pub mod diff;
pub mod scenario;
mod verdict;

pub use acceptance::{RunEvidence, accept};
pub use assertion::Assertion;
pub use determinism::{Compared, Determinism, Divergence, DriftKind, RunArtifacts, compare};
pub use verdict::{ArchiveRef, GateStatus, GateVerdict, RunVerdict};
