//! API answers shaped by GitHub's published OpenAPI description, and validated against it.
//!
//! A test gives only what matters; everything else that the description requires is filled in from it. A field that the
//! description does not know is refused like one of a wrong type.

use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// What is used of the description, as JSON Schema.
struct Description {
    /// The component schemas.
    components: Map<String, Value>,
    /// By route and status, what GET gives; null for no JSON at all.
    answers: BTreeMap<(&'static str, u16), Value>,
    /// By route of [`POSTS`]: what is posted there, and what POST gives.
    posts: BTreeMap<&'static str, (Value, BTreeMap<u16, Value>)>,
}

/// `None` when it is not installed.
fn description() -> Option<&'static Description> {
    static DESCRIPTION: OnceLock<Option<Description>> = OnceLock::new();
    DESCRIPTION.get_or_init(load).as_ref()
}

fn load() -> Option<Description> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/support/openapi/node_modules/@octokit/openapi/generated");
    let Ok(text) = std::fs::read_to_string(folder.join("api.github.com.json")) else {
        let reason = "GitHub's OpenAPI description is not installed: npm ci --prefix tests/support/openapi";
        assert!(
            std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(),
            "ASSAY_GATES_NO_SKIP is set, but: {reason}"
        );
        eprintln!("SKIPPED: {reason}");
        return None;
    };
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    let mut paths = whole["paths"].take();
    let Value::Object(mut schemas) = whole["components"]["schemas"].take() else { panic!("no schemas") };
    // Only what the answers reach: the whole is 13 MB.
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    let mut schema_of = |mut content: Value| {
        let mut schema = content["content"]["application/json"]["schema"].take();
        let mut refs = BTreeSet::new();
        to_json_schema(&mut schema, &mut refs);
        wanted.extend(refs);
        schema
    };
    let mut given = |operation: &mut Value| {
        let responses = operation["responses"].take();
        let mut given = BTreeMap::new();
        for (status, mut response) in responses.as_object().unwrap().clone() {
            if let Some(reference) = response["$ref"].as_str() {
                response = whole["components"]["responses"][reference.rsplit('/').next().unwrap()].clone();
            }
            given.insert(status.parse().unwrap(), schema_of(response));
        }
        given
    };
    let mut answers = BTreeMap::new();
    for route in ROUTES {
        let statuses = given(&mut paths[route]["get"]);
        answers.extend(statuses.into_iter().map(|(status, schema)| ((route, status), schema)));
    }
    let mut posts: Vec<(&str, Value)> = POSTS.map(|route| (route, paths[route]["post"].take())).into();
    let given: Vec<_> = posts.iter_mut().map(|(_, post)| given(post)).collect();
    let posts = posts.into_iter().zip(given);
    let posts = posts
        .map(|((route, mut post), given)| (route, (schema_of(post["requestBody"].take()), given)))
        .collect();
    let mut kept = Map::new();
    while let Some(name) = wanted.pop() {
        let Some(mut schema) = schemas.remove(&name) else { continue };
        let mut refs = BTreeSet::new();
        to_json_schema(&mut schema, &mut refs);
        wanted.extend(refs);
        kept.insert(name, schema);
    }
    Some(Description { components: kept, answers, posts })
}

/// What the tests' servers answer.
const ROUTES: [&str; 14] = [
    "/repos/{owner}/{repo}",
    "/repos/{owner}/{repo}/actions/artifacts/{artifact_id}/{archive_format}",
    "/repos/{owner}/{repo}/actions/jobs/{job_id}/logs",
    "/repos/{owner}/{repo}/actions/runs/{run_id}",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/artifacts",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}/jobs",
    "/repos/{owner}/{repo}/actions/runs/{run_id}/attempts/{attempt_number}/logs",
    "/repos/{owner}/{repo}/actions/runners",
    "/repos/{owner}/{repo}/actions/workflows/{workflow_id}/runs",
    "/repos/{owner}/{repo}/branches/{branch}",
    "/repos/{owner}/{repo}/check-runs/{check_run_id}/annotations",
    "/repos/{owner}/{repo}/commits/{ref}/statuses",
    "/repos/{owner}/{repo}/compare/{basehead}",
];

