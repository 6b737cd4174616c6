//! Hostile callers and servers, and what passes through untouched.

use crate::proxy::{Proxy, command, decisions, log_of};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;

/// 16 MiB.
const LIMIT: usize = 16 * 1024 * 1024;

fn call(id: Value, tool: &str) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {}}})
        .to_string()
}

#[test]
fn lines_reach_the_other_side_byte_for_byte() {
    let mut proxy = Proxy::start(&["cat"]);
    let lines = [
        r#"{ "jsonrpc" : "2.0",  "id":1, "method":"initialize","params":{"x":1.50,"y":"\u0041"} }"#.to_owned(),
        format!("{}\r", r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
        String::new(),
        r#"{"id":7,"jsonrpc":"2.0","method":"tools/call","params":{"arguments":{"b":1,"a":[2]},"name":"echo"}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":"srv","result":{"roots":["é","\u00e9"]}}"#.to_owned(),
        r#"{"jsonrpc":"2.0","id":8,"method":"server/discover"}"#.to_owned(),
    ];
    for line in &lines {
        proxy.send(format!("{line}\n"));
        assert_eq!(&proxy.line(), line);
    }
    // A last line without its line feed passes without one.
    proxy.send(r#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
    let (status, rest, _folder) = proxy.end();
    assert!(status.success());
    assert_eq!(rest, br#"{"jsonrpc":"2.0","id":9,"method":"ping"}"#);
}

#[test]
fn what_the_server_writes_passes_whatever_it_is() {
    let garbage = b"half a line\nnot json\n\xff\xfe\xfd\n{\"id\":99,\"result\":{}}\n{\"id\":99,\"result\":{}}\n[1,\n\0\n}";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("garbage");
    std::fs::write(&file, garbage).unwrap();
    let proxy = Proxy::start(&["cat", file.to_str().unwrap()]);
    let (status, output, _folder) = proxy.end();
    assert!(status.success());
    assert_eq!(output, garbage);
}

#[test]
fn a_refused_call_is_answered_and_never_reaches_the_server() {
    let mut proxy = Proxy::start(&["cat"]);
    let answer = proxy.ask(&call(json!("a 1"), "write_file"));
    assert_eq!(answer["id"], "a 1");
    assert_eq!(answer["error"]["code"], -32010);
    assert_eq!(answer["error"]["data"]["reason_code"], "E_TOOL_NOT_ALLOWED");
    for line in [
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"write_file"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","name":"write_file"}}"#,
        r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"echo"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["echo"]}}"#,
        "not json",
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":\r{\"id\":2,\"method\":\"tools/call\"}\r}",
        "{\"half\": \"a line",
    ] {
        let answer = proxy.ask(line);
        assert!(answer["error"]["code"].as_i64().unwrap() <= -32600, "{line}: {answer}");
    }
    proxy.send(b"{\"id\":\"\xff\xfe\"}\n");
    assert_eq!(proxy.json()["error"]["code"], -32700);
    let logged = proxy.decisions();
    let outcomes: Vec<&str> = logged.iter().map(|line| line["data"]["decision"].as_str().unwrap()).collect();
    let expected = ["deny", "error", "error", "error", "error"];
    assert_eq!(outcomes, expected, "what is a tool call in some reading is a decision");
    let (_, rest, _folder) = proxy.end();
    assert_eq!(rest, b"", "nothing of all this reached the server");
}

/// `kind` of message under `id`, with `wound` in place of a value inside.
fn wounded(kind: &str, id: &str, wound: &[u8]) -> Vec<u8> {
    let frame = match kind {
        "call" => r#""method":"tools/call","params":{"name":"echo","arguments":{"v":WOUND}}"#,
        "escaped call" => r#""method":"tools\/c\u0061ll","params":{"name":"echo","arguments":{"v":WOUND}}"#,
        "request" => r#""method":"resources/read","params":{"uri":"x","v":WOUND}"#,
        _ => r#""result":{"role":"assistant","content":{"v":WOUND}}"#,
    };
    let (before, after) = frame.split_once("WOUND").unwrap();
    let mut line = format!(r#"{{"jsonrpc":"2.0","id":{id},{before}"#).into_bytes();
    line.extend_from_slice(wound);
    line.extend_from_slice(after.as_bytes());
    line.push(b'}');
    line
}

#[test]
fn whoever_waits_for_a_refused_line_is_answered_under_its_id_and_a_call_among_them_is_logged() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200)).into_bytes();
    let many = format!("[{}0]", "0,".repeat(500_000)).into_bytes();
    let long = format!("\"{}\"", "p".repeat(LIMIT)).into_bytes();
    let wounds: [&[u8]; 9] = [
        br#""\ud83d""#,
        br#"{"x":1,"x":2}"#,
        b"1e400",
        b"\"\xff\"",
        b"[1,\r2]",
        b"[1,]",
        &deep,
        &many,
        &long,
    ];
    // What reaches the server comes back behind an S.
    let mut proxy = Proxy::start(&["sed", "-u", "s/^/S/"]);
    let mut expected = Vec::new();
    for kind in ["call", "escaped call", "request", "response"] {
        for (number, wound) in wounds.iter().enumerate() {
            for id in [json!(number), json!(format!("é {number}")), json!(-7)] {
                let line = wounded(kind, &id.to_string(), wound);
                proxy.send([&line[..], b"\n"].concat());
                let answer = proxy.line();
                let told = answer.strip_prefix('S');
                assert_eq!(told.is_some(), kind == "response", "{kind} {number}: {answer}");
                let answer: Value = serde_json::from_str(told.unwrap_or(&answer)).unwrap();
                assert_eq!(answer["id"], id, "{kind} {number}: {answer}");
                assert!(answer["error"]["code"].as_i64().unwrap() <= -32600, "{kind} {number}: {answer}");
                if kind.ends_with("call") {
                    expected.push(json!([id, "E_CALL_MALFORMED", assay_gates::files::sha256(&line)]));
                }
            }
        }
    }
    let logged: Vec<Value> = proxy
        .decisions()
        .iter()
        .map(|line| &line["data"])
        .map(|data| json!([data["request_id"], data["reason_code"], data["request_digest"]]))
        .collect();
    assert_eq!(logged, expected);
    let (_, rest, _folder) = proxy.end();
    assert_eq!(String::from_utf8_lossy(&rest), "", "one answer for each line");
}

