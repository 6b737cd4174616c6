//! A JSON file to facts, one per value.

use crate::triage::facts::{Fact, FactKind, Place};
use serde_json::Value;

/// A file with more values than this is not one of ours.
const MOST: usize = 50_000;
/// A value longer than this is cut; diffs have up to 64 KiB.
const LONGEST: usize = 8 << 10;

/// Adds a fact for each value. In an array, an item that has a `name`, `id` or `run` is called by it.
///
/// An object with `held` is an assertion or an invariant: it is a fact only when it did not hold, and reads
/// `expected …, found …`.
pub fn flatten(file: &str, value: &Value, place: &Place, facts: &mut Vec<Fact>) {
    let limit = facts.len() + MOST;
    walk(&format!("{file}:"), value, place, facts, limit);
}

fn walk(path: &str, value: &Value, place: &Place, facts: &mut Vec<Fact>, limit: usize) {
    if facts.len() >= limit {
        return;
    }
    match value {
        Value::Object(map) => {
            if let Some(held) = map.get("held").and_then(Value::as_bool) {
                if !held {
                    let text = |key: &str| map.get(key).map(plain);
                    let found =
                        text("found").or_else(|| text("seen")).unwrap_or_else(|| "unknown".to_owned());
                    let expected = text("expected").unwrap_or_else(|| "unknown".to_owned());
                    push(path, format!("expected {expected}, found {found}"), place, facts);
                }
                return;
            }
            for (key, value) in map {
                walk(&format!("{path}/{}", escape(key)), value, place, facts, limit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                let run = item.get("run").and_then(Value::as_u64);
                let name = item.get("name").or_else(|| item.get("id")).and_then(Value::as_str).map(escape);
                let name =
                    name.or_else(|| run.map(|run| run.to_string())).unwrap_or_else(|| index.to_string());
                let mut place = place.clone();
                place.run = run.and_then(|run| u32::try_from(run).ok()).or(place.run);
                walk(&format!("{path}/{name}"), item, &place, facts, limit);
            }
        }
        Value::Null => {}
        scalar => push(path, plain(scalar), place, facts),
    }
}

fn push(path: &str, text: String, place: &Place, facts: &mut Vec<Fact>) {
    let mut fact = Fact::new(FactKind::Field, path, text, place.clone());
    if fact.key.ends_with("/divergence/diff") {
        fact.context = diff_context(&fact.value);
    }
    let mut end = LONGEST.min(fact.value.len());
    while !fact.value.is_char_boundary(end) {
        end -= 1;
    }
    fact.value.truncate(end);
    facts.push(fact);
}

/// Ten lines around the first line that differs.
fn diff_context(diff: &str) -> Vec<String> {
    let lines: Vec<&str> = diff.lines().collect();
    let differs = |line: &&str| {
        (line.starts_with('-') && !line.starts_with("---"))
            || (line.starts_with('+') && !line.starts_with("+++"))
    };
    let first = lines.iter().position(differs).unwrap_or(0);
    lines.iter().skip(first.saturating_sub(4)).take(10).map(|line| (*line).to_owned()).collect()
}

fn escape(key: &str) -> String {
    key.replace('/', "~1")
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assertion_is_a_fact_only_when_it_did_not_hold() {
        let value = serde_json::json!({"runs": [{"run": 2, "assertions": [
            {"name": "a", "held": true, "expected": "1", "found": "1"},
            {"name": "b", "held": false, "expected": "1", "found": "2"}]}]});
        let mut facts = Vec::new();
        flatten("verdict.json", &value, &Place::default(), &mut facts);
        let broken: Vec<_> = facts.iter().filter(|fact| fact.key.contains("assertions")).collect();
        assert_eq!(broken.len(), 1);
        assert_eq!(broken[0].key, "verdict.json:/runs/2/assertions/b");
        assert_eq!((broken[0].value.as_str(), broken[0].place.run), ("expected 1, found 2", Some(2)));
    }
}
