//! The MCP proxy that decides on tool calls and logs its decisions.
//!
//! ```text
//! caller ── stdin ──▶ lines ▶ message ▶ decision ▶ keeper ──▶ server     (only a tool call is looked into)
//! caller ◀─ stdout ── lines ◀ scan (which call ended?) ◀───── server
//! ```
//!
//! One [`Session`] does this for one caller and one server, wherever it runs: in the driver for a measured session
//! (`host::calls`), where `mcp-wrap` is but a pipe to it ([`pipe`]), or else in `mcp-wrap` itself ([`proxy`]).
//!
//! Every line that reaches the other side is passed on byte for byte. A tool call reaches the server only after its
//! decision stands in the log. A line that two parsers could read differently does not reach the server at all.

mod call_id;
#[cfg(target_os = "linux")]
pub mod control;
mod decision;
mod definition;
mod inflight;
mod keeper;
mod lines;
mod log;
mod message;
#[cfg(test)]
mod message_tests;
mod name;
mod path;
mod pattern;
#[cfg(target_os = "linux")]
pub mod pipe;
#[cfg(target_os = "linux")]
pub mod proxy;
mod scan;
mod sentences;
mod session;
#[cfg(target_os = "linux")]
mod signals;
mod strict;

pub use call_id::{ConnectionName, GivenId};
pub use decision::{Basis, Decision, Outcome, Reason};
pub use definition::{Decoding, Default, Definition, POLICY_SCHEMA, Policy, Tools, policy_json_schema};
pub use keeper::{Begin, Keeper, LogFile};
pub use lines::{LONGEST_LINE, Line, Lines};
pub use log::{DECISION_TYPE, Origin, Subject, line};
pub use message::{Call, classify};
pub use scan::{Found, Scanner};
pub use session::{REFUSED, Session};
