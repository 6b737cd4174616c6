//! API answers shaped by GitHub's published OpenAPI description, and validated against it.
//!
//! A situation gives only what matters; everything else that the description requires is filled in from it.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The description's component schemas, as JSON Schema; `None` when it is not installed.
fn components() -> Option<&'static Map<String, Value>> {
    static COMPONENTS: OnceLock<Option<Map<String, Value>>> = OnceLock::new();
    COMPONENTS.get_or_init(load).as_ref()
}

fn load() -> Option<Map<String, Value>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/triage/openapi/node_modules/@octokit/openapi/generated");
    let Ok(text) = std::fs::read_to_string(folder.join("api.github.com.json")) else {
        let reason = "GitHub's OpenAPI description is not installed: npm ci --prefix tests/triage/openapi";
        assert!(
            std::env::var_os("ASSAY_GATES_NO_SKIP").is_none(),
            "ASSAY_GATES_NO_SKIP is set, but: {reason}"
        );
        eprintln!("SKIPPED: {reason}");
        return None;
    };
    let mut whole: Value = serde_json::from_str(&text).unwrap();
    let Value::Object(mut schemas) = whole["components"]["schemas"].take() else { panic!("no schemas") };
    // Only what the answers reach: the whole is 13 MB.
    let mut wanted: Vec<String> = KINDS.iter().map(|kind| (*kind).to_owned()).collect();
    let mut kept = Map::new();
    while let Some(name) = wanted.pop() {
        let Some(mut schema) = schemas.remove(&name) else { continue };
        let mut refs = BTreeSet::new();
        to_json_schema(&mut schema, &mut refs);
        wanted.extend(refs);
        kept.insert(name, schema);
    }
    Some(kept)
}

/// The component schemas that answers are made of.
const KINDS: [&str; 8] = [
    "workflow-run",
    "job",
    "check-annotation",
    "artifact",
    "runner",
    "commit-comparison",
    "full-repository",
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
    let Some(all) = components() else { return given };
    let mut value = smallest(&all[kind], all, 0);
    merge(&mut value, &given);
    validate(kind, &value);
    value
}

fn validate(kind: &str, value: &Value) {
    static VALIDATORS: OnceLock<Vec<(&'static str, jsonschema::Validator)>> = OnceLock::new();
    let Some(all) = components() else { return };
    let validators = VALIDATORS.get_or_init(|| {
        let of = |kind: &&'static str| {
            let schema = json!({"$ref": format!("#/$defs/{kind}"), "$defs": all});
            (*kind, jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&schema).unwrap())
        };
        KINDS.iter().map(of).collect()
    });
    let validator = &validators.iter().find(|(name, _)| *name == kind).unwrap().1;
    let errors: Vec<String> =
        validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "not a {kind} by GitHub's description: {errors:?}\n{value}");
}

#[test]
fn an_answer_that_github_would_not_give_is_refused() {
    if components().is_none() {
        return;
    }
    answer("workflow-run", json!({"id": 1, "conclusion": null, "head_commit": null, "name": null}));
    for wrong in [json!({"id": "one"}), json!({"status": 3}), json!({"run_attempt": "first"})] {
        let refused = std::panic::catch_unwind(|| answer("workflow-run", wrong.clone()));
        assert!(refused.is_err(), "{wrong}");
    }
    let refused = std::panic::catch_unwind(|| answer("job", json!({"conclusion": "exploded"})));
    assert!(refused.is_err());
}
