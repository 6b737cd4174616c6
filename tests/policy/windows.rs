//! Call windows on a real kernel: who may speak to the driver, and which call each effect is stamped with.

use crate::proxy::{Proxy, command};
use crate::support::need_root;
use assay_gates::capture::{ArmOptions, Outcome, Recorder};
use assay_gates::host::calls::{CallConfig, CallReport, CallServer, ControlSocket};
use assay_gates::host::cgroup::SessionCgroup;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Makes a file named after each request: by itself, or for `read_child` by a process that has left its session, its
/// group and its parent behind, for `read_many` by 200 processes at once. `read_late` is never answered.
const SERVER: &str = r#"
import json, os, sys
def note(name): os.close(os.open(os.path.join(sys.argv[1], name), os.O_CREAT | os.O_WRONLY))
def orphan(name):
    done, say_done = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while os.getppid() == orphan.parent: pass
            note(name)
            os.write(say_done, b".")
        os._exit(0)
    orphan.parent = None
    os.wait()
    os.read(done, 1)
def many(name):
    for number in range(200):
        if os.fork() == 0:
            note(f"{name}-{number}")
            os._exit(0)
    for _ in range(200): os.wait()
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message: continue
    tool = message.get("params", {}).get("name")
    orphan.parent = os.getpid()
    {"read_child": orphan, "read_many": many}.get(tool, note)(sys.argv[2] + str(message["id"]))
    if tool != "read_late":
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": "done"}), flush=True)
"#;

struct Bench {
    cgroup: Arc<SessionCgroup>,
    recorder: Recorder,
    server: CallServer,
    folder: tempfile::TempDir,
    _spool: tempfile::TempDir,
}

/// What a session came to.
struct Ended {
    report: CallReport,
    /// The call and the marks of each file that was made, by its name.
    made: BTreeMap<String, (Option<String>, Vec<String>)>,
}

impl Ended {
    /// The call that the file belongs to without doubt.
    fn call(&self, name: &str) -> Option<&str> {
        let (call, marks) = &self.made[name];
        assert!(marks.is_empty(), "{name}: {marks:?}");
        call.as_deref()
    }

    fn windows(&self) -> Vec<(&str, &str, bool)> {
        let windows = self.report.windows.iter();
        windows.map(|w| (w.tool_call_id.as_str(), w.tool.as_str(), w.ambiguous)).collect()
    }
}

impl Bench {
    fn new() -> Self {
        let (folder, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cgroup = Arc::new(SessionCgroup::create(&assay_gates::gate::Limits::default()).unwrap());
        let control = ControlSocket::open(CallConfig {
            run_id: "run_windows".into(),
            socket: folder.path().join("control.sock"),
            log: folder.path().join("driver.ndjson"),
            cgroup: Arc::clone(&cgroup),
            binary: env!("CARGO_BIN_EXE_assay-gates").into(),
        })
        .unwrap();
        let options = ArmOptions::new("run_windows", cgroup.path(), spool.path());
        let mut recorder = Recorder::arm(&options).unwrap();
        recorder.begin().unwrap();
        let server = control.serve(recorder.calls()).unwrap();
        Self { cgroup, recorder, server, folder, _spool: spool }
    }

    /// The command as it would be started inside the session.
    fn inside(&self, inner: &Command) -> Command {
        let mut outer = Command::new("sh");
        outer
            .args(["-c", "echo 0 > \"$0\" && exec \"$@\""])
            .arg(self.cgroup.path().join("cgroup.procs"))
            .arg(inner.get_program())
            .args(inner.get_args())
            .env("ASSAY_GATES_CONTROL", self.folder.path().join("control.sock"))
            // cargo sets it for tests; the sandbox removes it.
            .env_remove("LD_LIBRARY_PATH")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        outer
    }

    /// A proxy whose server names its files with this prefix.
    fn proxy(&self, prefix: &str) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let place = self.folder.path().to_str().unwrap();
        let inner = command(folder.path(), &["python3", "-c", SERVER, place, prefix]);
        Proxy::spawn(self.inside(&inner), folder)
    }

