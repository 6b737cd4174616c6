//! `assay-gates lane --prove`: a real pack, a real history, and a GitHub on loopback.

use crate::answers::{answer, check, check_post_answer, check_posted};
use crate::fixture::{GATE, POLICY, definition, passed_root, provenance, shipped};
use crate::history::Repository;
use assay_gates::files::sha256_file;
use assay_gates::judge::claims::ClaimClass::ThreeLayers;
use assay_gates::pack::{UnverifiedPack, build};
use serde_json::{Value, json};
use std::path::PathBuf;
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A head that needs `GATE`, a run that measured it, and its pack.
struct World {
    repository: Repository,
    _folder: tempfile::TempDir,
    pack: PathBuf,
    head: String,
    digest: String,
    steps: Vec<Value>,
    event: &'static str,
    protected: bool,
    status_code: u16,
    conclusion: &'static str,
    statuses: Value,
    log: String,
}

impl World {
    fn new() -> Self {
        let repository = Repository::new();
        repository.commit("gates/hidden_write/gate.yaml", &shipped(&definition(GATE, ThreeLayers, true), 0));
        repository.commit("gates/hidden_write/policy.yaml", POLICY);
        let head = repository.head();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir(&root).unwrap();
        passed_root(&root);
        let mut made = provenance();
        made.source.head_sha.clone_from(&head);
        made.input_gates = Some("hidden_write".to_owned());
        made.path_trees = assay_gates::pack::Provenance::from_environment(repository.path()).path_trees;
        made.path_trees.retain(|_, tree| tree.oid.is_some());
        let pack = folder.path().join("pack.zip");
        build(&root, &folder.path().join("pack"), Some(&pack), &made).unwrap();
        let digest = sha256_file(&pack).unwrap().0.to_string();
        let steps = vec![step("Build", "success"), step(&format!("Gate: {GATE}"), "success")];
        let verified = UnverifiedPack::open(&pack).unwrap().verify().unwrap();
        let chained = verified.chains().iter().flat_map(|chain| &chain.lines);
        let mut log = "2026-11-21T10:00:00.0000000Z ##[group]Run sudo -n assay-gates run\n".to_owned();
        chained.for_each(|line| log.push_str(&format!("2026-11-21T10:00:30.0000000Z {line}\n")));
        Self {
            repository,
            _folder: folder,
            pack,
            head,
            digest,
            steps,
            event: "workflow_dispatch",
            protected: true,
            status_code: 201,
            conclusion: "success",
            statuses: json!([]),
            log,
        }
    }

