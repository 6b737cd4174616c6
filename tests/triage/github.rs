//! A GitHub of one repository, `o/r`, on loopback: what a situation says, and 404 for the rest.

use super::answers::{answer, check};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// A job of a situation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobOf {
    pub name: String,
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub conclusion: Option<String>,
    #[serde(default)]
    pub runner: Option<String>,
    /// `name: conclusion`; `running` for one that hasn't ended.
    #[serde(default)]
    pub steps: Vec<String>,
    #[serde(default)]
    pub annotations: Vec<String>,
    /// The job's own log; absent: 404.
    #[serde(default)]
    pub log: Option<String>,
}

/// A run of a situation.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunOf {
    #[serde(default)]
    pub status: Option<String>,
    #[serde(default)]
    pub conclusion: Option<String>,
    #[serde(default)]
    pub title: Option<String>,
    #[serde(default)]
    pub head: Option<String>,
    #[serde(default)]
    pub attempt: Option<u32>,
    #[serde(default)]
    pub jobs: Vec<JobOf>,
    /// Files of the log zip; absent: 404; one file named `corrupt`: no zip at all.
    #[serde(default)]
    pub logs: Option<BTreeMap<String, String>>,
    /// Files of the pack; absent: no artifact; one file named `expired`: an expired artifact.
    #[serde(default)]
    pub pack: Option<BTreeMap<String, String>>,
    /// The pack as a zip, when it was really built.
    #[serde(skip)]
    pub pack_zip: Option<Vec<u8>>,
    /// 403 for everything but the run and its jobs.
    #[serde(default)]
    pub forbidden: bool,
}