#[test]
fn an_allowed_call_stands_in_the_log_before_the_server_sees_it() {
    // The server answers each line with the log as it is at that moment.
    let folder = tempfile::tempdir().unwrap();
    let script = format!("while read -r line; do tail -n 1 {}; done", log_of(folder.path()).display());
    let mut proxy = Proxy::spawn(command(folder.path(), &["sh", "-c", &script]), folder);
    for id in 0..50 {
        let logged = proxy.ask(&call(json!(id), "echo"));
        assert_eq!(logged["data"]["request_id"], id);
        assert_eq!(logged["data"]["decision"], "allow");
    }
}

#[test]
fn an_id_in_flight_can_not_be_used_again_and_can_after_its_answer() {
    let mut proxy =
        Proxy::start(&["sh", "-c", "read -r a; read -r go; echo '{\"id\":5,\"result\":{}}'; cat"]);
    proxy.send(format!("{}\n", call(json!(5), "echo")));
    let second = proxy.ask(&call(json!(5), "echo"));
    assert_eq!(second["error"]["data"]["reason_code"], "E_CALL_UNFOLLOWABLE");
    proxy.send("\n");
    assert_eq!(proxy.json()["result"], json!({}));
    assert_eq!(proxy.ask(&call(json!(5), "echo"))["method"], "tools/call");
    let outcomes: Vec<Value> =
        proxy.decisions().iter().map(|line| line["data"]["decision"].clone()).collect();
    assert_eq!(outcomes, ["allow", "error", "allow"]);
}

#[test]
fn huge_ids_are_refused_and_other_ids_stay_themselves() {
    let mut proxy = Proxy::start(&["cat"]);
    for id in [json!("x".repeat(1 << 20)), json!(u64::MAX), json!(1.5), json!(null), json!([1])] {
        let answer = proxy.ask(&call(id, "echo"));
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(null), &json!(-32600)));
    }
    for id in [json!(-3), json!(9_007_199_254_740_991_u64), json!("é")] {
        let echoed = proxy.ask(&call(id.clone(), "echo"));
        assert_eq!(echoed["id"], id);
    }
}

#[test]
fn a_line_of_sixteen_mebibytes_passes_and_a_longer_one_is_an_error_that_names_its_size() {
    let mut proxy = Proxy::start(&["cat"]);
    let frame = r#"{"jsonrpc":"2.0","method":"x","params":{"pad":""},"id":3}"#;
    let line =
        |length: usize| frame.replacen("\"\"", &format!("\"{}\"", "p".repeat(length - frame.len())), 1);
    let mut input = proxy.input.take().unwrap();
    let whole = format!("{}\n", line(LIMIT));
    let writer = std::thread::spawn(move || input.write_all(whole.as_bytes()).map(|()| input).unwrap());
    assert_eq!(proxy.line().len(), LIMIT);
    proxy.input = Some(writer.join().unwrap());
    proxy.send(format!("{}\n", line(LIMIT + 1)));
    let refused = proxy.json();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32600)));
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("16777217") && message.contains("16777216"), "{message}");
    assert_eq!(proxy.ask(&call(json!(1), "echo"))["id"], 1, "the session goes on");
}

#[test]
fn a_response_that_is_too_long_becomes_an_error_for_its_request() {
    let script = r#"read -r call; printf '{"result":"'; head -c 16777216 /dev/zero | tr '\0' x; printf '","id":4}\n'; read -r rest"#;
    let mut proxy = Proxy::start(&["sh", "-c", script]);
    let answer = proxy.ask(&call(json!(4), "echo"));
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(4), &json!(-32603)));
    assert!(answer["error"]["message"].as_str().unwrap().contains("16777236"), "{answer}");
}

