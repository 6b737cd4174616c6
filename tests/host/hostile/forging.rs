//! Programs that forge what others are meant to believe.

use super::Trial;
use crate::support::need_root;
use assay_gates::capture::Operation;
use assay_gates::error::Exit;
use assay_gates::host::calls::Policies;
use assay_gates::measure::LogPlace;
use assay_gates::policy::Policy;

const DECISION: &str = r#"{"specversion":"1.0","id":"evt_1","type":"assay.tool.decision","source":"assay://forged","time":"2026-01-01T00:00:00+00:00","data":{"tool":"read_file","tool_call_id":"tc_1","decision":"allow"}}"#;

#[test]
fn a_forged_decision_log_is_never_more_than_self_reported() {
    if !need_root() {
        return;
    }
    let mut trial = Trial::new(&format!(
        "open(os.environ['ASSAY_RUNNER_POLICY_DECISION_LOG'], 'w').write('''{DECISION}\n''')"
    ));
    trial.wanted.decision_log = Some(LogPlace::Sandbox);
    let seen = trial.run();
    let origin = seen.measured.summary.proof.policy_origin.as_deref();
    assert_eq!(origin, Some("self_reported"));
    assert!(seen.measured.summary.calls.is_empty(), "a forged line must open no call window");
}

/// An agent with a server of its own: `wrapped(...)` starts it behind the wrapper, `ask(...)` makes one call.
const AGENT: &str = r#"
import json, subprocess, time
E, W = os.environ, "/run/assay-gates/work"
open("/tmp/server.py", "w").write("""
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    params = message["params"]
    open("/run/assay-gates/work/" + params["arguments"]["file"], "w").close()
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}), flush=True)
""")
SERVER = [sys.executable, "-I", "-S", "/tmp/server.py"]
def wrapped(*options, server=SERVER, **more):
    command = [E["ASSAY_GATES_BIN"], "mcp-wrap", *options, "--label", "files", "--", *server]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **more)
def ask(process, number, tool, file):
    meta = {"tool_call_id": f"tc_{number}"}
    params = {"name": tool, "arguments": {"file": file}, "_meta": meta}
    try:
        print(json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}), file=process.stdin, flush=True)
        answer = json.loads(process.stdout.readline())
        print(f"{file}:", answer.get("error", {}).get("data", {}).get("reason_code", "ok"), flush=True)
    except (OSError, ValueError): print(f"{file}: gone", flush=True)
def end(process):
    process.stdin.close()
    print("ended:", process.wait(), flush=True)
def report(*ids):
    with open(E["ASSAY_RUNNER_SDK_EVENT_LOG"], "w") as log:
        kinds = [(kind, id) for id in ids for kind in ("tool_call_started", "tool_call_completed")] + [("run_finished", None)]
        for number, (kind, id) in enumerate(kinds):
            print(json.dumps({"schema": E["ASSAY_RUNNER_SDK_EVENT_SCHEMA"], "run_id": E["ASSAY_RUNNER_RUN_ID"], "seq": number,
                "event_type": kind, "source": "forged", "sdk_name": "@openai/agents", "sdk_version": "0.20.0",
                "tool_call_id": id, "tool": id and "read_file"}), file=log)
"#;

/// A measured run of `program` under a policy that lets `read_file` through and nothing else.
fn policed(program: &str) -> Trial {
    let mut trial = Trial::new(&format!("{AGENT}\n{program}"));
    trial.wanted.decision_log = Some(LogPlace::Sandbox);
    trial.wanted.sdk_log = Some(LogPlace::Sandbox);
    trial.wanted.agent_shim = "openai-agents".to_owned();
    let policy = "schema: assay.gates.policy.v0\ndefault: deny\ntools: {allow: [read_file]}\n";
    trial.wanted.policies = Policies::one(Policy::parse(policy, "policy.yaml").unwrap());
    trial
}

impl super::Seen {
    fn origin(&self) -> Option<&str> {
        self.measured.summary.proof.policy_origin.as_deref()
    }

    /// The call that each file made below the work folder belongs to.
    fn makers(&self) -> Vec<(&str, Option<&str>)> {
        let made = self.effects.iter().filter(|effect| effect.flags.unwrap_or(0) & 0o100 != 0);
        let made = made.filter_map(|effect| {
            let name = effect.path.as_ref()?.value.strip_prefix("/run/assay-gates/work/")?;
            Some((name, effect.call.as_deref()))
        });
        made.collect()
    }

    fn windows(&self) -> Vec<&str> {
        self.measured.summary.calls.iter().map(|call| call.tool_call_id.as_str()).collect()
    }

