//! Surface, correlation and health.

use crate::fixtures::{CGROUP, RUN, decision, effects, logs, sdk_event, summary};
use assay_gates::capture::{HookCount, Summary};
use assay_gates::evidence::contract::ObservationHealth;
use assay_gates::evidence::correlation::correlate;
use assay_gates::evidence::filter::Tally;
use assay_gates::evidence::health::{Counts, health};
use assay_gates::evidence::kernel::{Endpoints, Normaliser};
use assay_gates::evidence::{Filter, surface};

#[test]
fn the_surface_holds_values_by_kind_and_decisions_by_tool() {
    let filter = Filter::embedded().unwrap();
    let mut normaliser = Normaliser::new(RUN, filter, Some("/run/assay-gates/work"));
    effects().iter().for_each(|effect| assert!(normaliser.take(effect).is_ok()));
    let surface = surface(RUN, &normaliser.finish().events, &logs().policy.unwrap());
    assert_eq!(
        serde_json::to_string(&surface).unwrap(),
        r#"{"schema":"assay.runner.capability_surface.v0","run_id":"run_fixture","filesystem_paths":["/run/assay-gates/work/input.txt","/run/assay-gates/work/none.txt","/run/assay-gates/work/output.txt"],"network_endpoints":["127.0.0.1:8080"],"process_execs":["/usr/bin/node"],"mcp_tools":["read_file"],"policy_decisions":["allow:read_file"]}"#
    );
}

#[test]
fn one_decision_takes_the_sessions_cgroup_and_the_count() {
    let logs = logs();
    let report = correlate(RUN, 3, logs.policy.as_deref(), logs.sdk.as_deref(), Some(CGROUP));
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        r#"{"schema":"assay.runner.correlation_report.v0","run_id":"run_fixture","status":"clean","bindings":[{"tool_call_id":"tc_1","policy_decision":"allow","cgroup_id":4242,"kernel_event_count":3,"window":{"start":"run_started","end":"run_finished"}}],"ambiguities":[]}"#
    );
}

#[test]
fn doubts_are_named_in_the_order_kernel_policy_sdk() {
    let policy = [decision(0, "a", "t", "allow"), decision(1, "a", "t", "deny")];
    let sdk = [sdk_event(0, "tool_call_started", Some("z")), sdk_event(1, "tool_call_started", Some("b"))];
    let report = correlate(RUN, 0, Some(&policy), Some(&sdk), Some(1));
    assert_eq!(
        report.ambiguities,
        [
            "policy_events_without_kernel_events",
            "session_cgroup_ambiguous_for_multiple_policy_events",
            "sdk_tool_call_without_policy_binding:b",
            "sdk_tool_call_without_policy_binding:z",
        ]
    );
    assert_eq!(report.status, "partial");
    assert_eq!(report.bindings.len(), 2, "equal ids are kept apart");
    assert!(report.bindings.iter().all(|binding| binding.cgroup_id.is_none()));
}

#[test]
fn without_a_decision_log_the_report_is_clean_and_empty() {
    let sdk = [sdk_event(0, "tool_call_started", Some("z"))];
    let report = correlate(RUN, 0, None, Some(&sdk), Some(1));
    assert_eq!((report.status.as_str(), report.bindings.len(), report.ambiguities.len()), ("clean", 0, 0));
}

#[test]
fn several_decisions_without_a_known_cgroup_are_no_doubt() {
    let policy = [decision(0, "a", "t", "allow"), decision(1, "b", "t", "allow")];
    assert_eq!(correlate(RUN, 5, Some(&policy), None, None).status, "clean");
}

fn of(summary: &Summary, endpoints: Endpoints) -> ObservationHealth {
    let libraries = &Filter::embedded().unwrap().rules()[4];
    let mut filtered = Tally::default();
    for (path, count) in [("/lib/a", 3), ("/lib/b", 1)] {
        (0..count).for_each(|_| filtered.count(libraries, path).unwrap());
    }
    let counts =
        Counts { kernel_events: 3, endpoints, filtered: &filtered, decisions: Some(1), sdk: Some((3, 1)) };
    health(summary, &counts)
}

