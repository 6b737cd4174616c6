//! What a gate is: definition, validation, selection, plan.

mod catalog;
mod confinement;
mod definition;
pub mod dependencies;
mod placement;
mod plan;
mod validate;

pub use catalog::{Catalog, Entry};
pub use confinement::{Allowance, Limits};
pub use definition::{
    AgentShim, Definition, Dependencies, Expectations, ExpectedDecision, ExpectedEffect, ExpectedOpen,
    ExpectedOperation, ExpectedSdk, Group, Layers, NpmDependencies, PipDependencies, PolicySource, Presence,
    Scenario, ScenarioId, ScenarioRole, ScenarioVerdict, ServerPolicySource,
};
pub use placement::Placement;
pub use plan::{Plan, PlannedGate, Selection};
pub use validate::parse;
