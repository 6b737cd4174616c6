//! Standard output carries data, standard error the rest.

use crate::error::Error;
use crate::files::acts_on_a_screen;
use std::borrow::Cow;
use std::io::Write;

/// Writes `text` to standard output. A closed pipe is the reader's decision, not an error.
///
/// Whatever names, logs and evidence bring along, no control character and no mark of direction gets out but the colours
/// of this tool; in JSON they are escaped as JSON does.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = harmless(text, console::colors_enabled());
    let _closed_pipe = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line for a person to standard error, as harmless as [`data`].
pub fn diagnostic(text: &str) {
    let _closed_pipe =
        writeln!(std::io::stderr().lock(), "{}", harmless(text, console::colors_enabled_stderr()));
}

/// Shows an error: code, place, message, the hint on a line of its own.
pub fn error(error: &Error) {
    // A name within may hold a newline, and a line of its own could command the workflow.
    let told = error.to_string().replace('\n', "\\n");
    diagnostic(&format!("error[{}]: {told}", error.code().name()));
    if let Some(hint) = error.advice() {
        diagnostic(&format!("  hint: {hint}"));
    }
}

fn harmless(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(acts_on_a_screen) {
        return Cow::Borrowed(text);
    }
    let json = text.trim_start().starts_with(['{', '[']);
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        match colour(rest).filter(|_| colours && !json) {
            Some(length) => {
                out.push_str(&rest[..length]);
                rest = &rest[length..];
                continue;
            }
            None if !acts_on_a_screen(c) => out.push(c),
            None if json => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            None => out.extend(c.escape_unicode()),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

/// The length of a sequence that only colours: `ESC [ 1;31 m`.
fn colour(text: &str) -> Option<usize> {
    let inner = text.strip_prefix("\u{1b}[")?;
    let length = inner.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    inner[length..].starts_with('m').then_some(length + 3)
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn only_our_colours_reach_the_screen_and_json_stays_json() {
        let text = "\u{1b}[1;31mred\u{1b}[0m \u{1b}[2J\u{1b}]0;t\u{7}\r\u{202e}x\n";
        assert_eq!(
            harmless(text, true),
            "\u{1b}[1;31mred\u{1b}[0m \\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{d}\\u{202e}x\n"
        );
        assert!(!harmless(text, false).contains('\u{1b}'));
        let value = serde_json::json!({"a": "\u{202e}\u{1b}\u{7f}\u{9b}"});
        let json = crate::files::pretty_sorted(&value).unwrap();
        let shown = harmless(&json, true);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }
}
