//! The two JSON forms that artifacts take.

use crate::error::{Code, Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Compact, in declared field order, without a newline: members of archives, lines of NDJSON.
///
/// # Errors
/// `Internal` when the value can't be serialised.
pub fn compact<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(not_serialisable)
}

/// Indented by two, keys sorted at every level, newline at the end: proof-pack files.
///
/// # Errors
/// `Internal` when the value can't be serialised.
pub fn pretty_sorted<T: Serialize>(value: &T) -> Result<String> {
    let value = sorted(serde_json::to_value(value).map_err(not_serialisable)?);
    let mut text = serde_json::to_string_pretty(&value).map_err(not_serialisable)?;
    text.push('\n');
    Ok(text)
}

/// Canonical JSON (RFC 8785) of a value without fractions: keys in the order of their UTF-16, no space, no line feed.
///
/// # Errors
/// `NotRepresentable` for a number that readers of canonical JSON don't keep exactly.
pub fn jcs(value: &Value) -> Result<String> {
    let mut text = String::new();
    canonical(value, &mut text)?;
    Ok(text)
}

fn canonical(value: &Value, text: &mut String) -> Result<()> {
    const EXACT: u64 = (1 << 53) - 1;
    match value {
        Value::Number(number) => {
            let exact = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
            if exact.is_none_or(|size| size > EXACT) {
                let message = format!("expected a whole number of at most {EXACT}, found {number}");
                return Err(Error::new(Code::NotRepresentable, message));
            }
            text.push_str(&number.to_string());
        }
        Value::Array(items) => {
            text.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                canonical(item, text)?;
            }
            text.push(']');
        }
        Value::Object(map) => {
            let mut entries: Vec<(&String, &Value)> = map.iter().collect();
            entries.sort_by(|(left, _), (right, _)| left.encode_utf16().cmp(right.encode_utf16()));
            text.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                if at > 0 {
                    text.push(',');
                }
                text.push_str(&compact(key)?);
                text.push(':');
                canonical(value, text)?;
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => text.push_str(&compact(value)?),
    }
    Ok(())
}

/// Sorts keys whichever map type `serde_json` was built with.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<String, Value> = map.into_iter().collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key, sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

fn not_serialisable(error: serde_json::Error) -> Error {
    Error::new(Code::Internal, format!("cannot serialise: {error}")).because(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn canonical_json_sorts_by_utf_16_and_keeps_every_number_exactly_or_refuses() {
        // The first sorts last by code point and first by UTF-16.
        let value = json!({"\u{1f600}": 1, "\u{fb33}": -2, "b": [true, null, {"z": "\u{1}\n\"/é", "a": 9_007_199_254_740_991_u64}], "a": {}});
        assert_eq!(
            jcs(&value).unwrap(),
            "{\"a\":{},\"b\":[true,null,{\"a\":9007199254740991,\"z\":\"\\u0001\\n\\\"/é\"}],\"\u{1f600}\":1,\"\u{fb33}\":-2}"
        );
        for wrong in
            [json!(9_007_199_254_740_992_u64), json!(-9_007_199_254_740_992_i64), json!(1.5), json!(1e30)]
        {
            assert_eq!(jcs(&json!([wrong])).unwrap_err().code(), Code::NotRepresentable);
        }
    }
}
