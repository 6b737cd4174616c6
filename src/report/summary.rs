//! The step summary of Actions and its annotations: what an invocation came to, in Markdown.
//!
//! A runner shows nothing of a summary above 1 MiB and at most ten annotations of a step, so both are bounded here.

use super::Definitions;
use super::human::of_any_run;
use super::page::Gap;
use crate::judge::{GateVerdict, claims::NON_CLAIMS};
use crate::pack::claims::{Claims, lines_of};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Largest summary; a runner's own limit is 1 MiB for everything that a step writes.
const LIMIT: usize = 900 * 1024;
/// Most reasons shown of one gate: the summary is read in one look.
const REASONS: usize = 3;
/// Longest reason shown, in characters.
const REASON_LENGTH: usize = 500;
/// Annotations of one kind that a runner shows of a step.
const ANNOTATIONS: usize = 10;

/// The uploaded pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactLine {
    /// Its page.
    pub url: String,
    /// `sha256:…` of the zip.
    pub digest: String,
}

/// The summary of an invocation, with what it claims and what not: what came of it and why, gates that did not pass first.
#[must_use]
pub fn summary(
    verdicts: &[GateVerdict],
    gaps: &[Gap],
    claims: Option<&Claims>,
    artifact: Option<&ArtifactLine>,
) -> String {
    let tail = tail(verdicts, claims, artifact);
    let mut text = headline(verdicts);
    for gap in gaps.iter().take(REASONS) {
        let _infallible = writeln!(
            text,
            "**A semantic gap was measured: {}.** {}\n",
            cell(&gap.scenario),
            cell(&gap.reason)
        );
    }
    let (good, failed): (Vec<&GateVerdict>, Vec<&GateVerdict>) =
        verdicts.iter().partition(|gate| gate.passed());
    text.push_str("| gate | runs | agree | lost events | wall time | verdict |\n|---|---|---|---|---|---|\n");
    let mut left_out = 0;
    for gate in failed.iter().chain(&good) {
        let row = row(gate);
        if text.len() + row.len() + tail.len() + 200 > LIMIT {
            left_out += 1;
        } else {
            text.push_str(&row);
        }
    }
    for gate in failed {
        let details = details(gate);
        if text.len() + details.len() + tail.len() + 200 > LIMIT {
            left_out += 1;
        } else {
            text.push_str(&details);
        }
    }
    if left_out > 0 {
        let _infallible =
            writeln!(text, "\n{left_out} rows and lists are left out here; the proof pack has everything.");
    }
    text.push_str(&tail);
    text
}

fn headline(verdicts: &[GateVerdict]) -> String {
    let failed: Vec<&GateVerdict> = verdicts.iter().filter(|gate| !gate.passed()).collect();
    let (all, plural) = (verdicts.len(), if verdicts.len() == 1 { "gate" } else { "gates" });
    match failed.first() {
        None if all == 0 => "### Gates: not passed\n\nNo gate was measured.\n\n".to_owned(),
        None => format!("### Gates: passed\n\n{all} {plural} passed.\n\n"),
        Some(first) => {
            let reason = first.reasons.first().map_or("no reason was recorded", String::as_str);
            let count = failed.len();
            format!(
                "### Gates: not passed\n\n{count} of {all} {plural} did not pass. **{}**: {}\n\n",
                cell(&first.gate),
                cell(reason)
            )
        }
    }
}

fn row(gate: &GateVerdict) -> String {
    let runs = match gate.runs.is_empty() {
        true => "none".to_owned(),
        false => {
            let accepted = gate.runs.iter().filter(|run| run.passed).count();
            format!("{accepted} of {} accepted", gate.runs.len())
        }
    };
    let agree = gate.determinism.as_ref().map_or("–", |found| if found.agree { "yes" } else { "**no**" });
    let lost: u64 = gate.runs.iter().map(|run| run.lost).sum();
    let incomplete = gate.runs.iter().any(|run| !run.complete);
    format!(
        "| {} | {runs} | {agree} | {lost}{} | {:.2} s | {} |\n",
        cell(&gate.gate),
        if incomplete { " (incomplete)" } else { "" },
        std::time::Duration::from_millis(gate.elapsed_ms).as_secs_f64(),
        match gate.passed() {
            true => "passed".to_owned(),
            false => format!("**{}** (exit {})", gate.status.word(), gate.exit),
        }
    )
}

fn details(gate: &GateVerdict) -> String {
    let mut text = format!("\n**{}**: {}\n\n", cell(&gate.gate), gate.status.word());
    // What several runs say is said once.
    let mut known = BTreeSet::new();
    let reasons: Vec<&String> =
        gate.reasons.iter().filter(|reason| known.insert(of_any_run(reason))).collect();
    for reason in reasons.iter().take(REASONS) {
        let _infallible = writeln!(text, "- {}", cell(reason));
    }
    if reasons.len() > REASONS {
        let _infallible = writeln!(text, "- and {} more", reasons.len() - REASONS);
    }
    text
}

