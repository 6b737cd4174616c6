//! A measured agent, its proxy and its server on a real kernel: each effect carries the call that it belongs to.

use crate::support::need_root;
use assay_gates::capture::{Effect, Operation};
use assay_gates::evidence::effects;
use assay_gates::evidence::schema::validate;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// A server that leaves a child behind in its first call; the child acts when the second request comes.
const SERVER: &str = r#"
import json, os, sys
note = lambda name: open(name, "w").close()
read_end, write_end = os.pipe()
ready, say_ready = os.pipe()
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "tools/call":
        note("in-" + message["params"]["name"])
        if message["params"]["name"] == "fork":
            if os.fork() == 0:
                note("in-fork-child")
                os.write(say_ready, b".")
                os.read(read_end, 1)
                note("late-child")
                os._exit(0)
            os.read(ready, 1)
    else:
        note("between-calls")
        os.write(write_end, b"x")
        os.wait()
    print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": {}}), flush=True)
    if message["method"] == "tools/call" and message["params"]["name"] == "late":
        sys.stdin.readline()
        note("after-answer")
        print(json.dumps({"jsonrpc": "2.0", "id": 4, "result": {}}), flush=True)
"#;

/// Calls `fork`, then asks something that is no call, then calls `late` and asks once more.
const AGENT: &str = r#"
import json, os, subprocess, sys
proxy = subprocess.Popen(
    [os.environ["ASSAY_GATES_BIN"], "mcp-wrap", "--policy", "policy.yaml", "--decision-log",
     os.environ["ASSAY_RUNNER_POLICY_DECISION_LOG"], "--", sys.executable, "server.py"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
def ask(number, method, tool=None):
    params = {"name": tool, "_meta": {"tool_call_id": "tc_" + tool}} if tool else {}
    print(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}), file=proxy.stdin, flush=True)
    return json.loads(proxy.stdout.readline())
open("by-agent", "w").close()
for request in [(1, "tools/call", "fork"), (2, "tools/list"), (3, "tools/call", "late"), (4, "tools/list")]:
    assert "result" in ask(*request), request
assert ask(5, "tools/call", "forbidden")["error"]["code"] == -32010
proxy.stdin.close()
sys.exit(proxy.wait())
"#;

fn record(work: &Path, out: &Path, log: &Path) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_assay-gates"))
        .args(["record", "--user", "nobody", "--run-id", "run_calls", "--policy-decision-log"])
        .arg(log)
        .args(["--policy", "policy.yaml"])
        .arg("--output")
        .arg(out.join("run.tar.gz"))
        .arg("--effects")
        .arg(out.join("effects"))
        .args(["--", "/usr/bin/python3", "agent.py"])
        .current_dir(work)
        .env_remove("LD_LIBRARY_PATH")
        .output()
        .unwrap()
}

#[test]
fn each_effect_carries_its_call_and_what_comes_after_the_answer_carries_none() {
    if !need_root() {
        return;
    }
    let work = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
    let out = tempfile::tempdir().unwrap();
    std::fs::set_permissions(work.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    for (name, text) in [
        ("server.py", SERVER),
        ("agent.py", AGENT),
        ("policy.yaml", "schema: assay.gates.policy.v0\ndefault: allow\ntools: {deny: [forbidden]}\n"),
    ] {
        std::fs::write(work.path().join(name), text).unwrap();
    }
    let log = Path::new("/dev/shm").join(format!("assay-gates-policy-test-{}.ndjson", std::process::id()));
    let _leftover = std::fs::remove_file(&log);
    let output = record(work.path(), out.path(), &log);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(&log).unwrap();
    std::fs::remove_file(&log).unwrap();
    assert_eq!(
        lines,
        std::fs::read_to_string(out.path().join("effects/policy-decisions.ndjson")).unwrap(),
        "the file that was named has the driver's own lines"
    );
    for (line, decision) in lines.lines().zip(["allow", "allow", "deny"]) {
        let line: Value = serde_json::from_str(line).unwrap();
        validate("assay.gates.tool_decision.v0", &line).unwrap();
        assert_eq!(line["data"]["decision"], decision);
    }
    assert_eq!(lines.lines().count(), 3);
    let folder = work.path().canonicalize().unwrap();
    let made: Vec<(String, Option<String>)> = effects::read(&out.path().join("effects/effects.ndjson"))
        .unwrap()
        .map(Result::unwrap)
        .filter(|effect: &Effect| {
            effect.operation == Operation::Open && effect.flags.unwrap_or(0) & 0o100 != 0
        })
        .filter_map(|effect| {
            let path = effect.path?.value;
            let name = Path::new(&path).strip_prefix(&folder).ok()?.display().to_string();
            Some((name, effect.call))
        })
        .collect();
    let call_of = |name: &str| {
        let found: Vec<_> = made.iter().filter(|(made, _)| made == name).collect();
        assert_eq!(found.len(), 1, "{name}: {made:?}");
        found[0].1.as_deref()
    };
    for (name, call) in [
        ("by-agent", None),
        ("in-fork", Some("tc_fork")),
        ("in-fork-child", Some("tc_fork")),
        ("between-calls", None),
        ("late-child", None),
        ("in-late", Some("tc_late")),
        ("after-answer", None),
    ] {
        assert_eq!(call_of(name), call, "{name}");
    }
    let read = |name: &str| -> Value {
        serde_json::from_slice(&std::fs::read(out.path().join("effects").join(name)).unwrap()).unwrap()
    };
    assert_eq!(read("capture_proof.json")["policy_origin"], "corroborated");
    assert_eq!(read("capture_proof.json")["complete"], true);
    let calls = read("tool_effects.json")["calls"].clone();
    let calls: Vec<(&str, &str)> = calls
        .as_array()
        .unwrap()
        .iter()
        .map(|call| (call["tool_call_id"].as_str().unwrap(), call["decision"].as_str().unwrap()))
        .collect();
    assert_eq!(calls, [("tc_fork", "allow"), ("tc_late", "allow"), ("tc_forbidden", "deny")]);
}
