//! What touches the kernel: loading and attaching, the ring, the canaries, and the recorder that joins them.

mod calls;
mod canary;
mod facts;
mod load;
mod recorder;
mod ring;
mod series;

pub use recorder::{ArmOptions, Loaded, Recorder, Sabotage};
