//! What one measured run gave: its outcome, its accounting, and the proof of its completeness.

use super::Effect;
use super::catalogue::CatalogueRef;
use super::decode::Decoder;
use super::raw::Record;
use super::spool::{SpoolReader, Spooled};
use crate::error::{Code, Error, Exit, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the measured root process ended. Written by the driver, from waitid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Exit status, when it exited.
    pub exit_code: Option<i32>,
    /// Signal number, when it was killed.
    pub signal: Option<i32>,
    /// Milliseconds from spawn to the last process's end.
    pub elapsed_ms: u64,
    /// The driver killed the tree because the time limit was reached.
    #[serde(default)]
    pub timed_out: bool,
    /// The driver killed the tree because it was itself told to stop.
    #[serde(default)]
    pub interrupted: bool,
    /// The driver (or the kernel) ended the tree because it ran into this limit, e.g. `memory: more than 2048 MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exceeded: Option<String>,
    /// Processes that outlived the root process and were killed by the driver.
    #[serde(default)]
    pub stragglers: u32,
}

impl Outcome {
    /// Exit status 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.exit_code == Some(0)
    }
}

/// Records emitted and dropped by one hook, counted in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HookCount {
    /// Records committed to the ring.
    pub emitted: u64,
    /// Records that could not be reserved.
    pub dropped: u64,
}

/// Sends that gave no IP peer, per syscall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkCounts {
    /// sendto without a recoverable peer.
    pub sendto_no_peer: u64,
    /// sendmsg without a recoverable peer.
    pub sendmsg_no_peer: u64,
    /// sendto to a family other than IP.
    pub sendto_non_ip: u64,
    /// sendmsg to a family other than IP.
    pub sendmsg_non_ip: u64,
}

/// One invariant of completeness: what was expected, what was seen, and who saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// Stable name, e.g. `emitted_equals_read`.
    pub name: String,
    /// Whether it held.
    pub held: bool,
    /// What was expected, in words or figures.
    pub expected: String,
    /// What was seen.
    pub seen: String,
    /// Who saw it: `kernel counter`, `consumer`, `cgroup.events`, ...
    pub witness: String,
}

/// Names of the invariants that a proof states, each once, in this order.
pub const INVARIANTS: [&str; 29] = [
    "cgroup_was_empty",
    "tree_is_gone",
    "one_root",
    "hooks_attached",
    "begin_canary",
    "end_canary",
    "nothing_dropped",
    "ring_drained",
    "emitted_equals_read",
    "bytes_equal",
    "read_equals_kept",
    "kept_equals_reread",
    "records_well_formed",
    "task_sequences",
    "task_automaton",
    "born_equals_died",
    "syscalls_begun",
    "syscalls_ended",
    "births_recorded",
    "deaths_recorded",
    "task_storage_for_every_record",
    "task_storage_had",
    "scratch_had",
    "no_recursion_misses",
    "kernel_release",
    "kernel_btf",
    "object_sha256",
    "nothing_escaped",
    "no_process_tampered",
];

/// `capture_proof.json` (`assay.gates.capture_proof.v0`): why this recording may be called complete, or why not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CaptureProof {
    /// `assay.gates.capture_proof.v0`.
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// True only when every invariant held and nothing escaped.
    pub complete: bool,
    /// Named reasons why it is not complete; empty when it is.
    pub reasons: Vec<String>,
    /// Every invariant checked.
    pub invariants: Vec<Invariant>,
    /// What this capture cannot see, in fixed words.
    pub blind_spots: Vec<String>,
    /// The catalogue of syscalls under which it was recorded, from which the blind spots follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<CatalogueRef>,
    /// Kernel release, BTF digest, object digest, program tags, attach results.
    pub environment: BTreeMap<String, String>,
    /// Who decided on tool calls: `corroborated` (the driver, by the run's own policy), `self_reported`, or absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_origin: Option<String>,
    /// Who wrote each layer, and each field of it that another than the layer's author wrote: `file` or `file#field`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Author>,
}

/// Who wrote a layer or a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Author {
    /// The kernel programs, at the moment that something happened.
    Kernel,
    /// The driver: what it started, waited for and counted.
    Driver,
    /// The decider, a part of the driver, of the calls that passed through it.
    Decider,
    /// The measured program: nobody else vouches for it.
    Agent,
}

/// The time during which a server worked on one tool call: the kernel programs stamp what it does with the call's number. Written by the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallWindow {
    /// The call.
    pub tool_call_id: String,
    /// The tool.
    pub tool: String,
    /// The call's number in the run, from 1.
    pub number: u64,
    /// Set when something else than calls overlapped, or the window could not be marked: then no effect is attributed.
    pub ambiguous: bool,
    /// Number of the first of the calls to the same server that overlapped, when others did. What the server does in
    /// the time of all of them carries that number, and belongs to all of them together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<u64>,
    /// The server and the number of the connection to it, `name/number`.
    #[serde(default)]
    pub server: String,
    /// Name of the rule by which the call's id was found.
    #[serde(default)]
    pub id_rule: String,
}

/// What the kernel programs must know of tool calls to stamp each effect with its own. Everything is in force for
/// whatever happens after the function has returned.
pub trait CallMarks: Send + Sync + std::fmt::Debug {
    /// The process, and all that comes of it, is the server with this number (1 to 16384).
    ///
    /// # Errors
    /// `CaptureLoad`, when the kernel refuses.
    fn server(&self, process: u32, server: u32) -> Result<()>;

