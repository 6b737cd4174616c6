//! The decider on a real kernel: whoever speaks to it, the same decisions are made, and each effect is stamped with its
//! call.

use crate::proxy::{POLICY, Proxy, command};
use crate::starter::CgroupStarter;
use crate::support::need_root;
use assay_gates::capture::{ArmOptions, Outcome, Recorder};
use assay_gates::host::calls::{CallConfig, CallReport, CallServer, ControlSocket, Policies};
use assay_gates::host::cgroup::SessionCgroup;
use assay_gates::policy::Policy;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

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
        Self::with(Policies::one(Policy::parse(POLICY, "policy.yaml").unwrap()))
    }

    fn with(policies: Policies) -> Self {
        let (folder, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let cgroup = Arc::new(SessionCgroup::create(&assay_gates::gate::Limits::default()).unwrap());
        let control = ControlSocket::open(CallConfig {
            socket: folder.path().join("control.sock"),
            log: folder.path().join("driver.ndjson"),
            policies,
        })
        .unwrap();
        let options = ArmOptions::new("run_windows", cgroup.path(), spool.path());
        let mut recorder = Recorder::arm(&options).unwrap();
        recorder.begin().unwrap();
        let server = control.serve(recorder.calls(), Box::new(CgroupStarter(Arc::clone(&cgroup)))).unwrap();
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
fn overlapping_calls_are_a_group_and_what_overlaps_with_anything_else_is_ambiguous() {
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
    let groups: Vec<_> = ended.report.windows.iter().map(|w| (w.ambiguous, w.group)).collect();
    assert_eq!(groups, [(false, Some(1)); 3], "{:?}", ended.report);
    for name in ["1", "2", "3"] {
        let (call, marks) = &ended.made[name];
        let expected = (Some("tc_1"), &["calls_concurrent".to_owned()][..]);
        assert_eq!((call.as_deref(), &marks[..]), expected, "{name}");
    }

    // Something else than a call beside one of a group: nothing can be told of any.
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.send(format!("{}\n{}\n", call(1, "read_late"), call(2, "echo")));
    proxy.json();
    proxy.ask(&list("beside"));
    proxy.ask(&call(3, "echo"));
    proxy.end();
    let ended = bench.finish();
    assert!(ended.report.windows.iter().all(|window| window.ambiguous), "{:?}", ended.report);
    assert_eq!(ended.made["2"].1, ["calls_overlapped"]);

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

/// Passes its calls on to a server of its own behind a wrapper of its own.
const NESTING: &str = r#"
import json, subprocess, sys
inner = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
for line in sys.stdin:
    message = json.loads(line)
    request = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "echo", "_meta": {"tool_call_id": "tc_inner"}}}
    print(json.dumps(request), file=inner.stdin, flush=True)
    answer = json.loads(inner.stdout.readline())
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": answer}), flush=True)
inner.stdin.close()
sys.exit(inner.wait())
"#;

#[test]
fn a_server_behind_a_server_has_decisions_and_windows_of_its_own() {
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
    assert_eq!(ended.windows(), [("tc_1", "echo", false), ("tc_inner", "echo", false)]);
    assert_eq!((ended.report.decisions, ended.report.servers), (2, 2));
    assert_eq!(ended.call("9"), Some("tc_inner"));
}

/// Speaks to the decider in the wrapper's place: `opening(...)` hands over two pipes and gives their other ends.
const SPEAKER: &str = r#"
import array, json, os, socket, sys
def opening(argv, policy=None, label="x", fds=None, length=None, text=None, cwd="/"):
    control = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    control.connect(os.environ["ASSAY_GATES_CONTROL"])
    ours_in, theirs_out = os.pipe()
    theirs_in, ours_out = os.pipe()
    if text is None:
        environment = [list(b"PATH=/usr/bin:/bin")]
        text = json.dumps({"argv": [list(a.encode()) for a in argv], "environment": environment, "cwd": cwd,
                           "label": label, "source": "assay://speaker", "policy": policy}).encode()
    fds = [theirs_in, theirs_out, 2] if fds is None else fds
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
    control.sendmsg([(len(text) if length is None else length).to_bytes(8, "little")], rights if fds else [])
    try: control.sendall(text)
    except OSError: pass # refused before it was read
    os.close(theirs_in); os.close(theirs_out)
    return control, os.fdopen(ours_in, "r"), os.fdopen(ours_out, "w")
def call(number, tool, output, source):
    params = {"name": tool, "_meta": {"tool_call_id": f"tc_{number}"}}
    print(json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}), file=output, flush=True)
    return json.loads(source.readline())
