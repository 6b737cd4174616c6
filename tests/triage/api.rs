//! Lists of more than one page, rate limits in all their forms, and what stands between us and GitHub.

use super::answers::{answer, check};
use super::github::{JobOf, RunOf, jobs_answer, mount_lists, mount_run, run_answer};
use super::situations::command;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, Request, ResponseTemplate};

const LIMITED: &str =
    "You have exceeded a secondary rate limit. Please wait a few minutes before you try again.";

async fn cli(server: &MockServer, arguments: &[&str]) -> (i32, String, String) {
    let mut all: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    all.extend(["--repo", "o/r", "--api-url"].map(str::to_owned));
    all.push(server.uri());
    tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir().unwrap();
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        command(&all, folder.path())
    })
    .await
    .unwrap()
}

/// A list that comes in pages, as GitHub gives them.
async fn pages(server: &MockServer, route: &str, key: &'static str, items: Vec<Value>) {
    let at = route.to_owned();
    Mock::given(method("GET"))
        .and(path(route))
        .respond_with(move |request: &Request| {
            let number = |name: &str, default| {
                let mut pairs = request.url.query_pairs();
                pairs.find(|(key, _)| key == name).map_or(default, |(_, value)| value.parse().unwrap())
            };
            let (size, page): (usize, usize) = (number("per_page", 30).min(100), number("page", 1));
            let some: Vec<&Value> = items.iter().skip(size * (page - 1)).take(size).collect();
            let body = json!({"total_count": items.len(), key: some});
            check(&at, 200, &body);
            ResponseTemplate::new(200).set_body_json(body)
        })
        .with_priority(1)
        .mount(server)
        .await;
}

fn runner(name: &str, status: &str, label: &str) -> Value {
    answer(
        "runner",
        json!({"id": 1, "name": name, "os": "linux", "status": status, "busy": false, "labels": [{"name": label}]}),
    )
}