    /// Holds the pack against the run; gives exit code and what was said.
    fn verify(&self) -> (Option<i32>, String) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(self.serve());
        let output = assert_cmd::Command::cargo_bin("assay-gates")
            .unwrap()
            .args(["verify", "--run", "owner/name#42", "--api-url", &server.uri()])
            .arg(&self.pack)
            .env("GH_TOKEN", "t")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    }

    /// Asks for the proof; gives exit code, standard output, and the statuses that were posted.
    fn prove(&self) -> (Option<i32>, String, Vec<Value>) {
        self.ask(true)
    }

    /// Asks for the proof, or what the run says without one.
    fn ask(&self, with_pack: bool) -> (Option<i32>, String, Vec<Value>) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(self.serve());
        let mut command = assert_cmd::Command::cargo_bin("assay-gates").unwrap();
        if with_pack {
            command.args(["lane", "--prove"]).arg(&self.pack);
        } else {
            command.arg("lane");
        }
        let output = command
            .args([
                "--base",
                // Whoever is checked may name what they like: nothing would have changed.
                "HEAD",
                "--head",
                "HEAD",
                "--run",
                "42",
                "--post-status",
                "--format",
                "json",
            ])
            .args(["--repo", "owner/name", "--api-url", &server.uri()])
            .args(["--lanes", concat!(env!("CARGO_MANIFEST_DIR"), "/gates/lanes.yaml")])
            .args(["--gates-dir", concat!(env!("CARGO_MANIFEST_DIR"), "/gates")])
            .arg("--repository")
            .arg(self.repository.path())
            .env("GH_TOKEN", "t")
            .output()
            .unwrap();
        let asked = runtime.block_on(server.received_requests()).unwrap();
        let posted = posts(&asked);
        for request in asked.iter().filter(|request| request.method.as_str() == "POST") {
            assert_eq!(request.url.path(), format!("/repos/owner/name/statuses/{}", self.head));
        }
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text, posted)
    }

    async fn serve(&self) -> MockServer {
        let server = MockServer::start().await;
        let run = answer(
            "workflow-run",
            json!({
                "id": 42, "run_attempt": 1, "event": self.event, "path": ".github/workflows/gates.yml@refs/heads/main",
                "head_sha": self.head, "status": "completed", "conclusion": self.conclusion, "name": null, "head_branch": null,
            }),
        );
        let jobs = json!({"total_count": 1, "jobs": [answer("job", json!({
            "id": 1, "run_id": 42, "name": "Measure", "status": "completed", "conclusion": "success", "steps": self.steps,
        }))]});
        let artifacts = json!({"total_count": 1, "artifacts": [answer("artifact", json!({
            "id": 9, "name": "assay-runner-delegated-proof-pack-42", "size_in_bytes": 1, "digest": self.digest,
        }))]});
        for (below, body) in [("", run), ("/attempts/1/jobs", jobs), ("/artifacts", artifacts)] {
            get(&server, &format!("/repos/owner/name/actions/runs/42{below}"), body).await;
        }
        // A log is somewhere else.
        let logs = "/repos/owner/name/actions/jobs/1/logs";
        check(logs, 302, &Value::Null);
        let elsewhere = ResponseTemplate::new(302).insert_header("location", format!("{}/log", server.uri()));
        Mock::given(method("GET")).and(path(logs)).respond_with(elsewhere).mount(&server).await;
        let log = ResponseTemplate::new(200).set_body_string(self.log.clone());
        Mock::given(method("GET")).and(path("/log")).respond_with(log).mount(&server).await;
        let branch = answer(
            "branch-with-protection",
            json!({
                "name": "main", "protected": self.protected, "commit": {"sha": self.repository.commit_of("main")},
            }),
        );
        let statuses = format!("/commits/{}/statuses", self.head);
        for (below, body) in [
            ("", answer("full-repository", json!({"default_branch": "main"}))),
            ("/branches/main", branch),
            (statuses.as_str(), self.statuses.clone()),
        ] {
            get(&server, &format!("/repos/owner/name{below}"), body).await;
        }
        take_status(&server, self.status_code).await;
        server
    }
}

/// An answer as GitHub's description has it.
async fn get(server: &MockServer, at: &str, body: Value) {
    check(at, 200, &body);
    let given = ResponseTemplate::new(200).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(given).mount(server).await;
}

async fn take_status(server: &MockServer, code: u16) {
    let body = if code < 400 { answer("status", json!({})) } else { json!({"message": "m"}) };
    check_post_answer("/repos/owner/name/statuses/head", code, &body);
    let given = ResponseTemplate::new(code).set_body_json(body);
    Mock::given(method("POST")).respond_with(given).mount(server).await;
}

fn step(name: &str, conclusion: &str) -> Value {
    json!({
        "number": 1, "name": name, "status": "completed", "conclusion": conclusion,
        "started_at": "2026-11-21T10:00:00Z", "completed_at": "2026-11-21T10:01:00Z",
    })
}

#[test]
fn a_pack_that_git_and_github_agree_with_proves_the_head_and_says_so_on_the_commit() {
    let (exit, text, posted) = World::new().prove();
    assert_eq!(exit, Some(0), "{text}");
    let proof: Value = serde_json::from_str(&text).unwrap();
    assay_gates::evidence::schema::validate("assay.gates.lane_proof.v0", &proof).unwrap();
    assert_eq!((&proof["proved"], &proof["required"]), (&true.into(), &GATE.into()));
    assert_eq!(posted.len(), 1);
    assert_eq!(posted[0]["state"], "success");
    assert_eq!(posted[0]["context"], "lane-check/proof");
}

