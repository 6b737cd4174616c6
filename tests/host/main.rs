//! The measured process on the real kernel: what it is, what it sees, how it ends, and that nothing of it stays.

#![cfg(all(feature = "capture", target_os = "linux"))]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod cgroups;
mod doctor;
mod endings;
mod hostile;
mod processes;
mod record;
mod sandbox;
mod units;
