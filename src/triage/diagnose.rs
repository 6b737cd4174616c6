//! Facts and rules to a diagnosis: pure, deterministic, fail-closed.

use super::diagnosis::{Also, Diagnosis, Evidence, Next, RerunAnswer};
use super::facts::{Case, Confidence, Fact, FactKind};
use super::rules::{Class, Kind, Rerun, Rules};
use crate::error::{Code, Error, Result};

/// The host facts that are always shown.
const HOST: [&str; 4] = ["disk", "leftovers", "lost events", "clock"];
/// What the run ran on and with that is always shown.
pub const ENVIRONMENT: [&str; 6] =
    ["head", "kernel", "eBPF object", "toolchain", "runner version", "SDK versions"];

/// A class, the fact that fits it best, and the detail.
struct Fit<'c> {
    class: usize,
    fact: &'c Fact,
    detail: Option<String>,
}

/// Diagnoses. Deterministic: the same case and rules give the same diagnosis.
///
/// # Errors
/// `Internal` when the rules lack the class `unknown`.
pub fn diagnose(rules: &Rules, case: &Case) -> Result<Diagnosis> {
    let mut fits: Vec<Fit<'_>> = Vec::new();
    for fact in &case.facts {
        for (class, detail) in rules.fits(fact) {
            match fits.iter_mut().find(|fit| fit.class == class) {
                None => fits.push(Fit { class, fact, detail }),
                // The weightiest fact speaks for its class, then the first.
                Some(fit) if weight(fact) > weight(fit.fact) => *fit = Fit { class, fact, detail },
                Some(_) => {}
            }
        }
    }
    fits.sort_by_key(|fit| fit.class);
    let green = |fit: &Fit<'_>| rules.classes()[fit.class].kind == Kind::Fine;
    let unknown = rules
        .class("unknown")
        .ok_or_else(|| Error::new(Code::Internal, "the triage rules have no class `unknown`"))?;
    let failed = fits.iter().position(|fit| !green(fit));
    let deciding = failed.or_else(|| fits.iter().position(green));
    let (class, decided) = match deciding {
        Some(at) => (&rules.classes()[fits[at].class], Some(&fits[at])),
        None => (unknown, None),
    };
    let also = fits.iter().enumerate().filter(|(at, fit)| Some(*at) != deciding && !green(fit));
    let also = also.map(|(_, fit)| Also {
        class: rules.classes()[fit.class].id.clone(),
        detail: fit.detail.clone(),
        evidence: evidence(fit.fact),
    });
    let fact = decided.map(|fit| fit.fact);
    let confidence = match fact {
        None => Confidence::None,
        Some(_) if class.kind == Kind::Unknown => Confidence::None,
        Some(fact) => weight(fact),
    };
    let (gate, run) = where_it_failed(case, fact);
    let (divergence, context) = divergence(case, fact);
    let known = |names: &[&str], have: &super::facts::Environment| {
        let mut all = have.clone();
        for name in names {
            all.entry((*name).to_owned()).or_insert_with(|| "unknown".to_owned());
        }
        all
    };
    Ok(Diagnosis {
        schema: "assay.gates.triage.v0",
        source: case.source.clone(),
        url: case.url.clone(),
        class: class.id.clone(),
        title: class.title.clone(),
        kind: class.kind,
        detail: decided.and_then(|fit| fit.detail.clone()),
        confidence,
        rerun: rerun(class, case),
        evidence: fact.map(evidence),
        next: Next { command: command(class, case, &gate), page: format!("runbook/{}", class.page) },
        exit: class.exit,
        gate: gate.unwrap_or_else(|| "unknown".to_owned()),
        run: run.map_or_else(|| "unknown".to_owned(), |run| run.to_string()),
        divergence,
        context,
        also: also.collect(),
        claims: crate::pack::claims::lines_of(case.claims.as_ref()),
        changed: case.changed.clone(),
        environment: known(&ENVIRONMENT, &case.environment),
        host: known(&HOST, &case.host),
        history: case.history.clone(),
        attempt: case.attempt,
        missing: case.missing.clone(),
    })
}

