//! Effects to kernel events.

use crate::fixtures::{RUN, connect, effect, exec, open, path};
use assay_gates::capture::{Effect, Operation, PathState, PathValue};
use assay_gates::error::{Code, Result};
use assay_gates::evidence::kernel::{MAX_RECORDS, Normaliser, first_fault};
use assay_gates::evidence::schema::validate;
use assay_gates::evidence::{Filter, KernelEvent, KernelVersion};
use assay_runner_schema::KernelLayerEvent;

fn normalised(effects: &[Effect]) -> Result<Vec<KernelEvent>> {
    normalised_as(KernelVersion::V0, effects)
}

fn normalised_as(version: KernelVersion, effects: &[Effect]) -> Result<Vec<KernelEvent>> {
    let filter = Filter::embedded()?;
    let mut normaliser = Normaliser::new(RUN, filter, Some("/run/assay-gates/work")).version(version);
    for effect in effects {
        normaliser.take(effect)?;
    }
    Ok(normaliser.finish().events)
}

fn only(effect: Effect) -> KernelEvent {
    let mut events = normalised(&[effect]).unwrap();
    assert_eq!(events.len(), 1);
    events.remove(0)
}

/// What the published crate says of a line of ours.
fn accepted_elsewhere(event: &KernelEvent) -> bool {
    let line = serde_json::to_string(event).unwrap();
    serde_json::from_str::<KernelLayerEvent>(&line).unwrap().validate_emitted().is_ok()
}

#[test]
fn an_open_is_written_in_the_contracts_words() {
    let event = only(open(9, "/w/out", 0o2_001_101, 5));
    assert_eq!(
        serde_json::to_string(&event).unwrap(),
        r#"{"schema":"assay.runner.kernel_event.v0","run_id":"run_fixture","seq":0,"pid":100,"event_type":1,"kind":"openat","value":"/w/out","flags":524865,"mode":420,"return_value":5,"access_mode":"write","operation_flags":["create","truncate"],"status":"success"}"#
    );
}

#[test]
fn every_combination_of_flags_is_accepted_by_the_published_validator() {
    for access in 0..4 {
        for bits in 0..32_u64 {
            let flags = access
                | [0o100, 0o200, 0o400, 0o1000, 0o2000]
                    .iter()
                    .enumerate()
                    .filter(|(i, _)| bits >> i & 1 == 1)
                    .map(|(_, bit)| bit)
                    .sum::<u64>();
            for result in [3, -13] {
                for version in [KernelVersion::V0, KernelVersion::V1] {
                    let event = normalised_as(version, &[open(0, "/w/x", flags, result)]).unwrap().remove(0);
                    assert_eq!(event.schema, version.schema());
                    assert_eq!(first_fault(&event), None);
                    assert!(accepted_elsewhere(&event), "{event:?}");
                    validate(version.schema(), &serde_json::to_value(&event).unwrap()).unwrap();
                    // Under the other schema the same labels are wrong wherever the two tables differ.
                    let other = match version {
                        KernelVersion::V0 => KernelVersion::V1,
                        KernelVersion::V1 => KernelVersion::V0,
                    };
                    let mut renamed = event.clone();
                    renamed.schema = other.schema().to_owned();
                    let same = (flags & 0o400 != 0) == (flags & 0o200 != 0);
                    assert_eq!(first_fault(&renamed).is_none(), same, "{renamed:?}");
                    assert_eq!(accepted_elsewhere(&renamed), same, "{renamed:?}");
                }
            }
        }
    }
}

#[test]
fn exclusive_stands_at_o_excl_in_v1() {
    let labels = |flags| {
        let events = normalised_as(KernelVersion::V1, &[open(0, "/w/x", flags, 3)]).unwrap();
        events[0].operation_flags.clone()
    };
    assert_eq!(labels(0o200), ["exclusive"]);
    assert!(labels(0o400).is_empty());
}

#[test]
fn exclusive_stands_at_o_noctty_as_v0_froze_it() {
    assert_eq!(only(open(0, "/w/x", 0o400, 3)).operation_flags, ["exclusive"]);
    assert!(only(open(0, "/w/x", 0o200, 3)).operation_flags.is_empty());
}

#[test]
fn all_kinds_are_accepted_by_the_published_validator() {
    let send = |operation, syscall| Effect {
        endpoint: Some("[::1]:53".to_owned()),
        ..effect(0, operation, syscall)
    };
    for (event, kind, id) in [
        (exec(0, "/usr/bin/env"), "exec", 4),
        (connect(0, "10.0.0.1:443"), "connect", 2),
        (send(Operation::Sendto, "sendto"), "sendto", 6),
        (send(Operation::Sendmsg, "sendmmsg"), "sendmsg", 7),
    ] {
        let event = only(event);
        assert_eq!((event.kind.as_str(), event.event_type), (kind, id));
        assert!(event.value.is_some() && accepted_elsewhere(&event), "{event:?}");
    }
}

#[test]
fn io_uring_opens_and_connects_are_kernel_events_too() {
    let ring =
        |name: &str, effect| Effect { operation: Operation::IoUring, syscall: name.to_owned(), ..effect };
    assert_eq!(only(ring("OPENAT", open(0, "/w/x", 0o101, 3))).operation_flags, ["create"]);
    let read = only(ring("OPENAT2", Effect { flags: None, mode: None, ..open(0, "/w/x", 0, 3) }));
    assert_eq!((read.flags, read.mode, read.access_mode.as_deref()), (Some(0), Some(0), Some("read")));
    // The ring's own record has no peer; the socket program's, which follows, has.
    let peer = Effect { syscall: "cgroup/connect4".to_owned(), ..connect(1, "127.0.0.1:1") };
    let request = Effect { endpoint: None, ..ring("CONNECT", connect(0, "")) };
    assert_eq!(normalised(&[request, peer]).unwrap().len(), 1);
    let unlink =
        Effect { path: path("/w/x", PathState::Resolved), ..effect(0, Operation::IoUring, "unlinkat") };
    assert!(normalised(&[unlink]).unwrap().is_empty());
}

