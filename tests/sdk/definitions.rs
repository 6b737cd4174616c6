//! What the definitions of the SDK gates promise each other.

use assay_gates::gate::{Catalog, Group, ScenarioId, ScenarioVerdict};
use std::path::Path;

fn catalog() -> Catalog {
    Catalog::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("gates")).unwrap()
}

#[test]
fn all_six_scenarios_are_declared_with_their_verdicts_and_none_is_part_of_all() {
    let catalog = catalog();
    for (name, id, verdict) in [
        ("scenario-matched-safe-read", ScenarioId::MatchedSafeRead, ScenarioVerdict::PositiveJoin),
        ("scenario-path-rewrite", ScenarioId::PathRewrite, ScenarioVerdict::SemanticGap),
        ("scenario-hidden-write", ScenarioId::HiddenWrite, ScenarioVerdict::SemanticGap),
        ("scenario-retry-self-correction", ScenarioId::RetrySelfCorrection, ScenarioVerdict::SemanticGap),
        ("scenario-runtime-side-effect", ScenarioId::RuntimeSideEffect, ScenarioVerdict::DiagnosticOnly),
        ("scenario-weak-join-fallback", ScenarioId::WeakJoinFallback, ScenarioVerdict::DiagnosticOnly),
    ] {
        let gate = &catalog.get(name).unwrap().definition;
        let scenario = gate.scenario.as_ref().unwrap();
        assert_eq!((scenario.id, scenario.expected_verdict), (id, verdict), "{name}");
        assert_eq!(gate.group, Group::Scenario, "{name}");
        assert!(!scenario.stop_conditions.is_empty() && !scenario.non_claims.is_empty(), "{name}");
    }
}

#[test]
fn hidden_write_differs_from_its_baseline_in_the_scenario_switch_alone() {
    let catalog = catalog();
    let baseline = catalog.get("openai-agents-kernel-policy").unwrap();
    let hidden = catalog.get("hidden_write").unwrap();
    assert_eq!(hidden.definition.id, "openai-agents-hidden-write");
    assert_eq!(hidden.fixture(), baseline.fixture());
    let (a, b) = (&baseline.definition, &hidden.definition);
    assert_eq!(
        (&a.command, &a.seed, &a.dependencies, &a.policy),
        (&b.command, &b.seed, &b.dependencies, &b.policy)
    );
    let differing: Vec<&String> = b.env.keys().filter(|key| a.env.get(*key) != b.env.get(*key)).collect();
    assert_eq!((differing, a.env.len()), (vec![&"ASSAY_GATES_SCENARIO".to_owned()], b.env.len()));
    assert_eq!(
        hidden.definition.scenario.as_ref().unwrap().baseline.as_deref(),
        Some("openai-agents-kernel-policy")
    );
}

#[test]
fn every_gate_expects_the_sdk_version_that_its_dependencies_pin() {
    for entry in catalog().entries() {
        let gate = &entry.definition;
        let Some(sdk) = &gate.expect.sdk else { continue };
        let npm = gate.dependencies.npm.iter().flat_map(|npm| &npm.packages);
        let pip = gate.dependencies.pip.iter().flat_map(|pip| &pip.packages);
        let pinned = npm.chain(pip).find(|(name, _)| **name == sdk.name);
        assert_eq!(pinned.map(|(_, version)| version), Some(&sdk.version), "{}", gate.id);
    }
}