    fn finish(self) -> Ended {
        assert!(self.cgroup.wait_empty(Duration::from_secs(10)).unwrap());
        let report = self.server.finish();
        let outcome = Outcome {
            exit_code: Some(0),
            signal: None,
            elapsed_ms: 0,
            timed_out: false,
            interrupted: false,
            exceeded: None,
            stragglers: 0,
        };
        let recording = self.recorder.finish(outcome, report.windows.clone()).unwrap();
        // A driver starts one program; some of these tests start none or several.
        let reasons = &recording.summary.proof.reasons;
        assert!(reasons.iter().all(|reason| reason.starts_with("root_not_seen")), "{reasons:?}");
        let folder = self.folder.path().canonicalize().unwrap();
        let made = recording.effects().unwrap().map(Result::unwrap).filter_map(|effect| {
            let path = effect.path?.value;
            let name = Path::new(&path).strip_prefix(&folder).ok()?.display().to_string();
            (effect.flags.unwrap_or(0) & 0o100 != 0).then_some((name, (effect.call, effect.marks)))
        });
        Ended { report, made: made.collect() }
    }
}

fn call(id: u32, tool: &str) -> String {
    let meta = json!({"tool_call_id": format!("tc_{id}")});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "_meta": meta}})
        .to_string()
}

fn list(id: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/list"}).to_string()
}

#[test]
fn an_effect_is_stamped_with_its_call_from_before_the_server_sees_it_until_it_has_answered() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.ask(&list("before"));
    proxy.ask(&call(1, "echo"));
    proxy.ask(&list("between"));
    proxy.ask(&call(2, "read_child"));
    assert_eq!(proxy.ask(&call(3, "write"))["error"]["data"]["reason_code"], "E_TOOL_NOT_ALLOWED");
    proxy.ask(&list("after"));
    let own_log = proxy.folder.path().join("decisions.ndjson");
    assert!(!own_log.exists(), "the driver keeps the log");
    let (status, _, _folder) = proxy.end();
    assert!(status.success());
    let logged = crate::proxy::decisions(&bench.folder.path().join("driver.ndjson"));
    let ended = bench.finish();
    let outcomes: Vec<(Value, Value)> = logged
        .iter()
        .map(|line| (line["data"]["tool_call_id"].clone(), line["data"]["decision"].clone()))
        .collect();
    let expected = [("tc_1", "allow"), ("tc_2", "allow"), ("tc_3", "deny")];
    assert_eq!(outcomes, expected.map(|(id, decision)| (json!(id), json!(decision))));
    let report = &ended.report;
    assert_eq!(report.origin(), "corroborated");
    assert_eq!((report.decisions, report.refused.len()), (3, 0), "{report:?}");
    assert_eq!(ended.windows(), [("tc_1", "echo", false), ("tc_2", "read_child", false)]);
    for (name, expected) in
        [("before", None), ("1", Some("tc_1")), ("between", None), ("2", Some("tc_2")), ("after", None)]
    {
        assert_eq!(ended.call(name), expected, "{name}");
    }
    assert!(!ended.made.contains_key("3"), "what was denied never reached the server");
}

#[test]
fn overlapping_calls_are_ambiguous_and_later_ones_are_not() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.send(format!("{}\n", call(1, "read_late")));
    proxy.ask(&call(2, "echo"));
    // Given up, but never answered: the server may still be at it.
    proxy.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n");
    proxy.ask(&call(3, "echo"));
    proxy.end();
    let ended = bench.finish();
    assert!(ended.report.windows.iter().all(|window| window.ambiguous), "{:?}", ended.report);
    for name in ["1", "2", "3"] {
        let (call, marks) = &ended.made[name];
        assert_eq!(
            (call.as_deref(), &marks[..]),
            (Some("tc_1"), &["calls_overlapped".to_owned()][..]),
            "{name}"
        );
    }

    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.send(format!("{}\n{}\n", call(1, "echo"), list("beside")));
    proxy.json();
    proxy.json();
    proxy.ask(&call(2, "echo"));
    proxy.end();
    let ended = bench.finish();
    assert!(!ended.report.windows[1].ambiguous, "{:?}", ended.report);
    assert_eq!(ended.call("2"), Some("tc_2"));
}

#[test]
fn two_servers_side_by_side_have_windows_of_their_own() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let (mut one, mut two) = (bench.proxy("one-"), bench.proxy("two-"));
    one.ask(&list("a"));
    two.ask(&list("a"));
    one.send(format!("{}\n", call(1, "read_late")));
    two.ask(&call(2, "echo"));
    two.ask(&list("b"));
    one.end();
    two.end();
    let ended = bench.finish();
    assert!(ended.report.windows.iter().all(|window| !window.ambiguous), "{:?}", ended.report);
    for (name, expected) in
        [("one-a", None), ("two-a", None), ("one-1", Some("tc_1")), ("two-2", Some("tc_2")), ("two-b", None)]
    {
        assert_eq!(ended.call(name), expected, "{name}");
    }
}

