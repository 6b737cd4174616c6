//! Call windows on a real kernel: who may speak to the driver, and where the server's processes are when.

use crate::proxy::{Proxy, command};
use crate::support::need_root;
use assay_gates::host::calls::{CallConfig, CallReport, CallServer};
use assay_gates::host::cgroup::SessionCgroup;
use serde_json::{Value, json};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

/// Answers every request with the cgroup that it is in; `tools/call` of `read_child` by asking a child of its own.
const SERVER: &str = r#"
import json, subprocess, sys
own = lambda: open("/proc/self/cgroup").read().strip().rsplit("::", 1)[1].rsplit("/", 1)[1]
other = lambda: subprocess.check_output(["cat", "/proc/self/cgroup"], text=True).strip().rsplit("::", 1)[1].rsplit("/", 1)[1]
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message: continue
    child = message.get("params", {}).get("name") == "read_child"
    if message.get("params", {}).get("name") == "read_late": continue
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": other() if child else own()}), flush=True)
"#;

struct Bench {
    cgroup: Arc<SessionCgroup>,
    server: Option<CallServer>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = Arc::new(SessionCgroup::create(256).unwrap());
        let server = CallServer::start(CallConfig {
            run_id: "run_windows".into(),
            socket: folder.path().join("control.sock"),
            log: folder.path().join("driver.ndjson"),
            cgroup: Arc::clone(&cgroup),
            binary: env!("CARGO_BIN_EXE_assay-gates").into(),
        })
        .unwrap();
        Self { cgroup, server: Some(server), folder }
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

    fn proxy(&self) -> Proxy {
        let folder = tempfile::tempdir().unwrap();
        let inner = command(folder.path(), &["python3", "-c", SERVER]);
        Proxy::spawn(self.inside(&inner), folder)
    }

    fn finish(mut self) -> CallReport {
        self.server.take().unwrap().finish()
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

fn cgroup_id(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).unwrap().ino()
}

#[test]
fn a_call_has_a_cgroup_of_its_own_from_before_it_is_seen_until_it_is_answered() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy();
    assert_eq!(proxy.ask(&list("a"))["result"], "server-1");
    assert_eq!(proxy.ask(&call(1, "echo"))["result"], "call-1");
    assert_eq!(proxy.ask(&list("b"))["result"], "server-1");
    assert_eq!(
        proxy.ask(&call(2, "read_child"))["result"],
        "call-2",
        "children are born where the server is"
    );
    assert_eq!(proxy.ask(&call(3, "write"))["error"]["data"]["reason_code"], "E_TOOL_NOT_ALLOWED");
    let idle = cgroup_id(&bench.cgroup.path().join("server-1"));
    let own_log = proxy.folder.path().join("decisions.ndjson");
    assert!(!own_log.exists(), "the driver keeps the log");
    let (status, _, _folder) = proxy.end();
    assert!(status.success());
    let log = bench.folder.path().join("driver.ndjson");
    let logged = crate::proxy::decisions(&log);
    let report = bench.finish();
    let outcomes: Vec<(Value, Value)> = logged
        .iter()
        .map(|line| (line["data"]["tool_call_id"].clone(), line["data"]["decision"].clone()))
        .collect();
    let expected = [("tc_1", "allow"), ("tc_2", "allow"), ("tc_3", "deny")];
    assert_eq!(outcomes, expected.map(|(id, decision)| (json!(id), json!(decision))));
    assert_eq!(report.origin(), "corroborated");
    assert_eq!((report.decisions, report.refused.len()), (3, 0), "{report:?}");
    let windows: Vec<(&str, &str, bool)> =
        report.windows.iter().map(|w| (w.tool_call_id.as_str(), w.tool.as_str(), w.ambiguous)).collect();
    assert_eq!(windows, [("tc_1", "echo", false), ("tc_2", "read_child", false)]);
    let ids: Vec<u64> = report.windows.iter().map(|window| window.cgroup_id).collect();
    assert!(ids[0] != ids[1] && !ids.contains(&idle) && !ids.contains(&0), "{ids:?}");
}

#[test]
fn overlapping_calls_are_ambiguous_and_later_ones_are_not() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy();
    proxy.send(format!("{}\n", call(1, "read_late")));
    assert_eq!(proxy.ask(&call(2, "echo"))["result"], "call-1");
    // Given up, but never answered: the server may still be at it.
    proxy.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":1}}\n");
    proxy.ask(&call(3, "echo"));
    proxy.end();
    let report = bench.finish();
    assert!(report.windows.iter().all(|window| window.ambiguous), "{report:?}");

    let bench = Bench::new();
    let mut proxy = bench.proxy();
    proxy.send(format!("{}\n{}\n", call(1, "echo"), list("beside")));
    proxy.json();
    proxy.json();
    proxy.ask(&call(2, "echo"));
    proxy.end();
    let report = bench.finish();
    let ambiguous: Vec<bool> = report.windows.iter().map(|window| window.ambiguous).collect();
    assert!(!ambiguous[1], "{report:?}");
}

#[test]
fn two_servers_side_by_side_have_windows_of_their_own() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let (mut one, mut two) = (bench.proxy(), bench.proxy());
    let first = one.ask(&list("a"))["result"].clone();
    let second = two.ask(&list("a"))["result"].clone();
    assert_ne!(first, second);
    one.send(format!("{}\n", call(1, "read_late")));
    assert_eq!(two.ask(&call(2, "echo"))["result"].as_str().unwrap().split('-').next(), Some("call"));
    assert_eq!(two.ask(&list("b"))["result"], second);
    one.end();
    two.end();
    let report = bench.finish();
    assert!(report.windows.iter().all(|window| !window.ambiguous), "{report:?}");
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
    let report = bench.finish();
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
    let report = bench.finish();
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
    let mut proxy = bench.proxy();
    assert_eq!(proxy.ask(&call(1, "echo"))["result"], "call-1");
    // The session outlives its driver's socket here.
    let _alive = Arc::clone(&bench.cgroup);
    let report = bench.finish();
    assert_eq!((report.decisions, report.windows.len()), (1, 1));
    assert_eq!(proxy.ask(&call(2, "echo"))["error"]["data"]["reason_code"], "E_LOG_UNWRITABLE");
    proxy.end();
}

#[test]
fn nothing_is_verified_when_nobody_connects() {
    if !need_root() {
        return;
    }
    let report = Bench::new().finish();
    assert_eq!((report.origin(), report.decisions, report.windows.len()), ("self_reported".to_owned(), 0, 0));
}

#[test]
fn the_session_stays_clean_after_many_calls() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy();
    for id in 1..=40 {
        assert_eq!(proxy.ask(&call(id, "echo"))["result"], format!("call-{id}"));
    }
    let children =
        std::fs::read_dir(bench.cgroup.path()).unwrap().flatten().filter(|e| e.path().is_dir()).count();
    assert!(children <= 3, "windows that are over are removed: {children}");
    proxy.end();
    let cgroup = Arc::clone(&bench.cgroup);
    assert_eq!(bench.finish().windows.len(), 40);
    cgroup.remove().unwrap();
    assert!(!cgroup.path().exists());
}
