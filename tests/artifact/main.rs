//! Uploads: against a recording server with faults, beside the official client, and to the server of nektos/act.

mod faults;
#[path = "support.rs"]
mod harness;
mod protocol;
mod server;
