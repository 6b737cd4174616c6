//! A run, pack or log to a diagnosis.
//!
//! Whatever there is becomes a [`Case`] of facts; [`diagnose`] holds the facts against the rules of
//! `runbook/rules.yaml`. It is pure and fail-closed: what isn't known stays unknown, and is never a pass.

mod diagnose;
mod diagnosis;
mod drops;
mod facts;
pub mod gather;
pub mod log;
mod rules;
mod runbook;
mod view;

pub use diagnose::{ENVIRONMENT, diagnose};
pub use diagnosis::{Also, Diagnosis, Evidence, Next, RerunAnswer};
pub use drops::{ROWS, RunLosses, drops_view, losses};
pub use facts::{Case, Changed, Confidence, Environment, Fact, FactKind, History, Place, Subject};
pub use rules::{Class, EMBEDDED, Example, Kind, Rerun, Rules, schema};
pub use runbook::{PAGES, explain, page};
pub use view::{human, markdown};
