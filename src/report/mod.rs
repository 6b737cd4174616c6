//! Views of the event stream. The only module that prints.
//!
//! A run states facts as [`Event`]s; the terminal, the step summary, JSON lines and JUnit only show them.

mod colour;
mod definitions;
mod event;
mod fence;
mod follow;
mod human;
mod junit;
mod lines;
mod output;
pub mod page;
mod sarif;
mod summary;
mod table;

pub use colour::{Colour, bold, coloured};
pub use definitions::{Definitions, Position};
pub use event::{Event, Sink};
pub use fence::measured;
pub use follow::Follow;
pub use human::{Human, Place};
pub use junit::junit;
pub use lines::{All, Lines, Recorder};
pub use output::{data, diagnostic, error, printed, undelivered};
pub use sarif::sarif;
pub use summary::{ArtifactLine, annotations, summary};
pub use table::{columns, verdicts};
