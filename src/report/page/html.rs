//! The page.

use super::data::{Document, Gap, Gate, Run, kind};
use super::timeline::{calls, processes, side_by_side, svg, told};
use crate::files::quoted;
use crate::judge::GateVerdict;
use crate::judge::claims::NON_CLAIMS;
use crate::pack::claims::lines_of;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Effects outside of calls that the list of a run holds; those of calls and those that a reason names are all in it.
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
    let (failed, good): (Vec<&Gate>, Vec<&Gate>) = document.gates.iter().partition(|gate| !passed(gate));
    let all_passed = failed.is_empty() && !good.is_empty();
    let ordered: Vec<&Gate> = failed.iter().chain(&good).copied().collect();
    let title = format!("Gates: {}", if all_passed { "passed" } else { "not passed" });
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#main\">Skip to the gates</a>\n<header><h1>{title}</h1>\n"
    );
    headline(&mut out, document, &failed);
    invocation(&mut out, document);
    out.push_str("</header>\n<main id=\"main\" tabindex=\"-1\">\n");
    for gap in &document.gaps {
        one_gap(&mut out, document, gap);
    }
    overview(&mut out, &ordered);
    for gate in ordered {
        let gaps: Vec<&Gap> = document.gaps.iter().filter(|gap| gap.gate == gate.id).collect();
        one_gate(&mut out, gate, &gaps);
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

fn passed(gate: &Gate) -> bool {
    gate.verdict.as_ref().is_some_and(GateVerdict::passed)
}

/// What came of it, why, and what to do next.
fn headline(out: &mut String, document: &Document, failed: &[&Gate]) {
    let all = document.gates.len();
    let plural = if all == 1 { "gate" } else { "gates" };
    let said = match failed.first() {
        None if all == 0 => "No gate was measured.".to_owned(),
        None => format!("{all} {plural} passed."),
        Some(first) => {
            let reason = first.verdict.as_ref().map_or("no verdict was written", |verdict| {
                verdict.reasons.first().map_or("no reason was recorded", String::as_str)
            });
            format!("{} of {all} {plural} did not pass. {}: {reason}", failed.len(), first.id)
        }
    };
    line(out, &format!("<p class=\"lead\">{}</p>", escape(&said)));
    for gap in &document.gaps {
        line(
            out,
            &format!(
                "<p class=\"lead\"><a href=\"#gap-{0}\">A semantic gap was measured: {0}</a></p>",
                escape(&gap.scenario)
            ),
        );
    }
    line(out, &format!("<p>Next: <code>{}</code></p>", escape(&next(document, failed))));
}

/// The command that goes on from here.
fn next(document: &Document, failed: &[&Gate]) -> String {
    let source = quoted(&document.source);
    let unfinished = document.record.as_ref().filter(|record| record.finished_at.is_none());
    match (unfinished, failed.is_empty(), document.gates.is_empty(), document.packed) {
        (_, _, true, _) => "assay-gates doctor".to_owned(),
        (Some(record), _, _, false) => {
            let gates = quoted(&record.selection);
            format!("sudo assay-gates run --gates {gates} --resume --root {source}")
        }
        (_, false, _, _) => format!("assay-gates triage {source}"),
        (_, true, _, true) if std::path::Path::new(&document.source).exists() => {
            format!("assay-gates verify {source}")
        }
        (_, true, _, true) => "assay-gates verify pack.zip".to_owned(),
        (_, true, _, false) => format!("assay-gates pack --root {source} --out PACK"),
    }
}

fn one_gap(out: &mut String, document: &Document, gap: &Gap) {
    let (scenario, gate) = (escape(&gap.scenario), escape(&gap.gate));
    line(out, &format!("<section class=\"gap\" id=\"gap-{scenario}\"><h2>Semantic gap: {scenario}</h2>"));
    line(out, &format!("<p>{}. Gate <a href=\"#{gate}\">{gate}</a>.</p>", escape(&gap.reason)));
    let runs = document.gates.iter().find(|gate| gate.id == gap.gate).map(|gate| gate.runs.as_slice());
    if let Some(run) = runs.and_then(<[Run]>::first) {
        out.push_str(&side_by_side(run, gap));
    }
    if let Some(finding) = &gap.finding {
        line(
            out,
            &format!(
                "<details><summary>The finding</summary><pre class=\"text\" tabindex=\"0\">{}</pre></details>",
                escape(finding)
            ),
        );
    }
    out.push_str("</section>\n");
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

fn overview(out: &mut String, gates: &[&Gate]) {
    out.push_str(
        "<section><h2>Overview</h2><div class=\"wide\" tabindex=\"0\"><table><thead><tr><th>gate</th><th>verdict</th><th>runs accepted</th><th>agree</th><th>lost records</th><th>wall time</th></tr></thead><tbody>\n",
    );
    for gate in gates {
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
    out.push_str("</tbody></table></div></section>\n");
}

fn one_gate(out: &mut String, gate: &Gate, gaps: &[&Gap]) {
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
        one_run(out, gate, run, gaps);
    }
    out.push_str("</section>\n");
}

fn one_run(out: &mut String, gate: &Gate, run: &Run, gaps: &[&Gap]) {
    let verdict =
        gate.verdict.as_ref().and_then(|verdict| verdict.runs.iter().find(|one| one.run == run.number));
    let said = verdict.map_or("no verdict", |one| if one.passed { "accepted" } else { "not accepted" });
    // The first run is open; the others are the same when the runs agree.
    let open = if run.number == 1 { " open" } else { "" };
    let _infallible = writeln!(
        out,
        "<details{open}><summary>Run {}: {said}, {} effects</summary>",
        run.number,
        run.effects.len() as u64 + run.left_out.values().sum::<u64>()
    );
    line(
        out,
        "<p class=\"key\"><i class=\"read\"></i>read <i class=\"write\"></i>write <i class=\"exec\"></i>exec <i class=\"network\"></i>network <i class=\"task\"></i>task <i class=\"escape\"></i>escape</p>",
    );
    if let Some(verdict) = verdict.filter(|verdict| !verdict.last_words.is_empty()) {
        let words = escape(&verdict.last_words.join("\n"));
        line(out, &format!("<h4>The program's last words</h4><pre tabindex=\"0\">{words}</pre>"));
    }
    let _infallible = writeln!(out, "<div class=\"wide\" tabindex=\"0\">{}</div>", svg(run));
    out.push_str(&calls(run, gaps));
    out.push_str("<h4>Processes</h4>\n");
    out.push_str(&processes(run));
    let _infallible = writeln!(out, "<details><summary>All effects in order</summary><ol class=\"effects\">");
    let (mut others, mut more) = (0, run.left_out.clone());
    for effect in &run.effects {
        let named = run.named.contains(&effect.seq);
        others += usize::from(effect.call.is_none() && !named);
        match (named || effect.call.is_some() || others <= LISTED, named) {
            (true, true) => line(out, &format!("<li><mark>{}</mark></li>", escape(&told(effect)))),
            (true, false) => line(out, &format!("<li>{}</li>", escape(&told(effect)))),
            (false, _) => *more.entry(kind(effect)).or_default() += 1,
        }
    }
    out.push_str("</ol>\n");
    if !more.is_empty() {
        let count: u64 = more.values().sum();
        line(out, &format!("<p>{count} more stand in effects.ndjson:</p><ul>"));
        let mut most: Vec<_> = more.iter().collect();
        most.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for (what, count) in most {
            line(out, &format!("<li>{count} times {}</li>", escape(what)));
        }
        out.push_str("</ul>\n");
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
