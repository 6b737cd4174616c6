//! What a maintainer reads after an SDK bump: the pinned version of a real SDK compared with the one before it.

use crate::measured::{assay_gates, run};
use crate::support;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Output;

const GATE: &str = "openai-agents-kernel-policy";
const PINNED: &str = "0.20.0";
const BEFORE: &str = "0.19.0";
/// The packages that an SDK version consists of, and what the registry says of the version before.
const PACKAGES: [(&str, &str); 4] = [
    (
        "@openai/agents",
        "sha512-3kPyu2cmWT5IgIhgDVmEYZxhZUY+vcS7jKPWIk6OGdezGuYtsbNtsa9cpv2uKvSTKc9xe1Xq6l1DF31mRbmTzQ==",
    ),
    (
        "@openai/agents-core",
        "sha512-TCK6yEsTlpgCcKfQvqNWhWcWv56750tkDwlxLOY5rAujTIHWBoJ0eVrFoL1jxqcpxR3vAPt80qWJ2nCzRMvESQ==",
    ),
    (
        "@openai/agents-openai",
        "sha512-+TSSYjDOIJl34lqw+9nM310Xc6xHbhqnl1mMrUeYEJcEX4ATkzlfbT4nTsHCdmE7yAHuM1TXnoCW0FAzxdHOHQ==",
    ),
    (
        "@openai/agents-realtime",
        "sha512-XZgJWGagYWCNkpWtLieOYKTgampSo968tbrGlOWI0hnU5RowqyvfNGmpLfeUHAjDOZ+J7hBoWKQk2/DLcz6rmw==",
    ),
];

/// The gate as it was before the bump: the same files, the older version in definition and lockfile.
fn before(gates: &Path) -> PathBuf {
    let gate = gates.join(GATE);
    std::fs::create_dir_all(&gate).unwrap();
    for entry in std::fs::read_dir(Path::new("gates").join(GATE)).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), gate.join(entry.file_name())).unwrap();
        }
    }
    for file in ["package.json", "gate.yaml"] {
        let text = std::fs::read_to_string(gate.join(file)).unwrap();
        assert!(text.contains(PINNED), "{file} pins another version than this test knows");
        std::fs::write(gate.join(file), text.replace(PINNED, BEFORE)).unwrap();
    }
    let lockfile = gate.join("package-lock.json");
    let text = std::fs::read_to_string(&lockfile).unwrap();
    let mut lock: Value = serde_json::from_str(&text.replace(PINNED, BEFORE)).unwrap();
    for (name, integrity) in PACKAGES {
        lock["packages"][format!("node_modules/{name}")]["integrity"] = integrity.into();
    }
    std::fs::write(&lockfile, serde_json::to_string_pretty(&lock).unwrap()).unwrap();
    gate
}

fn diff(base: &Path, head: &Path, more: &[&str]) -> (Output, String) {
    let mut command = assay_gates(&base.with_extension("state"));
    let output = command.arg("diff").args([base, head]).args(["--gate", GATE]).args(more).output().unwrap();
    let said = String::from_utf8(output.stdout.clone()).unwrap();
    (output, said)
}

#[test]
fn an_sdk_bump_is_compared_by_what_each_tool_did_before_and_does_now() {
    if !support::need_root() {
        return;
    }
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let gates = folder.path().join("gates");
    let older = before(&gates);
    let mut install = assay_gates(&folder.path().join("state"));
    let installed = install.args(["dependencies", "--install", "--gate", GATE, "--gates-dir"]).arg(&gates);
    let installed = installed.output().unwrap();
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let roots = ["before", "now", "worse"].map(|name| folder.path().join(name));
    let [base, head, worse] = &roots;
    run(base, &gates, GATE, &["--runs", "1"]);
    run(head, Path::new("gates"), GATE, &["--runs", "1"]);

    let (output, said) = diff(base, head, &[]);
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains(&format!("sdk                  @openai/agents {BEFORE} -> @openai/agents {PINNED}\n"))
    );
    let (output, said) = diff(base, head, &["--effects", "--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let document: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(document["base_sdks"][0]["sdk_version"], BEFORE);
    assert_eq!(document["head_sdks"][0]["sdk_version"], PINNED);
    assert_eq!(
        document["tools"][0]["effects"]["unchanged"][0]["path"],
        "/run/assay-gates/work/policy-input.txt"
    );

    // A version whose tool reaches for more than it did, though the agent says the same.
    let server = older.join("server.mjs");
    let text = std::fs::read_to_string(&server).unwrap();
    let handler = "CallToolRequestSchema, ({ params }) => {";
    assert!(text.contains(handler));
    let reaching = "CallToolRequestSchema, async ({ params }) => {
        const net = process.getBuiltinModule('node:net');
        await new Promise((done) => net.connect(9, '127.0.0.1').on('error', done));";
    std::fs::write(&server, text.replacen(handler, reaching, 1)).unwrap();
    run(worse, &gates, GATE, &["--runs", "1"]);
    let (output, said) = diff(base, worse, &["--effects"]);
    assert_eq!(output.status.code(), Some(11), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("read_file (calls: 1, was 1)\n  now also   connects to 127.0.0.1:9"), "{said}");
}
