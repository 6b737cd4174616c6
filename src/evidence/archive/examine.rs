//! Everything an archive says about itself, recomputed from its layers.

use super::member;
use super::write::Members;
use crate::error::{Code, Error};
use crate::evidence::contract::{
    ArchiveManifest, CapabilitySurface, CorrelationReport, KernelEvent, ObservationHealth, PolicyEvent,
    RunFinished, RunStarted, SdkEvent, schema,
};
use crate::evidence::correlation::{SESSION_AMBIGUOUS, correlate};
use crate::evidence::{health, kernel, logs, redaction, strict, surface};
use crate::files::sha256;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;

/// One thing that is wrong: where, what was expected, what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A member, or a line of one, or `archive`.
    pub place: String,
    /// What was expected.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Finding {
    /// As the error that refuses the archive.
    #[must_use]
    pub fn into_error(self) -> Error {
        Error::new(Code::EvidenceInvalid, format!("expected {}, found {}", self.expected, self.found))
            .at(self.place)
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: expected {}, found {}", self.place, self.expected, self.found)
    }
}

/// Verifies the members' bytes: manifest, schemas, and that surface, correlation, health and counts are what the
/// layers give.
///
/// # Errors
/// Every finding, in the order of the members.
pub fn examine_members(
    members: &BTreeMap<&'static str, Vec<u8>>,
) -> Result<(ArchiveManifest, Members), Vec<Finding>> {
    let mut check = Check { members, findings: Vec::new() };
    let manifest = check.manifest();
    let surface: Option<CapabilitySurface> = check.json(member::SURFACE);
    let correlation: Option<CorrelationReport> = check.json(member::CORRELATION);
    let events = check.events();
    let kernel: Vec<KernelEvent> = check.lines(member::KERNEL);
    let policy: Vec<PolicyEvent> = check.lines(member::POLICY);
    let sdk: Vec<SdkEvent> = check.lines(member::SDK);
    let health: Option<ObservationHealth> = check.json(member::HEALTH);
    // A layer that can't be read decides nothing.
    let (Some(manifest), Some(surface), Some(correlation), Some((started, finished)), Some(health)) =
        (manifest, surface, correlation, events, health)
    else {
        return Err(check.findings);
    };
    if check.findings.is_empty() {
        let content = Members { surface, correlation, started, finished, kernel, policy, sdk, health };
        check.run_ids(&manifest.run_id, &content);
        check.records(&content);
        check.derived(&content);
        check.redaction(&content.health);
        if check.findings.is_empty() {
            check.schemas();
        }
        if check.findings.is_empty() {
            return Ok((manifest, content));
        }
    }
    Err(check.findings)
}

struct Check<'a> {
    members: &'a BTreeMap<&'static str, Vec<u8>>,
    findings: Vec<Finding>,
}