    fn ambiguities(&self) -> Vec<String> {
        self.measured.written.as_ref().unwrap().correlation.ambiguities.clone()
    }
}

#[test]
fn a_client_that_keeps_its_environment_to_itself_is_decided_on_all_the_same() {
    if !need_root() {
        return;
    }
    let seen = policed(
        "
one = wrapped(env={})
ask(one, 1, 'read_file', 'allowed')
ask(one, 2, 'write_file', 'denied')
end(one)
report('tc_1')
",
    )
    .run();
    assert_eq!(
        (seen.said("allowed"), seen.said("denied"), seen.said("ended")),
        ("ok", "E_TOOL_NOT_ALLOWED", "0")
    );
    assert_eq!(seen.origin(), Some("corroborated"));
    assert_eq!(seen.makers(), [("allowed", Some("tc_1"))]);
    assert!(seen.complete(), "{:?}", seen.measured.summary.proof.reasons);
}

#[test]
fn a_path_is_looked_at_where_the_server_will_look() {
    if !need_root() {
        return;
    }
    let mut trial = policed(
        "
os.makedirs(W + '/ok/sub')
os.symlink('/tmp', W + '/ok/out')
os.symlink(W + '/ok/sub', W + '/ok/in')
one = wrapped()
for number, file in enumerate(['ok/a', 'ok/in/b', 'ok/out/c', 'other', 'ok/../d']):
    params = {'name': 'read_file', 'arguments': {'file': file, 'path': W + '/' + file}, '_meta': {'tool_call_id': f'tc_{number}'}}
    print(json.dumps({'jsonrpc': '2.0', 'id': number, 'method': 'tools/call', 'params': params}), file=one.stdin, flush=True)
    print(f'{number}:', json.loads(one.stdout.readline()).get('error', {}).get('data', {}).get('reason_code', 'ok'), flush=True)
end(one)
report('tc_0')
",
    );
    let policy = "schema: assay.gates.policy.v0\ndefault: deny\ntools: {allow: [read_file]}\npaths: {read_file: {path: [/run/assay-gates/work/ok]}}\n";
    trial.wanted.policies = Policies::one(Policy::parse(policy, "policy.yaml").unwrap());
    let seen = trial.run();
    let said: Vec<&str> = ["0", "1", "2", "3", "4"].iter().map(|number| seen.said(number)).collect();
    assert_eq!(said, ["ok", "ok", "E_ARG_PATH", "E_ARG_PATH", "E_ARG_PATH"], "{}", seen.err);
    assert_eq!(seen.makers().iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["ok/a", "ok/sub/b"]);
}

#[test]
fn a_policy_of_the_agents_choice_is_refused_by_name() {
    if !need_root() {
        return;
    }
    let seen = policed(
        "
open('/tmp/mine.yaml', 'w').write('schema: assay.gates.policy.v0\\ndefault: allow\\n')
one = wrapped('--policy', '/tmp/mine.yaml')
ask(one, 1, 'write_file', 'mine')
end(one)
report('tc_1')
",
    )
    .run();
    assert_eq!((seen.said("mine"), seen.said("ended")), ("gone", "10"));
    assert!(seen.err.contains("AG505"), "{}", seen.err);
    assert!(
        seen.measured.notes.iter().any(|note| note.contains("refused: server files")),
        "{:?}",
        seen.measured.notes
    );
    assert_eq!((seen.windows(), seen.makers()), (vec![], vec![]));
    assert_ne!(seen.origin(), Some("corroborated"));
    assert_eq!(seen.measured.exit(), Exit::CaptureIncomplete, "no decision is no policy layer");
}

/// Starts our binary, traced from its first instruction, and makes it write a word and go on as somebody else.
const TAKEOVER: &str = r#"
from ctypes import c_long, c_void_p, byref, create_string_buffer
def trace(request, process, address, data):
    libc.ptrace.restype, libc.ptrace.argtypes = c_long, [c_long, c_long, c_void_p, c_void_p]
    if libc.ptrace(request, process, address, data) < 0: raise OSError(ctypes.get_errno(), "ptrace")
