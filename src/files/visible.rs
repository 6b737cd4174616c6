//! Text of others, shown so that it changes nothing of the screen it is shown on.

use std::borrow::Cow;

/// Control characters and marks that change the direction of what is read, but no newline and tab.
#[must_use]
pub fn acts_on_a_screen(c: char) -> bool {
    c.is_control() && !matches!(c, '\n' | '\t')
        || matches!(c, '\u{61c}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with such characters written as `\u{1b}`.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(acts_on_a_screen) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if acts_on_a_screen(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// A word of a command line, as a shell reads it.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:@%+=,".contains(c);
    match !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn what_would_move_a_cursor_or_turn_a_line_around_is_written_out() {
        assert_eq!(
            visible("a\u{1b}[2J\u{7}\r\u{202e}b\u{9b}\u{7f}\n\tc é 👍"),
            "a\\u{1b}[2J\\u{7}\\u{d}\\u{202e}b\\u{9b}\\u{7f}\n\tc é 👍"
        );
        assert!(matches!(visible("plain"), std::borrow::Cow::Borrowed(_)));
    }
}