fn weight(fact: &Fact) -> Confidence {
    if fact.measured { Confidence::Low } else { fact.kind.confidence() }
}

fn evidence(fact: &Fact) -> Evidence {
    let line = fact.line().map(str::to_owned);
    Evidence { place: fact.place.clone(), key: fact.key.clone(), value: fact.value.clone(), line }
}

/// Infrastructure may be retried only when the logs are there that would show a genuine failure.
fn rerun(class: &Class, case: &Case) -> RerunAnswer {
    let blind = case.missing.iter().find(|missing| missing.starts_with("log "));
    match (class.rerun, blind) {
        (Rerun::Allowed, Some(log)) => RerunAnswer {
            answer: Rerun::AfterFix,
            why: format!("{log} is missing, so a genuine failure can't be excluded: look at it first"),
        },
        (answer, _) => RerunAnswer { answer, why: class.why.clone() },
    }
}

/// Gate and run of the deciding fact, else of the first gate that is known to have failed.
fn where_it_failed(case: &Case, fact: Option<&Fact>) -> (Option<String>, Option<u32>) {
    let own = fact.and_then(|fact| fact.place.gate.clone());
    let gate = own.or_else(|| {
        let failed = |fact: &&Fact| match fact.kind {
            FactKind::Gate => fact.key == "status" && fact.value != "passed",
            FactKind::Step => fact.value == "failure",
            _ => false,
        };
        case.facts.iter().filter(failed).find_map(|fact| fact.place.gate.clone())
    });
    let run = fact.and_then(|fact| fact.place.run).or_else(|| {
        let same = |other: &&Fact| other.place.gate == gate && gate.is_some() && is_broken(other);
        case.facts.iter().filter(same).find_map(|fact| fact.place.run)
    });
    (gate, run)
}

fn is_broken(fact: &Fact) -> bool {
    fact.kind == FactKind::Field && (fact.key.contains("/assertions/") || fact.key.contains("/invariants/"))
}

/// The first divergence or failed assertion; else the deciding fact itself, if it has context.
fn divergence(case: &Case, fact: Option<&Fact>) -> (String, Vec<String>) {
    let drift = |fact: &&Fact| fact.kind == FactKind::Field && fact.key.ends_with("/divergence/diff");
    let told = |fact: &Fact| {
        if fact.key.ends_with("/divergence/diff") {
            let artifact = fact.key.replace("/divergence/diff", "/divergence/artifact");
            let named = case.facts.iter().find(|other| other.key == artifact && other.place == fact.place);
            return format!("the runs differ in {}", named.map_or("unknown", |named| named.value.as_str()));
        }
        let name = fact.key.rsplit('/').next().unwrap_or_default();
        if fact.kind == FactKind::Field {
            format!("{name}: {}", first_line(&fact.value))
        } else {
            fact.value.clone()
        }
    };
    let is_drift = fact.is_some_and(|fact| fact.key.ends_with("/divergence/kind"));
    let deciding_has = fact.filter(|fact| is_broken(fact) || !fact.context.is_empty());
    let at = if is_drift { case.facts.iter().find(drift) } else { deciding_has };
    match at.or_else(|| case.facts.iter().find(is_broken_ref)).or_else(|| case.facts.iter().find(drift)) {
        Some(fact) => (told(fact), fact.context.clone()),
        None => ("unknown".to_owned(), Vec::new()),
    }
}

fn is_broken_ref(fact: &&Fact) -> bool {
    is_broken(fact)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn command(class: &Class, case: &Case, gate: &Option<String>) -> String {
    let run = case.run_id.map(|id| id.to_string());
    let filled = [
        ("{run}", run.as_deref().unwrap_or("RUN")),
        ("{repo}", case.repository.as_deref().unwrap_or("OWNER/NAME")),
        ("{gate}", gate.as_deref().unwrap_or("GATE")),
        ("{source}", run.as_deref().unwrap_or(&case.source)),
    ];
    filled.iter().fold(class.next.clone(), |command, (name, value)| command.replace(name, value))
}