fn tail(verdicts: &[GateVerdict], claims: Option<&Claims>, artifact: Option<&ArtifactLine>) -> String {
    let all = !verdicts.is_empty() && verdicts.iter().all(GateVerdict::passed);
    let mut text = String::from("\n### What this shows\n\n");
    for line in lines_of(claims) {
        let _infallible = writeln!(text, "- {}", cell(&line));
    }
    text.push_str("\n<details><summary>What it does not show</summary>\n\n");
    let own = claims.map_or(&[][..], |claims| claims.non_claims.as_slice());
    let sentences = own.iter().map(|one| one.text.as_str());
    let fixed = NON_CLAIMS.iter().map(|(_, sentence)| *sentence).filter(|_| own.is_empty());
    for sentence in sentences.chain(fixed) {
        let _infallible = writeln!(text, "- {sentence}");
    }
    text.push_str("\n</details>\n\n### Proof pack\n\n");
    let _infallible = match artifact {
        Some(artifact) => writeln!(text, "[artifact]({}), `{}`", link(&artifact.url), cell(&artifact.digest)),
        None => writeln!(text, "Nothing was uploaded."),
    };
    let next = match (verdicts.is_empty(), all, artifact) {
        (true, _, _) => "assay-gates doctor",
        (false, true, Some(_)) => "assay-gates verify pack.zip",
        (false, true, None) => "assay-gates pack --root ROOT --out PACK",
        (false, false, Some(_)) => "assay-gates triage pack.zip",
        (false, false, None) => "assay-gates triage ROOT",
    };
    let _infallible = writeln!(text, "\nNext: `{next}`");
    text
}

