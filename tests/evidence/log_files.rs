//! Logs that others write, some of them hostile.

use crate::fixtures::RUN;
use assay_gates::error::{Code, Error};
use assay_gates::evidence::Logs;
use assay_gates::evidence::logs::{MAX_LINE_BYTES, MAX_LOG_BYTES};
use assay_gates::files::RootPath;
use assay_gates::host::rights::Rights;

const DECISION: &str = r#"{"specversion":"1.0","id":"evt_decision_1","type":"assay.tool.decision","source":"assay://runner-spike/run_fixture","time":"2026-01-01T00:00:00.000000000+00:00","data":{"tool":"read_file","decision":"allow","reason_code":"E_TOOL_UNCONSTRAINED","tool_call_id":"tc_1","request_id":1}}"#;

fn sdk(seq: u64, event_type: &str, rest: &str) -> String {
    format!(
        r#"{{"schema":"assay.runner.sdk_event.v0","run_id":"{RUN}","seq":{seq},"event_type":"{event_type}","source":"x"{rest}}}"#
    )
}

fn held(folder: &tempfile::TempDir) -> RootPath {
    RootPath::open(folder.path(), Rights::own()).unwrap()
}

fn policy_log(text: impl AsRef<[u8]>) -> Result<Logs, Error> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("decisions.ndjson");
    std::fs::write(&file, text).unwrap();
    Logs::ingest(RUN, None, Some(&held(&folder).join("decisions.ndjson")))
}

fn sdk_log(text: impl AsRef<[u8]>) -> Result<Logs, Error> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sdk.ndjson");
    std::fs::write(&file, text).unwrap();
    Logs::ingest(RUN, Some(&held(&folder).join("sdk.ndjson")), None)
}

#[test]
fn a_decision_keeps_the_contracts_fields_and_no_others() {
    let logs = policy_log(format!("\n{DECISION}\r\n   \n{DECISION}")).unwrap();
    let events = logs.policy.unwrap();
    assert_eq!(logs.sdk, None);
    assert_eq!(
        serde_json::to_string(&events[1]).unwrap(),
        r#"{"schema":"assay.runner.policy_event.v0","run_id":"run_fixture","seq":1,"source_event_type":"assay.tool.decision","source":"assay://runner-spike/run_fixture","tool_call_id":"tc_1","tool":"read_file","decision":"allow"}"#
    );
}

#[test]
fn an_sdk_event_writes_what_it_lacks_as_null_and_drops_what_is_unknown() {
    let call = r#","sdk_name":" @openai/agents ","tool_call_id":"tc_1","tool":"read_file","colour":"red""#;
    let text = format!("{}\n{}\n", sdk(0, "tool_call_started", call), sdk(1, "run_finished", ""));
    let events = sdk_log(text).unwrap().sdk.unwrap();
    assert_eq!(
        serde_json::to_string(&events).unwrap(),
        r#"[{"schema":"assay.runner.sdk_event.v0","run_id":"run_fixture","seq":0,"event_type":"tool_call_started","source":"x","sdk_name":"@openai/agents","sdk_version":null,"tool_call_id":"tc_1","tool":"read_file"},{"schema":"assay.runner.sdk_event.v0","run_id":"run_fixture","seq":1,"event_type":"run_finished","source":"x","sdk_name":null,"sdk_version":null,"tool_call_id":null,"tool":null}]"#
    );
}

