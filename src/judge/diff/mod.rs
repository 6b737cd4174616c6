//! Projections of two pieces of evidence onto their difference.
//!
//! [`CapabilityDiff`] and [`CrossRuntimeDiff`] follow the published contracts and compare surfaces as sets;
//! [`EffectsDiff`] compares what each tool did, beyond them; [`Baseline`] is what a repository keeps of a gate to compare
//! with. Each says what must hold for the comparison to mean anything, and none softens that.

mod baseline;
mod capability;
mod cross;
mod effects;
mod input;
mod sets;
mod show;
mod side;

pub use baseline::{Baseline, BaselineDiff, ToolBaseline, ToolChange};
pub use capability::{CapabilityDiff, OutcomeChange, PolicyOutcomes, Preconditions, Scope, Unbound};
pub use cross::{CrossRuntimeDiff, Runtime, Sdk, WorkPrefix};
pub use effects::{EffectSets, EffectsDiff, Recounted, ToolDiff};
pub use input::{Evidence, chosen};
pub use sets::{SetDiff, SurfaceDiff};
pub use show::sdks;
pub use side::Side;
