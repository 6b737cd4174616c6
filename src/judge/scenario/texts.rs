//! What people read: the summary of a review, and the finding beside it.

use super::conclusion::{Conclusion, describe};
use std::fmt::Write;

/// `summary.md`.
pub(super) fn summary(row: &Conclusion) -> String {
    let verdict = &row.verdict;
    let reference = &row.reference;
    let mut text = format!(
        "# Scenario {}: {}\n\n{}\n\n",
        verdict.scenario_id,
        verdict.verdict,
        sentence(&verdict.reason)
    );
    if let Some(why) = row.not_citable {
        let _infallible = writeln!(text, "Not citable: {why}.\n");
    }
    let pairs = [
        ("gate", format!("{} ({})", reference.proof_pack.gate, reference.proof_pack.gate_status)),
        ("head", reference.workflow.head_sha.clone()),
        ("runs", reference.proof_pack.archive_count.to_string()),
        ("join", format!("{} by {}", verdict.join_grade, verdict.join_key)),
        ("fallback used", verdict.fallback_used.to_string()),
        ("health", verdict.runner_health_status.clone()),
        ("claim class", verdict.evidence_pack_claim_class.clone()),
        (
            "baseline",
            reference.same_head_positive_baseline.as_ref().map_or("none".to_owned(), |baseline| {
                format!("{} ({}, {} runs)", baseline.gate, baseline.gate_status, baseline.archive_count)
            }),
        ),
    ];
    text.push_str("| | |\n|---|---|\n");
    for (key, value) in pairs {
        let _infallible = writeln!(text, "| {key} | {} |", cell(&value));
    }
    text.push_str(&not_claimed(row));
    text
}

/// `finding.md`: the sidecar text of a semantic gap.
pub(super) fn finding(row: &Conclusion) -> String {
    let mut text = format!("# Finding: {}\n\n", row.verdict.scenario_id);
    match row.not_citable {
        Some(why) => {
            let _infallible = writeln!(text, "Not citable: {why}.\n");
        }
        None => {
            let _infallible = writeln!(text, "Measured on {}.\n", row.reference.workflow.head_sha);
        }
    }
    let measured = row.gap.as_ref().map_or(String::new(), describe);
    let reported = row.reference.runner_archive_evidence.as_ref();
    let call = reported.map_or("", |evidence| evidence.tool_call_id.as_str());
    let tool = reported.map_or("", |evidence| evidence.tool.as_str());
    let _infallible = writeln!(
        text,
        "The SDK reported one call, `{tool}` ({call}), and the policy allowed it. While its server worked on that same call, in each of {} \
         runs, the kernel measured {}. The report does not contain it. A baseline of the same agent on the same head, with the same call and \
         the same report, does not have it.",
        row.reference.proof_pack.archive_count,
        cell(&measured),
    );
    text.push_str(&not_claimed(row));
    text
}

fn not_claimed(row: &Conclusion) -> String {
    let mut text = "\nThis does not claim:\n\n".to_owned();
    for claim in &row.verdict.non_claims {
        let words = claim.strip_prefix("does_not_").unwrap_or(claim).replace('_', " ");
        let _infallible = writeln!(text, "- `{claim}`: it does not {words}");
    }
    text
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let capital = letters.next().map(|first| first.to_uppercase().collect::<String>()).unwrap_or_default();
    cell(&format!("{capital}{}.", letters.as_str()))
}

/// One line that can't end a table cell or start markup of its own: paths are the measured program's choice.
fn cell(text: &str) -> String {
    text.chars()
        .flat_map(|letter| match letter {
            '|' | '<' | '>' | '`' | '[' | ']' | '*' => vec!['\\', letter],
            letter if letter.is_control() => letter.escape_default().collect(),
            letter => vec![letter],
        })
        .collect()
}
