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