/// One `::error` a failed gate, at the line of its definition where that is known, at most as many as a runner shows; the last one then speaks for the rest. Then one
/// `::notice` with what is claimed and what not.
#[must_use]
pub fn annotations(verdicts: &[GateVerdict], claims: Option<&Claims>, definitions: &Definitions) -> String {
    let failed: Vec<&GateVerdict> = verdicts.iter().filter(|gate| !gate.passed()).collect();
    let shown = if failed.len() > ANNOTATIONS { ANNOTATIONS - 1 } else { failed.len() };
    let mut text = String::new();
    for gate in &failed[..shown] {
        let reason = gate.reasons.first().map_or("no reason was recorded", String::as_str);
        let _infallible = writeln!(
            text,
            "::error {}title={}::{}: {}",
            definitions.position(&gate.gate, &["id"]).map_or_else(String::new, |at| format!(
                "file={},line={},",
                property(&at.file),
                at.line
            )),
            property(&format!("Gate {}", gate.gate)),
            gate.status.word(),
            data(&shorten(reason))
        );
    }
    if failed.len() > shown {
        let _infallible =
            writeln!(text, "::error title=Gates::{} more gates did not pass", failed.len() - shown);
    }
    let _infallible = writeln!(text, "::notice title=Claims::{}", data(&lines_of(claims).join("\n")));
    text
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(REASON_LENGTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Text that may hold anything, as Markdown that means nothing but itself, on one line.
fn cell(text: &str) -> String {
    let mut shown = String::new();
    for c in shorten(text).chars() {
        match c {
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            c if c.is_control() => shown.push(' '),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '!' | '~' | '@' => {
                shown.push('\\');
                shown.push(c);
            }
            c => shown.push(c),
        }
    }
    shown
}

/// The target of a link: no character of it may end the link.
fn link(url: &str) -> String {
    url.chars().filter(|c| c.is_ascii_graphic() && !"()<>\"'".contains(*c)).collect()
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;
    use crate::judge::claims::ClaimClass;
    use crate::judge::{Determinism, RunVerdict};

    fn run(number: u32, passed: bool) -> RunVerdict {
        RunVerdict {
            run: number,
            passed,
            exit_code: Some(0),
            signal: None,
            timed_out: false,
            interrupted: false,
            effects: 20,
            kernel_events: 3,
            lost: 0,
            complete: true,
            incomplete_because: Vec::new(),
            elapsed_ms: 100,
            archive: None,
            assertions: Vec::new(),
            last_words: Vec::new(),
        }
    }

    fn gate(id: &str, reasons: Vec<(Exit, String)>) -> GateVerdict {
        let passed = reasons.is_empty();
        let runs = (1..=3).map(|number| run(number, passed || number > 1)).collect();
        let agree = Determinism { agree: true, runs: 3, compared: Vec::new(), divergence: None };
        GateVerdict::conclude(id, 3, runs, Some(agree), reasons, 4_210)
    }

    fn failed(id: &str, reason: &str) -> GateVerdict {
        gate(id, vec![(Exit::AcceptanceFailed, reason.to_owned())])
    }

    /// Claims of which the widest was earned, or not for a reason.
    fn claims(reason: Option<&str>) -> Claims {
        let reasons: Vec<String> = reason.into_iter().map(str::to_owned).collect();
        let claim = crate::pack::claims::Claim {
            id: "three_layers".into(),
            earned: reasons.is_empty(),
            text: reasons.is_empty().then(|| ClaimClass::ThreeLayers.text().to_owned()),
            gates: vec!["kernel-only".into()],
            runs: 3,
            reasons,
        };
        Claims { schema: "s".into(), claims: vec![claim], kill_criteria: vec![], non_claims: vec![] }
    }

    fn artifact() -> ArtifactLine {
        ArtifactLine { url: "https://example.org/a/1".into(), digest: "sha256:00".into() }
    }

    #[test]
    fn a_green_invocation_reads_as_a_table_a_claim_and_its_limits() {
        insta::assert_snapshot!(summary(
            &[gate("kernel-only", vec![])],
            &[],
            Some(&claims(None)),
            Some(&artifact())
        ));
    }

    #[test]
    fn a_red_invocation_names_the_reason_and_claims_nothing() {
        let verdicts =
            [gate("kernel-only", vec![]), failed("kernel-policy", "run 1: a.txt | was <b>not</b>\n# read")];
        insta::assert_snapshot!(summary(
            &verdicts,
            &[],
            Some(&claims(Some("gate kernel-policy is failed"))),
            None
        ));
    }

    #[test]
    fn a_red_gate_is_read_in_twenty_lines_without_a_tick() {
        let gates: Vec<GateVerdict> = ["a", "b", "c", "d", "e"]
            .map(|id| match id {
                "c" => gate(id, (1..=3).map(|n| (Exit::AcceptanceFailed, format!("run {n}: x"))).collect()),
                _ => gate(id, vec![]),
            })
            .to_vec();
        let text = summary(&gates, &[], Some(&claims(Some("gate c is failed"))), None);
        let (folded, _) = text.split_once("<details>").unwrap();
        assert!(folded.lines().count() <= 20, "{folded}");
        assert!(folded.find("| c |") < folded.find("| a |"), "{folded}");
        assert_eq!(text.matches("- run").count(), 1, "{text}");
        assert!(!text.contains('✅') && text.contains("Nothing was uploaded."), "{text}");
    }

    #[test]
    fn a_summary_stays_below_the_limit_however_many_gates_and_reasons() {
        let long = "x<".repeat(400);
        let many: Vec<GateVerdict> = (0..2000)
            .map(|n| {
                gate(
                    &format!("gate-{n}"),
                    (0..25).map(|n| (Exit::AcceptanceFailed, format!("{n} {long}"))).collect(),
                )
            })
            .collect();
        let text = summary(&many, &[], None, Some(&artifact()));
        assert!(text.len() <= LIMIT, "{}", text.len());
        assert!(text.contains("left out here") && text.contains("Next: `assay-gates triage"));
    }

    #[test]
    fn nothing_is_claimed_without_claims_however_green_the_gates() {
        let text = summary(&[gate("kernel-only", vec![])], &[], None, None);
        assert!(text.contains("nothing is claimed"), "{text}");
        assert!(ClaimClass::ALL.iter().all(|class| !text.contains(class.text())), "{text}");
    }

    #[test]
    fn each_failed_gate_has_one_annotation_on_one_line() {
        let text = annotations(
            &[gate("a", vec![]), failed("b", "50% off\n::warning::x"), failed("c", "y")],
            None,
            &Definitions::default(),
        );
        assert_eq!(
            text,
            "::error title=Gate b::failed: 50%25 off%0A::warning::x\n::error title=Gate c::failed: y\n\
             ::notice title=Claims::nothing is claimed: there is no claims.json\n"
        );
    }

    #[test]
    fn more_failures_than_a_runner_shows_are_counted_in_the_last_annotation() {
        let many: Vec<GateVerdict> = (0..25).map(|n| failed(&format!("g{n}"), "r")).collect();
        let text = annotations(&many, None, &Definitions::default());
        let errors: Vec<&str> = text.lines().filter(|line| line.starts_with("::error")).collect();
        assert_eq!(errors.len(), ANNOTATIONS);
        assert_eq!(errors.last(), Some(&"::error title=Gates::16 more gates did not pass"));
    }
}
