//! Evidence: from effects and logs to an archive, and back.

mod archives;
mod assembling;
mod contract_only;
mod contracts;
mod correlating;
mod diffing;
mod filtering;
mod fixtures;
mod incidents;
mod initiating;
mod kernel_events;
mod log_files;
mod redacting;
mod schemas;
mod verifying;

#[path = "../support/mod.rs"]
mod support;
