//! Kernel to records: load, attach, drain, decode, account for every record.
//!
//! The types here are portable; what touches the kernel stands behind the `capture` feature on Linux.

mod effect;
mod object;
mod recording;

pub use effect::{Effect, Operation, PathState, PathValue};
pub use object::{Object, embedded};
pub use recording::{CallWindow, CaptureProof, HookCount, Invariant, NetworkCounts, Outcome, Summary};