pub fn zip_of(files: &BTreeMap<String, String>) -> Vec<u8> {
    if files.contains_key("corrupt") {
        return b"PK\x03\x04 and then nothing that fits".to_vec();
    }
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, text) in files {
        zip.start_file(name.as_str(), zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

pub fn run_answer(id: u64, run: &RunOf) -> Value {
    let attempt = run.attempt.unwrap_or(1);
    let title = run.title.clone().unwrap_or_else(|| "Gates all".to_owned());
    answer(
        "workflow-run",
        json!({
            "id": id, "name": null, "display_title": title, "path": ".github/workflows/gates.yml@refs/heads/main",
            "event": "workflow_dispatch", "status": run.status.as_deref().unwrap_or("completed"),
            "conclusion": run.conclusion, "run_attempt": attempt, "head_sha": run.head.as_deref().unwrap_or("aaaaaaaaaaaa"),
            "html_url": format!("https://github.com/o/r/actions/runs/{id}"),
        }),
    )
}

fn job_answer(run: u64, at: usize, job: &JobOf) -> Value {
    let conclusion = job.conclusion.as_deref();
    let status =
        job.status.as_deref().unwrap_or(if conclusion.is_some() { "completed" } else { "in_progress" });
    let steps: Vec<Value> = job
        .steps
        .iter()
        .enumerate()
        .map(|(number, step)| {
            let (name, end) = step.rsplit_once(": ").unwrap();
            let (status, end) =
                if end == "running" { ("in_progress", None) } else { ("completed", Some(end)) };
            json!({"name": name, "status": status, "conclusion": end, "number": number + 1})
        })
        .collect();
    let runner = job.runner.clone().or_else(|| (status != "queued").then(|| "bpf-1".to_owned()));
    answer(
        "job",
        json!({
            "id": job_id(run, at), "run_id": run, "name": job.name, "status": status, "conclusion": conclusion,
            "steps": steps, "labels": ["self-hosted", "assay-bpf-runner"], "runner_name": runner, "workflow_name": null,
        }),
    )
}

/// The page of a run's jobs.
pub fn jobs_answer(id: u64, run: &RunOf) -> Value {
    let jobs: Vec<Value> = run.jobs.iter().enumerate().map(|(at, job)| job_answer(id, at, job)).collect();
    json!({"total_count": jobs.len(), "jobs": jobs})
}

pub fn job_id(run: u64, at: usize) -> u64 {
    run * 10 + at as u64
}

/// Status and body.
type Answer = (u16, Value);

async fn get(server: &MockServer, route: &str, (status, body): Answer) {
    let at = format!("/repos/o/r{route}");
    check(&at, status, &body);
    let answer = ResponseTemplate::new(status).set_body_json(body);
    Mock::given(method("GET")).and(path(at)).respond_with(answer).mount(server).await;
}

fn json_answer(value: &Value) -> Answer {
    (200, value.clone())
}

fn no(status: u16, message: &str) -> Answer {
    (status, json!({"message": message}))
}

/// Mounts everything about one run. Logs and packs come by redirect, as GitHub gives them.
pub async fn mount_run(server: &MockServer, id: u64, run: &RunOf) {
    let attempt = run.attempt.unwrap_or(1);
    let record = json_answer(&run_answer(id, run));
    get(server, &format!("/actions/runs/{id}"), record.clone()).await;
    get(server, &format!("/actions/runs/{id}/attempts/{attempt}"), record).await;
    get(server, &format!("/actions/runs/{id}/attempts/{attempt}/jobs"), json_answer(&jobs_answer(id, run)))
        .await;
    if run.forbidden {
        let refused = no(403, "Resource not accessible by personal access token");
        get(server, &format!("/actions/runs/{id}/artifacts"), refused.clone()).await;
        get(server, &format!("/actions/runs/{id}/attempts/{attempt}/logs"), refused.clone()).await;
        for at in 0..run.jobs.len() {
            get(server, &format!("/check-runs/{}/annotations", job_id(id, at)), refused.clone()).await;
            get(server, &format!("/actions/jobs/{}/logs", job_id(id, at)), refused.clone()).await;
        }
        return;
    }
    for (at, job) in run.jobs.iter().enumerate() {
        let all: Vec<Value> = job
            .annotations
            .iter()
            .map(|text| answer("check-annotation", json!({"annotation_level": "failure", "message": text})))
            .collect();
        get(server, &format!("/check-runs/{}/annotations", job_id(id, at)), json_answer(&json!(all))).await;
        if let Some(log) = &job.log {
            blob(server, &format!("/actions/jobs/{}/logs", job_id(id, at)), log.clone().into_bytes()).await;
        }
    }
    if let Some(files) = &run.logs {
        blob(server, &format!("/actions/runs/{id}/attempts/{attempt}/logs"), zip_of(files)).await;
    }
    let expired = run.pack.as_ref().is_some_and(|pack| pack.contains_key("expired"));
    let pack = run.pack_zip.clone().or_else(|| run.pack.as_ref().map(zip_of));
    let name = format!("assay-runner-delegated-proof-pack-{id}");
    let artifact = answer("artifact", json!({"id": id, "name": name, "expired": expired}));
    let artifacts: Vec<Value> = pack.iter().map(|_| artifact.clone()).collect();
    let list = json!({"total_count": artifacts.len(), "artifacts": artifacts});
    get(server, &format!("/actions/runs/{id}/artifacts"), json_answer(&list)).await;
    if let Some(pack) = pack.filter(|_| !expired) {
        blob(server, &format!("/actions/artifacts/{id}/zip"), pack).await;
    }
}

/// A redirect to another authority, which must not see the token.
async fn blob(server: &MockServer, route: &str, bytes: Vec<u8>) {
    let at = format!("/blob{route}");
    let elsewhere = server.uri().replace("127.0.0.1", "localhost");
    let from = format!("/repos/o/r{route}");
    check(&from, 302, &Value::Null);
    let redirect = ResponseTemplate::new(302).insert_header("location", format!("{elsewhere}{at}"));
    Mock::given(method("GET")).and(path(from)).respond_with(redirect).mount(server).await;
    Mock::given(method("GET"))
        .and(path(at))
        .respond_with(move |request: &wiremock::Request| {
            if request.headers.contains_key("authorization") {
                return ResponseTemplate::new(400).set_body_string("a token came with it");
            }
            ResponseTemplate::new(200).set_body_bytes(bytes.clone())
        })
        .mount(server)
        .await;
}

/// Mounts the list of runs, by status.
pub async fn mount_lists(server: &MockServer, completed: &[Value], green: &[Value]) {
    let route = "/repos/o/r/actions/workflows/gates.yml/runs";
    let list = |runs: &[Value]| {
        let body = json!({"total_count": runs.len(), "workflow_runs": runs});
        check(route, 200, &body);
        ResponseTemplate::new(200).set_body_json(body)
    };
    Mock::given(method("GET"))
        .and(path(route))
        .and(query_param("status", "success"))
        .respond_with(list(green))
        .mount(server)
        .await;
    Mock::given(method("GET")).and(path(route)).respond_with(list(completed)).mount(server).await;
}
