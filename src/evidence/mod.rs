//! Records to evidence: filter, the three layers, correlation, health, archive.
//!
//! [`assemble`] is the way in (one run's records and logs to everything kept of it), [`Archive`] the way back
//! (a file to content that verified).

pub mod archive;
mod assemble;
pub mod contract;
pub mod correlation;
pub mod effect_surface;
pub mod effects;
pub mod filter;
pub mod health;
pub mod kernel;
pub mod kernel_set;
pub mod logs;
pub mod origins;
pub mod redaction;
pub mod schema;
pub mod strict;
mod surface;
pub mod tool_effects;

pub use archive::{Archive, Finding};
pub use assemble::{Outputs, RunFacts, Written, assemble};
pub use contract::{
    CapabilitySurface, CorrelationReport, KernelEvent, ObservationHealth, PolicyEvent, RunFinished,
    RunStarted, SdkEvent,
};
pub use effect_surface::EffectSurface;
pub use filter::Filter;
pub use kernel::KernelVersion;
pub use kernel_set::KernelSet;
pub use logs::Logs;
pub use redaction::RedactionKey;
pub use surface::surface;
pub use tool_effects::ToolEffects;