/// What the tests' servers take.
const POSTS: [&str; 2] = [
    "/repos/{owner}/{repo}/actions/workflows/{workflow_id}/dispatches",
    "/repos/{owner}/{repo}/statuses/{sha}",
];

/// The component schemas that answers are made of.
const KINDS: [&str; 13] = [
    "basic-error",
    "branch-with-protection",
    "commit",
    "diff-entry",
    "workflow-run",
    "job",
    "check-annotation",
    "artifact",
    "runner",
    "commit-comparison",
    "full-repository",
    "status",
    "workflow-dispatch-response",
];

/// OpenAPI 3.0 says `nullable`, JSON Schema says `null`; references move to `$defs`.
fn to_json_schema(schema: &mut Value, refs: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref") {
                let name = reference.rsplit('/').next().unwrap().to_owned();
                *reference = format!("#/$defs/{name}");
                refs.insert(name);
            }
            for (key, value) in map.iter_mut() {
                if key != "example" && key != "examples" {
                    to_json_schema(value, refs);
                }
            }
            if map.contains_key("properties") && !map.contains_key("additionalProperties") {
                map.insert("additionalProperties".to_owned(), json!(false));
            }
            if map.remove("nullable") == Some(Value::Bool(true)) {
                let inner = Value::Object(std::mem::take(map));
                map.insert("anyOf".to_owned(), json!([{"type": "null"}, inner]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| to_json_schema(item, refs)),
        _ => {}
    }
}

/// The smallest value that the schema allows.
fn smallest(schema: &Value, all: &Map<String, Value>, depth: u32) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        return smallest(&all[reference.rsplit('/').next().unwrap()], all, depth + 1);
    }
    for any in ["anyOf", "oneOf"] {
        if let Some(one) = schema[any].as_array().and_then(|list| list.first()) {
            return smallest(one, all, depth + 1);
        }
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let mut whole = Map::new();
        for part in parts {
            if let Value::Object(part) = smallest(part, all, depth + 1) {
                whole.extend(part);
            }
        }
        return Value::Object(whole);
    }
    if let Some(first) = schema["enum"].as_array().and_then(|list| list.first()) {
        return first.clone();
    }
    let required = schema["required"].as_array().cloned().unwrap_or_default();
    match schema["type"].as_str().unwrap_or("object") {
        "string" => match schema["format"].as_str() {
            Some("date-time") => json!("2026-02-03T12:00:00Z"),
            Some("uri") => json!("https://api.github.com/x"),
            Some("email") => json!("a@example.org"),
            _ => json!("x"),
        },
        "integer" | "number" => json!(1),
        "boolean" => json!(false),
        "array" => json!([]),
        "null" => Value::Null,
        _ if depth > 12 => json!({}),
        _ => {
            let names = required.iter().filter_map(Value::as_str);
            Value::Object(
                names
                    .map(|name| (name.to_owned(), smallest(&schema["properties"][name], all, depth + 1)))
                    .collect(),
            )
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// An answer of `kind` with `given` in it, whole and valid by GitHub's description.
pub fn answer(kind: &str, given: Value) -> Value {
    assert!(KINDS.contains(&kind), "{kind}");
    let Some(all) = description().map(|all| &all.components) else { return given };
    let mut value = smallest(&all[kind], all, 0);
    merge(&mut value, &given);
    validate(kind, &json!({"$ref": format!("#/$defs/{kind}")}), &value);
    value
}

/// Holds the whole answer to a GET of `path` against what the description lets come from there: the status, and the JSON
/// that comes with it (null for none). Errors that the description leaves out are GitHub's usual ones.
pub fn check(path: &str, status: u16, body: &Value) {
    let route = ROUTES.into_iter().find(|route| leads_to(route, path));
    let route = route.unwrap_or_else(|| panic!("no route that is known: {path}"));
    let Some(description) = description() else { return };
    check_status(route, description.answers.get(&(route, status)), status, body);
}

/// Holds what is posted to `path` against what the description lets be posted there.
pub fn check_posted(path: &str, posted: &Value) {
    let route = posts_to(path);
    let Some(description) = description() else { return };
    validate(&format!("POST to {route}"), &description.posts[route].0, posted);
}

/// As [`check`], for the answer to a POST.
pub fn check_post_answer(path: &str, status: u16, body: &Value) {
    let route = posts_to(path);
    let Some(description) = description() else { return };
    check_status(route, description.posts[route].1.get(&status), status, body);
}

fn posts_to(path: &str) -> &'static str {
    let route = POSTS.into_iter().find(|route| leads_to(route, path));
    route.unwrap_or_else(|| panic!("no route that takes a POST: {path}"))
}

fn leads_to(route: &str, path: &str) -> bool {
    route.split('/').count() == path.split('/').count()
        && route.split('/').zip(path.split('/')).all(|(one, own)| one.starts_with('{') || one == own)
}

fn check_status(route: &str, schema: Option<&Value>, status: u16, body: &Value) {
    match schema {
        Some(Value::Null) => assert!(body.is_null(), "{status} from {route} has no JSON: {body}"),
        Some(schema) => validate(&format!("{status} from {route}"), schema, body),
        None => {
            assert!(status >= 400, "the description has no {status} from {route}");
            validate("basic-error", &json!({"$ref": "#/$defs/basic-error", "required": ["message"]}), body);
        }
    }
}

fn validate(name: &str, schema: &Value, value: &Value) {
    static VALIDATORS: Mutex<BTreeMap<String, Arc<jsonschema::Validator>>> = Mutex::new(BTreeMap::new());
    let Some(description) = description() else { return };
    let validator = {
        let mut validators = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner);
        let build = || {
            let mut whole = schema.clone();
            whole["$defs"] = Value::Object(description.components.clone());
            let options = jsonschema::options().with_draft(jsonschema::Draft::Draft202012);
            Arc::new(options.should_validate_formats(true).build(&whole).unwrap())
        };
        Arc::clone(validators.entry(name.to_owned()).or_insert_with(build))
    };
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "not a {name} by GitHub's description: {errors:?}\n{value}");
}

