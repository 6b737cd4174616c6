//! A measured scenario as plain values, one for each of the six.

use super::super::*;
use crate::capture::Operation;
use crate::evidence::contract::{Binding, Window};
use crate::evidence::tool_effects::{Attribution, CallEffects, CountedEffect};
use crate::files::sha256;
use crate::judge::{ArchiveRef, Determinism, RunVerdict};
use serde_json::json;

pub(super) const WORK: &str = "/run/assay-gates/work";
pub(super) const CALL: &str = "tc_runner_policy_001";
pub(super) const HIDDEN: &str = include_str!("../../../../gates/hidden_write/gate.yaml");
pub(super) const BASELINE: &str = include_str!("../../../../gates/openai-agents-kernel-policy/gate.yaml");

#[derive(Clone)]
pub(super) struct OwnedRun {
    pub(super) health: ObservationHealth,
    pub(super) correlation: CorrelationReport,
    pub(super) kernel: Vec<KernelEvent>,
    pub(super) policy: Vec<PolicyEvent>,
    pub(super) sdk: Vec<SdkEvent>,
    pub(super) effects: ToolEffects,
    pub(super) origins: std::collections::BTreeMap<String, crate::capture::Author>,
}

#[derive(Clone)]
pub(super) struct OwnedGate {
    pub(super) gate: Definition,
    pub(super) verdict: GateVerdict,
    pub(super) runs: Vec<OwnedRun>,
    pub(super) head: String,
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) gate: OwnedGate,
    pub(super) baseline: Option<OwnedGate>,
    pub(super) invocation: Invocation,
}

impl World {
    pub(super) fn review(&self) -> Review {
        let lines = vec!["PASS: a".to_owned()];
        let runs: Vec<Run> = self.gate.runs.iter().map(OwnedRun::borrow).collect();
        let baseline_runs: Vec<Run> =
            self.baseline.iter().flat_map(|gate| &gate.runs).map(OwnedRun::borrow).collect();
        let input = Input {
            gate: Measured {
                gate: &self.gate.gate,
                verdict: &self.gate.verdict,
                runs: &runs,
                pass_lines: &lines,
                head_sha: &self.gate.head,
            },
            baseline: self.baseline.as_ref().map(|owned| Measured {
                gate: &owned.gate,
                verdict: &owned.verdict,
                runs: &baseline_runs,
                pass_lines: &lines,
                head_sha: &owned.head,
            }),
            invocation: &self.invocation,
            work: WORK,
        };
        review(&input).unwrap().unwrap()
    }
}

impl OwnedRun {
    pub(super) fn borrow(&self) -> Run<'_> {
        Run {
            health: &self.health,
            correlation: &self.correlation,
            kernel: &self.kernel,
            policy: &self.policy,
            sdk: &self.sdk,
            effects: &self.effects,
            origins: &self.origins,
            files: [sha256(b"surface"), sha256(b"correlation"), sha256(b"health")],
            archive: sha256(b"archive"),
        }
    }

    pub(super) fn call(&mut self) -> &mut CallEffects {
        &mut self.effects.calls[0]
    }

    pub(super) fn effect(&mut self, path: &str) -> &mut CountedEffect {
        let path = format!("{WORK}/{path}");
        let all =
            self.effects.calls.iter_mut().flat_map(|call| &mut call.effects).chain(&mut self.effects.outside);
        all.into_iter().find(|effect| effect.path.as_deref() == Some(&path)).unwrap()
    }

    pub(super) fn record(&mut self, path: &str) -> &mut KernelEvent {
        let path = format!("{WORK}/{path}");
        self.kernel.iter_mut().find(|event| event.value.as_deref() == Some(&path)).unwrap()
    }
}