#[test]
fn a_log_that_can_not_be_written_denies() {
    let folder = tempfile::tempdir().unwrap();
    // Room for one decision, not for two.
    let mut limited = std::process::Command::new("sh");
    let proxied = command(folder.path(), &["cat"]);
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 2; exec \"$0\" \"$@\""])
        .arg(proxied.get_program())
        .args(proxied.get_args())
        .env_remove("ASSAY_GATES_CONTROL")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut proxy = Proxy::spawn(limited, folder);
    assert_eq!(proxy.ask(&call(json!(1), "echo"))["method"], "tools/call");
    let refused = proxy.ask(&call(json!(2), "echo"));
    assert_eq!(refused["error"]["data"]["reason_code"], "E_LOG_UNWRITABLE", "{refused}");
    assert_eq!(proxy.ask(&call(json!(3), "echo"))["error"]["code"], -32010, "nothing follows half a line");
    assert_eq!(proxy.ask(r#"{"id":4,"method":"tools/list"}"#)["method"], "tools/list");
}

#[test]
fn without_a_log_the_server_is_not_even_started() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("started");
    for kind in ["link", "folder", "device"] {
        let log = log_of(folder.path());
        let _earlier = std::fs::remove_file(&log);
        let mut proxied = command(folder.path(), &["touch", mark.to_str().unwrap()]);
        match kind {
            "link" => std::os::unix::fs::symlink(folder.path().join("elsewhere"), &log).unwrap(),
            "folder" => std::fs::create_dir(&log).unwrap(),
            _ => {
                std::fs::remove_dir(&log).unwrap();
                proxied.args::<[&str; 0], &str>([]);
                std::os::unix::fs::symlink("/dev/null", &log).unwrap();
            }
        }
        let output = proxied.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("error[AG502]"), "{kind}: {output:?}");
        assert!(!mark.exists(), "{kind}");
    }
}

#[test]
fn the_log_is_appended_to_and_private() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    for id in 1..=2 {
        let mut proxy = command(folder.path(), &["cat"]).spawn().unwrap();
        proxy.stdin.take().unwrap().write_all(format!("{}\n", call(json!(id), "echo")).as_bytes()).unwrap();
        assert!(proxy.wait_with_output().unwrap().status.success());
    }
    assert_eq!(decisions(&log_of(folder.path())).len(), 2);
    assert_eq!(std::fs::metadata(log_of(folder.path())).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn exit_status_standard_error_and_signals_are_the_servers() {
    let folder = tempfile::tempdir().unwrap();
    let run =
        |script: &str| command(folder.path(), &["sh", "-c", script]).stdin(Stdio::null()).output().unwrap();
    let output = run("echo out; echo err >&2; exit 23");
    assert_eq!(
        (output.status.code(), &output.stdout[..], &output.stderr[..]),
        (Some(23), &b"out\n"[..], &b"err\n"[..])
    );
    assert_eq!(run("kill -KILL $$").status.signal(), Some(9));
    assert_eq!(run("kill -ABRT $$").status.signal(), Some(6));

    for (signal, script, expected) in [
        (nix::sys::signal::SIGTERM, "echo up; read -r x", (None, Some(15))),
        (
            nix::sys::signal::SIGINT,
            "trap 'exit 3' INT; echo up; while :; do sleep 0.02; done",
            (Some(3), None),
        ),
    ] {
        // Whoever runs the tests in the background has SIGINT ignored, which no trap of the server's could undo.
        let mut proxy = Proxy::start(&["env", "--default-signal=INT", "bash", "-c", script]);
        assert_eq!(proxy.line(), "up");
        let pid = nix::unistd::Pid::from_raw(proxy.child.id().try_into().unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        let status = proxy.child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), expected, "{signal}");
    }
}

#[test]
fn both_directions_close() {
    // The server sees the end of its input and may still speak.
    let mut proxy = Proxy::start(&["sh", "-c", "cat >/dev/null; echo late"]);
    drop(proxy.input.take());
    assert_eq!(proxy.line(), "late");
    assert!(proxy.child.wait().unwrap().success());
    // The caller sees the end of the server's output while the server lives on.
    let mut proxy = Proxy::start(&["sh", "-c", "echo last; exec >&-; cat >/dev/null"]);
    let mut output = String::new();
    proxy.output.read_to_string(&mut output).unwrap();
    assert_eq!(output, "last\n");
    assert_eq!(proxy.child.try_wait().unwrap(), None);
    drop(proxy.input.take());
    assert!(proxy.child.wait().unwrap().success());
    // A server that leaves something behind with its pipe doesn't keep the proxy.
    let proxy = Proxy::start(&["sh", "-c", "sleep 60 & echo $!"]);
    let (status, rest, _folder) = proxy.end();
    assert!(status.success());
    let left: i32 = String::from_utf8(rest).unwrap().trim().parse().unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(left), nix::sys::signal::SIGKILL).unwrap();
}
