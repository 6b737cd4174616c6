//! `dispatch` sends once and only once, whatever the answer; `watch` follows to the end, through 502s and rate limits.

use super::answers::{answer, check, check_post_answer, check_posted};
use super::github::{JobOf, RunOf, jobs_answer, mount_lists, mount_run, run_answer};
use super::situations::command;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const POST: &str = "/repos/o/r/actions/workflows/gates.yml/dispatches";
const LIST: &str = "/repos/o/r/actions/workflows/gates.yml/runs";

/// What was posted, and how often.
#[derive(Clone, Default)]
struct Posts {
    count: Arc<AtomicU32>,
    body: Arc<Mutex<Value>>,
}

impl Posts {
    /// How often something was posted, each time what GitHub takes.
    fn count(&self) -> u32 {
        let count = self.count.load(Ordering::SeqCst);
        if count > 0 {
            check_posted(POST, &self.body.lock().unwrap());
        }
        count
    }

    fn nonce(&self) -> Option<String> {
        self.body.lock().unwrap()["inputs"]["nonce"].as_str().map(str::to_owned)
    }
}

async fn github(post: ResponseTemplate, shows_up: bool, runner: Option<&str>) -> (MockServer, Posts) {
    let server = MockServer::start().await;
    let posts = Posts::default();
    let given = posts.clone();
    Mock::given(method("POST"))
        .and(path(POST))
        .respond_with(move |request: &Request| {
            given.count.fetch_add(1, Ordering::SeqCst);
            *given.body.lock().unwrap() = serde_json::from_slice(&request.body).unwrap();
            post.clone()
        })
        .mount(&server)
        .await;
    let listed = posts.clone();
    let looks = AtomicU32::new(0);
    Mock::given(method("GET"))
        .and(path(LIST))
        .respond_with(move |_: &Request| {
            // A run shows up a little later, among others.
            let mut runs =
                vec![run_answer(7, &RunOf { title: Some("Gates all [another]".into()), ..RunOf::default() })];
            if let (true, true, Some(nonce)) =
                (shows_up, looks.fetch_add(1, Ordering::SeqCst) > 0, listed.nonce())
            {
                runs.push(run_answer(
                    100,
                    &RunOf { title: Some(format!("Gates all [{nonce}]")), ..RunOf::default() },
                ));
            }
            let body = json!({"total_count": runs.len(), "workflow_runs": runs});
            check(LIST, 200, &body);
            ResponseTemplate::new(200).set_body_json(body)
        })
        .mount(&server)
        .await;
    let runners: Vec<Value> = runner
        .iter()
        .map(|status| {
            answer(
                "runner",
                json!({"id": 1, "name": "bpf-1", "os": "linux", "status": status, "busy": false,
            "labels": [{"name": "self-hosted"}, {"name": "assay-bpf-runner"}]}),
            )
        })
        .collect();
    let runners = json!({"total_count": runners.len(), "runners": runners});
    get(&server, "/repos/o/r/actions/runners", 200, runners).await;
    let repository = answer("full-repository", json!({"default_branch": "main"}));
    get(&server, "/repos/o/r", 200, repository).await;
    get(&server, "/repos/o/r/actions/runs/100", 200, run_answer(100, &RunOf::default())).await;
    (server, posts)
}

async fn get(server: &MockServer, at: &str, status: u16, body: Value) {
    check(at, status, &body);
    let answer = ResponseTemplate::new(status).set_body_json(body);
    Mock::given(method("GET")).and(path(at.to_owned())).respond_with(answer).mount(server).await;
}

