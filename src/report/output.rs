//! Standard output carries data, standard error the rest.

use crate::error::Error;
use std::io::Write;

/// Writes `text` to standard output as it is. A closed pipe is the reader's decision, not an error.
pub fn data(text: &str) {
    let mut out = std::io::stdout().lock();
    let _closed_pipe = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes one line for a person to standard error.
pub fn diagnostic(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr().lock(), "{text}");
}

/// Shows an error: code, place, message, the hint on a line of its own.
pub fn error(error: &Error) {
    diagnostic(&format!("error[{}]: {error}", error.code().name()));
    if let Some(hint) = error.advice() {
        diagnostic(&format!("  hint: {hint}"));
    }
}
