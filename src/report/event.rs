//! The facts that a run states.

use crate::error::Result;
use serde::{Deserialize, Serialize};

/// One fact. Serialised one per line into `events.jsonl` of the proof root (`assay.gates.event.v0`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The invocation began.
    SessionStarted {
        /// The invocation's id.
        session: String,
        /// Gates selected, in order.
        gates: Vec<String>,
        /// Measured runs of each gate.
        runs: u32,
        /// The proof root.
        root: String,
    },
    /// A gate began.
    GateStarted {
        /// The gate.
        gate: String,
    },
    /// A measured run began.
    RunStarted {
        /// The gate.
        gate: String,
        /// From 1.
        run: u32,
    },
    /// A measured run ended and its archive is on disk.
    RunFinished {
        /// The gate.
        gate: String,
        /// From 1.
        run: u32,
        /// The run was accepted.
        passed: bool,
        /// Exit status of the measured process.
        exit_code: Option<i32>,
        /// Signal of the measured process.
        signal: Option<i32>,
        /// Effects recorded.
        effects: u64,
        /// Kernel records kept as evidence.
        kernel_events: u64,
        /// Records lost.
        lost: u64,
        /// Capture complete.
        complete: bool,
        /// Wall time of the measured tree, milliseconds.
        elapsed_ms: u64,
        /// Named reasons when it was not accepted.
        reasons: Vec<String>,
    },
    /// A line for the gate's log, e.g. `PASS: …`.
    Line {
        /// The gate.
        gate: String,
        /// The text, one line.
        text: String,
    },
    /// A gate ended.
    GateFinished {
        /// The gate.
        gate: String,
        /// `passed`, `failed`, `skipped`, `incomplete`.
        status: String,
        /// The runs agree.
        agree: bool,
        /// Exit code that this gate alone asks for.
        exit: u8,
        /// Wall time of the gate, milliseconds.
        elapsed_ms: u64,
        /// Named reasons when it did not pass.
        reasons: Vec<String>,
    },
    /// The invocation ended.
    SessionFinished {
        /// Exit code.
        exit: u8,
        /// Wall time, milliseconds.
        elapsed_ms: u64,
    },
}

/// Whoever consumes events.
pub trait Sink {
    /// Takes one fact.
    ///
    /// # Errors
    /// Whatever keeps a view that is kept from keeping it: then the invocation can't go on.
    fn event(&mut self, event: &Event) -> Result<()>;
}
