//! `assay-gates` measures what an AI agent did on a Linux CI host.
//!
//! One module per stage of the data's way; data flows downwards in this list and never back:
//!
//! ```text
//! gate      what is measured: definition, validation, selection, plan
//! host      where: preflight, cleanup, cgroup, sandbox, measured process
//! capture   kernel to records: load, attach, drain, decode, account
//! evidence  records to evidence: filter, three layers, correlation, health, archive
//! policy    the MCP proxy that decides on tool calls and logs its decisions
//! judge     evidence to verdict: acceptance, determinism, scenario rows, claims
//! pack      verdicts to proof pack: manifest, checksums, zip; and verification
//! github    the Actions artifact service and the REST API
//! triage    a run, pack or log to a diagnosis
//! report    views of the event stream; the only module that prints
//! ```
//!
//! [`lane`] stands beside them: which gate a change needs, and whether a pack proves it.
//! [`run`] walks a selection of gates along that way; [`cli`] has one file a subcommand.
//! [`contract_only`] runs a command without any capture, for those who develop what an agent reports.
//! Two more serve all of them: [`error`] (codes, exit codes) and [`files`] (digest, canonical JSON,
//! atomic writes, containment: one way to do each).

pub mod capture;
pub mod cli;
pub mod contract_only;
pub mod error;
pub mod evidence;
pub mod files;
pub mod gate;
pub mod github;
pub mod host;
pub mod judge;
pub mod lane;
#[cfg(all(feature = "capture", target_os = "linux"))]
pub mod measure;
pub mod pack;
pub mod policy;
pub mod report;
pub mod run;
pub mod triage;
