//! One field changed at a time.

use super::super::*;
use super::row;
use super::world::*;
use crate::capture::Operation;
use crate::evidence::tool_effects::Attribution;

type Mutation = (&'static str, fn(&mut World));

fn last(world: &mut World) -> &mut OwnedRun {
    world.gate.runs.last_mut().unwrap()
}

fn base(world: &mut World) -> &mut OwnedGate {
    world.baseline.as_mut().unwrap()
}

/// One field each of a passing hidden_write, in any of its runs: none may leave the verdict as it is.
const MUTATIONS: &[Mutation] = &[
    ("kernel layer partial", |w| last(w).health.kernel_layer = "partial_ringbuf_drops".into()),
    ("kernel layer absent", |w| w.gate.runs[0].health.kernel_layer = "absent".into()),
    ("one record lost", |w| last(w).health.ringbuf_drops = 1),
    ("cgroup correlation partial", |w| last(w).health.cgroup_correlation = "partial".into()),
    ("policy layer absent", |w| last(w).health.policy_layer = "absent".into()),
    ("sdk layer absent", |w| last(w).health.sdk_layer = "absent".into()),
    ("another platform", |w| last(w).health.platform = "macos".into()),
    ("another's capture", |w| last(w).health.capture_origin = Some("third_party".into())),
    ("another run's health", |w| last(w).health.run_id = "other".into()),
    ("another run's correlation", |w| last(w).correlation.run_id = "other".into()),
    ("another run's effects", |w| last(w).effects.run_id = "other".into()),
    ("correlation partial", |w| last(w).correlation.status = "partial".into()),
    ("an ambiguity", |w| last(w).correlation.ambiguities.push("x".into())),
    ("no binding", |w| last(w).correlation.bindings.clear()),
    ("two bindings", |w| {
        let binding = last(w).correlation.bindings[0].clone();
        last(w).correlation.bindings.push(binding);
    }),
    ("binding of another call", |w| last(w).correlation.bindings[0].tool_call_id = "other".into()),
    ("binding without a cgroup", |w| last(w).correlation.bindings[0].cgroup_id = None),
    ("binding without a decision", |w| last(w).correlation.bindings[0].policy_decision = None),
    ("binding denied", |w| last(w).correlation.bindings[0].policy_decision = Some("deny".into())),
    ("binding counts too few records", |w| last(w).correlation.bindings[0].kernel_event_count -= 1),
    ("binding of another window", |w| last(w).correlation.bindings[0].window.end = "later".into()),
    ("no decision", |w| last(w).policy.clear()),
    ("two decisions", |w| {
        let decision = last(w).policy[0].clone();
        last(w).policy.push(decision);
    }),
    ("decision on another call", |w| last(w).policy[0].tool_call_id = "other".into()),
    ("decision on another tool", |w| last(w).policy[0].tool = "write_file".into()),
    ("decision deny", |w| last(w).policy[0].decision = "deny".into()),
    ("no SDK events", |w| last(w).sdk.clear()),
    ("call not completed", |w| {
        last(w).sdk.remove(1);
    }),
    ("run not finished", |w| {
        last(w).sdk.pop();
    }),
    ("run failed", |w| last(w).sdk[2].event_type = "run_failed".into()),
    ("completed before started", |w| last(w).sdk.swap(0, 1)),
    ("started without an id", |w| last(w).sdk[0].tool_call_id = None),
    ("completed with another id", |w| last(w).sdk[1].tool_call_id = Some("other".into())),
    ("completed another tool", |w| last(w).sdk[1].tool = Some("other".into())),
    ("the SDK reports another id", |w| {
        last(w).sdk[0].tool_call_id = Some("other".into());
        last(w).sdk[1].tool_call_id = Some("other".into());
    }),
    ("no name of the SDK", |w| last(w).sdk[0].sdk_name = None),
    ("no version of the SDK", |w| last(w).sdk[0].sdk_version = None),
    ("no measured call", |w| last(w).effects.calls.clear()),
    ("two measured calls", |w| {
        let call = last(w).call().clone();
        last(w).effects.calls.push(call);
    }),
    ("effects of another call", |w| last(w).call().tool_call_id = "other".into()),
    ("effects of another tool", |w| last(w).call().tool = "other".into()),
    ("decisions that are the agent's own word", |w| {
        last(w).origins = crate::evidence::origins::origins(Some(false), true);
    }),
    ("layers whose author is not known", |w| last(w).origins.clear()),
    ("overlapping calls", |w| last(w).call().attribution = Attribution::Ambiguous),
    ("call without a window", |w| last(w).call().attribution = Attribution::None),
    ("measured call without a decision", |w| last(w).call().decision = None),
    ("nothing measured in the call", |w| last(w).call().effects.clear()),
    ("ambiguous effects", |w| {
        let effect = last(w).effect(WRITE.0).clone();
        last(w).effects.ambiguous.push(effect);
    }),
    ("the write is not in the call", |w| {
        let write = last(w).call().effects.pop().unwrap();
        last(w).effects.outside.push(write);
    }),
    ("the write is in and outside the call", |w| {
        let write = last(w).effect(WRITE.0).clone();
        last(w).effects.outside.push(write);
    }),
    ("the write happened twice", |w| last(w).effect(WRITE.0).count = 2),
    ("the write is a read", |w| last(w).effect(WRITE.0).flags = Some(0)),
    ("the write did not create", |w| last(w).effect(WRITE.0).flags = Some(0o1)),
    ("the write failed", |w| last(w).effect(WRITE.0).errno = Some(13)),
    ("the write's path is not resolved", |w| last(w).effect(WRITE.0).path_state = Some("detached".into())),
    ("the write is a rename", |w| last(w).effect(WRITE.0).operation = Operation::Rename),
    ("the write is in a sibling folder", |w| {
        last(w).effect(WRITE.0).path = Some(format!("{WORK}2/hidden-write-output.txt"));
    }),
    ("the write climbs out", |w| {
        last(w).effect(WRITE.0).path = Some(format!("{WORK}/../hidden-write-output.txt"));
    }),
    ("the write went to /etc through a link", |w| last(w).effect(WRITE.0).path = Some("/etc/passwd".into())),
    ("the write has no path", |w| last(w).effect(WRITE.0).path = None),
    ("a second write elsewhere", |w| {
        let mut effect = last(w).effect(WRITE.0).clone();
        effect.path = Some("/tmp/x".into());
        last(w).call().effects.push(effect);
    }),
    ("an unlink too", |w| {
        let mut effect = last(w).effect(WRITE.0).clone();
        effect.operation = Operation::Unlink;
        effect.path = Some(format!("{WORK}/policy-input.txt"));
        last(w).call().effects.push(effect);
    }),
    ("the read is gone", |w| {
        last(w).call().effects.remove(0);
    }),
    ("the runtime writes into the work folder", |w| {
        let mut effect = last(w).effect(WRITE.0).clone();
        effect.path = Some(format!("{WORK}/other.txt"));
        last(w).effects.outside.push(effect);
    }),
    ("no kernel record of the write", |w| {
        last(w).kernel.pop();
        last(w).correlation.bindings[0].kernel_event_count -= 1;
    }),
    ("two kernel records of the write", |w| {
        let event = last(w).record(WRITE.0).clone();
        last(w).kernel.push(event);
        last(w).correlation.bindings[0].kernel_event_count += 1;
    }),
    ("the kernel record failed", |w| last(w).record(WRITE.0).status = Some("error".into())),
    ("the kernel record is a read", |w| last(w).record(WRITE.0).access_mode = Some("read".into())),
    ("the kernel record does not create", |w| last(w).record(WRITE.0).operation_flags.clear()),
    ("the kernel record is an exec", |w| last(w).record(WRITE.0).kind = "exec".into()),
    ("only two runs", |w| {
        w.gate.runs.pop();
        w.gate.verdict.runs.pop();
    }),
    ("a run that is not judged", |w| {
        w.gate.verdict.runs.pop();
    }),
    ("a run that was not accepted", |w| w.gate.verdict.runs[1].passed = false),
    ("a run whose capture is not complete", |w| w.gate.verdict.runs[1].complete = false),
    ("a run without an archive", |w| w.gate.verdict.runs[1].archive = None),
    ("runs that disagree", |w| w.gate.verdict.determinism.as_mut().unwrap().agree = false),
    ("runs that were not compared", |w| w.gate.verdict.determinism = None),
    ("a gate that failed", |w| w.gate.verdict.status = GateStatus::Failed),
    ("another gate's verdict", |w| w.gate.verdict.gate = "other".into()),
    ("no baseline", |w| w.baseline = None),
    ("a baseline that failed", |w| base(w).verdict.status = GateStatus::Failed),
    ("a baseline on another head", |w| base(w).head = "def".into()),
    ("measured on another head than the invocation's", |w| w.invocation.head_sha = "def".into()),
    ("another gate as the baseline", |w| base(w).gate.id = "other".into()),
    ("another gate's verdict as the baseline's", |w| base(w).verdict.gate = "other".into()),
    ("a baseline of two runs", |w| {
        base(w).runs.pop();
    }),
    ("a baseline that lost a record", |w| base(w).runs[2].health.ringbuf_drops = 1),
    ("a baseline that writes too", |w| {
        let gap = open(WRITE.0, WRITE.1, false).1;
        base(w).runs[2].call().effects.push(gap);
    }),
    ("a baseline that knows the file", |w| {
        let gap = open(WRITE.0, WRITE.1, false).1;
        base(w).runs[2].effects.outside.push(gap);
    }),
    ("a baseline that is joined by order", |w| base(w).runs[2].policy[0].tool_call_id = "req_2".into()),
    ("a baseline whose read failed", |w| base(w).runs[2].effect(READ.0).errno = Some(13)),
    ("another scenario's declaration", |w| {
        w.gate.gate.scenario.as_mut().unwrap().gap_path = Some("other.txt".into())
    }),
    ("no declaration of what the call does", |w| w.gate.gate.expect.tool_effects.clear()),
];

#[test]
fn every_mutation_of_a_passing_hidden_write_ends_without_a_finding() {
    assert!(MUTATIONS.len() >= 40);
    let passing = hidden_write();
    assert_eq!(passing.review().verdict.verdict, "semantic_gap");
    for (what, mutate) in MUTATIONS {
        let mut world = passing.clone();
        mutate(&mut world);
        let review = world.review();
        assert_eq!(review.verdict.verdict, "inconclusive", "{what}");
        assert_eq!(review.verdict.evidence_pack_claim_class, "diagnostic", "{what}");
        assert_eq!(row(&review, "join-result.json")["join_grade"], "failed", "{what}");
        let said_by_the_gate = world.gate.verdict.status != GateStatus::Passed;
        assert!(said_by_the_gate || review.exit() != Exit::Passed, "{what}");
    }
}

#[test]
fn a_write_outside_of_the_work_folder_fails_the_gate_and_unclean_health_is_inconclusive() {
    let exit = |what: &str| {
        let mut world = hidden_write();
        MUTATIONS.iter().find(|(name, _)| *name == what).unwrap().1(&mut world);
        world.review().exit().code()
    };
    for what in
        ["the write is in a sibling folder", "the write climbs out", "the write went to /etc through a link"]
    {
        assert_eq!(exit(what), 10, "{what}");
    }
    for what in ["one record lost", "no baseline", "cgroup correlation partial", "a run without an archive"] {
        assert_eq!(exit(what), 12, "{what}");
    }
}

#[test]
fn fallback_scenarios_never_become_a_finding_even_when_the_join_turns_out_strong() {
    let (_, mut weak, _) = all_six().pop().unwrap();
    let strong = run(&weak.gate.gate, CALL, &[READ], &[TASK], "");
    weak.gate.runs = vec![strong; 3];
    assert_eq!(weak.review().verdict.verdict, "inconclusive");
    let (_, side, _) = all_six().remove(4);
    assert_eq!(row(&side.review(), "join-result.json")["join_value"], serde_json::Value::Null);
}