def takeover():
    child = os.fork()
    if child == 0:
        trace(0, 0, None, None)
        os.execv(E["ASSAY_GATES_BIN"], ["assay-gates", "mcp-wrap", "--label", "files", "--", *SERVER])
    os.waitpid(child, 0)
    registers = create_string_buffer(27 * 8)
    trace(12, child, None, ctypes.cast(registers, c_void_p))
    entry = struct.unpack_from("<27Q", registers)[16]
    # write(1, rip+..., 6); exit_group(42)
    code = bytes.fromhex("b801000000 bf01000000 488d3513000000 ba06000000 0f05 b8e7000000 bf2a000000 0f05".replace(" ", "")) + b"taken\n"
    code += b"\x90" * (-len(code) % 8)
    for at in range(0, len(code), 8):
        trace(4, child, entry + at, struct.unpack_from("<q", code, at)[0])
    trace(17, child, None, None)
    print("exited:", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"#;

#[test]
fn our_binary_in_the_hands_of_a_tracer_gains_nothing_and_is_named() {
    if !need_root() {
        return;
    }
    let seen = policed(&format!(
        "{TAKEOVER}
attempt('taken over', takeover)
# What the old driver would have believed of a process that is our binary: a decision of its own, and a window.
import array
control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
control.connect('/run/assay-gates/control.sock')
forged = json.dumps({{'decision': {{'line': '{{}}', 'call': {{'call': 1, 'tool_call_id': 'tc_1', 'tool': 'read_file'}}}}}}).encode()
control.sendall(len(forged).to_bytes(8, 'little') + forged)
print('forged:', control.recv(4096).decode().strip())
open(W + '/forged', 'w').close()
# An honest call beside it, so that everything else of the run could be believed.
honest = wrapped()
ask(honest, 2, 'read_file', 'honest')
end(honest)
report('tc_1', 'tc_2')
"
    ))
    .run();
    assert_eq!((seen.said("taken over"), seen.said("exited")), ("ok", "42"), "{}", seen.err);
    assert!(seen.out.contains("\ntaken\n") || seen.out.starts_with("taken\n"), "{}", seen.out);
    assert!(seen.said("forged").contains("refused"), "{}", seen.out);
    assert_eq!(seen.windows(), ["tc_2"], "no window without the decider's own decision");
    assert_eq!(seen.makers(), [("forged", None), ("honest", Some("tc_2"))]);
    assert!(seen.ambiguities().contains(&"sdk_tool_call_without_policy_binding:tc_1".to_owned()));
    let reasons = &seen.measured.summary.proof.reasons;
    assert!(reasons.iter().any(|reason| reason.starts_with("process_tampered")), "{reasons:?}");
    assert!(seen.of(Operation::Escape, "ptrace").count() > 3, "each call stands in the effects");
    assert_ne!(seen.measured.exit(), Exit::Passed);
}

#[test]
fn whoever_changes_another_process_is_named_and_loses_the_runs_claim() {
    if !need_root() {
        return;
    }
    for (name, act) in [
        (
            "process_vm_writev",
            "call(311, child, ctypes.byref(iov(mark)), 1, ctypes.byref(iov(mark)), 1, ctypes.c_long(0))",
        ),
        ("pidfd_getfd", "os.close(call(438, call(434, child, 0), 0, 0))"),
        ("ptrace", "call(101, 16, child, 0, 0); os.waitpid(child, 0); call(101, 17, child, 0, 0)"),
    ] {
        let seen = policed(&format!(
            "
class Iov(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
mark = ctypes.create_string_buffer(b'mark')
def iov(buffer): return Iov(ctypes.addressof(buffer), 4)
honest = wrapped()
ask(honest, 1, 'read_file', 'honest')
child = os.fork()
if child == 0:
    signal.pause()
attempt('act', lambda: ({act},))
os.kill(child, 9)
end(honest)
report('tc_1')
",
            act = act.replace("; ", ", ")
        ))
        .run();
        assert_eq!((seen.said("honest"), seen.said("act")), ("ok", "ok"), "{name}: {}", seen.err);
        let reasons = &seen.measured.summary.proof.reasons;
        let named =
            reasons.iter().any(|reason| reason.starts_with("process_tampered") && reason.contains(name));
        assert!(named, "{name}: {reasons:?}");
        assert_eq!(seen.measured.exit(), Exit::CaptureIncomplete);
    }
}

/// Each way to reach into a process, by its number in python: name, call, and what stands in the effects.
const WAYS: [(&str, &str, Operation, &str); 5] = [
    (
        "attach",
        "call(101, 16, pid, 0, 0); os.waitpid(pid, 0x40000000); call(101, 17, pid, 0, 0)",
        Operation::Escape,
        "ptrace",
    ),
    ("seize", "call(101, 0x4206, pid, 0, 0)", Operation::Escape, "ptrace"),
    (
        "vm",
        "call(311, pid, ctypes.byref(iov(mine)), 1, ctypes.byref(iov(theirs(pid))), 1, ctypes.c_long(0))",
        Operation::Escape,
        "process_vm_writev",
    ),
    ("descriptor", "call(438, call(434, pid, 0), 0, 0)", Operation::Escape, "pidfd_getfd"),
    (
        "memory",
        "at = theirs(pid); f = open(f'/proc/{pid}/mem', 'r+b', buffering=0); f.seek(at); f.write(b'')",
        Operation::Open,
        "openat",
    ),
];

/// Whom it is tried on, and what comes of each way. The first three are ours and out of reach; the fourth is one that the
/// agent itself started of our binary, which it may reach into: that costs the run its claim. Nobody writes below /proc.
const PROCESSES: [(&str, &str, [&str; 5]); 4] = [
    ("driver", "@DRIVER", ["ESRCH", "ESRCH", "ESRCH", "ESRCH", "ENOENT"]),
    ("init", "1", ["EPERM", "EPERM", "EPERM", "EPERM", "ENOENT"]),
    // Where Landlock keeps it apart; without, it is the wrapper's case.
    ("server", "server", ["EPERM", "EPERM", "EPERM", "EPERM", "ENOENT"]),
    ("wrapper", "honest.pid", ["ok", "ok", "ok", "ok", "EROFS"]),
];

#[test]
fn reaching_into_a_process_of_ours_is_impossible_or_named_and_fatal_for_the_claim() {
    if !need_root() {
        return;
    }
    for (whom, pid, results) in PROCESSES {
        for (number, (way, act, operation, syscall)) in WAYS.into_iter().enumerate() {
            let pid = pid.replace("@DRIVER", &std::process::id().to_string());
            let act = act.replace("; ", "\n    ");
            let seen = policed(&format!(
                "
class Iov(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
mine = ctypes.create_string_buffer(16)
def iov(address): return Iov(address if isinstance(address, int) else ctypes.addressof(address), 4)
def theirs(pid):
    try: return [int(line.split('-')[0], 16) for line in open(f'/proc/{{pid}}/maps') if '[stack]' in line][0]
    except (OSError, IndexError): return 4096
# The server says who it is, where the agent can read it.
source = open('/tmp/server.py').read().replace('.close()', '.write(str(__import__(\"os\").getpid()))')
open('/tmp/server.py', 'w').write(source)
honest = wrapped()
ask(honest, 1, 'read_file', 'honest')
server = int(open(W + '/honest').read())
pid = {pid}
def act():
    {act}
attempt('act', act)
end(honest)
report('tc_1')
"
            ))
            .run();
            let name = format!("{whom} by {way}");
            assert_eq!(seen.said("honest"), "ok", "{name}: {}", seen.err);
            let (said, reasons) = (seen.said("act"), &seen.measured.summary.proof.reasons);
            let apart = seen.measured.fences.iter().any(|fence| fence.starts_with("landlock"));
            let results = if whom == "server" && !apart { PROCESSES[3].2 } else { results };
            assert_eq!(said, results[number], "{name}: {}", seen.err);
            if said == "ok" {
                let named = reasons.iter().any(|reason| reason.starts_with("process_tampered"));
                assert!(named, "{name}: {reasons:?}");
                assert_eq!(seen.measured.exit(), Exit::CaptureIncomplete, "{name}");
            } else {
                assert!(seen.complete(), "{name}: {reasons:?}");
            }
            // That it was tried stands in the effects, with its result; what has no number can't even be named.
            let tried = seen.of(operation, syscall).any(|effect| {
                let failed = effect.return_value.is_some_and(|value| value < 0);
                let memory = effect.path.as_ref().is_some_and(|path| path.value.ends_with("/mem"));
                failed == (said != "ok") && (operation != Operation::Open || memory)
            });
            assert!(tried || (whom, way) == ("driver", "descriptor"), "{name}: no effect tells of it");
        }
    }
}

#[test]
fn a_server_started_around_the_decider_costs_the_join_by_name() {
    if !need_root() {
        return;
    }
    let seen = policed(
        "
around = subprocess.Popen(SERVER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
through = wrapped()
ask(around, 1, 'read_file', 'around')
ask(through, 2, 'read_file', 'through')
end(around)
end(through)
report('tc_1', 'tc_2')
",
    )
    .run();
    assert_eq!((seen.said("around"), seen.said("through")), ("ok", "ok"), "{}", seen.err);
    assert_eq!(seen.makers(), [("around", None), ("through", Some("tc_2"))]);
    assert_eq!(seen.windows(), ["tc_2"]);
    assert!(
        seen.ambiguities().contains(&"sdk_tool_call_without_policy_binding:tc_1".to_owned()),
        "{:?}",
        seen.ambiguities()
    );
}

#[test]
fn a_decider_of_the_agents_own_at_the_place_that_the_variable_names_decides_nothing_that_counts() {
    if !need_root() {
        return;
    }
    let seen = policed(
        "
own = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
own.bind('/tmp/own.sock')
own.listen()
for replace in (lambda: os.unlink('/run/assay-gates/control.sock'), lambda: os.rename('/tmp/own.sock', '/run/assay-gates/control.sock')):
    attempt('replaced', replace)
one = wrapped(env={**E, 'ASSAY_GATES_CONTROL': '/tmp/own.sock'})
ask(one, 1, 'write_file', 'denied')
ask(one, 2, 'read_file', 'allowed')
end(one)
open(E['ASSAY_RUNNER_POLICY_DECISION_LOG'], 'w').write('forged')
report('tc_2')
",
    )
    .run();
    assert_ne!(seen.said("replaced"), "ok");
    assert_eq!((seen.said("denied"), seen.said("allowed")), ("E_TOOL_NOT_ALLOWED", "ok"), "{}", seen.err);
    assert_eq!(seen.origin(), Some("corroborated"));
    assert_eq!(seen.windows(), ["tc_2"]);
    let own = seen.measured.notes.iter().any(|note| note.contains("wrote itself were left out"));
    assert!(own, "{:?}", seen.measured.notes);
}

#[test]
fn a_forged_sdk_log_is_refused_for_its_run_and_for_what_it_is() {
    if !need_root() {
        return;
    }
    let event = |run: &str| {
        format!(
            r#"{{"schema":"assay.runner.sdk_event.v0","run_id":"{run}","seq":0,"event_type":"run_finished","source":"forged"}}"#
        )
    };
    for (program, why) in [
        (format!("open(log, 'w').write('''{}\n''')", event("run_of_another")), "run_of_another"),
        ("os.symlink('/etc/shadow', log)".to_owned(), "a symbolic link, expected a file"),
        ("os.mkfifo(log)".to_owned(), "not a regular file"),
        ("os.mkdir(log)".to_owned(), "not a regular file"),
    ] {
        let mut trial = Trial::new(&format!("log = os.environ['ASSAY_RUNNER_SDK_EVENT_LOG']\n{program}"));
        trial.wanted.agent_shim = "openai-agents".to_owned();
        trial.wanted.sdk_log = Some(LogPlace::Sandbox);
        let seen = trial.run();
        let error = seen.measured.written.as_ref().unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_ne!(seen.measured.exit(), Exit::Passed);
        assert!(trial.wanted.archive.kind().unwrap().is_none(), "an archive was made of a forged log");
        assert!(!seen.effects.is_empty(), "what the kernel saw is kept all the same");
    }
}

#[test]
fn workflow_commands_and_pass_lines_reach_neither_standard_output_nor_the_workflow() {
    if !need_root() {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let script = "printf '::set-env name=PATH::/evil\\n::add-mask::x\\n::stop-commands::k\\nPASS: all gates\\n'; \
                  printf '\\r::error::forged\\033[2K\\n##[group]x\\n' >&2; \
                  echo '### passed' > \"${GITHUB_STEP_SUMMARY:-/dev/null}\"; echo summary=$GITHUB_STEP_SUMMARY";
    let summary = home.path().join("summary");
    let said = std::process::Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["record", "--run-id", "run_forger", "--output"])
        .arg(home.path().join("out.tar.gz"))
        .args(["--", "sh", "-c", script])
        .env("ASSAY_GATES_STATE_DIR", home.path().join("state"))
        .env("GITHUB_ACTIONS", "true")
        .env("GITHUB_STEP_SUMMARY", &summary)
        .current_dir("/")
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert_eq!(said.status.code(), Some(0), "{err}");
    assert!(out.lines().count() == 1 && out.starts_with("wrote runner-spike bundle: "), "{out}");
    assert!(!summary.exists());
    let mut fence: Option<String> = None;
    for line in err.lines() {
        match (&fence, line.strip_prefix("::")) {
            (None, Some(command)) => {
                fence = Some(
                    command.strip_prefix("stop-commands::").unwrap_or_else(|| panic!("{line}")).to_owned(),
                );
            }
            (Some(open), Some(end)) => {
                assert_eq!(end.strip_suffix("::"), Some(open.as_str()), "a command within the fence: {line}");
                fence = None;
            }
            (_, None) => assert!(!line.starts_with("PASS") && !line.starts_with("##"), "{line}"),
        }
    }
    assert_eq!(fence, None);
    assert!(err.contains("  | PASS: all gates") && !err.contains('\u{1b}') && !err.contains('\r'), "{err}");
}
