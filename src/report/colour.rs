//! Colours of this tool, told from those that a name, a log or evidence brings along.
//!
//! What is coloured carries a mark that holds a number of chance, new in each process; where it is written out, the mark
//! becomes the terminal's sequence or nothing. Text of others can't know the number, so that none of its sequences passes.

use std::sync::OnceLock;

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// Fine.
    Green,
    /// Mind it.
    Yellow,
    /// Failed.
    Red,
}

/// How every mark begins; `None` without randomness, and then nothing is coloured.
fn begins() -> Option<&'static str> {
    static BEGINS: OnceLock<Option<String>> = OnceLock::new();
    let begins = BEGINS.get_or_init(|| {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).ok().map(|()| format!("\u{1b}<{}:", hex::encode(nonce)))
    });
    begins.as_deref()
}

fn marked(text: &str, code: &str) -> String {
    match begins() {
        Some(begins) => format!("{begins}{code}>{text}{begins}0>"),
        None => text.to_owned(),
    }
}

/// `text` in that colour, where what is written has colours.
#[must_use]
pub fn coloured(text: &str, colour: Colour) -> String {
    let code = match colour {
        Colour::Green => "32",
        Colour::Yellow => "33",
        Colour::Red => "31",
    };
    marked(text, code)
}

/// `text` in bold.
#[must_use]
pub fn bold(text: &str) -> String {
    marked(text, "1")
}

/// The mark that `text` begins with: the rest behind it, and the terminal's sequence for it.
pub(super) fn mark(text: &str) -> Option<(&str, String)> {
    let (code, rest) = text.strip_prefix(begins()?)?.split_once('>')?;
    Some((rest, format!("\u{1b}[{code}m")))
}
