//! One raw log line to what a person would read.
//!
//! The runner writes `2026-02-03T12:43:20.4206727Z message`. A byte order mark stands at the start of each of its
//! pages, so also in the middle of a file; a message with newlines leaves the following lines without a time; colours
//! pass through; broken UTF-8 is whatever the program printed.

use std::borrow::Cow;

/// What the runner marked the line as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// `##[group]`.
    Group,
    /// `##[endgroup]`.
    EndGroup,
    /// `##[error]`.
    Error,
    /// `##[warning]`, `##[notice]`, `##[debug]`, `##[command]`, `##[section]`.
    Other,
}

/// A line taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The runner's time; `None` on a continuation line and in logs that no runner wrote.
    pub time: Option<&'a str>,
    /// The runner's mark.
    pub tag: Option<Tag>,
    /// The message: no time, no mark, no colours; broken UTF-8 as U+FFFD.
    pub text: Cow<'a, str>,
}

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Takes one line, without its newline, apart.
#[must_use]
pub fn parse(raw: &[u8]) -> Line<'_> {
    let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
    let raw = raw.strip_prefix(BOM).unwrap_or(raw);
    let (time, rest) = match split_time(raw) {
        Some((time, rest)) => (Some(time), rest),
        None => (None, raw),
    };
    let text = plain(rest.strip_prefix(BOM).unwrap_or(rest));
    let (tag, skip) = tag(&text);
    let text = match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[skip..]),
        Cow::Owned(text) => Cow::Owned(text[skip..].to_owned()),
    };
    Line { time, tag, text }
}

/// `2026-02-03T12:43:20.4206727Z ` in front: 19 fixed characters, an optional fraction, `Z`, a space.
fn split_time(raw: &[u8]) -> Option<(&str, &[u8])> {
    const SHAPE: &[u8] = b"dddd-dd-ddTdd:dd:dd";
    let head = raw.get(..SHAPE.len())?;
    let fits = head.iter().zip(SHAPE).all(|(byte, shape)| match shape {
        b'd' => byte.is_ascii_digit(),
        _ => byte == shape,
    });
    if !fits {
        return None;
    }
    let fraction =
        raw[SHAPE.len()..].iter().take_while(|byte| **byte == b'.' || byte.is_ascii_digit()).count();
    let zone = SHAPE.len() + fraction;
    if raw.get(zone) != Some(&b'Z') {
        return None;
    }
    let time = std::str::from_utf8(&raw[..=zone]).ok()?;
    match raw.get(zone + 1) {
        None => Some((time, &[])),
        Some(b' ') => Some((time, &raw[zone + 2..])),
        Some(_) => None,
    }
}

fn tag(text: &str) -> (Option<Tag>, usize) {
    const TAGS: [(&str, Tag); 10] = [
        ("##[group]", Tag::Group),
        ("##[endgroup]", Tag::EndGroup),
        ("##[error]", Tag::Error),
        ("##[warning]", Tag::Other),
        ("##[notice]", Tag::Other),
        ("##[debug]", Tag::Other),
        ("##[command]", Tag::Other),
        ("##[section]", Tag::Other),
        ("[command]", Tag::Other),
        ("::error::", Tag::Error),
    ];
    let found = TAGS.iter().find(|(mark, _)| text.starts_with(mark));
    found.map_or((None, 0), |(mark, tag)| (Some(*tag), mark.len()))
}

/// Text without escape sequences and control characters.
fn plain(bytes: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(bytes);
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            skip_escape(&mut chars);
        } else if c == '\t' || !c.is_control() {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Skips what follows an ESC: a CSI sequence, an OSC string, or one character.
fn skip_escape(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    match chars.peek() {
        Some('[') => {
            chars.next();
            while let Some(c) = chars.next_if(|c| ('\u{20}'..='\u{7e}').contains(c)) {
                if ('@'..='~').contains(&c) {
                    break;
                }
            }
        }
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        Some(_) => {
            chars.next();
        }
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamped_line_loses_its_time_mark_and_colour() {
        let line = parse(
            b"2026-02-03T12:43:20.4206727Z ##[error]\x1b[31mProcess\x1b[0m completed with exit code 11.\r",
        );
        assert_eq!(line.time, Some("2026-02-03T12:43:20.4206727Z"));
        assert_eq!((line.tag, &*line.text), (Some(Tag::Error), "Process completed with exit code 11."));
    }

    #[test]
    fn a_continuation_line_keeps_its_text() {
        let line = parse(b"    at 2026-02-03T12:43:20Z in the middle");
        assert_eq!((line.time, &*line.text), (None, "    at 2026-02-03T12:43:20Z in the middle"));
    }

    #[test]
    fn a_byte_order_mark_is_dropped_before_and_after_the_time() {
        for raw in [&b"\xef\xbb\xbf2026-02-03T12:43:20.1Z a"[..], b"2026-02-03T12:43:20.1Z \xef\xbb\xbfa"] {
            assert_eq!(&*parse(raw).text, "a");
        }
    }

    #[test]
    fn broken_utf8_and_unfinished_escapes_stay_readable() {
        assert_eq!(&*parse(b"caf\xe9 \x1b]0;title\x07ok\x1b[3").text, "caf\u{fffd} ok");
        assert_eq!(&*parse(b"\x1b").text, "");
    }

    #[test]
    fn a_time_that_is_not_one_is_text() {
        for raw in ["2026-02-03T12:43:20.1Zx", "2026-02-03 12:43:20Z a", "2026-02-03T12:43:2"] {
            assert_eq!(parse(raw.as_bytes()).time, None, "{raw}");
        }
    }
}