def answer(control):
    control.settimeout(20)
    said = b""
    while not said.endswith(b"\n"):
        more = control.recv(65536)
        if not more: break
        said += more
    return json.loads(said) if said else None
"#;

impl Bench {
    /// Runs a program that speaks to the decider itself; what it printed.
    fn speak(&self, program: &str) -> String {
        let mut speaker = Command::new("python3");
        speaker.args(["-c", &format!("{SPEAKER}{program}"), self.folder.path().to_str().unwrap(), SERVER]);
        let said = self.inside(&speaker).output().unwrap();
        assert!(said.status.success(), "{said:?}");
        String::from_utf8(said.stdout).unwrap()
    }
}

#[test]
fn whoever_speaks_in_the_wrappers_place_gets_the_same_decisions() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let said = bench.speak(
        r#"
control, source, output = opening(["python3", "-c", sys.argv[2], sys.argv[1], ""])
print(call(1, "echo", output, source).get("result"))
print(call(2, "write", output, source)["error"]["data"]["reason_code"])
output.close()
print(answer(control))
"#,
    );
    assert_eq!(said, "done\nE_TOOL_NOT_ALLOWED\n{'exited': 0}\n");
    let ended = bench.finish();
    assert_eq!(ended.windows(), [("tc_1", "echo", false)]);
    assert_eq!(ended.report.decisions, 2);
    assert_eq!(ended.report.origin(), "corroborated");
    assert!(!ended.made.contains_key("2"), "what was denied never reached the server");
}

#[test]
fn an_opening_that_is_none_is_refused_by_name_and_the_next_is_served() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let said = bench.speak(
        r#"
def refused(**broken):
    control, *_ = opening(["true"], **broken)
    print(answer(control)["refused"]["message"])
refused(fds=[])
refused(fds=[0, 1])
refused(fds=[0, 1, 2, 2])
refused(length=1 << 40)
refused(text=b"{}")
refused(text=b"\xff")
refused(label="a\nb")
refused(fds=[os.open("/dev/zero", os.O_RDONLY), 1, 2])
refused(fds=[os.open("/proc/self/mem", os.O_RDWR), 1, 2])
refused(fds=[0, os.open("/proc/self/comm", os.O_WRONLY), 2])
refused(fds=[1, 0, 2])
control, source, output = opening(["true"], text=b"{")
control.close()
control = opening(["true"], cwd="/nowhere")[0]
print(answer(control)["refused"]["cause"])
control, source, output = opening(["python3", "-c", sys.argv[2], sys.argv[1], ""])
print(call(1, "echo", output, source).get("result"))
"#,
    );
    let lines: Vec<&str> = said.lines().collect();
    for (line, reason) in lines.iter().zip([
        "0 descriptors",
        "2 descriptors",
        "three descriptors",
        "at most",
        "no opening",
        "no opening",
        "a label of",
        "neither pipe",
        "unknown kind of file system",
        "unknown kind of file system",
        "not open to",
        "server",
        "done",
    ]) {
        assert!(line.contains(reason), "{reason}: {said}");
    }
    assert_eq!(lines.len(), 13, "{said}");
    let ended = bench.finish();
    assert!(ended.report.refused.len() >= 12, "{:?}", ended.report);
    assert_eq!(ended.call("1"), Some("tc_1"));
}

