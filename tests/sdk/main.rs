//! The SDK gates: their definitions, their dependencies, and what the real SDKs do.

mod definitions;
mod dependencies;