async fn cli(server: &MockServer, arguments: &[&str]) -> (i32, String, String) {
    let mut all: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    all.extend([
        "--repo".into(),
        "o/r".into(),
        "--api-url".into(),
        server.uri(),
        "--interval".into(),
        "0.01".into(),
    ]);
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        command(&all, folder.path())
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_the_run_is_enough() {
    let details = answer(
        "workflow-dispatch-response",
        json!({"workflow_run_id": 100, "run_url": "https://api.github.com/x", "html_url": "https://github.com/x"}),
    );
    check_post_answer(POST, 200, &details);
    let (server, posts) =
        github(ResponseTemplate::new(200).set_body_json(details), false, Some("online")).await;
    let (exit, out, err) = cli(&server, &["dispatch", "--gates", "kernel-only", "--ref", "topic"]).await;
    assert_eq!((exit, out.as_str()), (0, "https://github.com/o/r/actions/runs/100\n"), "{err}");
    let body = posts.body.lock().unwrap().clone();
    assert_eq!(
        (&body["ref"], &body["inputs"]["gates"], &body["return_run_details"]),
        (&json!("topic"), &json!("kernel-only"), &json!(true))
    );
    assert_eq!((posts.count(), posts.nonce().unwrap().len()), (1, 16));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_the_run_or_no_answer_at_all_is_resolved_by_listing_and_never_sent_again() {
    check_post_answer(POST, 204, &Value::Null);
    let cut = ResponseTemplate::new(200).insert_header("content-length", "5000").set_body_string("{");
    for (what, post) in [
        ("204", ResponseTemplate::new(204)),
        ("502", ResponseTemplate::new(502)),
        ("500", ResponseTemplate::new(500)),
        ("429", ResponseTemplate::new(429).insert_header("retry-after", "1")),
        ("403 with a rate limit", ResponseTemplate::new(403).insert_header("retry-after", "1")),
        ("200 with something else", ResponseTemplate::new(200).set_body_string("<html>")),
        ("200 that breaks off", cut),
    ] {
        let (server, posts) = github(post, true, Some("online")).await;
        let (exit, out, err) = cli(&server, &["dispatch", "--gates", "all"]).await;
        assert_eq!((exit, out.as_str()), (0, "https://github.com/o/r/actions/runs/100\n"), "{what}: {err}");
        assert_eq!(posts.count(), 1, "{what}");
        assert_eq!(posts.body.lock().unwrap()["ref"], "main", "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_no_run_shows_up_it_says_that_nobody_knows_and_how_to_look() {
    let (server, posts) = github(ResponseTemplate::new(502), false, Some("online")).await;
    let (exit, _, err) = cli(&server, &["dispatch"]).await;
    assert_eq!(exit, 13, "{err}");
    assert!(
        err.contains("error[AG862]") && err.contains("it was not sent again") && err.contains("gh run list"),
        "{err}"
    );
    assert_eq!(posts.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_refusal() {
    let refused = json!({"message": "Unexpected inputs provided"});
    check_post_answer(POST, 422, &refused);
    let refused = ResponseTemplate::new(422).set_body_json(refused);
    let (server, posts) = github(refused, true, Some("online")).await;
    let (exit, _, err) = cli(&server, &["dispatch"]).await;
    assert_eq!(exit, 1);
    assert!(err.contains("error[AG861]: 422: Unexpected inputs provided"), "{err}");
    assert_eq!(posts.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_online_runner_nothing_is_sent_unless_forced() {
    for runner in [None, Some("offline")] {
        let (server, posts) = github(ResponseTemplate::new(204), true, runner).await;
        let (exit, _, err) = cli(&server, &["dispatch"]).await;
        assert_eq!(exit, 13, "{err}");
        assert!(err.contains("error[AG860]") && err.contains("--force"), "{err}");
        assert_eq!(posts.count(), 0);
        let (exit, _, err) = cli(&server, &["dispatch", "--force"]).await;
        assert_eq!((exit, posts.count()), (0, 1), "{err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_may_not_see_runners_is_told_which_permission_is_missing() {
    let server = MockServer::start().await;
    let refused = json!({"message": "Resource not accessible by personal access token"});
    get(&server, "/repos/o/r/actions/runners", 403, refused).await;
    let (exit, _, err) = cli(&server, &["dispatch"]).await;
    assert_eq!(exit, 13, "{err}");
    assert!(err.contains("administration: read") && err.contains("--force"), "{err}");
}

fn job(conclusion: Option<&str>, steps: &[&str]) -> JobOf {
    JobOf {
        name: "Measure".into(),
        conclusion: conclusion.map(str::to_owned),
        steps: steps.iter().map(|step| (*step).to_owned()).collect(),
        ..JobOf::default()
    }
}

fn run(status: &str, conclusion: Option<&str>, job: JobOf) -> RunOf {
    RunOf {
        status: Some(status.into()),
        conclusion: conclusion.map(str::to_owned),
        jobs: vec![job],
        pack: Some(BTreeMap::new()),
        ..RunOf::default()
    }
}

/// A server that answers `first` to the first look at the run and at its jobs, and `then` afterwards.
async fn moving(first: &RunOf, then: &RunOf) -> MockServer {
    let server = MockServer::start().await;
    for (at, seen) in [
        ("/repos/o/r/actions/runs/100", run_answer(100, first)),
        ("/repos/o/r/actions/runs/100/attempts/1/jobs", jobs_answer(100, first)),
    ] {
        let once = async |answer| {
            Mock::given(method("GET"))
                .and(path(at))
                .respond_with(answer)
                .up_to_n_times(1)
                .mount(&server)
                .await
        };
        once(ResponseTemplate::new(200).set_body_json(seen)).await;
        // Between the two looks the API stumbles, once with an error and once with a rate limit.
        once(ResponseTemplate::new(502)).await;
        once(ResponseTemplate::new(403).insert_header("retry-after", "0")).await;
    }
    mount_run(&server, 100, then).await;
    mount_lists(&server, &[run_answer(100, then)], &[]).await;
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_prints_a_line_per_change_and_ends_green() {
    let early = run("in_progress", None, job(None, &["Check out: success", "Gate: kernel-only: running"]));
    let late = run(
        "completed",
        Some("success"),
        job(Some("success"), &["Check out: success", "Gate: kernel-only: success"]),
    );
    let server = moving(&early, &late).await;
    let (exit, out, err) = cli(&server, &["watch", "100"]).await;
    assert_eq!((exit, out.as_str()), (0, "passed: kernel-only\n"), "{err}");
    let expected = [
        "run, attempt 1: in_progress",
        "Measure: in_progress on bpf-1",
        "Measure / Check out: success",
        "Measure / Gate: kernel-only: in_progress",
        "run, attempt 1: success",
        "Measure: success",
        "Measure / Gate: kernel-only: success",
    ];
    assert_eq!(err.lines().collect::<Vec<_>>(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_ends_red_with_the_diagnosis_and_its_exit_code() {
    let early = run("queued", None, JobOf { status: Some("queued".into()), ..job(None, &[]) });
    let mut failed = job(Some("failure"), &["Check out: success", "Gate: kernel-only: failure"]);
    failed.annotations = vec!["Process completed with exit code 11.".into()];
    let server = moving(&early, &run("completed", Some("failure"), failed)).await;
    let (exit, out, err) = cli(&server, &["watch", "https://github.com/o/r/actions/runs/100"]).await;
    assert_eq!(exit, 11, "{err}");
    assert!(out.starts_with("runs_disagree · certain · no rerun"), "{out}");
    assert!(err.contains("waits for self-hosted, assay-bpf-runner"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_never_ends_a_green_run_with_0_when_a_gate_was_skipped() {
    let skipped = run(
        "completed",
        Some("success"),
        job(Some("success"), &["Gate: kernel-only: success", "Gate: kernel-policy: skipped"]),
    );
    let server = moving(&skipped, &skipped).await;
    let (exit, out, _) = cli(&server, &["watch", "100"]).await;
    assert_eq!(exit, 12);
    assert!(out.starts_with("skip_reported_as_success"), "{out}");
}

#[tokio::test(flavor = "multi_thread")]
async fn triage_tells_what_changed_since_the_last_green_run_and_where_it_was_seen_before() {
    let server = MockServer::start().await;
    let red = |head: &str, object: &str| {
        let mut run =
            run("completed", Some("failure"), job(Some("failure"), &["Gate: kernel-only: failure"]));
        run.head = Some(head.into());
        run.pack = Some(BTreeMap::from([(
            "payload/run.json".to_owned(),
            json!({"gates": ["kernel-only"], "object_sha256": object, "host": {"kernel": "6.18.1"}})
                .to_string(),
        )]));
        run
    };
    let mut green = red("bbbbbbbbbbbb", "sha256:11");
    green.conclusion = Some("success".into());
    green.jobs = vec![job(Some("success"), &["Gate: kernel-only: success"])];
    let (now, before) = (red("cccccccccccc", "sha256:22"), red("bbbbbbbbbbbb", "sha256:11"));
    mount_run(&server, 100, &now).await;
    mount_run(&server, 95, &before).await;
    mount_run(&server, 90, &green).await;
    let list = [run_answer(100, &now), run_answer(95, &before), run_answer(90, &green)];
    mount_lists(&server, &list, &list[2..]).await;
    let commit =
        |sha: &str, message: &str| answer("commit", json!({"sha": sha, "commit": {"message": message}}));
    let file = |name: &str| answer("diff-entry", json!({"filename": name}));
    let compare = answer(
        "commit-comparison",
        json!({
            "total_commits": 2,
            "commits": [commit("cc1", "Raise the ring\n\nlong"), commit("cc2", "Edit the workflow")],
            "files": [file(".github/workflows/gates.yml"), file("ebpf/capture.bpf.c")],
        }),
    );
    get(&server, "/repos/o/r/compare/bbbbbbbbbbbb...cccccccccccc", 200, compare).await;
    let mut arguments = vec!["triage", "100", "--format", "json", "--repo", "o/r", "--api-url"];
    let uri = server.uri();
    arguments.push(&uri);
    let owned: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let (exit, out, err) = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        command(&owned.iter().map(String::as_str).collect::<Vec<_>>(), folder.path())
    })
    .await
    .unwrap();
    assert_eq!(exit, 0, "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["changed"]["commits"], json!(["cc1 Raise the ring", "cc2 Edit the workflow"]), "{out}");
    assert_eq!(found["changed"]["workflow"], json!([".github/workflows/gates.yml"]));
    assert_eq!(found["changed"]["environment"], json!(["eBPF object: sha256:11 → sha256:22"]), "{out}");
    assert_eq!(found["history"]["same"], json!(["https://github.com/o/r/actions/runs/95"]));
    assert_eq!(found["history"]["looked_at"], 2);
    assert_eq!(found["environment"]["kernel"], "6.18.1");
    assert_eq!(found["environment"]["toolchain"], "unknown");
}