#[test]
fn a_policy_of_the_programs_choice_is_refused_and_starts_no_server() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let folder = tempfile::tempdir().unwrap();
    let mut inner = command(folder.path(), &["touch", bench.folder.path().join("started").to_str().unwrap()]);
    std::fs::write(folder.path().join("policy.yaml"), "schema: assay.gates.policy.v0\ndefault: allow\n")
        .unwrap();
    inner.stdin(Stdio::null());
    let said = bench.inside(&inner).stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("AG505") && text.contains("the run's own policy"), "{text}");
    assert_eq!(said.status.code(), Some(10));
    assert!(!bench.folder.path().join("started").exists());
    let report = bench.finish().report;
    assert_eq!((report.servers, report.refused.len()), (0, 1), "{report:?}");
}

#[test]
fn without_a_policy_of_the_run_decisions_are_no_more_than_the_programs_word() {
    if !need_root() {
        return;
    }
    let bench = Bench::with(Policies::default());
    let mut proxy = bench.proxy("");
    proxy.ask(&call(1, "echo"));
    proxy.end();
    let ended = bench.finish();
    assert_eq!((ended.report.origin().as_str(), ended.report.decisions), ("self_reported", 1));
    assert_eq!(ended.call("1"), Some("tc_1"));
}

#[test]
fn hundreds_of_short_connections_are_served_one_after_another_and_side_by_side() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let said = bench.speak(
        r#"
from concurrent.futures import ThreadPoolExecutor
server = "read line; echo '{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"done\"}'; read line"
def one(number):
    control, source, output = opening(["sh", "-c", server], label="short")
    params = {"name": "echo"}
    print(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}), file=output, flush=True)
    result = json.loads(source.readline())["result"]
    output.close()
    answer(control)
    return result == "done"
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(one, range(300))))
"#,
    );
    assert_eq!(said, "300\n");
    let ended = bench.finish();
    let mut ids: Vec<&str> = ended.report.windows.iter().map(|window| window.tool_call_id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 300, "every request has an id of its own");
    assert!(ended.report.windows.iter().all(|w| !w.ambiguous && w.id_rule == "request"));
    assert!(ids.contains(&"short/300/1"), "{:?}", &ids[..3]);
}

#[test]
fn a_server_ends_with_its_wrapper_and_gets_the_wrappers_signals() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let script = "trap 'echo terminated; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let start = || {
        let folder = tempfile::tempdir().unwrap();
        let mut proxy = Proxy::spawn(bench.inside(&command(folder.path(), &["sh", "-c", script])), folder);
        assert_eq!(proxy.line(), "ready");
        proxy
    };
    let signal = |proxy: &Proxy, signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(proxy.child.id().cast_signed()), signal).unwrap();
    };
    let mut proxy = start();
    signal(&proxy, nix::sys::signal::Signal::SIGTERM);
    assert_eq!(proxy.line(), "terminated");
    assert_eq!(proxy.end().0.code(), Some(7));

    let proxy = start();
    let began = Instant::now();
    signal(&proxy, nix::sys::signal::Signal::SIGKILL);
    let (status, _, _folder) = proxy.end();
    assert_eq!(status.signal(), Some(9));
    assert!(bench.cgroup.wait_empty(Duration::from_secs(10)).unwrap());
    assert!(began.elapsed() < Duration::from_secs(6));
    bench.finish();
}

#[test]
fn when_the_run_is_over_the_servers_are_too_and_no_call_passes() {
    if !need_root() {
        return;
    }
    let bench = Bench::new();
    let mut proxy = bench.proxy("");
    proxy.ask(&call(1, "echo"));
    let Bench { cgroup, server, .. } = bench;
    let report = server.finish();
    assert_eq!((report.decisions, report.windows.len()), (1, 1));
    assert_eq!(proxy.line(), "");
    let (status, _, _folder) = proxy.end();
    assert!(!status.success());
    assert!(cgroup.wait_empty(Duration::from_secs(10)).unwrap());
}

#[test]
fn nothing_is_corroborated_when_nobody_connects() {
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
