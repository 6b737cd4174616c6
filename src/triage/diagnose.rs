//! Facts and rules to a diagnosis: pure, deterministic, fail-closed.

use super::diagnosis::{Also, Diagnosis, Evidence, Next, RerunAnswer};
use super::facts::{Case, Confidence, Fact, FactKind, Subject};
use super::rules::{Class, Kind, Rerun, Rules};
use crate::error::{Code, Error, Result};
use crate::files::quoted;

/// The host facts that are always shown.
const HOST: [&str; 4] = ["disk", "leftovers", "lost events", "clock"];
/// What the run ran on and with that is always shown.
pub const ENVIRONMENT: [&str; 6] =
    ["head", "kernel", "eBPF object", "toolchain", "runner version", "SDK versions"];

/// A class, the fact that fits it best, and the detail.
struct Fit<'c> {
    class: usize,
    rank: (usize, u8),
    fact: &'c Fact,
    detail: Option<String>,
}

impl Fit<'_> {
    /// Smaller decides more.
    fn order(&self) -> ((usize, u8), std::cmp::Reverse<Confidence>) {
        (self.rank, std::cmp::Reverse(self.fact.weight()))
    }
}

/// Diagnoses. Deterministic: the same case and rules give the same diagnosis.
///
/// # Errors
/// `Internal` when the rules lack the class `unknown`.
pub fn diagnose(rules: &Rules, case: &Case) -> Result<Diagnosis> {
    let mut fits: Vec<Fit<'_>> = Vec::new();
    for fact in &case.facts {
        for (class, rank, detail) in rules.fits(fact) {
            let fit = Fit { class, rank, fact, detail };
            match fits.iter_mut().find(|fit| fit.class == class) {
                None => fits.push(fit),
                // The highest rank speaks for its class, then the weightiest fact, then the first.
                Some(other) if fit.order() < other.order() => *other = fit,
                Some(_) => {}
            }
        }
    }
    fits.sort_by_key(|fit| fit.rank);
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
        Some(fact) => fact.weight(),
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
        evidence: fact.or_else(|| end_of_a_step(case)).map(evidence),
        next: Next { command: command(class, case), page: format!("runbook/{}", class.page) },
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

fn evidence(fact: &Fact) -> Evidence {
    let line = fact.line().map(str::to_owned);
    Evidence { place: fact.place.clone(), key: fact.key.clone(), value: fact.value.clone(), line }
}

/// What is shown, though it decides nothing: how a step ended that is not known to be a gate.
fn end_of_a_step(case: &Case) -> Option<&Fact> {
    case.facts.iter().find(|fact| fact.kind == FactKind::ExitCode && !fact.measured)
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
    let run = fact.and_then(|fact| fact.place.run.or_else(|| named_run(&fact.value))).or_else(|| {
        let same = |other: &&Fact| other.place.gate == gate && gate.is_some() && is_broken(other);
        case.facts.iter().filter(same).find_map(|fact| fact.place.run)
    });
    (gate, run)
}

/// `run 2: …`, as the driver begins its reasons.
fn named_run(text: &str) -> Option<u32> {
    let rest = text.split_once("run ")?.1;
    let number = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    number.parse().ok()
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

/// The class's command for what was looked at. One that needs a run or results where only logs are known is of no use:
/// then the page is.
fn command(class: &Class, case: &Case) -> String {
    let repository = case.repository.as_deref().unwrap_or("OWNER/NAME");
    let run = case.run_id.map(|id| id.to_string());
    let source = match (case.subject, &run) {
        (Subject::Run, Some(run)) => Some(format!("{run} --repo {repository}")),
        (Subject::Root | Subject::Pack, _) => Some(quoted(&case.source)),
        _ => None,
    };
    let lacks = |name: &str, value: &Option<String>| class.next.contains(name) && value.is_none();
    if lacks("{run}", &run) || lacks("{source}", &source) {
        return format!("assay-gates explain {}", class.id);
    }
    let of_run = |name: &str| case.facts.iter().find(|fact| fact.key == format!("run.json:/{name}"));
    let selection = of_run("selection");
    // A root is of so many runs of each gate, and another number is another invocation.
    let runs = of_run("runs").map_or(String::new(), |fact| format!(" --runs {}", quoted(&fact.value)));
    let root = match case.subject {
        Subject::Root => format!(" --root {}", quoted(&case.source)),
        _ => String::new(),
    };
    let filled = [
        ("{run}", run.unwrap_or_default()),
        ("{repo}", repository.to_owned()),
        ("{selection}", quoted(selection.map_or("all", |fact| &fact.value))),
        ("{runs}", runs),
        ("{root}", root),
        ("{source}", source.unwrap_or_default()),
    ];
    filled.iter().fold(class.next.clone(), |command, (name, value)| command.replace(name, value))
}