/// Says what its own proxy answered to a call of its own, and acts in that call.
const NESTING: &str = r#"
import json, subprocess, sys
inner = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for line in sys.stdin:
    message = json.loads(line)
    meta = {"tool_call_id": "tc_forged"}
    request = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "echo", "_meta": meta}}
    print(json.dumps(request), file=inner.stdin, flush=True)
    answer = json.loads(inner.stdout.readline())
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer}), flush=True)
inner.stdin.close()
sys.exit(inner.wait())
"#;

#[test]
fn a_proxy_that_a_server_starts_is_refused_and_what_comes_of_it_stays_the_servers() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let (folder, within) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let place = bench.folder.path().to_str().unwrap();
    let nested = command(within.path(), &["python3", "-c", SERVER, place, ""]);
    let words = [nested.get_program()].into_iter().chain(nested.get_args());
    let server: Vec<&str> =
        ["python3", "-c", NESTING].into_iter().chain(words.map(|word| word.to_str().unwrap())).collect();
    let mut proxy = Proxy::spawn(bench.inside(&command(folder.path(), &server)), folder);
    assert_eq!(proxy.ask(&call(1, "echo"))["result"]["result"], "done");
    proxy.end();
    let ended = bench.finish();
    assert_eq!(ended.windows(), [("tc_1", "echo", false)]);
    assert_eq!(ended.report.decisions, 1);
    assert!(ended.report.refused[0].contains("belongs to a tool server"), "{:?}", ended.report);
    assert_eq!(ended.call("9"), Some("tc_1"));
}

#[test]
fn whoever_is_not_our_proxy_is_refused_and_its_decisions_count_as_self_reported() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    // Another program that knows the protocol.
    let speaker = r#"
import json, os, socket
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(os.environ["ASSAY_GATES_CONTROL"])
print(s.recv(65536).decode())
"#;
    let mut other = Command::new("python3");
    other.args(["-c", speaker]);
    let said = bench.inside(&other).output().unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("runs another program"), "{said:?}");

    // Another program that connects, speaks ahead, and becomes our binary.
    let ahead = r#"
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect(os.environ["ASSAY_GATES_CONTROL"])
try:
    for _ in range(3): s.send(b'{"hello":{"challenge":"00"}}')
except OSError: pass
os.set_inheritable(s.fileno(), True)
os.execv(sys.argv[1], sys.argv[1:])
"#;
    let folder = tempfile::tempdir().unwrap();
    let inner = command(folder.path(), &["cat"]);
    let mut becoming = Command::new("python3");
    becoming.args(["-c", ahead]).arg(inner.get_program()).args(inner.get_args());
    let mut both = Proxy::spawn(bench.inside(&becoming), folder);
    both.ask(&call(1, "echo"));
    both.end();

    // Our binary with a library of somebody else's choice, under a tracer, outside the session.
    let folder = tempfile::tempdir().unwrap();
    let mut preloaded = Command::new("env");
    let inner = command(folder.path(), &["cat"]);
    preloaded.arg("LD_BIND_NOW=1").arg(inner.get_program()).args(inner.get_args());
    let mut proxy = Proxy::spawn(bench.inside(&preloaded), folder);
    assert_eq!(proxy.ask(&call(1, "echo"))["id"], 1, "it still works, for itself");
    assert_eq!(proxy.decisions().len(), 1);
    let (_, _, _folder) = proxy.end();

    let folder = tempfile::tempdir().unwrap();
    let mut outside = command(folder.path(), &["cat"]);
    outside.env("ASSAY_GATES_CONTROL", bench.folder.path().join("control.sock"));
    let mut proxy = Proxy::spawn(outside, folder);
    proxy.ask(&call(1, "echo"));
    assert_eq!(proxy.decisions().len(), 1);
    proxy.end();

    let log = bench.folder.path().join("driver.ndjson");
    let report = bench.finish().report;
    let refused = report.refused.join("\n");
    for reason in ["runs another program", "LD_BIND_NOW", "not in the session's own cgroup"] {
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
    // The one that became our binary is a genuine proxy with a connection of its own; the other connection is not.
    assert_eq!((report.decisions, report.windows.len()), (1, 1), "{report:?}");
    assert!(!log.exists() || report.log == Path::new(&log));
}

