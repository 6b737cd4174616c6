//! Tables for people.

use crate::judge::GateVerdict;
use crate::pack::claims::{Claims, lines_of};
use std::fmt::Write;

/// Left-aligned columns, two spaces apart; the first row is the head.
#[must_use]
pub fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter().filter_map(|row| row.get(at)).map(|cell| console::measure_text_width(cell)).max()
    };
    let widths: Vec<usize> = (0..count).map(|at| width(at).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| console::pad_str(cell, *width, console::Alignment::Left, None).into_owned());
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// What an invocation came to: a row a gate, then what may be said of it and what not.
#[must_use]
pub fn verdicts(verdicts: &[GateVerdict], claims: Option<&Claims>) -> String {
    let mut rows = vec![["gate", "runs", "agree", "lost", "wall", "verdict"].map(str::to_owned).to_vec()];
    for gate in verdicts {
        let passed = gate.runs.iter().filter(|run| run.passed).count();
        rows.push(vec![
            gate.gate.clone(),
            format!("{passed}/{}", gate.runs.len()),
            gate.determinism.as_ref().map_or("-", |found| if found.agree { "yes" } else { "no" }).to_owned(),
            gate.runs.iter().map(|run| run.lost).sum::<u64>().to_string(),
            format!("{:.2} s", gate.elapsed_ms as f64 / 1000.0),
            gate.status.word().to_owned(),
        ]);
    }
    let mut text = columns(&rows);
    text.push('\n');
    for line in lines_of(claims) {
        // Writing to a String can't fail.
        let _infallible = writeln!(text, "{line}");
    }
    text
}