#[test]
fn a_clean_run_says_so_in_the_contracts_words() {
    let health = of(&summary(), Endpoints::default());
    assert_eq!(
        serde_json::to_string(&health).unwrap(),
        r#"{"schema":"assay.runner.observation_health.v0","run_id":"run_fixture","platform":"linux","kernel_layer":"complete","ringbuf_drops":0,"policy_layer":"present","sdk_layer":"self_reported","cgroup_correlation":"clean","network_protocol_coverage":"absent","network_endpoint_claim_scope":"not_applicable","notes":["s2_kernel_capture: monitor_events=3 ringbuf_drops=0 network_protocol_coverage=absent network_endpoint_claim_scope=not_applicable","s4_policy_capture: decision_events=1","s5_sdk_capture: sdk_events=3 sdk_tool_calls=1"]}"#
    );
}

#[test]
fn drops_are_broken_down_by_hook_with_the_most_filtered_paths() {
    let mut summary = summary();
    summary.ringbuf_drops = 5;
    summary.hooks = [
        ("openat", 9, 4),
        ("openat2", 2, 0),
        ("sendmsg", 1, 1),
        ("unlinkat", 3, 0),
        ("cgroup_connect4", 2, 0),
    ]
    .into_iter()
    .map(|(name, emitted, dropped)| (name.to_owned(), HookCount { emitted, dropped }))
    .collect();
    summary.network.sendto_no_peer = 2;
    summary.network.sendmsg_non_ip = 1;
    let health = of(&summary, Endpoints::default());
    assert_eq!((health.kernel_layer.as_str(), health.ringbuf_drops), ("partial_ringbuf_drops", 5));
    assert_eq!(
        health.notes[0],
        "s2_kernel_capture: monitor_events=3 ringbuf_drops=5 network_protocol_coverage=unknown network_endpoint_claim_scope=unknown drop_breakdown=tracepoint:5 lsm:0 socket:0 emitted=tracepoint:15 lsm:0 socket:2 tracepoint_hooks=openat:9/4 openat2:2/0 connect:0/0 sendto:0/0 sendmsg:1/1 filtered_loader_events=4 filtered_loader_top=[3x:/lib/a,1x:/lib/b] send_no_recoverable_peer=sendto:2 sendmsg:0 send_non_ip_family=sendto:0 sendmsg:1"
    );
}

#[test]
fn a_record_of_a_wrong_size_keeps_the_layer_from_being_complete_without_drops() {
    let mut summary = summary();
    summary.size_mismatches = 1;
    let health = of(&summary, Endpoints::default());
    assert_eq!((health.kernel_layer.as_str(), health.ringbuf_drops), ("partial_ringbuf_drops", 0));
    assert_eq!(health.network_protocol_coverage, "unknown");
}

#[test]
fn an_invariant_that_did_not_hold_keeps_the_layer_from_being_complete_and_gives_its_reason() {
    let mut summary = summary();
    summary.proof.complete = false;
    summary.proof.reasons = vec!["a task left the cgroup".to_owned()];
    let health = of(&summary, Endpoints::default());
    assert_eq!(health.kernel_layer, "partial_ringbuf_drops");
    assert!(health.notes.contains(&"capture_proof: incomplete: a task left the cgroup".to_owned()));
}

#[test]
fn a_tree_that_left_its_cgroup_makes_the_layer_absent() {
    let mut summary = summary();
    summary.cgroup_clean = false;
    summary.ringbuf_drops = 5;
    let health = of(&summary, Endpoints { connect: 1, send: 0 });
    assert_eq!((health.kernel_layer.as_str(), health.ringbuf_drops), ("absent", 0));
    assert_eq!(health.cgroup_correlation, "partial");
    assert_eq!(health.network_protocol_coverage, "absent");
    assert_eq!(
        health.notes[0],
        "s2_kernel_capture: monitor_events=3 cgroup_correlation=Partial kernel_layer downgraded to absent"
    );
}

#[test]
fn the_network_is_described_by_what_was_seen() {
    for (connect, send, coverage) in [
        (1, 1, "connect_and_datagram_peer_observed"),
        (2, 0, "connect_only"),
        (0, 1, "datagram_peer_observed"),
        (0, 0, "absent"),
    ] {
        let health = of(&summary(), Endpoints { connect, send });
        assert_eq!(health.network_protocol_coverage, coverage);
        let scope = if coverage == "absent" { "not_applicable" } else { "diagnostic_only" };
        assert_eq!(health.network_endpoint_claim_scope, scope);
    }
}