/// A library that wipes the variable that brought it in, and stays.
const LIBRARY: &str = r#"
#include <string.h>
extern char **environ;
__attribute__((constructor)) static void wipe(void) {
    for (char **entry = environ; *entry; entry++)
        if (!strncmp(*entry, "LD_", 3)) memset(*entry, 'x', strlen(*entry));
}
"#;

/// Lets itself be traced by its parent, as a debugger would start it.
const TRACER: &str = r#"
import ctypes, os, sys
trace = ctypes.CDLL(None, use_errno=True).ptrace
child = os.fork()
if child == 0:
    trace(0, 0, 0, 0)
    os.execv(sys.argv[1], sys.argv[1:])
while True:
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status): break
    signal = os.WSTOPSIG(status)
    trace(7, child, None, ctypes.c_void_p(0 if signal == 5 else signal))
"#;

#[test]
fn our_own_binary_in_the_hands_of_somebody_else_is_refused() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let source = bench.folder.path().join("wipe.c");
    let library = bench.folder.path().join("wipe.so");
    std::fs::write(&source, LIBRARY).unwrap();
    let compiler =
        ["clang", "cc"].into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let compiler = compiler.expect("not installed: scripts/setup.sh");
    let built = Command::new(compiler).args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success());
    let preload = format!("LD_PRELOAD={}", library.display());
    let hands: [(&[&str], &str); 3] = [
        (&["env", &preload], "has code from"),
        (&["python3", "-c", TRACER], "is traced"),
        (&["unshare", "--user"], "namespace of its own"),
    ];
    for (hand, _) in hands {
        let folder = tempfile::tempdir().unwrap();
        let inner = command(folder.path(), &["cat"]);
        let mut held = Command::new(hand[0]);
        held.args(&hand[1..]).arg(inner.get_program()).args(inner.get_args());
        let mut proxy = Proxy::spawn(bench.inside(&held), folder);
        assert_eq!(proxy.ask(&call(1, "echo"))["id"], 1, "{hand:?}");
        proxy.end();
    }
    let report = bench.finish().report;
    assert_eq!(
        (report.verified, report.decisions, report.origin().as_str()),
        (0, 0, "self_reported"),
        "{report:?}"
    );
    assert_eq!(report.refused.len(), hands.len(), "{report:?}");
    for ((_, reason), refused) in hands.iter().zip(&report.refused) {
        assert!(refused.contains(reason), "{reason}: {refused}");
    }
}

#[test]
fn when_the_driver_is_gone_no_call_passes() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.ask(&call(1, "echo"));
    let Bench { cgroup, server, .. } = bench;
    let report = server.finish();
    assert_eq!((report.decisions, report.windows.len()), (1, 1));
    assert_eq!(proxy.ask(&call(2, "echo"))["error"]["data"]["reason_code"], "E_LOG_UNWRITABLE");
    proxy.end();
    assert!(cgroup.wait_empty(Duration::from_secs(10)).unwrap());
}

#[test]
fn nothing_is_verified_when_nobody_connects() {
    if !need_root() {
        return;
    }
    let report = Bench::new().finish().report;
    assert_eq!((report.origin(), report.decisions, report.windows.len()), ("self_reported".to_owned(), 0, 0));
}

#[test]
fn a_server_of_many_processes_stays_one_server() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.ask(&call(1, "read_many"));
    proxy.ask(&list("after"));
    proxy.end();
    let ended = bench.finish();
    assert_eq!(ended.windows(), [("tc_1", "read_many", false)]);
    for number in 0..200 {
        assert_eq!(ended.call(&format!("1-{number}")), Some("tc_1"));
    }
    assert_eq!(ended.call("after"), None);
}

#[test]
fn many_calls_are_told_apart() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    for id in 1..=300 {
        proxy.ask(&call(id, "echo"));
    }
    proxy.end();
    let ended = bench.finish();
    assert_eq!(ended.report.windows.len(), 300);
    for id in 1..=300 {
        assert_eq!(ended.call(&id.to_string()), Some(format!("tc_{id}").as_str()));
    }
}
