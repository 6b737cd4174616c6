//! The diagnosis as a person reads it, and as a block to paste into an issue.

use super::diagnosis::{Diagnosis, Evidence};
use super::facts::{Confidence, Environment};
use super::rules::Rerun;
use crate::files::visible;
use std::fmt::Write;

/// For a terminal: eight parts, always in the same order.
#[must_use]
pub fn human(d: &Diagnosis) -> String {
    let mut out = String::new();
    let detail = d.detail.as_ref().map_or(String::new(), |detail| format!(" ({})", one_line(detail)));
    let evidence = d.evidence.as_ref().map_or_else(unknown, told);
    let verdict = format!("{}{detail} · {} · {}", d.class, confidence(d.confidence), rerun(d.rerun.answer));
    line(&mut out, &format!("{verdict} · {evidence}"));
    line(&mut out, &format!("  {}; {}", d.title, d.rerun.why));
    for other in &d.also {
        let detail = other.detail.as_ref().map_or(String::new(), |detail| format!(" ({})", one_line(detail)));
        line(&mut out, &format!("  also {}{detail}: {}", other.class, told(&other.evidence)));
    }
    section(&mut out, "where");
    line(&mut out, &format!("  gate {} · run {} · {}", d.gate, d.run, one_line(&d.divergence)));
    for context in &d.context {
        line(&mut out, &format!("    {context}"));
    }
    section(&mut out, "claims");
    for claim in &d.claims {
        line(&mut out, &format!("  {claim}"));
    }
    section(&mut out, "changed since the last green run");
    for text in changed(d) {
        line(&mut out, &format!("  {text}"));
    }
    section(&mut out, "host");
    line(&mut out, &format!("  {}", pairs(&d.host)));
    line(&mut out, &format!("  {}", pairs(&d.environment)));
    section(&mut out, "seen before");
    line(&mut out, &format!("  {}", history(d)));
    section(&mut out, "rests on");
    line(&mut out, &format!("  {}", source(d)));
    match d.missing.as_slice() {
        [] => line(&mut out, "  missing: nothing"),
        missing => missing.iter().for_each(|what| line(&mut out, &format!("  missing: {what}"))),
    }
    section(&mut out, "next");
    line(&mut out, &format!("  {}", d.next.command));
    line(&mut out, &format!("  assay-gates explain {}    ({})", d.class, d.next.page));
    out
}

/// A block to paste into an issue.
#[must_use]
pub fn markdown(d: &Diagnosis) -> String {
    let mut out = String::new();
    let link = d.url.as_ref().map_or_else(|| code(&d.source), |url| format!("<{url}>"));
    line(&mut out, &format!("### {}: {}\n", d.class, d.title));
    line(&mut out, "| | |\n|---|---|");
    let mut row = |name: &str, value: &str| {
        line(&mut out, &format!("| {name} | {} |", value.replace('|', "\\|").replace('\n', " ")));
    };
    row("run", &link);
    row("attempt", &d.attempt.map_or_else(unknown, |attempt| attempt.to_string()));
    row("detail", &d.detail.as_deref().map_or_else(unknown, |detail| code(&one_line(detail))));
    row("confidence", confidence(d.confidence));
    row("rerun", &format!("{}: {}", rerun(d.rerun.answer), d.rerun.why));
    row("evidence", &d.evidence.as_ref().map_or_else(unknown, |evidence| code(&told(evidence))));
    row("gate, run", &format!("{}, {}", d.gate, d.run));
    row("divergence", &code(&one_line(&d.divergence)));
    row("host", &pairs(&d.host));
    row("environment", &pairs(&d.environment));
    row("claims", &d.claims.join("; "));
    row("seen before", &history(d));
    row("missing", &if d.missing.is_empty() { "nothing".to_owned() } else { d.missing.join("; ") });
    row("next", &code(&d.next.command));
    row("page", &code(&d.next.page));
    if !d.context.is_empty() {
        // A fence longer than any run of backticks inside can't be closed by what a log says.
        let runs = d.context.iter().flat_map(|line| line.split(|c| c != '`'));
        let fence = "`".repeat(runs.map(str::len).max().unwrap_or(0).max(2) + 1);
        line(&mut out, &format!("\n{fence}text\n{}\n{fence}", d.context.join("\n")));
    }
    line(&mut out, "\nChanged since the last green run:\n");
    for text in changed(d) {
        line(&mut out, &format!("* {}", code(&text)));
    }
    out
}

/// What a log or a file said may hold anything; a view has no colours of its own.
fn line(out: &mut String, text: &str) {
    out.push_str(visible(text).trim_end());
    out.push('\n');
}

fn section(out: &mut String, name: &str) {
    let _infallible = write!(out, "\n{name}\n");
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn code(text: &str) -> String {
    let text = text.replace('\n', " ");
    if text.contains('`') { format!("`` {text} ``") } else { format!("`{text}`") }
}

fn one_line(text: &str) -> String {
    let mut line: String = text.lines().next().unwrap_or_default().chars().take(160).collect();
    if line.len() < text.trim_end().len() {
        line.push('…');
    }
    line
}

fn told(evidence: &Evidence) -> String {
    match &evidence.line {
        Some(line) => format!("{}: {}", evidence.place, one_line(line)),
        None => format!("{}: {} {}", evidence.place, short(&evidence.key), one_line(&evidence.value)),
    }
}

/// A key without the name of its file, which the place says already.
fn short(key: &str) -> &str {
    key.split_once(".json:/").map_or(key, |(_, pointer)| pointer)
}

fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Certain => "certain",
        Confidence::Likely => "likely",
        Confidence::Low => "low confidence: a measured program printed it",
        Confidence::None => "confidence unknown",
    }
}

fn rerun(rerun: Rerun) -> &'static str {
    match rerun {
        Rerun::Allowed => "rerun allowed",
        Rerun::AfterFix => "rerun after the fix",
        Rerun::Refused => "no rerun",
    }
}

fn pairs(values: &Environment) -> String {
    values.iter().map(|(name, value)| format!("{name} {}", one_line(value))).collect::<Vec<_>>().join(" · ")
}

fn changed(d: &Diagnosis) -> Vec<String> {
    let Some(changed) = &d.changed else { return vec![unknown()] };
    let mut out = vec![format!("since {}", changed.since)];
    out.extend(changed.commits.iter().map(|commit| format!("commit {commit}")));
    if changed.commits_left_out > 0 {
        out.push(format!("and {} more commits", changed.commits_left_out));
    }
    if changed.workflow.is_empty() {
        out.push("workflow unchanged".to_owned());
    }
    out.extend(changed.workflow.iter().map(|file| format!("workflow {file}")));
    out.extend(changed.environment.iter().cloned());
    out
}

fn history(d: &Diagnosis) -> String {
    match &d.history {
        None => unknown(),
        Some(history) if history.signature.is_empty() => {
            format!("no failed step to compare; {} runs looked at", history.looked_at)
        }
        Some(history) => {
            let steps = history.signature.join(", ");
            let same = if history.same.is_empty() {
                String::new()
            } else {
                format!(": {}", history.same.join(", "))
            };
            format!(
                "{steps} failed alike in {} of the last {} runs{same}",
                history.same.len(),
                history.looked_at
            )
        }
    }
}

fn source(d: &Diagnosis) -> String {
    let attempt = d.attempt.map_or_else(unknown, |attempt| attempt.to_string());
    format!("{} · attempt {attempt}", d.url.as_deref().unwrap_or(&d.source))
}
