//! Kernel to records: load, attach, drain, decode, account for every record.
//!
//! The types here are portable; what touches the kernel stands behind the `capture` feature on Linux.

pub mod catalogue;
mod decode;
mod effect;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod kernel;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod ledger;
mod object;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod proof;
pub mod raw;
mod recording;
mod spool;
mod text;

pub use decode::{CONCURRENT, REFUSED};
pub use effect::{Effect, FileObject, Operation, PathState, PathValue};
#[cfg(all(feature = "capture", target_os = "linux"))]
pub use kernel::{ArmOptions, Garbled, Loaded, Recorder, Sabotage, candidates};
pub use object::{Object, embedded};
pub use recording::{
    Author, CallMarks, CallWindow, CaptureProof, Effects, HookCount, INVARIANTS, Invariant, NetworkCounts,
    Outcome, Recording, Summary,
};
pub use spool::Budget;

/// Bytes of the ring between kernel and reader, unless another size is asked for.
pub const RING_BYTES: u32 = 64 << 20;
