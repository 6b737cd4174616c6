//! The layers that others wrote, against the logs that they were taken from: line by line, field by field.
//!
//! A layer keeps the contract's fields of its log and replaces what looks like a secret; nothing else may differ.

use super::Check;
use crate::evidence::Archive;
use crate::evidence::archive::member;
use crate::evidence::logs::{MAX_LOG_BYTES, policy_events, sdk_events};
use serde::Serialize;
use serde_json::Value;
use std::path::Path;

/// How a replaced secret begins; it ends with `>`.
const REDACTED: &str = "<redacted:";

impl Check<'_> {
    /// Both logs of one run.
    pub(super) fn logs(&mut self, folder: &str, archive: &Archive) {
        let run_id = archive.run_id();
        let path = format!("{folder}/policy-decisions.ndjson");
        if let Some(log) = self.log(&path, archive.policy.len()) {
            match policy_events(run_id, &log, Path::new(&path)) {
                Ok(events) => self.same_lines(&path, member::POLICY, &events, &archive.policy),
                Err(error) => self.log_broken(&path, &error),
            }
        }
        let path = format!("{folder}/sdk-events.ndjson");
        if let Some(log) = self.log(&path, archive.sdk.len()) {
            match sdk_events(run_id, &log, Path::new(&path)) {
                Ok(events) => self.same_lines(&path, member::SDK, &events, &archive.sdk),
                Err(error) => self.log_broken(&path, &error),
            }
        }
    }

    /// The log at `path`, which `lines` lines of a layer came from; none where neither has any.
    fn log(&mut self, path: &str, lines: usize) -> Option<Vec<u8>> {
        if lines == 0 && self.source.members().get(path).is_none_or(|bytes| *bytes == 0) {
            return None;
        }
        self.source.read(path, MAX_LOG_BYTES).map_err(|finding| self.keep(finding)).ok()
    }

    fn log_broken(&mut self, path: &str, error: &crate::error::Error) {
        let place = error.place().unwrap_or(path).to_owned();
        self.fault("layer", place, "the log that the layer was taken from", error.message());
    }

    fn same_lines<T: Serialize>(&mut self, path: &str, layer: &str, log: &[T], kept: &[T]) {
        let value = |line: Option<&T>| line.and_then(|line| serde_json::to_value(line).ok());
        for at in 0..log.len().max(kept.len()) {
            let (logged, kept) = (value(log.get(at)), value(kept.get(at)));
            if !logged.as_ref().zip(kept.as_ref()).is_some_and(|(logged, kept)| same(logged, kept)) {
                let shown = |line: Option<Value>| {
                    line.map_or_else(|| "no such line".to_owned(), |line| line.to_string())
                };
                return self.fault(
                    "layer",
                    format!("{path}, {layer} line {}", at + 1),
                    shown(kept),
                    shown(logged),
                );
            }
        }
    }
}

/// Whether `kept` is `logged`, but for what was replaced.
fn same(logged: &Value, kept: &Value) -> bool {
    match (logged, kept) {
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        (Value::String(a), Value::String(b)) => fits(a, b),
        (a, b) => a == b,
    }
}

/// Whether `text` becomes `kept` when some of its parts are replaced by marks of redaction.
fn fits(text: &str, kept: &str) -> bool {
    let Some((before, rest)) = kept.split_once(REDACTED) else { return text == kept };
    let (Some(text), Some((_, mut after))) = (text.strip_prefix(before), rest.split_once('>')) else {
        return false;
    };
    let mut text = text;
    loop {
        let Some((between, rest)) = after.split_once(REDACTED) else { return text.ends_with(after) };
        let (Some(at), Some((_, next))) = (text.find(between), rest.split_once('>')) else { return false };
        text = &text[at + between.len()..];
        after = next;
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn a_kept_text_is_the_logged_one_but_for_what_was_replaced() {
        for (text, kept) in [
            ("read_file", "read_file"),
            ("tc_ghp_secret", "tc_<redacted:github-token:0011>"),
            ("a secret b other c", "a <redacted:x:1> b <redacted:y:2> c"),
        ] {
            assert!(fits(text, kept), "{text} {kept}");
        }
        for (text, kept) in [
            ("read_file", "read_files"),
            ("tc_ghp_secret", "td_<redacted:github-token:0011>"),
            ("a secret b other d", "a <redacted:x:1> b <redacted:y:2> c"),
            ("a secret", "a <redacted:x"),
        ] {
            assert!(!fits(text, kept), "{text} {kept}");
        }
    }
}
