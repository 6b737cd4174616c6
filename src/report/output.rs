//! Standard output carries data, standard error the rest.

use super::colour::mark;
use crate::error::{Code, Error, is_full};
use crate::files::acts_on_a_screen;
use std::borrow::Cow;
use std::io::{self, Write};
use std::path::Path;
use std::sync::OnceLock;

/// Why something that was said is not where it was to be written.
static UNDELIVERED: OnceLock<Error> = OnceLock::new();

/// The first thing said that could not be written, e.g. because standard output is a file on a full disk: the process
/// must not end as if it had been.
#[must_use]
pub fn undelivered() -> Option<&'static Error> {
    UNDELIVERED.get()
}

fn remember(failure: &OnceLock<Error>, written: io::Result<()>, place: &str) {
    match written {
        // A reader that has left decided so.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let full = is_full(&error, Path::new(""));
            let code = if full { Code::DiskFull } else { Code::Io };
            let told = Error::new(code, format!("cannot write: {error}")).at(place).because(error);
            let _first_stays = failure.set(match full {
                true => told.hint("make room where it is redirected to, and do it again"),
                false => told,
            });
        }
        _ => {}
    }
}

/// Writes `text` to standard output. A closed pipe is the reader's decision, not an error; see [`undelivered`].
///
/// Whatever names, logs and evidence bring along, no control character and no mark of direction gets out but the colours
/// of this tool; in JSON they are escaped as JSON does.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let text = harmless(text, console::colors_enabled());
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    remember(&UNDELIVERED, written, "standard output");
}

/// Notes how it went to print something that did not go through here.
pub fn printed(written: io::Result<()>) {
    remember(&UNDELIVERED, written, "standard output");
}

/// Writes one line for a person to standard error, as harmless as [`data`].
pub fn diagnostic(text: &str) {
    let text = harmless(text, console::colors_enabled_stderr());
    remember(&UNDELIVERED, writeln!(std::io::stderr().lock(), "{text}"), "standard error");
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

/// Text of others acts on nothing; colours of this tool become the terminal's, or nothing.
fn harmless(text: &str, colours: bool) -> Cow<'_, str> {
    if !text.contains(acts_on_a_screen) {
        return Cow::Borrowed(text);
    }
    let json = text.trim_start().starts_with(['{', '[']);
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if let Some((behind, sequence)) = mark(rest) {
            out.push_str(if colours { &sequence } else { "" });
            rest = behind;
            continue;
        }
        match c {
            c if !acts_on_a_screen(c) => out.push(c),
            c if json => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.extend(c.escape_unicode()),
        }
        rest = &rest[c.len_utf8()..];
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::super::colour::{Colour, bold, coloured};
    use super::*;

    #[test]
    fn only_our_own_colours_reach_the_screen_and_json_stays_json() {
        let hostile = "\u{1b}[1;31mred\u{1b}[0m \u{1b}[2J\u{1b}]0;t\u{7}\r\u{202e}x\u{1b}<00:31>\n";
        let escaped =
            "\\u{1b}[1;31mred\\u{1b}[0m \\u{1b}[2J\\u{1b}]0;t\\u{7}\\u{d}\\u{202e}x\\u{1b}<00:31>\n";
        let text = format!("{} {hostile}", bold(&coloured("FAIL", Colour::Red)));
        assert_eq!(harmless(&text, true), format!("\u{1b}[1m\u{1b}[31mFAIL\u{1b}[0m\u{1b}[0m {escaped}"));
        assert_eq!(harmless(&text, false), format!("FAIL {escaped}"));
        let value = serde_json::json!({"a": "\u{202e}\u{1b}[31m\u{7f}\u{9b}"});
        let json = crate::files::pretty_sorted(&value).unwrap();
        let shown = harmless(&json, true);
        assert!(shown.is_ascii(), "{shown}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[test]
    fn what_a_full_disk_takes_is_remembered_and_a_reader_that_left_is_not() {
        let kept = |error: std::io::ErrorKind| {
            let failure = OnceLock::new();
            remember(&failure, Err(error.into()), "standard output");
            failure.into_inner().map(|error: Error| error.code())
        };
        assert_eq!(kept(std::io::ErrorKind::StorageFull), Some(Code::DiskFull));
        assert_eq!(kept(std::io::ErrorKind::PermissionDenied), Some(Code::Io));
        assert_eq!(kept(std::io::ErrorKind::BrokenPipe), None);
    }
}
