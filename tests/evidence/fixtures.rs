//! Runs to make evidence of, without a kernel.

use assay_gates::capture::{
    CallWindow, CaptureProof, Effect, HookCount, NetworkCounts, Operation, Outcome, PathState, PathValue,
    Summary,
};
use assay_gates::error::Result;
use assay_gates::evidence::{
    Logs, Outputs, PolicyEvent, RedactionKey, RunFacts, SdkEvent, Written, assemble,
};
use assay_gates::files::RootPath;
use assay_gates::host::rights::Rights;
use std::collections::BTreeMap;
use std::path::Path;

pub const RUN: &str = "run_fixture";
pub const CGROUP: u64 = 4242;
pub const KEY: RedactionKey = RedactionKey::fixed([7; 32]);

pub fn effect(seq: u64, operation: Operation, syscall: &str) -> Effect {
    Effect {
        seq,
        time_ns: 1_000 + seq,
        pid: 100,
        tid: 100,
        process: 0,
        cgroup_id: CGROUP,
        call: None,
        operation,
        syscall: syscall.to_owned(),
        path: None,
        target: None,
        endpoint: None,
        flags: None,
        mode: None,
        resolve: None,
        return_value: Some(0),
        detail: None,
        marks: Vec::new(),
        server: None,
        object: None,
        argv: Vec::new(),
    }
}

pub fn path(value: &str, state: PathState) -> Option<PathValue> {
    Some(PathValue { value: value.to_owned(), state, requested: None })
}

pub fn open(seq: u64, value: &str, flags: u64, result: i64) -> Effect {
    let state = if result < 0 { PathState::Requested } else { PathState::Resolved };
    Effect {
        path: path(value, state),
        flags: Some(flags),
        mode: Some(0o644),
        return_value: Some(result),
        ..effect(seq, Operation::Open, "openat")
    }
}

pub fn exec(seq: u64, value: &str) -> Effect {
    Effect { path: path(value, PathState::Resolved), ..effect(seq, Operation::Exec, "execve") }
}

pub fn connect(seq: u64, endpoint: &str) -> Effect {
    Effect {
        endpoint: Some(endpoint.to_owned()),
        return_value: Some(-111),
        ..effect(seq, Operation::Connect, "connect")
    }
}

/// A small run that has something of everything.
pub fn effects() -> Vec<Effect> {
    vec![
        exec(0, "/usr/bin/node"),
        open(1, "/usr/lib/x86_64-linux-gnu/libc.so.6", 0o2_000_000, 3),
        open(2, "/run/assay-gates/work/input.txt", 0o2_000_000, 3),
        open(3, "/run/assay-gates/work/output.txt", 0o1101, 4),
        open(4, "/run/assay-gates/work/none.txt", 0, -2),
        connect(5, "127.0.0.1:8080"),
        Effect {
            path: path("/run/assay-gates/work/output.txt", PathState::Resolved),
            ..effect(6, Operation::Unlink, "unlinkat")
        },
        effect(7, Operation::Exit, "exit_group"),
    ]
}

pub fn summary() -> Summary {
    let hook = |emitted| HookCount { emitted, dropped: 0 };
    Summary {
        run_id: RUN.to_owned(),
        captured: true,
        outcome: Outcome {
            exit_code: Some(0),
            signal: None,
            elapsed_ms: 12,
            timed_out: false,
            interrupted: false,
            exceeded: None,
            stragglers: 0,
        },
        session_cgroup_id: Some(CGROUP),
        cgroup_clean: true,
        ringbuf_drops: 0,
        size_mismatches: 0,
        hooks: BTreeMap::from([("openat".to_owned(), hook(4)), ("connect".to_owned(), hook(1))]),
        network: NetworkCounts::default(),
        calls: Vec::new(),
        proof: CaptureProof {
            schema: "assay.gates.capture_proof.v0".to_owned(),
            run_id: RUN.to_owned(),
            complete: true,
            reasons: Vec::new(),
            invariants: Vec::new(),
            blind_spots: vec!["what a mapped file is written through".to_owned()],
            catalogue: None,
            environment: BTreeMap::new(),
            policy_origin: None,
            origins: BTreeMap::new(),
        },
    }
}

pub fn window(id: &str, tool: &str, ambiguous: bool) -> CallWindow {
    CallWindow {
        tool_call_id: id.to_owned(),
        tool: tool.to_owned(),
        number: 1,
        ambiguous,
        group: None,
        server: "files/1".to_owned(),
        id_rule: "meta".to_owned(),
    }
}

pub fn decision(seq: u64, id: &str, tool: &str, decision: &str) -> PolicyEvent {
    PolicyEvent {
        schema: "assay.runner.policy_event.v0".to_owned(),
        run_id: RUN.to_owned(),
        seq,
        source_event_type: "assay.tool.decision".to_owned(),
        source: format!("assay://runner-spike/{RUN}"),
        tool_call_id: id.to_owned(),
        tool: tool.to_owned(),
        decision: decision.to_owned(),
    }
}

pub fn sdk_event(seq: u64, event_type: &str, id: Option<&str>) -> SdkEvent {
    SdkEvent {
        schema: "assay.runner.sdk_event.v0".to_owned(),
        run_id: RUN.to_owned(),
        seq,
        event_type: event_type.to_owned(),
        source: "openai-agents-fixture".to_owned(),
        sdk_name: Some("@openai/agents".to_owned()),
        sdk_version: Some("0.11.4".to_owned()),
        tool_call_id: id.map(str::to_owned),
        tool: id.map(|_| "read_file".to_owned()),
    }
}

/// One decision and the three SDK events of one call.
pub fn logs() -> Logs {
    Logs {
        policy: Some(vec![decision(0, "tc_1", "read_file", "allow")]),
        sdk: Some(vec![
            sdk_event(0, "tool_call_started", Some("tc_1")),
            sdk_event(1, "tool_call_completed", Some("tc_1")),
            sdk_event(2, "run_finished", None),
        ]),
    }
}

pub fn outputs(folder: &Path) -> Outputs {
    let folder = RootPath::create(folder, Rights::own()).unwrap();
    Outputs {
        archive: folder.join("runner-kernel-only.tar.gz"),
        details: Some(folder.clone()),
        extract: Some(folder.join("extract")),
    }
}

pub fn assembled(folder: &Path, summary: &Summary, effects: Vec<Effect>, logs: &Logs) -> Result<Written> {
    let command = ["node".to_owned(), "agent.mjs".to_owned()];
    let facts = RunFacts {
        run_id: RUN,
        agent_shim: "openai-agents",
        command: &command,
        env_keys: &["ASSAY_RUNNER_SDK_EVENT_LOG".to_owned(), "ASSAY_RUNNER_RUN_ID".to_owned()],
        work: Some("/run/assay-gates/work"),
        kernel_event: Default::default(),
    };
    assemble(&facts, summary, effects.into_iter().map(Ok), logs, &KEY, &outputs(folder))
}

/// The golden archive's bytes.
pub fn archive() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    assembled(folder.path(), &summary(), effects(), &logs()).unwrap();
    std::fs::read(folder.path().join("runner-kernel-only.tar.gz")).unwrap()
}
