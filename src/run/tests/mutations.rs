//! For each operation that is recorded: a passing gate in which it is done once more never passes.

use super::*;
use crate::capture::{CallWindow, catalogue};
use crate::evidence::tool_effects::Grouping;
use crate::evidence::{CapabilitySurface, EffectSurface};
use crate::judge::diff::Baseline;
use crate::judge::{GateVerdict, RunArtifacts, compare};

/// One more effect of that kind, at an object of its own; `None` for what concerns tasks only and is not compared.
///
/// The match names every operation, so that a new one can't be forgotten here.
fn one_more(operation: Operation) -> Option<Effect> {
    let mut effect = Effect { operation, syscall: operation.name(), ..opened(4, "mutation", CREATE) };
    effect.path.as_mut().unwrap().state = PathState::Requested;
    match operation {
        Operation::Fork | Operation::Exit | Operation::CgroupAttach => return None,
        Operation::Open => effect.path.as_mut().unwrap().state = PathState::Resolved,
        Operation::Exec
        | Operation::Unlink
        | Operation::Mkdir
        | Operation::Rmdir
        | Operation::Truncate
        | Operation::Chmod
        | Operation::Chown
        | Operation::Mknod
        | Operation::Utime
        | Operation::SetAttributes
        | Operation::DeviceControl
        | Operation::IoUring
        | Operation::Mount => {}
        Operation::Rename | Operation::Link | Operation::Symlink => effect.target = effect.path.clone(),
        Operation::Setxattr | Operation::Removexattr => effect.detail = Some("name=user.a".into()),
        Operation::Connect
        | Operation::Bind
        | Operation::Sendto
        | Operation::Sendmsg
        | Operation::Listen
        | Operation::Accept => {
            effect.path = None;
            effect.endpoint = Some("192.0.2.1:9".into());
        }
        Operation::Socket
        | Operation::Signal
        | Operation::MessageQueue
        | Operation::Ipc
        | Operation::Key
        | Operation::Namespace
        | Operation::System
        | Operation::ProcessControl
        | Operation::Escape
        | Operation::ForeignAbi
        | Operation::ExitWithoutEnter => {
            effect.path = None;
            effect.detail = Some("mutation".into());
        }
    }
    if operation != Operation::Open {
        (effect.flags, effect.mode, effect.return_value) = (None, None, Some(0));
    }
    Some(effect)
}

fn windows() -> Vec<CallWindow> {
    vec![CallWindow {
        tool_call_id: "tc_1".into(),
        tool: "read_file".into(),
        number: 1,
        ambiguous: false,
        group: None,
        server: "files/1".into(),
        id_rule: "meta.tool_call_id".into(),
    }]
}

fn mutated(operation: Operation, call: Option<&str>) -> Effect {
    Effect { call: call.map(str::to_owned), ..one_more(operation).unwrap() }
}

#[test]
fn every_operation_of_the_catalogue_has_a_mutation_and_only_tasks_lives_are_not_compared() {
    for (_, name, _, treatment) in catalogue::embedded().entries() {
        if let Some(operation) = treatment.operation {
            assert!(Operation::ALL.contains(&operation), "{name}");
        }
    }
    let without: Vec<String> = Operation::ALL
        .iter()
        .filter(|operation| one_more(**operation).is_none())
        .map(|operation| operation.name())
        .collect();
    assert_eq!(without, ["fork", "exit", "cgroup_attach"]);
}

/// What a run with these effects is compared by: with another run, and with a baseline.
fn compared(effects: &[Effect]) -> (RunArtifacts, Baseline) {
    let given = || effects.iter().cloned().map(Ok);
    let (windows, filter) = (windows(), crate::evidence::Filter::embedded().unwrap());
    let mut grouping = Grouping::new(&windows, filter, Some(WORK));
    effects.iter().for_each(|effect| grouping.take(effect).unwrap());
    let surface: CapabilitySurface = serde_json::from_value(serde_json::json!({
        "schema": "assay.runner.capability_surface.v0", "run_id": "r", "filesystem_paths": [], "network_endpoints": [],
        "process_execs": [], "mcp_tools": [], "policy_decisions": []
    }))
    .unwrap();
    let artifacts = RunArtifacts {
        health: Default::default(),
        surface: Default::default(),
        correlation: Default::default(),
        effects: EffectSurface::of_effects("r", &windows, Some(WORK), given()).unwrap(),
        kernel_set: Default::default(),
        policy: String::new(),
        sdk: String::new(),
    };
    (artifacts, Baseline::of("first", &surface, &grouping.finish("r", &[])).unwrap())
}

#[test]
fn one_more_effect_of_any_kind_in_one_run_or_in_all_in_a_call_or_outside_is_never_a_pass() {
    let plain = vec![opened(0, "input.txt", CREATE), opened(1, "input.txt", 0)];
    let (before, baseline) = compared(&plain);
    assert!(compare(&[before.clone(), before.clone()]).unwrap().agree);
    assert!(!baseline.compare(&baseline).grew());
    for operation in Operation::ALL.iter().copied().filter(|operation| one_more(*operation).is_some()) {
        for (call, place, by) in
            [(None, "outside of calls", "no tool"), (Some("tc_1"), "in call tc_1 (read_file)", "read_file")]
        {
            let name = operation.name();
            let mut effects = plain.clone();
            effects.push(mutated(operation, call));
            let (after, measured) = compared(&effects);
            let determinism = compare(&[before.clone(), before.clone(), after]).unwrap();
            let verdict = GateVerdict::conclude("first", 0, Vec::new(), Some(determinism), Vec::new(), 0);
            assert_eq!(verdict.exit, Exit::RunsDisagree.code(), "{name}");
            let said = |reason: &&String| {
                reason.starts_with(&format!("run 3 only: {name}")) && reason.contains(place)
            };
            assert!(verdict.reasons.iter().any(|reason| said(&reason)), "{name}: {:?}", verdict.reasons);

            let difference = baseline.compare(&measured);
            assert_eq!(difference.exit(), Exit::AcceptanceFailed, "{name}");
            let growth = format!("run 1: not in the baseline: {name} by {by}");
            assert!(
                difference.growth(1, &Default::default()).iter().any(|line| line.starts_with(&growth)),
                "{growth}"
            );
        }
    }
}

#[test]
fn a_run_that_unlinks_ends_in_11_and_one_that_always_unlinks_in_10_against_its_baseline() {
    let bench = bench();
    let go = |baselines, runs: &[u32]| {
        let mut script = Script::new(&[]);
        script.calls = windows();
        script.extra = runs.iter().map(|run| (*run, mutated(Operation::Unlink, None))).collect();
        bench.go_with(here(), "first", false, baselines, &mut script).unwrap().0
    };
    assert_eq!(go(BaselineUse::Update, &[]).exit, Exit::Passed);
    assert_eq!(go(BaselineUse::None, &[2]).exit, Exit::RunsDisagree);
    assert_eq!(go(BaselineUse::None, &[1, 2, 3]).exit, Exit::Passed);
    assert_eq!(go(BaselineUse::Against, &[1, 2, 3]).exit, Exit::AcceptanceFailed);
}
