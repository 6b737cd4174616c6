//! For each operation that is recorded: a passing gate in which it is done once more never passes.

use super::*;
use crate::capture::{CallWindow, catalogue};

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

fn mutated(operation: Operation, runs: &[u32], call: Option<&str>) -> Script {
    let mut script = Script::new(&[]);
    script.calls = vec![CallWindow {
        tool_call_id: "tc_1".into(),
        tool: "read_file".into(),
        number: 1,
        ambiguous: false,
    }];
    let effect = Effect { call: call.map(str::to_owned), ..one_more(operation).unwrap() };
    script.extra = runs.iter().map(|run| (*run, effect.clone())).collect();
    script
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

#[test]
fn one_more_effect_of_any_kind_in_one_run_or_in_all_in_a_call_or_outside_is_never_a_pass() {
    let bench = bench();
    let go = |baselines, script: &mut Script| {
        bench.go_counted(here(), "first", false, baselines, 2, script).unwrap().0
    };
    let mut plain = Script::new(&[]);
    plain.calls = mutated(Operation::Open, &[], None).calls;
    assert_eq!(go(BaselineUse::Update, &mut plain).exit, Exit::Passed);
    for operation in Operation::ALL.iter().copied().filter(|operation| one_more(*operation).is_some()) {
        for call in [None, Some("tc_1")] {
            let name = operation.name();
            let drifted = go(BaselineUse::None, &mut mutated(operation, &[2], call));
            let grown = go(BaselineUse::Against, &mut mutated(operation, &[1, 2], call));
            assert_eq!(drifted.exit, Exit::RunsDisagree, "{name} {call:?}: {:?}", drifted.verdicts);
            let place = if call.is_some() { "in call tc_1 (read_file)" } else { "outside of calls" };
            let said = |finished: &Finished, what: &str| {
                finished.verdicts[0].reasons.iter().any(|reason| reason.contains(what))
            };
            assert!(
                drifted.verdicts[0].reasons.iter().any(|reason| reason
                    .starts_with(&format!("run 2 only: {name}"))
                    && reason.contains(place)),
                "{name}: {:?}",
                drifted.verdicts[0].reasons
            );
            let by = if call.is_some() { "read_file" } else { "no tool" };
            let growth = format!("baseline: not in the baseline: {name} by {by}");
            assert!(said(&grown, &growth), "{growth}: {:?}", grown.verdicts[0].reasons);
            assert_eq!(grown.exit, Exit::AcceptanceFailed, "{name} {call:?}");
        }
    }
}