#[test]
fn an_answer_that_github_would_not_give_is_refused() {
    if description().is_none() {
        return;
    }
    let refused = |what: &str, make: &dyn Fn()| {
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(make)).is_err(), "{what}");
    };
    answer("workflow-run", json!({"id": 1, "conclusion": null, "head_commit": null, "name": null}));
    for wrong in [
        json!({"id": "one"}),
        json!({"status": 3}),
        json!({"run_attempt": "first"}),
        json!({"created_at": "yesterday"}),
        json!({"conclution": "success"}),
    ] {
        refused("a run", &|| drop(answer("workflow-run", wrong.clone())));
    }
    let post = "/repos/o/r/actions/workflows/gates.yml/dispatches";
    check_posted(post, &json!({"ref": "main", "inputs": {"gates": "all"}}));
    for wrong in [json!({"inputs": {}}), json!({"ref": 1}), json!({"ref": "main", "input": {}})] {
        refused("a dispatch", &|| check_posted(post, &wrong));
    }
    refused("a dispatch's answer", &|| check_post_answer(post, 201, &Value::Null));
    refused("a job", &|| drop(answer("job", json!({"conclusion": "exploded"}))));

    let (list, zip) = ("/repos/o/r/actions/runs/1/artifacts", "/repos/o/r/actions/artifacts/1/zip");
    let one = answer("artifact", json!({"id": 1, "digest": null}));
    check(list, 200, &json!({"total_count": 1, "artifacts": [one]}));
    check(list, 403, &json!({"message": "Resource not accessible by integration", "status": "403"}));
    check(zip, 302, &Value::Null);
    check(zip, 410, &json!({"message": "Artifact has expired"}));
    let with = |field: &str, value: Value| {
        let mut one = one.clone();
        one[field] = value;
        json!({"total_count": 1, "artifacts": [one]})
    };
    for (path, status, body) in [
        (list, 200, json!({"artifacts": []})),
        (list, 200, with("id", json!("1"))),
        (list, 200, with("size_in_bytes", Value::Null)),
        (list, 200, with("sha256", json!("0"))),
        (list, 202, json!({"total_count": 0, "artifacts": []})),
        (list, 404, json!({"code": "not_found", "msg": "no such artifact"})),
        (zip, 200, Value::Null),
        (zip, 302, json!({})),
        ("/repos/o/r/actions/runs/1/artefacts", 200, Value::Null),
    ] {
        refused(&format!("{status} {body}"), &|| check(path, status, &body));
    }
}
