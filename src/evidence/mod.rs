//! Records to evidence: filter, the three layers, correlation, health, archive.

pub mod contract;

pub use contract::{
    CapabilitySurface, CorrelationReport, KernelEvent, ObservationHealth, PolicyEvent, RunEvent, SdkEvent,
};