pub(super) fn open(path: &str, access: &str, failed: bool) -> (KernelEvent, CountedEffect) {
    let wrote = access == "write";
    let flags = if wrote { 0o1101 } else { 0 };
    let value = format!("{WORK}/{path}");
    let event = KernelEvent {
        schema: "assay.runner.kernel_event.v0".into(),
        run_id: "r".into(),
        seq: 0,
        pid: 7,
        event_type: 1,
        kind: "openat".into(),
        value: Some(value.clone()),
        flags: Some(flags),
        mode: Some(0),
        resolve: None,
        cgroup_id: None,
        network_destination: None,
        network_port: None,
        rule_id: None,
        return_value: Some(if failed { -2 } else { 5 }),
        access_mode: Some(access.into()),
        operation_flags: if wrote { vec!["create".into(), "truncate".into()] } else { Vec::new() },
        status: Some(if failed { "error" } else { "success" }.into()),
    };
    let effect = CountedEffect {
        operation: Operation::Open,
        syscall: "openat".into(),
        path: Some(value),
        path_state: failed.then(|| "requested".into()),
        target: None,
        endpoint: None,
        flags: Some(flags),
        mode: Some(0),
        errno: failed.then_some(2),
        detail: None,
        marks: Vec::new(),
        count: 1,
    };
    (event, effect)
}

/// A run whose call `id` did `inside`, while `outside` happened outside of it. `failed` names the path that was not there.
pub(super) fn run(
    gate: &Definition,
    id: &str,
    inside: &[(&str, &str)],
    outside: &[(&str, &str)],
    failed: &str,
) -> OwnedRun {
    let run_id = gate.run_id.clone();
    let act = |(path, access): &(&str, &str)| open(path, access, *path == failed);
    let (inside, outside): (Vec<_>, Vec<_>) =
        (inside.iter().map(act).collect(), outside.iter().map(act).collect());
    let mut kernel: Vec<KernelEvent> =
        outside.iter().chain(&inside).map(|(event, _)| event.clone()).collect();
    for (seq, event) in kernel.iter_mut().enumerate() {
        event.seq = seq as u64;
        event.run_id.clone_from(&run_id);
    }
    let sdk =
        ["tool_call_started", "tool_call_completed", "run_finished"].iter().enumerate().map(|(seq, kind)| {
            SdkEvent {
                schema: "assay.runner.sdk_event.v0".into(),
                run_id: run_id.clone(),
                seq: seq as u64,
                event_type: (*kind).into(),
                source: "openai-agents-fixture".into(),
                sdk_name: Some("@openai/agents".into()),
                sdk_version: Some("0.20.0".into()),
                tool_call_id: (seq < 2).then(|| CALL.into()),
                tool: (seq < 2).then(|| "read_file".into()),
            }
        });
    let strong = id == CALL;
    let health = json!({
        "schema": "assay.runner.observation_health.v0", "run_id": run_id, "platform": "linux", "kernel_layer": "complete",
        "ringbuf_drops": 0, "policy_layer": "present", "sdk_layer": "self_reported", "cgroup_correlation": "clean",
        "redaction": {"mode": "shape_and_flag", "redacted_count": 0, "by_rule": {}, "by_field": {}, "key_scope": "ephemeral", "key_id": "hmac-sha256:00000000"},
    });
    OwnedRun {
        health: serde_json::from_value(health).unwrap(),
        correlation: CorrelationReport {
            schema: "assay.runner.correlation_report.v0".into(),
            run_id: run_id.clone(),
            status: if strong { "clean" } else { "partial" }.into(),
            bindings: vec![Binding {
                tool_call_id: id.into(),
                policy_decision: Some("allow".into()),
                cgroup_id: Some(99),
                kernel_event_count: kernel.len() as u64,
                window: Window { start: "run_started".into(), end: "run_finished".into() },
            }],
            ambiguities: if strong {
                Vec::new()
            } else {
                vec![format!("sdk_tool_call_without_policy_binding:{CALL}")]
            },
        },
        kernel,
        policy: vec![PolicyEvent {
            schema: "assay.runner.policy_event.v0".into(),
            run_id: run_id.clone(),
            seq: 0,
            source_event_type: "assay.tool.decision".into(),
            source: "assay://runner-spike/r".into(),
            tool_call_id: id.into(),
            tool: "read_file".into(),
            decision: "allow".into(),
        }],
        sdk: sdk.collect(),
        origins: crate::evidence::origins::origins(Some(true), true),
        effects: ToolEffects {
            schema: ToolEffects::SCHEMA.into(),
            run_id,
            calls: vec![CallEffects {
                tool_call_id: id.into(),
                tool: "read_file".into(),
                decision: Some("allow".into()),
                server: Some("files/1".into()),
                id_rule: Some("meta".into()),
                attribution: Attribution::Exact,
                effects: inside.into_iter().map(|(_, effect)| effect).collect(),
                telemetry: 0,
            }],
            concurrent: Vec::new(),
            ambiguous: Vec::new(),
            outside: outside.into_iter().map(|(_, effect)| effect).collect(),
            outside_telemetry: 10,
        },
    }
}