impl Check<'_> {
    fn fault(&mut self, place: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) {
        self.findings.push(Finding { place: place.into(), expected: expected.into(), found: found.into() });
    }

    fn equal(&mut self, place: &str, what: &str, expected: &str, found: &str) {
        if expected != found {
            self.fault(place, format!("{what} {expected}"), found);
        }
    }

    fn member(&self, path: &str) -> &[u8] {
        self.members.get(path).map_or(&[], Vec::as_slice)
    }

    fn json<T: DeserializeOwned>(&mut self, path: &'static str) -> Option<T> {
        match strict::typed(self.member(path)) {
            Ok(value) => Some(value),
            Err(error) => {
                self.fault(path, "JSON of its contract", error);
                None
            }
        }
    }

    fn lines<T: DeserializeOwned>(&mut self, path: &'static str) -> Vec<T> {
        let bytes = self.member(path).to_vec();
        let mut items = Vec::new();
        if bytes.last().is_some_and(|last| *last != b'\n') {
            self.fault(path, "a newline after the last line", "none");
        }
        for (index, line) in
            bytes.strip_suffix(b"\n").unwrap_or(&bytes).split(|byte| *byte == b'\n').enumerate()
        {
            if bytes.is_empty() {
                break;
            }
            let place = format!("{path}:{}", index + 1);
            if line.trim_ascii().is_empty() {
                self.fault(place, "no blank lines", "one");
                continue;
            }
            match strict::typed(line) {
                Ok(item) => items.push(item),
                Err(error) => self.fault(place, "a line of its contract", error),
            }
        }
        items
    }

    fn manifest(&mut self) -> Option<ArchiveManifest> {
        let path = member::MANIFEST;
        let manifest: ArchiveManifest = self.json(path)?;
        self.equal(path, "schema", schema::ARCHIVE_MANIFEST, &manifest.schema);
        if !safe_run_id(&manifest.run_id) {
            self.fault(
                path,
                "a run_id of letters, digits, _ and -",
                manifest.run_id.escape_debug().to_string(),
            );
        }
        for key in manifest.files.keys() {
            if !member::ALL[1..].contains(&key.as_str()) {
                self.fault(path, "exactly the seven other members", key.escape_debug().to_string());
            }
        }
        for name in &member::ALL[1..] {
            let Some(file) = manifest.files.get(*name) else {
                self.fault(path, format!("the member {name}"), "it missing");
                continue;
            };
            self.equal(path, &format!("path of {name}"), name, &file.path);
            let bytes = self.member(name);
            let (length, digest) = (bytes.len() as u64, sha256(bytes));
            if file.bytes != length {
                self.fault(*name, format!("{} bytes, as the manifest says", file.bytes), format!("{length}"));
            }
            self.equal(name, "the manifest's digest", &file.sha256.to_string(), &digest.to_string());
        }
        Some(manifest)
    }

    fn events(&mut self) -> Option<(RunStarted, RunFinished)> {
        let path = member::EVENTS;
        let lines: Vec<serde_json::Value> = self.lines(path);
        if lines.len() != 2 {
            self.fault(path, "two lines", format!("{}", lines.len()));
            return None;
        }
        let mut lines = lines.into_iter();
        let started: Option<RunStarted> = self.event(path, 1, lines.next());
        let finished: Option<RunFinished> = self.event(path, 2, lines.next());
        let (started, finished) = (started?, finished?);
        for (line, schema_id, seq, expected_seq, kind, expected) in [
            (1, &started.schema, started.seq, 0, &started.r#type, "run_started"),
            (2, &finished.schema, finished.seq, 1, &finished.r#type, "run_finished"),
        ] {
            let place = format!("{path}:{line}");
            self.equal(&place, "schema", schema::EVENT, schema_id);
            self.equal(&place, "seq", &format!("{expected_seq}"), &format!("{seq}"));
            self.equal(&place, "type", expected, kind);
        }
        if started.window_elapsed_ms != 0 {
            self.fault(format!("{path}:1"), "window_elapsed_ms 0", started.window_elapsed_ms.to_string());
        }
        if !started.env_keys.is_sorted() {
            self.fault(format!("{path}:1"), "sorted env_keys", "another order");
        }
        if finished.success != (finished.exit_code == Some(0)) {
            self.fault(
                format!("{path}:2"),
                "success exactly with exit_code 0",
                format!("{}", finished.success),
            );
        }
        Some((started, finished))
    }

    fn event<T: DeserializeOwned>(
        &mut self,
        path: &str,
        line: usize,
        value: Option<serde_json::Value>,
    ) -> Option<T> {
        match serde_json::from_value(value?) {
            Ok(event) => Some(event),
            Err(error) => {
                self.fault(format!("{path}:{line}"), "a line of its contract", error.to_string());
                None
            }
        }
    }

    fn run_ids(&mut self, run_id: &str, content: &Members) {
        let mut found = vec![
            (member::SURFACE.to_owned(), content.surface.run_id.clone()),
            (member::CORRELATION.to_owned(), content.correlation.run_id.clone()),
            (format!("{}:1", member::EVENTS), content.started.run_id.clone()),
            (format!("{}:2", member::EVENTS), content.finished.run_id.clone()),
            (member::HEALTH.to_owned(), content.health.run_id.clone()),
        ];
        let lines = |path: &str, ids: Vec<&String>| -> Vec<(String, String)> {
            ids.into_iter().enumerate().map(|(i, id)| (format!("{path}:{}", i + 1), id.clone())).collect()
        };
        found.extend(lines(member::KERNEL, content.kernel.iter().map(|event| &event.run_id).collect()));
        found.extend(lines(member::POLICY, content.policy.iter().map(|event| &event.run_id).collect()));
        found.extend(lines(member::SDK, content.sdk.iter().map(|event| &event.run_id).collect()));
        for (place, id) in found {
            self.equal(&place, "run_id", run_id, &id);
        }
    }

    fn records(&mut self, content: &Members) {
        for (index, event) in content.kernel.iter().enumerate() {
            let place = format!("{}:{}", member::KERNEL, index + 1);
            self.equal(&place, "seq", &index.to_string(), &event.seq.to_string());
            // Labels of two tables in one layer could not be compared.
            self.equal(&place, "the layer's schema", &content.kernel[0].schema, &event.schema);
            if let Some((expected, found)) = kernel::first_fault(event) {
                self.fault(place, expected, found);
            }
        }
        for (index, event) in content.policy.iter().enumerate() {
            let place = format!("{}:{}", member::POLICY, index + 1);
            self.equal(&place, "schema", schema::POLICY_EVENT, &event.schema);
            self.equal(&place, "seq", &index.to_string(), &event.seq.to_string());
            self.equal(&place, "source_event_type", logs::DECISION, &event.source_event_type);
        }
        for (index, event) in content.sdk.iter().enumerate() {
            let place = format!("{}:{}", member::SDK, index + 1);
            self.equal(&place, "schema", schema::SDK_EVENT, &event.schema);
            self.equal(&place, "seq", &index.to_string(), &event.seq.to_string());
            if !logs::SDK_EVENTS.contains(&event.event_type.as_str()) {
                self.fault(place, "a known event_type", event.event_type.clone());
            }
        }
        if let Some((expected, found)) = health::first_fault(&content.health) {
            self.fault(member::HEALTH, expected, found);
        }
    }

    /// Recomputes from the layers what the other members say of them.
    fn derived(&mut self, content: &Members) {
        let present = |layer: &str| layer != "absent";
        for (path, layer, state, count) in [
            (member::POLICY, "policy_layer", &content.health.policy_layer, content.policy.len()),
            (member::SDK, "sdk_layer", &content.health.sdk_layer, content.sdk.len()),
        ] {
            if present(state) != (count > 0) {
                self.fault(
                    path,
                    format!("lines exactly when {layer} is not absent"),
                    format!("{count}, {state}"),
                );
            }
        }
        let run_id = &content.health.run_id;
        let surface = surface::surface(run_id, &content.kernel, &content.policy);
        self.same(member::SURFACE, "the surface that the layers give", &surface, &content.surface);

        // The session's cgroup stands nowhere else; the report itself says whether it was known.
        let known = content.correlation.bindings.iter().find_map(|binding| binding.cgroup_id).or_else(|| {
            content.correlation.ambiguities.iter().any(|text| text == SESSION_AMBIGUOUS).then_some(0)
        });
        let policy = present(&content.health.policy_layer).then_some(content.policy.as_slice());
        let sdk = present(&content.health.sdk_layer).then_some(content.sdk.as_slice());
        let report = correlate(run_id, content.kernel.len() as u64, policy, sdk, known);
        self.same(member::CORRELATION, "the correlation that the layers give", &report, &content.correlation);

        let calls: std::collections::BTreeSet<_> =
            content.sdk.iter().filter_map(|event| event.tool_call_id.as_ref()).collect();
        for (note, key, count) in [
            ("s2_kernel_capture:", "monitor_events", content.kernel.len()),
            ("s4_policy_capture:", "decision_events", content.policy.len()),
            ("s4_policy_capture:", "policy_events", content.policy.len()),
            ("s5_sdk_capture:", "sdk_events", content.sdk.len()),
            ("s5_sdk_capture:", "sdk_tool_calls", calls.len()),
        ] {
            for stated in stated_counts(&content.health.notes, note, key) {
                self.equal(member::HEALTH, &format!("{key} of the layers,"), &count.to_string(), &stated);
            }
        }
    }

    fn same<T: PartialEq + Serialize>(&mut self, path: &str, what: &str, expected: &T, found: &T) {
        if expected != found {
            let difference = first_difference(expected, found);
            self.fault(path, what, difference);
        }
    }

    /// The published schemas, which other readers go by.
    fn schemas(&mut self) {
        for (path, id) in [
            (member::MANIFEST, schema::ARCHIVE_MANIFEST),
            (member::SURFACE, schema::CAPABILITY_SURFACE),
            (member::CORRELATION, schema::CORRELATION_REPORT),
            (member::EVENTS, schema::EVENT),
            (member::KERNEL, schema::KERNEL_EVENT),
            (member::POLICY, schema::POLICY_EVENT),
            (member::SDK, schema::SDK_EVENT),
            (member::HEALTH, schema::OBSERVATION_HEALTH),
        ] {
            let by_line = path.ends_with(".ndjson");
            let bytes = self.member(path).to_vec();
            let documents = bytes.split(|byte| by_line && *byte == b'\n').filter(|text| !text.is_empty());
            for (index, document) in documents.enumerate() {
                let Ok(value) = strict::value(document) else { continue };
                let is_v1 = value.get("schema").is_some_and(|found| found == schema::KERNEL_EVENT_V1);
                let id = if is_v1 { schema::KERNEL_EVENT_V1 } else { id };
                let place = if by_line { format!("{path}:{}", index + 1) } else { path.to_owned() };
                match super::super::schema::faults(id, &value) {
                    Ok(faults) => self.findings.extend(
                        faults
                            .into_iter()
                            .map(|fault| Finding { place: format!("{place}{}", fault.place), ..fault }),
                    ),
                    Err(error) => self.fault(place, "a schema that compiles", error.to_string()),
                }
            }
        }
    }

    /// What was redacted must not be there any more.
    fn redaction(&mut self, health: &ObservationHealth) {
        if health.redaction.as_ref().is_none_or(|receipt| receipt.mode == "disabled_unsafe") {
            return;
        }
        let Ok(shapes) = redaction::Shapes::shared() else { return };
        for (path, bytes) in self.members {
            let text = String::from_utf8_lossy(bytes);
            if let Some(hit) = shapes.hits(&text).first() {
                self.findings.push(Finding {
                    place: format!("{path} byte {}", hit.start),
                    expected: "no text like a secret in a redacted archive".to_owned(),
                    found: format!("one of rule {}", hit.rule),
                });
            }
        }
    }
}

/// The values of `key=` in notes that begin with `note`.
fn stated_counts(notes: &[String], note: &str, key: &str) -> Vec<String> {
    notes
        .iter()
        .filter_map(|text| text.strip_prefix(note))
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The first field in which two documents differ, as `field: found … instead of …`.
fn first_difference<T: Serialize>(expected: &T, found: &T) -> String {
    let as_value = |value: &T| serde_json::to_value(value).unwrap_or_default();
    let (expected, found) = (as_value(expected), as_value(found));
    let keys = expected.as_object().into_iter().flat_map(|map| map.keys());
    for key in keys {
        if expected.get(key) != found.get(key) {
            let show = |value: Option<&serde_json::Value>| {
                let text = value.map_or_else(|| "nothing".to_owned(), ToString::to_string);
                text.chars().take(200).collect::<String>()
            };
            return format!("{key} {} instead of {}", show(found.get(key)), show(expected.get(key)));
        }
    }
    "another document".to_owned()
}

/// Whether a run id is safe: not empty, only ASCII letters, digits, `_` and `-`.
#[must_use]
pub fn safe_run_id(run_id: &str) -> bool {
    !run_id.is_empty()
        && run_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}
