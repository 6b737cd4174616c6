//! The findings of an invocation as SARIF 2.1.0, for code scanning: semantic gaps, exceeded baselines, drift, and gates
//! that did not pass for another reason. Each points to the definition of its gate.

use super::Definitions;
use super::page::Document;
use crate::files::sha256;
use crate::judge::GateVerdict;
use crate::pack::claims::lines_of;
use serde_json::{Value, json};

/// The rules: id, what it is, level, and the keys of a definition that it is about.
const RULES: [(&str, &str, &str, &[&str]); 4] = [
    (
        "semantic-gap",
        "An effect was measured inside a tool call that the report of the call does not contain",
        "warning",
        &["scenario", "id"],
    ),
    ("baseline-exceeded", "A gate touched something that its baseline lacks", "error", &["id"]),
    ("drift", "Measured runs of one gate did not agree", "error", &["id"]),
    ("not-passed", "A gate did not pass", "error", &["id"]),
];

/// How the reason begins that says what a baseline lacks.
const BASELINE: &str = "baseline: ";

/// Longest message, in characters.
const LONGEST: usize = 2000;

/// The whole file. A gate without a definition here is at `gates/<id>/gate.yaml`, where it would be.
#[must_use]
pub fn sarif(document: &Document, definitions: &Definitions) -> String {
    let mut results = Vec::new();
    for gap in &document.gaps {
        results.push(result(definitions, 0, (&gap.gate, &gap.scenario), &gap.reason));
    }
    for gate in &document.gates {
        match &gate.verdict {
            None => results.push(result(definitions, 3, (&gate.id, ""), "no verdict was written")),
            Some(verdict) => {
                let said = of_gate(verdict);
                results
                    .extend(said.iter().map(|(rule, text)| result(definitions, *rule, (&gate.id, ""), text)));
            }
        }
    }
    let rules: Vec<Value> = RULES
        .iter()
        .map(|(id, what, level, _)| {
            json!({"id": id, "shortDescription": {"text": what}, "defaultConfiguration": {"level": level}})
        })
        .collect();
    let finished = document.record.as_ref().is_some_and(|record| record.finished_at.is_some());
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "assay-gates",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "informationUri": env!("CARGO_PKG_REPOSITORY"),
                "rules": rules,
            }},
            "automationDetails": {"id": "assay-gates/"},
            "invocations": [{"executionSuccessful": finished}],
            "properties": {"claims": lines_of(document.claims.as_ref())},
            "results": results,
        }],
    });
    crate::files::pretty_sorted(&log).unwrap_or_default()
}

/// The rules that a verdict meets, by their index, with what is said.
fn of_gate(verdict: &GateVerdict) -> Vec<(usize, String)> {
    if verdict.passed() {
        return Vec::new();
    }
    let mut found = Vec::new();
    let (grown, rest): (Vec<&String>, Vec<&String>) =
        verdict.reasons.iter().partition(|reason| reason.starts_with(BASELINE));
    if !grown.is_empty() {
        found.push((1, lines(grown.iter().map(|reason| &reason[BASELINE.len()..]))));
    }
    let divergence = verdict.determinism.as_ref().and_then(|found| found.divergence.as_ref());
    let drift: Vec<String> = divergence.map_or_else(Vec::new, |at| {
        let differ = format!("runs {} and {} differ in {}", at.runs[0], at.runs[1], at.artifact);
        std::iter::once(differ).chain(at.said()).collect()
    });
    if !drift.is_empty() {
        found.push((2, lines(drift.iter().map(String::as_str))));
    }
    let other: Vec<&str> = rest
        .into_iter()
        .map(String::as_str)
        .filter(|reason| !drift.iter().any(|one| one == reason))
        .collect();
    if !other.is_empty() || found.is_empty() {
        let said = format!("{}: {}", verdict.status.word(), lines(other.into_iter()));
        found.push((3, said));
    }
    found
}

fn lines<'a>(all: impl Iterator<Item = &'a str>) -> String {
    let text = all.collect::<Vec<_>>().join("\n");
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn result(definitions: &Definitions, rule: usize, (gate, scenario): (&str, &str), said: &str) -> Value {
    let (id, _, level, keys) = RULES[rule];
    let position = definitions.position(gate, keys);
    let (file, line) =
        position.map_or_else(|| (format!("gates/{gate}/gate.yaml"), 1), |found| (found.file, found.line));
    let uri: Vec<String> = file.split('/').map(encoded).collect();
    json!({
        "ruleId": id,
        "ruleIndex": rule,
        "level": level,
        "message": {"text": format!("Gate {gate}: {said}")},
        "locations": [{"physicalLocation": {
            "artifactLocation": {"uri": uri.join("/"), "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": line},
        }}],
        // The same finding of the same gate is one alert, whatever its runs say differently.
        "partialFingerprints": {"gateFinding/v1": sha256(format!("{id}\n{gate}\n{scenario}").as_bytes()).to_string()},
    })
}

fn encoded(part: &str) -> String {
    const PLAIN: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
    percent_encoding::utf8_percent_encode(part, PLAIN).to_string()
}
