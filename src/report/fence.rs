//! What a measured program printed, shown so that it can neither command the workflow nor forge a line of ours.

use super::output;
use std::fmt::Write;

/// Lines of a stream that are shown; the file holds more.
const SHOWN: usize = 200;
/// Characters of a line that are shown.
const WIDTH: usize = 500;

/// Shows `bytes` to a person: each line behind a bar, control characters made visible, and in a job log of Actions
/// with workflow commands stopped.
pub fn measured(title: &str, bytes: &[u8], in_actions: bool) {
    if bytes.is_empty() {
        return;
    }
    let text = barred(title, &String::from_utf8_lossy(bytes));
    let mut nonce = [0; 16];
    match (in_actions, getrandom::fill(&mut nonce)) {
        (false, _) => output::diagnostic(&text),
        // A fence that can be guessed is no fence; without randomness nothing measured is shown.
        (true, Err(_)) => {}
        (true, Ok(())) => {
            let fence = hex::encode(nonce);
            output::diagnostic(&format!("::stop-commands::{fence}\n{text}\n::{fence}::"));
        }
    }
}

fn barred(title: &str, text: &str) -> String {
    let mut shown = format!("  {title}:");
    let mut lines = text.lines();
    for line in lines.by_ref().take(SHOWN) {
        let mut characters = line.chars();
        let plain: String = characters
            .by_ref()
            .take(WIDTH)
            .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
            .collect();
        let cut = if characters.next().is_some() { " …" } else { "" };
        let _never_fails = write!(shown, "\n  | {plain}{cut}");
    }
    let rest = lines.count();
    if rest > 0 {
        let _never_fails = write!(shown, "\n  … {rest} more lines");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_lines_stand_behind_a_bar_and_move_no_cursor() {
        let text = barred("stdout", "::set-env name=A::b\nPASS: all\n\u{1b}[2Agone\rback\n\ttab");
        assert_eq!(
            text,
            "  stdout:\n  | ::set-env name=A::b\n  | PASS: all\n  | \u{fffd}[2Agone\u{fffd}back\n  | \ttab"
        );
        assert_eq!(barred("stdout", &"x".repeat(1000)).chars().count(), "  stdout:\n  | ".len() + WIDTH + 2);
        assert!(barred("stdout", &"x\n".repeat(1000)).ends_with("  … 800 more lines"));
    }
}
