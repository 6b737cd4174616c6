//! The MCP proxy from outside: hostile ends, signals, the log, the official SDK, and windows of calls in the kernel.

#[path = "../support/mod.rs"]
mod support;

#[cfg(feature = "capture")]
mod effects;
mod hostile;
mod laws;
mod proxy;
mod sdk;
#[cfg(feature = "capture")]
mod starter;
#[cfg(feature = "capture")]
mod windows;