/// A GitHub that takes every dispatch as run 100.
async fn dispatching(server: &MockServer) {
    let details = answer(
        "workflow-dispatch-response",
        json!({"workflow_run_id": 100, "run_url": "https://api.github.com/x", "html_url": "https://github.com/x"}),
    );
    Mock::given(method("POST"))
        .respond_with(ResponseTemplate::new(200).set_body_json(details))
        .mount(server)
        .await;
    let repository = answer("full-repository", json!({"default_branch": "main"}));
    for (at, body) in
        [("/repos/o/r", repository), ("/repos/o/r/actions/runs/100", run_answer(100, &RunOf::default()))]
    {
        check(at, 200, &body);
        Mock::given(method("GET"))
            .and(path(at))
            .respond_with(ResponseTemplate::new(200).set_body_json(body))
            .mount(server)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_on_any_page_with_the_label_in_any_case_is_found() {
    for (before, label) in [(0, "Assay-BPF-Runner"), (100, "assay-bpf-runner"), (250, "ASSAY-BPF-RUNNER")] {
        let server = MockServer::start().await;
        dispatching(&server).await;
        let mut runners = vec![runner("other", "offline", "self-hosted"); before];
        runners.push(runner("bpf-1", "online", label));
        pages(&server, "/repos/o/r/actions/runners", "runners", runners).await;
        let (exit, _, err) = cli(&server, &["dispatch", "--gates", "kernel-only"]).await;
        assert_eq!(exit, 0, "{before} {label}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_jobs_and_runs_on_later_pages_are_seen() {
    let server = MockServer::start().await;
    let step = |name: &str| format!("Gate: {name}: success");
    let mut run = RunOf {
        conclusion: Some("success".into()),
        title: Some("Gates kernel-only".into()),
        pack: Some([("manifest.json".to_owned(), "{\"gates\": []}".to_owned())].into()),
        ..RunOf::default()
    };
    run.jobs = (0..150)
        .map(|at| JobOf {
            name: format!("job {at}"),
            conclusion: Some("success".into()),
            steps: if at == 149 { vec![step("kernel-only")] } else { vec!["Build: success".to_owned()] },
            ..JobOf::default()
        })
        .collect();
    mount_run(&server, 100, &run).await;
    mount_lists(&server, &[run_answer(100, &run)], &[]).await;
    let jobs = jobs_answer(100, &run)["jobs"].as_array().unwrap().clone();
    pages(&server, "/repos/o/r/actions/runs/100/attempts/1/jobs", "jobs", jobs).await;
    let mut artifacts: Vec<Value> = (0..120)
        .map(|id| answer("artifact", json!({"id": id, "name": format!("coverage-{id}"), "expired": false})))
        .collect();
    artifacts.push(answer(
        "artifact",
        json!({"id": 100, "name": "assay-runner-delegated-proof-pack-100", "expired": false}),
    ));
    pages(&server, "/repos/o/r/actions/runs/100/artifacts", "artifacts", artifacts).await;
    let (exit, out, err) = cli(&server, &["triage", "100", "--format", "json"]).await;
    assert_eq!(exit, 0, "{err}");
    let found: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(found["class"], "passed", "{found:#}");
}

/// The first `count` answers to GET of the run are `limited`; the rest are the run.
async fn limited_at_first(server: &MockServer, count: u32, limited: ResponseTemplate) {
    let seen = AtomicU32::new(0);
    let run = RunOf {
        conclusion: Some("success".into()),
        title: Some("Gates kernel-only".into()),
        jobs: vec![JobOf {
            name: "Measure".into(),
            conclusion: Some("success".into()),
            steps: vec!["Gate: kernel-only: success".into()],
            ..JobOf::default()
        }],
        pack: Some([("manifest.json".to_owned(), "{\"gates\": []}".to_owned())].into()),
        ..RunOf::default()
    };
    mount_run(server, 100, &run).await;
    mount_lists(server, &[run_answer(100, &run)], &[]).await;
    let record = run_answer(100, &run);
    Mock::given(method("GET"))
        .and(path("/repos/o/r/actions/runs/100"))
        .respond_with(move |_: &Request| {
            if seen.fetch_add(1, Ordering::SeqCst) < count {
                limited.clone()
            } else {
                ResponseTemplate::new(200).set_body_json(record.clone())
            }
        })
        .with_priority(1)
        .mount(server)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_waits_for_every_form_of_a_rate_limit_and_goes_on() {
    let limited = |status: u16| ResponseTemplate::new(status).set_body_json(json!({"message": LIMITED}));
    let left = |answer: ResponseTemplate| {
        answer.insert_header("x-ratelimit-remaining", "4981").insert_header("x-ratelimit-reset", "4102444800")
    };
    let spent = chrono::Utc::now().timestamp() + 2;
    let spent = ResponseTemplate::new(403)
        .set_body_json(json!({"message": "API rate limit exceeded for user ID 1."}))
        .insert_header("x-ratelimit-remaining", "0")
        .insert_header("x-ratelimit-reset", spent.to_string());
    // The last one says neither when nor that the quota is used up: a minute, says GitHub's documentation.
    let forms = [
        ("403 with Retry-After", 1, left(limited(403)).insert_header("retry-after", "1")),
        ("429 with Retry-After", 1, limited(429).insert_header("retry-after", "1")),
        ("403 with a quota used up", 1, spent),
        ("403 without a word of when", 60, left(limited(403))),
    ];
    let running = forms.map(|(what, least, answer)| {
        tokio::spawn(async move {
            let server = MockServer::start().await;
            limited_at_first(&server, 1, answer).await;
            let began = Instant::now();
            let (exit, out, err) = cli(&server, &["watch", "100", "--interval", "0.01"]).await;
            assert_eq!((exit, out.as_str()), (0, "passed: kernel-only\n"), "{what}: {err}");
            assert!(began.elapsed() >= Duration::from_secs(least), "{what}: {:?}", began.elapsed());
        })
    });
    for one in running {
        one.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatch_that_a_rate_limit_answers_says_so_and_is_not_sent_again() {
    let server = MockServer::start().await;
    pages(
        &server,
        "/repos/o/r/actions/runners",
        "runners",
        vec![runner("bpf-1", "online", "assay-bpf-runner")],
    )
    .await;
    pages(&server, "/repos/o/r/actions/workflows/gates.yml/runs", "workflow_runs", Vec::new()).await;
    let limited = ResponseTemplate::new(403)
        .set_body_json(json!({"message": LIMITED}))
        .insert_header("x-ratelimit-remaining", "4981");
    Mock::given(method("POST")).respond_with(limited).expect(1).mount(&server).await;
    let (exit, _, err) = cli(&server, &["dispatch", "--ref", "main", "--interval", "0.01"]).await;
    assert_eq!(exit, 13, "{err}");
    assert!(err.contains("error[AG853]") && err.contains("secondary rate limit"), "{err}");
    assert!(err.contains("nothing was dispatched") && !err.contains("permission"), "{err}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_place_of_an_answer_is_asked_again_and_then_named() {
    let page =
        |kind: &str| ResponseTemplate::new(200).set_body_raw("<html><title>Sign in</title></html>", kind);
    for kind in ["text/html; charset=utf-8", "application/json"] {
        let server = MockServer::start().await;
        limited_at_first(&server, 2, page(kind)).await;
        let (exit, out, err) = cli(&server, &["watch", "100", "--interval", "0.01"]).await;
        assert_eq!((exit, out.as_str()), (0, "passed: kernel-only\n"), "{kind}: {err}");
        let server = MockServer::start().await;
        Mock::given(method("GET")).respond_with(page(kind)).expect(5).mount(&server).await;
        let (exit, _, err) = cli(&server, &["triage", "100"]).await;
        assert_eq!(exit, 1, "{err}");
        assert!(
            err.contains("error[AG854]") && err.contains("HTML page") && err.contains("HTTPS_PROXY"),
            "{err}"
        );
    }
}
