//! Cleaning up: a pure, printable, ordered plan first, carried out only when asked.
//!
//! Only what lies under the roots of the [host file](crate::host::hostfile) ever goes. The plan compiles
//! everywhere; looking at the machine and removing are for Linux.

#[cfg(all(feature = "capture", target_os = "linux"))]
mod apply;
mod plan;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod survey;
#[cfg(all(feature = "capture", target_os = "linux"))]
mod tree;
pub mod view;

#[cfg(all(feature = "capture", target_os = "linux"))]
pub use apply::{Cleanup, Done, StayedLine, apply};
pub use plan::{Action, Found, FoundCgroup, Inventory, Phase, Plan, Step, shown};
#[cfg(all(feature = "capture", target_os = "linux"))]
pub use survey::{Places, survey};
#[cfg(all(feature = "capture", target_os = "linux"))]
pub use tree::{Size, Stayed, Tally, Tree};
