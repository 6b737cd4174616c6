//! What `mcp-wrap` inside a measured session and the driver's decider say to each other, over one socket per server.
//!
//! The wrapper is a pipe: it says which server it stands for, hands over its standard streams and waits. The decider
//! reads the caller's lines, decides and logs, and starts the server itself. Nothing that the wrapper says is
//! believed: whoever speaks in its place gets the same server behind the same decisions.
//!
//! First comes the length of the [`Opening`], 8 bytes little-endian, together with the three descriptors; then the
//! opening; then one JSON object a line, [`Word`]s up and one [`Answer`] down.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Where the decider listens in every measured session that has a policy.
pub const CONTROL: &str = "/run/assay-gates/control.sock";

/// Environment variable that names the socket too. A hint: a caller may give the wrapper no variables at all.
pub const CONTROL_VARIABLE: &str = "ASSAY_GATES_CONTROL";

/// Longest opening, in bytes of JSON.
pub const LONGEST_OPENING: u64 = 16 * 1024 * 1024;

/// Longest text of a policy that the wrapper sends, in bytes.
pub const LONGEST_POLICY: usize = 1024 * 1024;

/// Which server the wrapper stands for. Written by the measured program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// argv of the server.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub environment: Vec<Vec<u8>>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Name of the server in every decision.
    pub label: String,
    /// `source` of every decision.
    pub source: String,
    /// Text of the policy that the wrapper was given. Compared with the decider's own.
    pub policy: Option<String>,
}

/// What the wrapper says afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// It got this signal, which is meant for the server.
    Signal(i32),
}

/// What the decider says at last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The server exited with this status.
    Exited(i32),
    /// This signal killed the server.
    Killed(i32),
    /// There is no server, and why.
    Refused(Refusal),
}

/// Why the decider started no server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// What kept it.
    pub cause: Cause,
    /// What was expected and found.
    pub message: String,
}

/// What kept the decider from starting a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The policy that was named is not the one that the run is measured under.
    Policy,
    /// The server could not be started.
    Server,
    /// The opening or a descriptor that came with it is not what it must be, or there are too many servers.
    Wrapper,
}
