//! Which gate a change must pass before merge, and whether a proof pack shows that it did.
//!
//! The contract is data (`gates/lanes.yaml`); deciding and checking are pure. What git and GitHub say comes in as values.

mod chained;
mod changes;
mod contract;
mod decision;
mod lock;
mod outcome;
mod proof;
mod witness;

pub use chained::{JobLog, job_logs, logged};
pub use changes::{changed_files, file_at, object_of, resolve, test_only_locks, yaml_digests_below};
pub use contract::{LaneContract, Rule};
pub use decision::{Decision, FileDecision, Required};
pub use outcome::RunOutcome;
pub use proof::{Check, Claim, PackFacts, RunFacts, StepFact, check, recorded};
pub use witness::{Status, run_facts, standing_proof};
