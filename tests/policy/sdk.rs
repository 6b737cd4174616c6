//! The official clients and real servers: through the proxy everything looks as it does without it.

use crate::proxy::{decisions, log_of};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Allows everything: what differs must come from the proxy itself.
const OPEN: &str = "schema: assay.gates.policy.v0\ndefault: allow\n";

fn packages() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/sdk");
    assert!(folder.join("node_modules").exists(), "not installed: scripts/setup.sh test");
    folder
}

/// One session of a client of `generation` with a server of `kind`, by way of the proxy or not.
struct Session {
    child: Child,
    folder: tempfile::TempDir,
}

impl Session {
    fn start(generation: &str, kind: &str, shared: &Path, policy: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let packages = packages();
        let module =
            |name: &str| packages.join("node_modules/@modelcontextprotocol").join(name).join("dist/index.js");
        let mut command = Command::new("node");
        command.arg(packages.join("session.mjs")).args([generation, kind]).arg(shared);
        if let Some(policy) = policy {
            std::fs::write(folder.path().join("policy.yaml"), policy).unwrap();
            command.arg(env!("CARGO_BIN_EXE_assay-gates")).args(["mcp-wrap", "--policy"]);
            command
                .arg(folder.path().join("policy.yaml"))
                .arg("--decision-log")
                .arg(log_of(folder.path()))
                .arg("--");
        }
        command.arg("node");
        match kind {
            "filesystem" => command.arg(module("server-filesystem")).arg(shared),
            "everything" => command.arg(module("server-everything")).arg("stdio"),
            _ => command.arg(packages.join("modern.mjs")),
        };
        let command = command.env_remove("ASSAY_GATES_CONTROL").stdin(Stdio::null()).stdout(Stdio::piped());
        Self { child: command.spawn().unwrap(), folder }
    }

    /// What the client saw, and the decisions if there was a proxy.
    fn end(self) -> (Value, Vec<Value>) {
        let output = self.child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = log_of(self.folder.path());
        let decided = if log.exists() { decisions(&log) } else { Vec::new() };
        (serde_json::from_slice(&output.stdout).unwrap(), decided)
    }
}

/// Runs a session directly and one through the proxy side by side, and compares what the clients saw.
fn same_through_the_proxy(generation: &str, kind: &str) -> (Value, Vec<Value>) {
    // Each has a folder of its own of the same name, since paths stand in messages.
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let sessions: Vec<Session> = folders
        .iter()
        .zip([None, Some(OPEN)])
        .map(|(folder, policy)| {
            std::fs::write(folder.path().join("input.txt"), "some text\n").unwrap();
            Session::start(generation, kind, &folder.path().canonicalize().unwrap(), policy)
        })
        .collect();
    let mut seen = sessions.into_iter().zip(&folders).map(|(session, folder)| {
        let (seen, decided) = session.end();
        let name = folder.path().canonicalize().unwrap().display().to_string();
        let text = seen.to_string().replace(&name, "/folder");
        (serde_json::from_str::<Value>(&text).unwrap(), decided)
    });
    let (direct, _) = seen.next().unwrap();
    let (proxied, decided) = seen.next().unwrap();
    for (what, answer) in direct.as_object().unwrap() {
        assert_eq!(&proxied[what], answer, "{generation} {kind}: {what}");
    }
    assert_eq!(direct, proxied);
    (proxied, decided)
}

fn outcomes(decided: &[Value]) -> Vec<String> {
    decided.iter().map(|line| line["data"]["decision"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_filesystem_server_is_the_same_to_both_generations_of_client() {
    for generation in ["1", "2"] {
        let (seen, decided) = same_through_the_proxy(generation, "filesystem");
        assert_eq!(seen["read"]["content"][0]["text"], "some text\n");
        assert_eq!(seen["read large"]["same"], true, "{}", seen["read large"]);
        assert!(seen["tools"]["tools"].as_array().unwrap().len() > 5);
        assert_eq!(seen["together"].as_array().unwrap().len(), 20);
        assert_eq!(decided[0]["data"]["tool_call_id"], "tc_read");
        assert_eq!(outcomes(&decided), vec!["allow"; 27]);
        for line in &decided {
            assay_gates::evidence::schema::validate("assay.gates.tool_decision.v0", line).unwrap();
        }
    }
}

#[test]
fn progress_cancellation_resources_and_prompts_are_the_same() {
    let (seen, decided) = same_through_the_proxy("1", "everything");
    assert_eq!(seen["after the cancellation"]["content"][0]["text"], "Echo: still here");
    assert_eq!(outcomes(&decided), vec!["allow"; 6]);
}

#[test]
fn the_newest_revision_passes_too() {
    let (seen, decided) = same_through_the_proxy("2", "modern");
    assert_eq!(seen["greet"]["content"][0]["text"], "hello");
    assert_eq!(decided[0]["data"]["tool_call_id"], "tc_greet");
}

#[test]
fn a_client_gets_a_refusal_as_an_error_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    std::fs::write(root.join("input.txt"), "some text\n").unwrap();
    let policy =
        format!("{OPEN}tools: {{deny: [write_file]}}\npaths:\n  read_file: {{path: [{}]}}\n", root.display());
    let (seen, decided) = Session::start("1", "filesystem", &root, Some(&policy)).end();
    assert_eq!(seen["read"]["content"][0]["text"], "some text\n");
    for (what, reason) in
        [("outside", "E_ARG_PATH"), ("wrong arguments", "E_ARG_PATH"), ("write large", "E_TOOL_DENIED")]
    {
        assert_eq!(
            (&seen[what]["error"], &seen[what]["data"]["reason_code"]),
            (&(-32010).into(), &reason.into())
        );
    }
    assert!(!root.join("large.txt").exists());
    assert_eq!(outcomes(&decided).iter().filter(|outcome| *outcome == "deny").count(), 3);
    for line in &decided {
        assay_gates::evidence::schema::validate("assay.gates.tool_decision.v0", line).unwrap();
    }
}
