//! The page.

use super::data::{Document, Gate, Run};
use super::timeline::{calls, processes, svg, told};
use crate::judge::claims::NON_CLAIMS;
use crate::pack::claims::lines_of;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Effects that the table of a run lists.
const LISTED: usize = 1000;

/// Text that a measured program may have chosen, as text.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Controls and direction marks would let a file name rearrange the page.
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// The whole page.
#[must_use]
pub fn render(document: &Document) -> String {
    let passed = !document.gates.is_empty()
        && document
            .gates
            .iter()
            .all(|gate| gate.verdict.as_ref().is_some_and(crate::judge::GateVerdict::passed));
    let title = format!("Gates: {}", if passed { "passed" } else { "not passed" });
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the gates</a>\n<header><h1>{title}</h1>\n"
    );
    invocation(&mut out, document);
    out.push_str("</header>\n<main id=\"main\" tabindex=\"-1\">\n");
    overview(&mut out, document);
    for gate in &document.gates {
        one_gate(&mut out, gate);
    }
    claims(&mut out, document);
    if !document.missing.is_empty() {
        out.push_str("<section><h2>Not there</h2><ul>\n");
        for missing in &document.missing {
            line(&mut out, &format!("<li>{}</li>", escape(missing)));
        }
        out.push_str("</ul></section>\n");
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn line(out: &mut String, text: &str) {
    out.push_str(text);
    out.push('\n');
}

fn invocation(out: &mut String, document: &Document) {
    let Some(record) = &document.record else {
        return line(
            out,
            &format!("<p>{} · the invocation's record is unknown</p>", escape(&document.source)),
        );
    };
    let unfinished =
        || record.unfinished.as_ref().map_or("not finished".to_owned(), |why| format!("not finished: {why}"));
    let finished = record.finished_at.clone().unwrap_or_else(unfinished);
    let object = record.object_sha256.as_deref().unwrap_or("unknown");
    out.push_str("<dl>\n");
    for (name, value) in [
        ("selected", record.selection.as_str()),
        ("head", &record.source.head_sha),
        ("repository", &record.source.repository),
        ("kernel", &record.host.kernel),
        ("kernel programs", object),
        ("started", &record.started_at),
        ("finished", &finished),
    ] {
        line(out, &format!("<div><dt>{name}</dt><dd>{}</dd></div>", escape(value)));
    }
    out.push_str("</dl>\n");
}

fn overview(out: &mut String, document: &Document) {
    out.push_str(
        "<section><h2>Overview</h2><table><thead><tr><th>gate</th><th>verdict</th><th>runs accepted</th><th>agree</th><th>lost records</th><th>wall time</th></tr></thead><tbody>\n",
    );
    for gate in &document.gates {
        let id = escape(&gate.id);
        let Some(verdict) = &gate.verdict else {
            line(
                out,
                &format!(
                    "<tr><td><a href=\"#{id}\">{id}</a></td><td class=\"bad\" colspan=\"5\">no verdict</td></tr>"
                ),
            );
            continue;
        };
        let accepted = verdict.runs.iter().filter(|run| run.passed).count();
        let lost: u64 = verdict.runs.iter().map(|run| run.lost).sum();
        let agree =
            verdict.determinism.as_ref().map_or("unknown", |found| if found.agree { "yes" } else { "no" });
        let class = if verdict.passed() { "good" } else { "bad" };
        let _infallible = writeln!(
            out,
            "<tr><td><a href=\"#{id}\">{id}</a></td><td class=\"{class}\">{}</td><td>{accepted} of {}</td><td>{agree}</td><td>{lost}</td><td>{:.2} s</td></tr>",
            verdict.status.word(),
            verdict.runs.len(),
            std::time::Duration::from_millis(verdict.elapsed_ms).as_secs_f64()
        );
    }
    out.push_str("</tbody></table></section>\n");
}

fn one_gate(out: &mut String, gate: &Gate) {
    let id = escape(&gate.id);
    line(out, &format!("<section id=\"{id}\"><h2>{id}</h2>"));
    if let Some(verdict) = &gate.verdict {
        if !verdict.reasons.is_empty() {
            out.push_str("<h3>Why it did not pass</h3><ul>\n");
            for reason in verdict.reasons.iter().take(50) {
                line(out, &format!("<li>{}</li>", escape(reason)));
            }
            out.push_str("</ul>\n");
        }
        if let Some(divergence) = verdict.determinism.as_ref().and_then(|found| found.divergence.as_ref()) {
            let _infallible = writeln!(
                out,
                "<h3>Drift</h3><p>Runs {} and {} part in {}.</p><pre tabindex=\"0\">{}</pre>",
                divergence.runs[0],
                divergence.runs[1],
                escape(&divergence.artifact),
                escape(&divergence.diff)
            );
        }
    }
    for run in &gate.runs {
        one_run(out, gate, run);
    }
    out.push_str("</section>\n");
}

fn one_run(out: &mut String, gate: &Gate, run: &Run) {
    let verdict =
        gate.verdict.as_ref().and_then(|verdict| verdict.runs.iter().find(|one| one.run == run.number));
    let said = verdict.map_or("no verdict", |one| if one.passed { "accepted" } else { "not accepted" });
    // The first run is open; the others are the same when the runs agree.
    let open = if run.number == 1 { " open" } else { "" };
    let _infallible = writeln!(
        out,
        "<details{open}><summary>Run {}: {said}, {} effects</summary>",
        run.number,
        run.effects.len() as u64 + run.left_out
    );
    line(
        out,
        "<p class=\"key\"><i class=\"read\"></i>read <i class=\"write\"></i>write <i class=\"exec\"></i>exec <i class=\"network\"></i>network <i class=\"task\"></i>task <i class=\"escape\"></i>escape</p>",
    );
    out.push_str(&svg(run));
    out.push_str(&calls(run));
    out.push_str("<h4>Processes</h4>\n");
    out.push_str(&processes(run));
    let _infallible = writeln!(out, "<details><summary>All effects in order</summary><ol class=\"effects\">");
    for effect in run.effects.iter().take(LISTED) {
        line(out, &format!("<li>{}</li>", escape(&told(effect))));
    }
    out.push_str("</ol>\n");
    let more = run.effects.len().saturating_sub(LISTED) as u64 + run.left_out;
    if more > 0 {
        line(out, &format!("<p>{more} more stand in effects.ndjson.</p>"));
    }
    out.push_str("</details></details>\n");
}

fn claims(out: &mut String, document: &Document) {
    out.push_str("<section><h2>What this shows, and what not</h2>\n<ul>\n");
    for claim in lines_of(document.claims.as_ref()) {
        line(out, &format!("<li>{}</li>", escape(&claim)));
    }
    out.push_str("</ul>\n");
    out.push_str("<p>This page shows what the files say; it verifies nothing. <code>assay-gates verify</code> does.</p><ul>\n");
    let own = document.claims.as_ref().map_or(&[][..], |claims| claims.non_claims.as_slice());
    let stated = own.iter().map(|one| (one.id.as_str(), one.text.as_str()));
    for (key, sentence) in stated.chain(NON_CLAIMS.into_iter().filter(|_| own.is_empty())) {
        line(out, &format!("<li><code>{}</code>: {}</li>", escape(key), escape(sentence)));
    }
    out.push_str("</ul></section>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_write_html_or_turn_text_around() {
        assert_eq!(escape("<script>\"&'\u{202e}\u{1b}"), "&lt;script&gt;&quot;&amp;&#39;\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_page_without_anything_says_so_and_fetches_nothing() {
        let page = render(&Document { source: "x".to_owned(), ..Document::default() });
        assert!(page.contains("not passed") && page.contains("nothing is claimed"));
        for forbidden in ["<script", "http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
