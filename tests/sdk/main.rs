//! The SDK gates: their definitions, their dependencies, and what the real SDKs do.

#[path = "../support/mod.rs"]
mod support;

mod bumped;
mod consumers;
mod definitions;
mod dependencies;
mod measured;
mod registries;
