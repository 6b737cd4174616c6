//! Uploads: against a recording server with faults, beside the official client, and to the server of nektos/act.

mod act;
#[path = "../support/answers.rs"]
mod answers;
mod command;
mod faults;
#[path = "support.rs"]
mod harness;
mod official;
mod protocol;
mod server;
#[path = "../support/mod.rs"]
mod support;
mod transport;
