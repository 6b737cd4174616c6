//! A gate of one's own, proposed from one measured run.

use crate::fixtures::{assembled, effects, logs, open, summary, window};
use crate::support;
use assay_gates::capture::Effect;
use assay_gates::evidence::{Archive, ToolEffects};
use assay_gates::gate::{AgentShim, Presence, parse};
use assay_gates::run::propose;
use assert_cmd::Command;
use std::path::Path;

const WORK: &str = "/run/assay-gates/work";

#[test]
fn a_run_with_every_layer_is_proposed_as_it_was_seen() {
    let folder = tempfile::tempdir().unwrap();
    let mut summary = summary();
    summary.calls = vec![window("tc_1", "read_file", false)];
    let inside =
        Effect { call: Some("tc_1".to_owned()), ..open(8, "/run/assay-gates/work/policy-input.txt", 0, 3) };
    let all = effects().into_iter().chain([inside]).collect();
    assembled(folder.path(), &summary, all, &logs()).unwrap();
    let archive = Archive::open(&folder.path().join("runner-kernel-only.tar.gz")).unwrap();
    let calls: ToolEffects =
        serde_json::from_slice(&std::fs::read(folder.path().join("tool_effects.json")).unwrap()).unwrap();
    let command = vec!["node".to_owned(), "it's: \"x\" #1\n".to_owned()];
    let draft = propose::draft("my-agent", command, AgentShim::OpenaiAgents, true);
    let runs = [propose::Shown { archive, effects: calls, origin: Some("corroborated".to_owned()) }];
    let text = propose::gate_yaml(&draft, &runs, WORK);
    let gate = parse(&text, "gate.yaml").unwrap();
    assert_eq!((gate.layers.policy, gate.layers.sdk), (Presence::Required, Presence::Required));
    assert_eq!(gate.command, draft.command, "whatever stands in an argument");
    insta::assert_snapshot!(text, @r#"
    # Proposed from one measured run of this gate: everything below `expect` was seen in each.
    # Read it, take out what may differ from run to run, and then hold the agent to it.
    schema: assay.gates.gate.v0
    id: my-agent
    title: "What my-agent does"
    group: opt-in
    label: my-agent
    run_id: run_my_agent
    archive: runner-my-agent.tar.gz
    agent_shim: openai-agents
    layers:
      policy: required
      sdk: required
    command: [node, "it's: \"x\" #1\n"]
    policy:
      file: policy.yaml
    timeout_seconds: 120
    expect:
      exit_code: 0
      # Files of the work folder that must be touched.
      work_paths: [input.txt, none.txt, output.txt, policy-input.txt]
      # Programs that must run.
      execs: [/usr/bin/node]
      # Opens in the work folder, each exactly this often.
      opens:
        - {path: input.txt, access: read, count: 1}
        - {path: none.txt, access: read, status: error, count: 1}
        - {path: output.txt, access: write, flags: [create, truncate], count: 1}
        - {path: policy-input.txt, access: read, count: 1}
      # Exactly these decisions, in this order.
      decisions:
        - {tool_call_id: tc_1, tool: read_file, decision: allow}
      # What each call does in the work folder, and nothing else there.
      tool_effects:
        tc_1:
          - {operation: open, path: policy-input.txt, access: read}
      policy_origin: corroborated
      sdk:
        source: openai-agents-fixture
        name: "@openai/agents"
        version: "0.11.4"
        events: [tool_call_started, tool_call_completed, run_finished]
        tool_call_ids: [tc_1]
      correlation: clean
    "#);
    assert_eq!(
        propose::policy_yaml(&runs).lines().skip(1).collect::<Vec<_>>(),
        ["schema: assay.gates.policy.v0", "default: deny", "tools:", "  allow: [read_file]"]
    );
}

fn assay_gates(place: &Path, arguments: &[&str]) -> (i32, String, String) {
    let output = Command::cargo_bin("assay-gates")
        .unwrap()
        .args(arguments)
        .current_dir(place)
        .env("ASSAY_GATES_STATE_DIR", place.join("state"))
        .env_remove("GITHUB_ACTIONS")
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_users_own_agent_becomes_a_gate_that_passes_and_then_holds_it() {
    if !support::need_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let gate = place.path().join("gates/my-agent");
    std::fs::create_dir_all(&gate).unwrap();
    let agent = gate.join("agent.sh");
    std::fs::write(&agent, "echo hello > note.txt\ncat note.txt\n").unwrap();
    let (code, stdout, stderr) =
        assay_gates(place.path(), &["gate", "init", "my-agent", "--", "/bin/sh", "agent.sh"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    let text = std::fs::read_to_string(gate.join("gate.yaml")).unwrap();
    let proposed = parse(&text, "gate.yaml").unwrap();
    assert_eq!(proposed.command, ["/bin/sh", "/run/assay-gates/fixture/agent.sh"]);
    assert_eq!(proposed.expect.work_paths, ["note.txt"]);
    assert!(gate.join("baseline.json").is_file());
    assert!(stderr.contains("my-agent: passed (runs agree"), "it has run: {stderr}");
    let line = stderr.lines().last().unwrap();
    assert!(line.ends_with("assay-gates run --gate my-agent --against-baseline"), "{line}");

    let run = |root: &str| {
        assay_gates(place.path(), &["run", "--gate", "my-agent", "--runs", "2", "--no-pack", "--root", root])
    };
    let (code, _, stderr) = run("before");
    assert_eq!(code, 0, "{stderr}");
    // The next version of the agent writes where it read.
    std::fs::write(&agent, "echo hello > note.txt\ncat note.txt\necho more > note.txt\n").unwrap();
    let (code, _, stderr) = run("after");
    assert_eq!(code, 10, "{stderr}");

    let said =
        ["gate", "init", "my-agent", "--force", "--env", "SAYS=it's \"so\"", "--", "/bin/sh", "agent.sh"];
    let (code, _, stderr) = assay_gates(place.path(), &said);
    assert_eq!(code, 0, "{stderr}");
    let text = std::fs::read_to_string(gate.join("gate.yaml")).unwrap();
    let proposed = parse(&text, "gate.yaml").unwrap();
    assert_eq!(proposed.env["SAYS"], "it's \"so\"");
    let (code, _, stderr) = run("forced");
    assert_eq!(code, 0, "{stderr}");

    let again = assay_gates(place.path(), &["gate", "init", "my-agent", "--", "/bin/sh", "agent.sh"]);
    assert_eq!(again.0, 2, "what its user has edited is not written over");
    assert_eq!(std::fs::read_to_string(gate.join("gate.yaml")).unwrap(), text);
    for name in ["My-Agent", "../x", "", "-x"] {
        assert_eq!(assay_gates(place.path(), &["gate", "init", name, "--", "true"]).0, 2, "{name}");
    }
    assert!(!place.path().join("x").exists());
}

#[test]
fn a_program_that_fails_is_no_gate_unless_it_is_to_fail() {
    if !support::need_root() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let gate = place.path().join("gates/broken");
    std::fs::create_dir_all(&gate).unwrap();
    std::fs::write(gate.join("agent.sh"), "echo 'cannot reach the model' >&2\nexit 3\n").unwrap();
    for (command, code, words) in [
        (vec!["/bin/sh", "agent.sh"], 10, vec!["exit status 3", "cannot reach the model", "--allow-failure"]),
        (vec!["/bin/sh", "agnt.sh"], 10, vec!["agnt.sh"]),
        (vec!["pyhton3", "agent.sh"], 2, vec!["pyhton3"]),
    ] {
        let arguments: Vec<&str> =
            ["gate", "init", "broken", "--policy", "--"].into_iter().chain(command).collect();
        let (found, stdout, stderr) = assay_gates(place.path(), &arguments);
        assert_eq!((found, stdout.as_str()), (code, ""), "{stderr}");
        assert!(words.iter().all(|word| stderr.contains(word)), "{stderr}");
        let left: Vec<_> =
            std::fs::read_dir(&gate).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["agent.sh"], "nothing is left of it");
    }
    let kept = ["gate", "init", "broken", "--allow-failure", "--", "/bin/sh", "agent.sh"];
    let (code, _, stderr) = assay_gates(place.path(), &kept);
    assert_eq!(code, 0, "{stderr}");
    let text = std::fs::read_to_string(gate.join("gate.yaml")).unwrap();
    assert_eq!(parse(&text, "gate.yaml").unwrap().expect.exit_code, 3);
}

#[test]
fn a_policy_of_the_users_is_put_in_place_and_never_written_over_unasked() {
    let place = tempfile::tempdir().unwrap();
    let gate = place.path().join("gates/my-agent");
    std::fs::create_dir_all(&gate).unwrap();
    std::fs::write(gate.join("policy.yaml"), propose::OPEN_POLICY).unwrap();
    let own = place.path().join("own.yaml");
    std::fs::write(&own, "schema: assay.gates.policy.v0\ndefault: deny\n").unwrap();
    let arguments = ["gate", "init", "my-agent", "--policy", "own.yaml", "--", "/bin/true"];
    let (code, _, stderr) = assay_gates(place.path(), &arguments);
    assert_eq!(code, 2, "{stderr}");
    assert!(stderr.contains("--force"), "{stderr}");
    assert_eq!(std::fs::read_to_string(gate.join("policy.yaml")).unwrap(), propose::OPEN_POLICY);
    std::fs::write(&own, "default: perhaps\n").unwrap();
    assert_eq!(
        assay_gates(place.path(), &arguments).0,
        2,
        "what is no policy is refused before it is put anywhere"
    );
}