#[test]
fn a_path_that_is_not_known_whole_becomes_null() {
    for state in [PathState::Truncated, PathState::Unreadable, PathState::Detached, PathState::Anonymous] {
        let event = only(Effect { path: path("/w/part", state), ..open(0, "", 0, 3) });
        assert_eq!(event.value, None, "{state:?}");
        assert!(accepted_elsewhere(&event));
    }
    for state in [PathState::Resolved, PathState::Requested, PathState::Deleted] {
        let event = only(Effect { path: path("/w/whole", state), ..open(0, "", 0, 3) });
        assert_eq!(event.value.as_deref(), Some("/w/whole"), "{state:?}");
    }
}

#[test]
fn a_temporary_file_without_a_name_is_its_folder() {
    let tmpfile = Effect { path: path("/w/#1234", PathState::Deleted), ..open(0, "", 0o20_200_002, 3) };
    assert_eq!(only(tmpfile).value.as_deref(), Some("/w"));
}

#[test]
fn only_ip_endpoints_are_kernel_events_and_an_undecodable_one_is_null() {
    for other in ["unix:/run/x.sock", "unix:@abstract", "family:16", "localhost:80", "127.0.0.1"] {
        assert!(normalised(&[connect(0, other)]).unwrap().is_empty(), "{other}");
    }
    let undecodable = only(Effect { endpoint: None, ..connect(0, "") });
    assert_eq!(undecodable.value, None);
    assert!(accepted_elsewhere(&undecodable));
}

#[test]
fn a_failed_exec_is_no_kernel_event() {
    assert!(normalised(&[Effect { return_value: Some(-2), ..exec(0, "/usr/bin/none") }]).unwrap().is_empty());
}

#[test]
fn what_a_register_held_above_an_int_is_not_part_of_openats_flags() {
    let event = only(open(0, "/w/x", 0xdead_beef_0000_0041, 3));
    assert_eq!(event.flags, Some(0o101));
    assert!(accepted_elsewhere(&event));
}

#[test]
fn numbers_that_json_readers_lose_are_refused_by_name() {
    let huge = Effect { syscall: "openat2".to_owned(), flags: Some(1 << 60), ..open(0, "/w/x", 0, -22) };
    assert_eq!(normalised(&[huge]).unwrap_err().code(), Code::NotRepresentable);
    let without_result = Effect { return_value: None, ..open(0, "/w/x", 0, 0) };
    assert_eq!(normalised(&[without_result]).unwrap_err().code(), Code::NotRepresentable);
}

#[test]
fn sequence_numbers_are_contiguous_after_filtering() {
    let events = normalised(&[
        open(0, "/w/a", 0, 3),
        open(1, "/usr/lib/x.so", 0, 3),
        effect(2, Operation::Fork, "clone"),
        open(3, "/w/b", 0, 3),
    ])
    .unwrap();
    assert_eq!(events.iter().map(|event| event.seq).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn the_budget_of_records_is_a_named_refusal() {
    let opens: Vec<Effect> = (0..=MAX_RECORDS as u64).map(|seq| open(seq, "/w/x", 0, 3)).collect();
    assert_eq!(normalised(&opens[..MAX_RECORDS]).unwrap().len(), MAX_RECORDS);
    assert_eq!(normalised(&opens).unwrap_err().code(), Code::BudgetExceeded);
}

#[test]
fn what_the_published_validator_refuses_we_refuse_too() {
    let whole = only(open(0, "/w/x", 0o101, 3));
    type Spoil = fn(&mut KernelEvent);
    let spoils: &[(&str, Spoil)] = &[
        ("kind and type", |e| e.event_type = 2),
        ("unknown kind", |e| e.kind = "event_21".to_owned()),
        ("missing flags", |e| e.flags = None),
        ("missing mode", |e| e.mode = None),
        ("missing result", |e| e.return_value = None),
        ("missing status", |e| e.status = None),
        ("wrong status", |e| e.status = Some("error".to_owned())),
        ("wrong access mode", |e| e.access_mode = Some("read".to_owned())),
        ("missing label", |e| e.operation_flags.clear()),
        ("label of another bit", |e| e.operation_flags.push("append".to_owned())),
        ("blocked fields", |e| e.rule_id = Some(1)),
        ("schema", |e| e.schema = "assay.runner.kernel_event.v2".to_owned()),
        ("large number", |e| e.mode = Some(1 << 53)),
    ];
    for (name, spoil) in spoils {
        let mut event = whole.clone();
        spoil(&mut event);
        assert!(first_fault(&event).is_some(), "{name}: ours");
        let line = serde_json::to_string(&event).unwrap();
        let theirs =
            serde_json::from_str::<KernelLayerEvent>(&line).map(|event| event.validate_emitted().is_ok());
        assert!(!theirs.unwrap_or(false), "{name}: theirs");
    }
}

#[test]
fn requested_names_stay_out_of_the_value() {
    let through_link = Effect {
        path: Some(PathValue {
            value: "/w/real".to_owned(),
            state: PathState::Resolved,
            requested: Some("link".to_owned()),
        }),
        ..open(0, "", 0, 3)
    };
    assert_eq!(only(through_link).value.as_deref(), Some("/w/real"));
}
