//! Ingestion of the two logs that others write: policy decisions and SDK events.
//!
//! The SDK log is written by the measured program, so everything in it is self-reported and may be hostile: it is
//! read after the run, bounded, refused when it is a link or not a file, and only the contract's fields are kept.

use super::contract::{PolicyEvent, SdkEvent, schema};
use super::strict;
use crate::error::{Code, Error, Result};
use crate::files::RootPath;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// Longest log read.
pub const MAX_LOG_BYTES: u64 = 16 * 1024 * 1024;
/// Longest line read.
pub const MAX_LINE_BYTES: usize = 1024 * 1024;

/// The event type of a decision.
pub const DECISION: &str = "assay.tool.decision";
const DECISIONS: [&str; 3] = ["allow", "deny", "error"];
/// Known types of SDK event.
pub const SDK_EVENTS: [&str; 4] = ["tool_call_started", "tool_call_completed", "run_finished", "run_failed"];

/// What the logs of a run gave; a layer is absent when its log was not asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Logs {
    /// Decisions, in log order.
    pub policy: Option<Vec<PolicyEvent>>,
    /// SDK events, in log order.
    pub sdk: Option<Vec<SdkEvent>>,
}

impl Logs {
    /// Reads the logs that were asked for, after the measured program has ended.
    ///
    /// # Errors
    /// `LogMissing` when a log was asked for and is missing or empty; `LogInvalid`, naming file and line, when a line
    /// breaks its contract or a bound.
    pub fn ingest(run_id: &str, sdk: Option<&RootPath>, decisions: Option<&RootPath>) -> Result<Self> {
        Ok(Self {
            policy: decisions.map(|path| policy_events(run_id, &read(path)?, &path.path())).transpose()?,
            sdk: sdk.map(|path| sdk_events(run_id, &read(path)?, &path.path())).transpose()?,
        })
    }

    /// Distinct ids of tool calls that the SDK reported, sorted.
    #[must_use]
    pub fn sdk_tool_calls(&self) -> std::collections::BTreeSet<&str> {
        self.sdk.iter().flatten().filter_map(|event| event.tool_call_id.as_deref()).collect()
    }
}

/// The decision log's lines as policy events.
///
/// # Errors
/// As [`Logs::ingest`].
pub fn policy_events(run_id: &str, log: &[u8], path: &Path) -> Result<Vec<PolicyEvent>> {
    let mut events = Vec::new();
    for line in lines(log, path) {
        let line = line?;
        let data = line.object("data")?;
        let source_event_type = line.text("type")?;
        if source_event_type != DECISION {
            return Err(line.wrong(&format!("type {DECISION}"), &source_event_type));
        }
        let decision = data.text("decision")?;
        if !DECISIONS.contains(&decision.as_str()) {
            return Err(line.wrong("decision allow, deny or error", &decision));
        }
        events.push(PolicyEvent {
            schema: schema::POLICY_EVENT.to_owned(),
            run_id: run_id.to_owned(),
            seq: events.len() as u64,
            source_event_type,
            source: line.text("source")?,
            tool_call_id: data.text("tool_call_id")?,
            tool: data.text("tool")?,
            decision,
        });
    }
    not_empty(events, "decision", path)
}

/// The SDK log's lines.
///
/// # Errors
/// As [`Logs::ingest`].
pub fn sdk_events(run_id: &str, log: &[u8], path: &Path) -> Result<Vec<SdkEvent>> {
    let mut events: Vec<SdkEvent> = Vec::new();
    for line in lines(log, path) {
        let line = line?;
        for (key, expected) in [("schema", schema::SDK_EVENT), ("run_id", run_id)] {
            let found = line.text(key)?;
            if found != expected {
                return Err(line.wrong(&format!("{key} {expected}"), &found));
            }
        }
        let seq = events.len() as u64;
        let found = line.value.get("seq").and_then(Value::as_u64);
        if found != Some(seq) {
            let found = line.value.get("seq").map_or_else(|| "none".to_owned(), Value::to_string);
            return Err(line.wrong(&format!("seq {seq}"), &found));
        }
        let event_type = line.text("event_type")?;
        if !SDK_EVENTS.contains(&event_type.as_str()) {
            return Err(line.wrong(&format!("event_type one of {}", SDK_EVENTS.join(", ")), &event_type));
        }
        let (tool_call_id, tool) = (line.optional_text("tool_call_id")?, line.optional_text("tool")?);
        if event_type.starts_with("tool_call_") && (tool_call_id.is_none() || tool.is_none()) {
            return Err(
                line.wrong(&format!("tool_call_id and tool of a {event_type}"), "one of them missing")
            );
        }
        events.push(SdkEvent {
            schema: schema::SDK_EVENT.to_owned(),
            run_id: run_id.to_owned(),
            seq,
            event_type,
            source: line.text("source")?,
            sdk_name: line.optional_text("sdk_name")?,
            sdk_version: line.optional_text("sdk_version")?,
            tool_call_id,
            tool,
        });
    }
    not_empty(events, "SDK event", path)
}

