mod assertion;
pub mod claims;
mod determinism;
mod verdict;

pub use assertion::Assertion;
pub use determinism::{Compared, Determinism, Divergence, DriftKind, RunArtifacts, compare};
pub use verdict::{ArchiveRef, GateStatus, GateVerdict, RunVerdict};
