//! The verdicts as JUnit XML: a suite a gate, a case a run and one for their agreement; and a suite of the claims, in
//! which what was not earned is skipped, with its reasons.

use crate::judge::{GateStatus, GateVerdict};
use crate::pack::claims::Claims;
use std::fmt::Write;

/// The whole file.
#[must_use]
pub fn junit(verdicts: &[GateVerdict], claims: Option<&Claims>) -> String {
    let mut xml =
        String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"assay-gates\">\n");
    for gate in verdicts {
        suite(&mut xml, gate);
    }
    claimed(&mut xml, claims);
    xml.push_str("</testsuites>\n");
    xml
}

fn suite(xml: &mut String, gate: &GateVerdict) {
    let mut cases: Vec<Case> = gate
        .runs
        .iter()
        .map(|run| {
            let mut failures = run.incomplete_because.clone();
            failures.extend(run.assertions.iter().filter(|a| !a.held).map(ToString::to_string));
            Case { name: format!("run {}", run.run), milliseconds: run.elapsed_ms, failures, skipped: None }
        })
        .collect();
    let verdict = Case {
        name: "verdict".to_owned(),
        milliseconds: gate.elapsed_ms,
        failures: if matches!(gate.status, GateStatus::Passed | GateStatus::Skipped) {
            Vec::new()
        } else {
            gate.reasons.clone()
        },
        skipped: (gate.status == GateStatus::Skipped).then(|| gate.reasons.join("; ")),
    };
    cases.push(verdict);
    let failed = cases.iter().filter(|case| !case.failures.is_empty()).count();
    let skipped = cases.iter().filter(|case| case.skipped.is_some()).count();
    // Writing to a String can't fail.
    let _infallible = writeln!(
        xml,
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{skipped}\" time=\"{}\">",
        escape(&gate.gate),
        cases.len(),
        time(gate.elapsed_ms)
    );
    for case in cases {
        case.write(xml, &gate.gate);
    }
    xml.push_str("  </testsuite>\n");
}

/// A case a claim; its line is what it passed or was skipped with.
fn claimed(xml: &mut String, claims: Option<&Claims>) {
    let Some(claims) = claims else { return };
    let skipped = claims.claims.iter().filter(|claim| !claim.earned).count();
    let _infallible = writeln!(
        xml,
        "  <testsuite name=\"claims\" tests=\"{}\" failures=\"0\" skipped=\"{skipped}\" time=\"0.000\">",
        claims.claims.len()
    );
    for claim in &claims.claims {
        let (id, line) = (escape(&claim.id), escape(&claim.line()));
        let outcome = if claim.earned {
            format!("<system-out>{line}</system-out>")
        } else {
            format!("<skipped message=\"{line}\"/>")
        };
        let _infallible = writeln!(
            xml,
            "    <testcase classname=\"claims\" name=\"{id}\" time=\"0.000\">{outcome}</testcase>"
        );
    }
    xml.push_str("  </testsuite>\n");
}

struct Case {
    name: String,
    milliseconds: u64,
    failures: Vec<String>,
    skipped: Option<String>,
}

impl Case {
    fn write(&self, xml: &mut String, gate: &str) {
        let _infallible = write!(
            xml,
            "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\">",
            escape(gate),
            escape(&self.name),
            time(self.milliseconds)
        );
        if let Some(reason) = &self.skipped {
            let _infallible = write!(xml, "<skipped message=\"{}\"/>", escape(reason));
        }
        if let Some(first) = self.failures.first() {
            let all = escape(&self.failures.join("\n"));
            let _infallible = write!(xml, "<failure message=\"{}\">{all}</failure>", escape(first));
        }
        xml.push_str("</testcase>\n");
    }
}

fn time(milliseconds: u64) -> String {
    format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000)
}

/// XML's five, and control characters, which XML 1.0 can't hold at all.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    #[test]
    fn hostile_text_stays_text() {
        let verdict = GateVerdict::skipped("g", Exit::CannotMeasure, "\"><x>&\u{1b}[31m\n".to_owned());
        let xml = junit(&[verdict], None);
        assert!(xml.contains("<skipped message=\"&quot;&gt;&lt;x&gt;&amp;\u{fffd}[31m&#10;\"/>"), "{xml}");
        assert!(xml.contains("tests=\"1\" failures=\"0\" skipped=\"1\""), "{xml}");
    }
}
