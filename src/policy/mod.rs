//! The MCP proxy that decides on tool calls and logs its decisions.
//!
//! ```text
//! caller ── stdin ──▶ lines ▶ message ▶ decision ▶ log ──▶ server     (only a tool call is looked into)
//! caller ◀─ stdout ── lines ◀ scan (which call ended?) ◀── server
//! ```
//!
//! Every line that reaches the other side is passed on byte for byte. A tool call reaches the server only after its
//! decision stands in the log. A line that two parsers could read differently does not reach the server at all.

pub mod control;
mod decision;
mod definition;
mod inflight;
mod lines;
mod log;
mod message;
#[cfg(test)]
mod message_tests;
mod path;
mod pattern;
#[cfg(target_os = "linux")]
pub mod proxy;
mod scan;
mod strict;

pub use decision::{Basis, Decision, Outcome, Reason};
pub use definition::{Default, Definition, POLICY_SCHEMA, Policy, Tools, policy_json_schema};
pub use lines::{LONGEST_LINE, Line, Lines};
pub use log::{DECISION_TYPE, Origin, Subject, line};
pub use message::{Call, classify};
pub use scan::{Found, Scanner};