#[test]
fn each_broken_decision_line_is_refused_with_its_place() {
    for (spoilt, says) in [
        (DECISION.replace("assay.tool.decision", "assay.tool.other"), "type assay.tool.decision"),
        (DECISION.replace(r#""source":"assay://runner-spike/run_fixture""#, r#""source":"  ""#), "`source`"),
        (DECISION.replace(r#""tool":"read_file","#, ""), "`tool`"),
        (DECISION.replace(r#""tool_call_id":"tc_1""#, r#""tool_call_id":null"#), "`tool_call_id`"),
        (DECISION.replace("allow", "permit"), "allow, deny or error"),
        (DECISION.replace(r#""tool":"read_file""#, r#""tool":7"#), "a string `tool`"),
        (DECISION.replace(r#""data":{"#, r#""data":{"tool":"rm","#), "stands twice"),
        (DECISION.replace("\"data\"", "\"date\""), "an object `data`"),
        ("[1]".to_owned(), "JSON object"),
        ("{".to_owned(), "expected JSON"),
    ] {
        let error = policy_log(format!("{DECISION}\n{spoilt}\n")).unwrap_err();
        assert_eq!(error.code(), Code::LogInvalid);
        assert!(error.message().contains(says), "{error}");
        assert!(error.place().unwrap().ends_with("decisions.ndjson:2"), "{error}");
    }
}

#[test]
fn each_broken_sdk_line_is_refused_with_its_place() {
    for (spoilt, says) in [
        (sdk(0, "run_finished", "").replace("sdk_event.v0", "sdk_event.v1"), "schema"),
        (sdk(0, "run_finished", "").replace(RUN, "run_other"), "run_id run_fixture"),
        (sdk(1, "run_finished", ""), "seq 0"),
        (sdk(0, "run_finished", "").replace("\"seq\":0", "\"seq\":\"0\""), "seq 0"),
        (sdk(0, "run_paused", ""), "event_type one of"),
        (sdk(0, "tool_call_started", r#","tool":"t""#), "tool_call_id and tool"),
        (sdk(0, "run_finished", "").replace("\"source\":\"x\"", "\"source\":\"\""), "`source`"),
    ] {
        let error = sdk_log(&spoilt).unwrap_err();
        assert_eq!(error.code(), Code::LogInvalid);
        assert!(error.message().contains(says), "{error}");
        assert!(error.place().unwrap().ends_with("sdk.ndjson:1"), "{error}");
    }
}

#[test]
fn a_log_that_was_asked_for_must_exist_and_say_something() {
    assert_eq!(policy_log("\n \n").unwrap_err().code(), Code::LogMissing);
    assert_eq!(sdk_log("").unwrap_err().code(), Code::LogMissing);
    let folder = tempfile::tempdir().unwrap();
    let error = Logs::ingest(RUN, Some(&held(&folder).join("no/sdk")), None).unwrap_err();
    assert_eq!(error.code(), Code::LogMissing);
    assert_eq!(Logs::ingest(RUN, None, None).unwrap(), Logs::default());
}

#[test]
fn broken_utf_8_is_replaced_and_never_a_panic() {
    let mut line = sdk(0, "run_finished", r#","tool":"a?b""#).into_bytes();
    let place = line.iter().position(|byte| *byte == b'?').unwrap();
    line[place] = 0xff;
    let events = sdk_log(line).unwrap().sdk.unwrap();
    assert_eq!(events[0].tool.as_deref(), Some("a\u{fffd}b"));
}

#[test]
fn lines_and_logs_without_end_are_refused() {
    let long = sdk(0, "run_finished", &format!(",\"x\":\"{}\"", "a".repeat(MAX_LINE_BYTES)));
    assert!(sdk_log(long).unwrap_err().message().contains("a line of at most"));
    let many = "\n".repeat(usize::try_from(MAX_LOG_BYTES).unwrap() + 1);
    assert!(sdk_log(many).unwrap_err().message().contains("a log of at most"));
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(sdk_log(deep).unwrap_err().code(), Code::LogInvalid);
}

#[cfg(unix)]
#[test]
fn a_link_a_fifo_and_a_folder_in_the_logs_place_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().join("real");
    std::fs::write(&real, DECISION).unwrap();
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for name in ["link", "fifo", ""] {
        let error = Logs::ingest(RUN, None, Some(&held(&folder).join(name))).unwrap_err();
        assert_eq!(error.code(), Code::LogInvalid, "{name}");
    }
}