/// Each lie that is told, and the condition that finds it.
#[test]
fn no_single_source_is_believed_alone() {
    type Change = (&'static str, fn(&mut World));
    let changes: [Change; 8] = [
        ("chain_in_log", |w| w.log = w.log.replace("head=sha256:", "head=sha256:0")),
        ("base_protected", |w| w.protected = false),
        ("judged_by_head", |w| w.repository.commit("gates/hidden_write/policy.yaml", "tools: {}\n")),
        ("artifact_digest", |w| w.digest = format!("sha256:{}", "0".repeat(64))),
        ("steps_witness_gates", |w| w.steps[1]["conclusion"] = "failure".into()),
        ("gates_claim_steps", |w| w.steps.push(step("Gate: kernel-only", "success"))),
        ("run_event", |w| w.event = "pull_request"),
        ("content_trees", |w| w.repository.commit("gates/hidden_write/gate.yaml", "changed once more")),
    ];
    for (expected, change) in changes {
        let mut world = World::new();
        change(&mut world);
        // The status belongs to the head as it is now.
        world.head = world.repository.head();
        let (exit, text, posted) = world.prove();
        assert_eq!(exit, Some(10), "{expected}: {text}");
        assert!(text.contains("AG142"), "{text}");
        let proof: Value = serde_json::from_str(text.split("error[").next().unwrap()).unwrap();
        let failed: Vec<&str> = proof["checks"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|check| check["held"] == false)
            .map(|check| check["name"].as_str().unwrap())
            .collect();
        assert!(failed.contains(&expected), "{expected}: {failed:?}");
        assert_eq!(posted[0]["state"], "failure", "{expected}");
    }
}

/// Evidence that was made elsewhere or afterwards is another chain than the one that the job's log knows.
#[test]
fn a_pack_is_the_one_that_the_job_measured_only_if_its_log_says_so() {
    let (exit, text) = World::new().verify();
    assert_eq!(exit, Some(0), "{text}");
    assert!(text.contains("owner/name#42") && !text.contains("(--run)"), "{text}");
    type Change = (&'static str, fn(&mut World));
    let changes: [Change; 6] = [
        ("chain_in_log", |w| w.log.clear()),
        ("chain_in_log", |w| w.log = w.log.replace("nonce=", "nonce=0")),
        ("chain_in_log", |w| w.log = World::new().log),
        ("chain_in_log", |w| w.steps[1]["started_at"] = "2026-11-21T10:00:50Z".into()),
        ("steps_witness_gates", |w| w.steps[1]["conclusion"] = "failure".into()),
        ("run_head", |w| w.head = "0".repeat(40)),
    ];
    for (expected, change) in changes {
        let mut world = World::new();
        change(&mut world);
        let (exit, text) = world.verify();
        assert_eq!(exit, Some(14), "{expected}: {text}");
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_pack_that_does_not_verify_is_refused_before_anyone_is_asked() {
    let world = World::new();
    std::fs::write(&world.pack, "not a zip").unwrap();
    let (exit, text, posted) = world.prove();
    assert_eq!(exit, Some(14), "{text}");
    assert_eq!(posted, [json!(null); 0]);
}

#[test]
fn a_status_that_is_refused_is_an_error_though_the_head_is_proved() {
    let mut world = World::new();
    world.status_code = 403;
    let (exit, text, posted) = world.prove();
    assert_eq!(exit, Some(13), "{text}");
    assert!(text.contains("AG143") && text.contains("commit statuses: write"), "{text}");
    assert_eq!(posted.len(), 1, "a POST is never repeated");
}

/// Asks what a head needs, with these statuses on it; gives what was posted.
fn asked(repository: &Repository, statuses: Value) -> (Vec<Value>, String) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(async {
        let server = MockServer::start().await;
        get(&server, &format!("/repos/owner/name/commits/{}/statuses", repository.head()), statuses).await;
        take_status(&server, 201).await;
        server
    });
    let (exit, _, err) = repository.lane(&[
        "--base",
        "main",
        "--post-status",
        "--repo",
        "owner/name",
        "--api-url",
        &server.uri(),
    ]);
    assert_eq!(exit, Some(0), "{err}");
    (posts(&runtime.block_on(server.received_requests()).unwrap()), err)
}

fn posts(requests: &[wiremock::Request]) -> Vec<Value> {
    let posts = requests.iter().filter(|request| request.method.as_str() == "POST");
    let body = |request: &wiremock::Request| {
        let posted: Value = serde_json::from_slice(&request.body).unwrap();
        check_posted(request.url.path(), &posted);
        posted
    };
    posts.map(body).collect()
}

fn status(state: &str, context: &str, description: &str) -> Value {
    answer("status", json!({"id": 1, "state": state, "context": context, "description": description}))
}

#[test]
fn without_a_pack_the_status_says_what_is_needed() {
    let repository = Repository::new();
    repository.commit("gates/hidden_write/gate.yaml", "changed");
    let (posted, _) = asked(&repository, json!([]));
    assert_eq!(posted[0]["state"], "pending");
    assert_eq!(posted[0]["description"], format!("needs gate {GATE}: assay-gates dispatch --gates {GATE}"));
}

#[test]
fn a_proof_that_was_there_first_is_not_taken_back_by_the_question() {
    let repository = Repository::new();
    repository.commit("gates/hidden_write/gate.yaml", "changed");
    let context = "lane-check/proof";
    let own = format!("gate {GATE} passed in run 42");
    for (statuses, kept) in [
        (json!([status("success", context, &own)]), true),
        (json!([status("success", context, "gate all passed in run 42")]), true),
        (json!([status("success", "ci", "green"), status("success", context, &own)]), true),
        // What was shown is another gate, an older look, another context, or no proof.
        (json!([status("success", context, "gate kernel-only passed in run 42")]), false),
        (json!([status("failure", context, "red"), status("success", context, &own)]), false),
        (json!([status("success", "ci", &own)]), false),
        (json!([status("success", context, "no gate is needed for this change")]), false),
        (json!([status("pending", context, &own)]), false),
    ] {
        let (posted, err) = asked(&repository, statuses.clone());
        assert_eq!(posted.is_empty(), kept, "{statuses}");
        assert_eq!(err.contains("stays proved"), kept, "{err}");
    }
}

#[test]
fn a_run_without_a_proof_is_named_by_how_it_ended_and_never_as_unknown() {
    let proof = status("success", "lane-check/proof", &format!("gate {GATE} passed in run 41"));
    for (conclusion, state, standing) in [
        ("cancelled", Some("pending"), json!([])),
        ("timed_out", Some("pending"), json!([])),
        ("failure", Some("failure"), json!([])),
        // Only what was red takes a proof back.
        ("cancelled", None, json!([proof.clone()])),
        ("startup_failure", None, json!([proof.clone()])),
        ("failure", Some("failure"), json!([proof.clone()])),
    ] {
        let mut world = World::new();
        world.conclusion = conclusion;
        world.statuses = standing;
        let (exit, text, posted) = world.ask(false);
        assert_eq!(exit, Some(10), "{text}");
        assert!(text.contains("run 42 ") && text.contains("AG142"), "{text}");
        assert!(conclusion == "failure" || text.contains(conclusion), "{text}");
        let states: Vec<&str> = posted.iter().map(|status| status["state"].as_str().unwrap()).collect();
        assert_eq!(states, state.into_iter().collect::<Vec<_>>(), "{conclusion}: {text}");
        for status in &posted {
            let said = status["description"].as_str().unwrap();
            assert!(said.contains("run 42") && !said.contains("unknown"), "{said}");
        }
    }
    // A run that succeeded speaks through its pack.
    let (exit, text, posted) = World::new().ask(false);
    assert_eq!((exit, posted.len()), (Some(2), 0), "{text}");
    assert!(text.contains("--prove"), "{text}");
}