    /// The server works on this call from now on; on none, when it is 0.
    ///
    /// # Errors
    /// `CaptureLoad`, when the kernel refuses.
    fn call(&self, server: u32, call: u64) -> Result<()>;
}

/// Everything about a run but its effects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The run.
    pub run_id: String,
    /// False when nothing was to be captured: no kernel program, no cgroup, no fence.
    #[serde(default = "captured")]
    pub captured: bool,
    /// How the root process ended.
    pub outcome: Outcome,
    /// The session's cgroup id; `None` when it could not be established.
    pub session_cgroup_id: Option<u64>,
    /// `clean` only when the tree stayed in its cgroup and the window was closed properly.
    pub cgroup_clean: bool,
    /// Records that the ring refused, in total.
    pub ringbuf_drops: u64,
    /// Records whose size was not what was expected.
    pub size_mismatches: u64,
    /// Per hook: `openat`, `openat2`, `connect`, `sendto`, `sendmsg`, and all others.
    pub hooks: BTreeMap<String, HookCount>,
    /// Sends without an IP peer.
    pub network: NetworkCounts,
    /// Windows of tool calls, in order.
    pub calls: Vec<CallWindow>,
    /// Why the recording may be called complete.
    pub proof: CaptureProof,
}

const fn captured() -> bool {
    true
}

/// Why nothing of a contract-only run is complete.
const NOT_CAPTURED: &str = "not_captured: the command was run for its logs alone; the kernel, its cgroup and its fences were left out";

impl Summary {
    /// Of a command that ran without any capture. `decisions` and `sdk` say which logs it wrote: all is its own word.
    #[must_use]
    pub fn contract_only(run_id: &str, outcome: Outcome, decisions: bool, sdk: bool) -> Self {
        let logs = [(decisions, "layers/policy.ndjson"), (sdk, "layers/sdk.ndjson")];
        let own =
            logs.into_iter().filter(|(there, _)| *there).map(|(_, log)| (log.to_owned(), Author::Agent));
        let driver = ["events.ndjson", "observation-health.json", "capture_proof.json"];
        Self {
            run_id: run_id.to_owned(),
            captured: false,
            outcome,
            session_cgroup_id: None,
            cgroup_clean: false,
            ringbuf_drops: 0,
            size_mismatches: 0,
            hooks: BTreeMap::new(),
            network: NetworkCounts::default(),
            calls: Vec::new(),
            proof: CaptureProof {
                schema: "assay.gates.capture_proof.v0".to_owned(),
                run_id: run_id.to_owned(),
                complete: false,
                reasons: vec![NOT_CAPTURED.to_owned()],
                invariants: Vec::new(),
                blind_spots: vec!["everything that the command did".to_owned()],
                catalogue: None,
                environment: BTreeMap::from([("platform".to_owned(), std::env::consts::OS.to_owned())]),
                policy_origin: decisions.then(|| "self_reported".to_owned()),
                origins: driver
                    .map(|file| (file.to_owned(), Author::Driver))
                    .into_iter()
                    .chain(own)
                    .collect(),
            },
        }
    }

    /// The exit code that this recording alone asks for.
    #[must_use]
    pub fn exit(&self) -> Exit {
        if self.proof.complete { Exit::Passed } else { Exit::CaptureIncomplete }
    }
}

/// A finished capture: its summary, and its records, from which effects are decoded as often as they are asked for.
#[derive(Debug)]
pub struct Recording {
    /// Everything but the effects.
    pub summary: Summary,
    spooled: Spooled,
    canaries: Vec<u32>,
}

impl Recording {
    /// Joins what the recorder knows to what it kept. `canaries` are the recorder's own processes, left out of the effects.
    #[must_use]
    pub fn new(summary: Summary, spooled: Spooled, canaries: Vec<u32>) -> Self {
        Self { summary, spooled, canaries }
    }

    /// The effects of the measured tree, in the order of the ring, one at a time.
    ///
    /// # Errors
    /// `CaptureConsumer`, when the records can't be read back.
    pub fn effects(&self) -> Result<Effects> {
        let decoder = Decoder::new(&self.summary.calls, &self.canaries);
        Ok(Effects { reader: self.spooled.reader()?, decoder, buffer: Vec::new(), ended: false })
    }
}

/// Effects as they are decoded.
#[derive(Debug)]
pub struct Effects {
    reader: SpoolReader,
    decoder: Decoder,
    buffer: Vec<u8>,
    ended: bool,
}

impl Iterator for Effects {
    type Item = Result<Effect>;

    fn next(&mut self) -> Option<Result<Effect>> {
        loop {
            if let Some(effect) = self.decoder.next() {
                return Some(Ok(effect));
            }
            if self.ended {
                return None;
            }
            match self.reader.next_into(&mut self.buffer) {
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
                Ok(false) => {
                    self.ended = true;
                    self.decoder.finish();
                }
                Ok(true) => match Record::parse(&self.buffer) {
                    Some(record) => self.decoder.take(&record),
                    None => {
                        return Some(Err(Error::new(
                            Code::CaptureRecord,
                            "a kernel record has not the layout expected",
                        )));
                    }
                },
            }
        }
    }
}
