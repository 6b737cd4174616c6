//! Hits in a log to facts.

use crate::triage::facts::{Case, Fact, FactKind, Place};
use crate::triage::log::{Hit, Scan};
use crate::triage::rules::{Pattern, Rules};

/// Adds what a log gave. `measured`: the whole log was printed by a measured program.
pub fn add(rules: &Rules, case: &mut Case, place: &Place, scan: Scan, measured: bool) {
    for hit in scan.hits {
        let place = Place { line: Some(hit.line), ..place.clone() };
        let fact = fact(rules, hit, place, measured);
        match fact.kind {
            FactKind::Run => {
                case.environment.insert("runner version".to_owned(), fact.value);
            }
            _ => case.push(fact),
        }
    }
}

fn fact(rules: &Rules, hit: Hit, place: Place, measured: bool) -> Fact {
    let detail = hit.detail.clone().unwrap_or_default();
    let (kind, key, value) = match rules.pattern(hit.pattern) {
        Pattern::Code => (FactKind::Code, "code", detail),
        Pattern::ExitCode => (FactKind::ExitCode, "exit_code", detail),
        Pattern::RunnerVersion if !measured && !hit.measured => (FactKind::Run, "runner", detail),
        Pattern::RunnerVersion | Pattern::Line => (FactKind::Log, "line", hit.text.clone()),
    };
    let mut fact = Fact::new(kind, key, value, place);
    fact.context = hit.context;
    fact.measured = measured || hit.measured;
    if fact.place.gate.is_none() {
        fact.place.gate = fact.place.step.as_deref().and_then(gate_of_step).map(str::to_owned);
    }
    fact
}

/// `Gate: <id>`, or what the log zip makes of it: `Gate <id>`.
#[must_use]
pub fn gate_of_step(step: &str) -> Option<&str> {
    let rest = step.strip_prefix("Gate")?;
    let id = rest.trim_start_matches([':', ' ']).trim();
    (!id.is_empty() && rest.starts_with([':', ' '])).then_some(id)
}
