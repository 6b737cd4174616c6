//! What touches the kernel: loading and attaching, the ring, the canaries, and the recorder that joins them.

mod btf;
mod calls;
mod canary;
mod capability;
mod facts;
mod load;
mod recorder;
mod refusal;
mod ring;
mod series;

pub use capability::candidates;
pub use recorder::{ArmOptions, Garbled, Loaded, Recorder, Sabotage};