pub(super) fn passed(gate: &Definition) -> GateVerdict {
    let archive = ArchiveRef {
        path: "gates/g/run-1/runner-x.tar.gz".into(),
        sha256: sha256(b"a").to_string(),
        bytes: 1,
    };
    let run = |number| RunVerdict {
        run: number,
        passed: true,
        exit_code: Some(0),
        signal: None,
        timed_out: false,
        interrupted: false,
        effects: 10,
        kernel_events: 3,
        lost: 0,
        complete: true,
        incomplete_because: Vec::new(),
        elapsed_ms: 1,
        archive: Some(archive.clone()),
        assertions: Vec::new(),
        last_words: Vec::new(),
    };
    let agree = Determinism { agree: true, runs: 3, compared: Vec::new(), divergence: None };
    GateVerdict::conclude(&gate.id, 3, (1..=3).map(run).collect(), Some(agree), Vec::new(), 1)
}

pub(super) fn gate(
    yaml: &str,
    id: &str,
    inside: &[(&str, &str)],
    outside: &[(&str, &str)],
    failed: &str,
) -> OwnedGate {
    let gate = crate::gate::parse(yaml, "gate.yaml").unwrap();
    let run = run(&gate, id, inside, outside, failed);
    OwnedGate { verdict: passed(&gate), runs: vec![run; 3], head: "abc".into(), gate }
}

pub(super) const TASK: (&str, &str) = ("openai-agents-input.txt", "read");
pub(super) const READ: (&str, &str) = ("policy-input.txt", "read");
pub(super) const WRITE: (&str, &str) = ("hidden-write-output.txt", "write");

pub(super) fn world(gate: OwnedGate) -> World {
    let invocation = Invocation {
        created_at: "2026-01-02T03:04:05Z".into(),
        head_sha: "abc".into(),
        dirty: false,
        r#ref: "refs/heads/main".into(),
        selection: "all".into(),
        build_ebpf: "local".into(),
        workflow: "local".into(),
        run_id: "session_1".into(),
        run_url: None,
    };
    let baseline = gate.gate.scenario.as_ref().unwrap().baseline.is_some();
    let baseline = baseline.then(|| self::gate(BASELINE, CALL, &[READ], &[TASK], ""));
    World { gate, baseline, invocation }
}

pub(super) fn hidden_write() -> World {
    world(gate(HIDDEN, CALL, &[READ, WRITE], &[TASK], ""))
}

macro_rules! yaml {
    ($name:literal) => {
        include_str!(concat!("../../../../gates/scenarios/", $name, "/gate.yaml"))
    };
}

pub(super) fn all_six() -> Vec<(&'static str, World, &'static str)> {
    let written = ("runtime-side-effect.txt", "write");
    let draft = ("policy-input.txt.draft", "read");
    let rewritten = ("rewritten-input.txt", "read");
    vec![
        (
            "matched_safe_read",
            world(gate(yaml!("matched_safe_read"), CALL, &[READ], &[TASK], "")),
            "positive_join",
        ),
        ("path_rewrite", world(gate(yaml!("path_rewrite"), CALL, &[rewritten], &[TASK], "")), "semantic_gap"),
        (
            "hidden_write",
            world(gate(yaml!("hidden_write"), CALL, &[READ, WRITE], &[TASK], "")),
            "semantic_gap",
        ),
        (
            "retry_self_correction",
            world(gate(yaml!("retry_self_correction"), CALL, &[draft, READ], &[TASK], draft.0)),
            "semantic_gap",
        ),
        (
            "runtime_side_effect",
            world(gate(yaml!("runtime_side_effect"), CALL, &[READ], &[TASK, written], "")),
            "diagnostic_only",
        ),
        (
            "weak_join_fallback",
            world(gate(yaml!("weak_join_fallback"), "files/2/2", &[READ], &[TASK], "")),
            "diagnostic_only",
        ),
    ]
}
