//! What the proxy makes of lines that other readers would take differently.

use super::message::{INVALID_PARAMS, INVALID_REQUEST, Malformed, Message, PARSE_ERROR, read};
use serde_json::json;

fn call(line: &str) -> super::Call {
    match read(line.as_bytes()) {
        Ok(Message::Call(call, _)) => *call,
        other => panic!("{line}: {other:?}"),
    }
}

fn malformed(line: impl AsRef<[u8]>) -> Box<Malformed> {
    read(line.as_ref()).expect_err(&String::from_utf8_lossy(line.as_ref()))
}

#[test]
fn the_call_id_comes_from_meta_then_from_the_arguments_then_from_the_request() {
    let line = |params: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"t",{params}}}}}"#)
    };
    let digest = crate::files::sha256(b"");
    let origin =
        super::Origin { source: "s".into(), label: "l".into(), policy_digest: digest, connection: None };
    let id = |line: &str| {
        let call = call(line);
        let (id, rule) = origin.call_id(&call);
        (id, rule.to_owned())
    };
    let both = r#""_meta":{"tool_call_id":"new"},"arguments":{"_meta":{"tool_call_id":"old"}}"#;
    assert_eq!(id(&line(both)), ("new".into(), "meta".into()));
    let old = r#""arguments":{"_meta":{"tool_call_id":"old"}}"#;
    assert_eq!(id(&line(old)), ("old".into(), "arguments_meta".into()));
    let claude = r#""_meta":{"claudecode/toolUseId":"toolu_1"}"#;
    assert_eq!(id(&line(claude)), ("toolu_1".into(), "claude_agent_sdk".into()));
    for none in [r#""arguments":{}"#, r#""_meta":{"progressToken":1}"#] {
        assert_eq!(id(&line(none)), ("req_7".into(), "request".into()));
    }
    let text = r#"{"id":"a","method":"tools/call","params":{"name":"t"}}"#;
    assert_eq!(id(text), ("req_a".into(), "request".into()));
}

#[test]
fn escapes_are_read_before_anything_is_compared() {
    let read = call(r#"{"\u006dethod":"tools\/call","id":1,"par\u0061ms":{"n\u0061me":"\u0072ead"}}"#);
    assert_eq!(read.tool, "read");
}

#[test]
fn what_two_parsers_could_read_differently_is_refused() {
    for (line, code) in [
        (r#"{"id":1,"method":"ping","method":"tools/call","params":{"name":"t"}}"#, INVALID_REQUEST),
        (r#"{"id":1,"method":"tools/call","params":{"name":"a","name":"b"}}"#, INVALID_REQUEST),
        (r#"{"id":1,"method":"tools/call","params":{"name":"a","n\u0061me":"b"}}"#, INVALID_REQUEST),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":{"p":1,"p":2}}}}"#,
            INVALID_REQUEST,
        ),
        (r#"{"id":1,"id":2,"method":"tools/call","params":{"name":"a"}}"#, INVALID_REQUEST),
        (r#"{"id":1,"Method":"tools/call","params":{"name":"a"}}"#, INVALID_REQUEST),
        ("{\"id\":1,\"method\":\"ping\",\"param\u{17f}\":{\"name\":\"a\"}}", INVALID_REQUEST),
        (r#"{"id":1,"method":"tools/call","params":{"name":"a","NAME":"b"}}"#, INVALID_PARAMS),
        (r#"{"id":1,"method":["tools/call"],"params":{"name":"a"}}"#, INVALID_REQUEST),
        (r#"[{"id":1,"method":"tools/call","params":{"name":"a"}}]"#, INVALID_REQUEST),
        (r#""tools/call""#, INVALID_REQUEST),
        (r#"{"id":1,"method":"ping"}{"id":2,"method":"tools/call"}"#, PARSE_ERROR),
        ("{\"id\":1,\"method\":\"ping\",\"params\":\r{\"id\":2,\"method\":\"tools/call\"}\r}", PARSE_ERROR),
        (r#"{"id":1,"method":"ping",}"#, PARSE_ERROR),
        (r#"{'id':1,"method":"ping"}"#, PARSE_ERROR),
        ("\u{feff}{\"id\":1,\"method\":\"ping\"}", PARSE_ERROR),
        (r#"{"id":1,"method":"tools/call","params":{"name":"\ud800"}}"#, INVALID_REQUEST),
        (r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":{"n":1e999}}}"#, INVALID_REQUEST),
        ("{\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\nb\"}}", PARSE_ERROR),
        (r#"{"id":1,"meth"#, PARSE_ERROR),
    ] {
        assert_eq!(malformed(line).code, code, "{line}: {}", malformed(line).message);
    }
    assert_eq!(malformed(b"{\"id\":1,\"method\":\"ping\xff\"}").code, PARSE_ERROR);
}

#[test]
fn a_tool_call_needs_a_name_an_object_and_an_id_that_every_parser_holds() {
    for line in [
        r#"{"id":1,"method":"tools/call"}"#,
        r#"{"id":1,"method":"tools/call","params":[]}"#,
        r#"{"id":1,"method":"tools/call","params":{}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":5}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":""}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":" read"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a\u0000"}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a","arguments":[]}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a","_meta":{"tool_call_id":5}}}"#,
        r#"{"id":1,"method":"tools/call","params":{"name":"a","_meta":{"tool_call_id":""}}}"#,
        r#"{"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":null,"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":1.0,"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":-0,"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":9007199254740992,"method":"tools/call","params":{"name":"a"}}"#,
        r#"{"id":{},"method":"tools/call","params":{"name":"a"}}"#,
    ] {
        let refused = malformed(line);
        assert!(refused.call.is_some(), "{line}");
    }
    let huge = format!(r#"{{"id":"{}","method":"tools/call","params":{{"name":"a"}}}}"#, "x".repeat(2000));
    let refused = malformed(&huge);
    assert_eq!((refused.id.clone(), refused.tool().as_deref()), (json!(null), Some("a")));
    let named = format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"{}"}}}}"#, "x".repeat(257));
    assert_eq!(malformed(&named).tool().as_deref(), Some("(unreadable)"));
}

#[test]
fn memory_is_bounded_by_values_and_depth() {
    let many = format!(r#"{{"method":"x","params":[{}0]}}"#, "0,".repeat(500_000));
    assert!(malformed(&many).message.contains("more than 500000 values"));
    let deep = format!(r#"{{"method":"x","params":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert!(malformed(&deep).message.contains("recursion limit"));
}

#[test]
fn everything_else_passes() {
    for line in [
        "",
        "  ",
        "\r",
        "{\"id\":1,\"method\":\"ping\"}\r",
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":9,"method":"subscriptions/listen","params":{}}"#,
        r#"{"jsonrpc":"2.0","id":null,"error":{}}"#,
    ] {
        assert_eq!(read(line.as_bytes()), Ok(Message::Other), "{line}");
    }
    assert!(matches!(read(br#"{"id":"x","method":"resources/read"}"#), Ok(Message::Request(_))));
    let cancel = br#"{"method":"notifications/cancelled","params":{"requestId":4}}"#;
    assert!(matches!(read(cancel), Ok(Message::Cancelled(_))));
}