fn not_empty<T>(events: Vec<T>, what: &str, path: &Path) -> Result<Vec<T>> {
    if events.is_empty() {
        return Err(Error::new(
            Code::LogMissing,
            format!("expected at least one {what}, found an empty log"),
        )
        .at(path.display()));
    }
    Ok(events)
}

/// Reads a log that another program wrote: a plain file, not a link, of bounded size.
fn read(place: &RootPath) -> Result<Vec<u8>> {
    let path = &place.path();
    // A link could name any file of the driver's, a FIFO could hold it up forever: neither is opened.
    let file = place.open_file().map_err(|error| {
        Error::new(Code::LogInvalid, format!("expected a plain file that can be read: {}", error.message()))
            .at(path.display())
            .because(error)
    })?;
    let Some(file) = file else {
        return Err(Error::new(Code::LogMissing, "expected a log, found no file")
            .at(path.display())
            .hint("the measured program was to write it; see stderr.log of the run"));
    };
    let mut bytes = Vec::new();
    file.take(MAX_LOG_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("cannot read", path, error))?;
    if bytes.len() as u64 > MAX_LOG_BYTES {
        return Err(Error::new(
            Code::LogInvalid,
            format!("expected a log of at most {MAX_LOG_BYTES} bytes, found more"),
        )
        .at(path.display()));
    }
    Ok(bytes)
}

/// One line of a log, parsed, with its place.
struct Line<'a> {
    value: Value,
    number: usize,
    path: &'a Path,
}

fn lines<'a>(log: &'a [u8], path: &'a Path) -> impl Iterator<Item = Result<Line<'a>>> {
    log.split(|byte| *byte == b'\n').enumerate().filter_map(move |(index, bytes)| {
        let number = index + 1;
        let wrong = |message: String| {
            Some(Err(Error::new(Code::LogInvalid, message).at(format!("{}:{number}", path.display()))))
        };
        if bytes.len() > MAX_LINE_BYTES {
            return wrong(format!(
                "expected a line of at most {MAX_LINE_BYTES} bytes, found {}",
                bytes.len()
            ));
        }
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        match strict::value(text.as_bytes()) {
            Ok(value @ Value::Object(_)) => Some(Ok(Line { value, number, path })),
            Ok(_) => wrong("expected a JSON object, found another value".to_owned()),
            Err(error) => wrong(format!("expected JSON: {error}")),
        }
    })
}

impl Line<'_> {
    fn object(&self, key: &str) -> Result<Line<'_>> {
        match self.value.get(key) {
            Some(value @ Value::Object(_)) => {
                Ok(Line { value: value.clone(), number: self.number, path: self.path })
            }
            _ => Err(self.wrong(&format!("an object `{key}`"), "none")),
        }
    }

    /// A string that is there and not blank, trimmed.
    fn text(&self, key: &str) -> Result<String> {
        self.optional_text(key)?.ok_or_else(|| self.wrong(&format!("a non-empty string `{key}`"), "none"))
    }

    /// A string, trimmed; `None` when missing, null or blank.
    fn optional_text(&self, key: &str) -> Result<Option<String>> {
        match self.value.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Some(_) => Err(self.wrong(&format!("a string `{key}`"), "another type")),
        }
    }

    fn wrong(&self, expected: &str, found: &str) -> Error {
        let found: String = found.chars().take(80).collect();
        Error::new(Code::LogInvalid, format!("expected {expected}, found {}", found.escape_debug()))
            .at(format!("{}:{}", self.path.display(), self.number))
    }
}
