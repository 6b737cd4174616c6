//! Views of the event stream. The only module that prints.
//!
//! A run states facts as [`Event`]s; the terminal, the step summary, JSON lines and JUnit only show them.

mod event;
mod output;

pub use event::{Event, Sink};
pub use output::{data, diagnostic, error};
