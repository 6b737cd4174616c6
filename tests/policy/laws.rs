//! What holds for any bytes whatever: laws of the line parser and of the whole proxy.

use assay_gates::policy::{Policy, policy_json_schema};
use proptest::prelude::*;

/// Pieces from which lines that almost are tool calls are made.
const PIECES: [&[u8]; 34] = [
    b"{",
    b"}",
    b"}}",
    b"[",
    b"]",
    b":",
    b",",
    b",",
    b"\"",
    b"\\",
    b"\\u0061",
    b"\\ud800",
    b"\r",
    b" ",
    b"\t",
    b"null",
    b"-0",
    b"1",
    b"1e9",
    b"\xff",
    b"\0",
    b"\"jsonrpc\":\"2.0\"",
    b"{\"id\":1,",
    b"\"id\":\"a\",",
    b"\"method\":\"tools/call\"",
    b"\"method\":\"ping\",",
    b"\"method\":\"tools/call\",",
    b"\"params\":{",
    b"\"params\":{\"name\":\"echo\"",
    b"\"name\":\"echo\"",
    b"\"name\":\"rm\"",
    b"\"arguments\":{",
    b"\"_meta\":{\"tool_call_id\":\"x\"}",
    b"\"Method\":\"tools/call\"",
];

/// What the most lenient reader of the line would call: the last of equal keys wins.
fn lenient(line: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(line).ok()?;
    let called = value.get("method")? == "tools/call";
    called.then(|| value["params"]["name"].as_str().unwrap_or("(none)").to_owned())
}

/// The law: whoever reads the line at all reads the same call as the proxy, or the line does not pass.
fn check(line: &[u8]) -> &'static str {
    match assay_gates::policy::classify(line) {
        Ok(None) => {
            assert_eq!(lenient(line), None, "{:?}", String::from_utf8_lossy(line));
            "passes"
        }
        Ok(Some(call)) => {
            assert_eq!(lenient(line).as_ref(), Some(&call.tool), "{:?}", String::from_utf8_lossy(line));
            "call"
        }
        Err(_) => "refused",
    }
}

/// Cheap enough for millions: a line is a few pieces in a pseudo-random order, sometimes around a whole call.
#[test]
fn a_million_lines_that_almost_are_calls_are_read_as_every_parser_reads_them() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let whole =
        br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo","arguments":{"a":"b"}}}"#;
    let mut kinds = std::collections::BTreeMap::<&str, u32>::new();
    let mut line = Vec::new();
    for _ in 0..1_000_000 {
        line.clear();
        if random(2) == 0 {
            // A whole call with something put in, or with a byte changed.
            line.extend_from_slice(whole);
            let at = random(whole.len());
            if random(2) == 0 {
                line.splice(at..at, PIECES[random(PIECES.len())].iter().copied());
            } else {
                line[at] = u8::try_from(random(256)).unwrap();
            }
        } else {
            for _ in 0..random(9) {
                line.extend_from_slice(PIECES[random(PIECES.len())]);
            }
        }
        line.retain(|byte| *byte != b'\n');
        *kinds.entry(check(&line)).or_default() += 1;
    }
    assert!(kinds.values().all(|count| *count > 10_000) && kinds.len() == 3, "{kinds:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5_000))]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
        let line: Vec<u8> = bytes.into_iter().filter(|byte| *byte != b'\n').collect();
        check(&line);
    }

    #[test]
    fn any_order_of_pieces_is_read_as_every_parser_reads_it(order in prop::collection::vec(0..PIECES.len(), 0..24)) {
        let line: Vec<u8> = order.into_iter().flat_map(|piece| PIECES[piece].to_vec()).collect();
        check(&line);
    }
}

#[test]
fn the_published_schema_of_the_policy_file_is_the_one_in_the_code() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("proof-pack/schemas/assay.gates.policy.v0.json");
    let schema = policy_json_schema().unwrap();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let hint = "UPDATE_SCHEMAS=1 cargo test --test policy published_schema";
    assert_eq!(std::fs::read_to_string(&path).unwrap(), schema, "regenerate it with: {hint}");
}

#[test]
fn every_policy_of_a_gate_validates_and_fits_the_published_schema() {
    let mut found = 0;
    let gates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("gates");
    for gate in std::fs::read_dir(gates).unwrap().flatten() {
        for file in std::fs::read_dir(gate.path()).into_iter().flatten().flatten() {
            let name = file.file_name().into_string().unwrap();
            if name.starts_with("policy") && name.ends_with(".yaml") {
                Policy::read(&file.path()).unwrap();
                let text = std::fs::read_to_string(file.path()).unwrap();
                let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
                assay_gates::evidence::schema::validate("assay.gates.policy.v0", &value).unwrap();
                found += 1;
            }
        }
    }
    assert!(found >= 3, "{found}");
}
