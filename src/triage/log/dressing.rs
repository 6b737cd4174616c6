//! The forms in which one and the same log comes, and how each line of a form is undressed.
//!
//! Whatever the form, a line becomes the same [`Line`]: message, mark, time, and job and step where the form has them.
//! A form is told from the head of the file and then holds for all of it, so that a line which merely looks like
//! another form (a program can print one) is text.

use super::line::{Line, Tag};
use std::borrow::Cow;

/// Lines of the head that are looked at.
const HEAD: usize = 100;

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dressing {
    /// As the runner writes it: `2026-02-03T12:43:20.4206727Z message`; also with the times cut off.
    Runner,
    /// As `gh run view --log` prints it: job, step and the runner's line, joined by tabs.
    GhView,
    /// As act prints it: `[workflow/job]   | message`.
    Act,
    /// As copied from the page of a run: no times, marks as words (`Error: `), each line behind so many blanks.
    Page(usize),
}

impl Dressing {
    /// Tells the form by the first lines of a log.
    #[must_use]
    pub fn of_head(head: &[u8]) -> Self {
        let lines: Vec<Cow<'_, str>> = head
            .split(|byte| *byte == b'\n')
            .map(|line| plain(line))
            .filter(|line| !line.trim().is_empty())
            .take(HEAD)
            .collect();
        let share = |fits: &dyn Fn(&str) -> bool| lines.iter().filter(|line| fits(line)).count();
        let most = |count: usize| count > 0 && count * 5 >= lines.len() * 4;
        let in_columns = |line: &str| columns(line).is_some();
        let stamped = |line: &str| {
            columns(line).is_some_and(|(_, _, rest)| split_time(rest.trim_start_matches(BOM)).0.is_some())
        };
        if share(&stamped) > 0 && most(share(&in_columns)) {
            return Dressing::GhView;
        }
        let bracketed = |line: &str| act_parts(line).is_some();
        let acts = |line: &str| act_parts(line).is_some_and(|(_, rest)| is_act(rest));
        if share(&acts) > 0 && most(share(&bracketed)) {
            return Dressing::Act;
        }
        let of_runner = |line: &str| {
            let line = line.trim_start_matches(BOM);
            split_time(line).0.is_some() || line.trim_start().starts_with("##[")
        };
        if share(&of_runner) > 0 {
            return Dressing::Runner;
        }
        let blanks = |line: &Cow<'_, str>| line.len() - line.trim_start_matches(' ').len();
        Dressing::Page(lines.iter().map(blanks).min().unwrap_or(0))
    }

    /// Takes one line, without its newline, apart.
    #[must_use]
    pub fn line(self, raw: &[u8]) -> Line {
        let text = plain(raw);
        let text = text.trim_start_matches(BOM);
        match self {
            Dressing::Runner => runner(text),
            Dressing::GhView => match columns(text) {
                Some((job, step, rest)) => Line {
                    job: Some(job.to_owned()),
                    step: Some(step).filter(|step| *step != "UNKNOWN STEP").map(str::to_owned),
                    ..runner(rest)
                },
                None => runner(text),
            },
            Dressing::Act => match act_parts(text) {
                Some((job, rest)) => Line { job: Some(job.to_owned()), ..act(rest) },
                None => runner(text),
            },
            Dressing::Page(blanks) => {
                let cut = text.len() - text.trim_start_matches(' ').len();
                page(&text[cut.min(blanks)..])
            }
        }
    }

    /// What tells whose line it is, without taking it apart: state is kept for each.
    #[must_use]
    pub fn origin(self, raw: &[u8]) -> &[u8] {
        match self {
            Dressing::GhView => {
                let mut tabs = raw.iter().enumerate().filter(|(_, byte)| **byte == b'\t');
                tabs.nth(1).map_or(b"", |(second, _)| &raw[..second])
            }
            Dressing::Act => raw.iter().position(|byte| *byte == b']').map_or(b"", |end| &raw[..end]),
            Dressing::Runner | Dressing::Page(_) => b"",
        }
    }
}

const BOM: char = '\u{feff}';

/// `JOB<TAB>STEP<TAB>rest`.
fn columns(text: &str) -> Option<(&str, &str, &str)> {
    let mut parts = text.splitn(3, '\t');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(job), Some(step), Some(rest)) if !job.is_empty() && !step.is_empty() => Some((job, step, rest)),
        _ => None,
    }
}

/// `[workflow/job] rest`; the name is padded with blanks inside of the brackets.
fn act_parts(text: &str) -> Option<(&str, &str)> {
    let (job, rest) = text.trim_start().strip_prefix('[')?.split_once(']')?;
    Some((job.trim_end(), rest))
}

/// The signs that act puts in front of what it says itself.
const ACT_SIGNS: [char; 10] = ['🚀', '⭐', '🏁', '❌', '✅', '⚙', '❓', '❗', '🚧', '💬'];

fn is_act(rest: &str) -> bool {
    rest.starts_with("   | ") || rest.trim_end() == "   |" || rest.trim_start().starts_with(ACT_SIGNS)
}

fn act(rest: &str) -> Line {
    if let Some(text) = rest.strip_prefix("   | ").or_else(|| rest.strip_prefix("   |")) {
        return Line { text: text.to_owned(), ..Line::default() };
    }
    let said = rest.trim_start();
    if let Some(code) = said.strip_prefix("exitcode '").and_then(|rest| rest.split('\'').next()) {
        let text = format!("Process completed with exit code {code}.");
        return Line { tag: Some(Tag::Error), text, ..Line::default() };
    }
    let said = said.trim_start_matches(|c: char| ACT_SIGNS.contains(&c) || c == '\u{fe0f}').trim_start();
    if rest.trim_start().starts_with('⭐') {
        let step = ["Run Main ", "Run Pre ", "Run Post ", "Run "].iter().find_map(|by| said.strip_prefix(by));
        return Line { tag: Some(Tag::Step), text: step.unwrap_or(said).to_owned(), ..Line::default() };
    }
    marked(said)
}

fn runner(text: &str) -> Line {
    let (time, rest) = split_time(text.trim_start_matches(BOM));
    Line { time: time.map(str::to_owned), ..marked(rest.trim_start_matches(BOM)) }
}

/// The page shows marks as words, and of a group its title alone.
fn page(text: &str) -> Line {
    let line = marked(text);
    if line.tag.is_some() {
        return line;
    }
    let words = [("Error: ", Tag::Error), ("Warning: ", Tag::Warning), ("Notice: ", Tag::Other)];
    if let Some((text, tag)) = words.iter().find_map(|(word, tag)| Some((text.strip_prefix(word)?, *tag))) {
        return Line { tag: Some(tag), text: text.to_owned(), ..line };
    }
    if text.starts_with("Run ") {
        return Line { tag: Some(Tag::Title), ..line };
    }
    line
}

/// The runner's mark, or the workflow command that becomes one.
fn marked(text: &str) -> Line {
    const TAGS: [(&str, Tag); 12] = [
        ("##[group]", Tag::Group),
        ("::group::", Tag::Group),
        ("##[endgroup]", Tag::EndGroup),
        ("::endgroup::", Tag::EndGroup),
        ("##[error]", Tag::Error),
        ("##[warning]", Tag::Warning),
        ("##[notice]", Tag::Other),
        ("##[debug]", Tag::Other),
        ("##[command]", Tag::Other),
        ("##[section]", Tag::Other),
        ("[command]", Tag::Other),
        ("::debug::", Tag::Other),
    ];
    let found = TAGS.iter().find_map(|(mark, tag)| Some((text.strip_prefix(mark)?, *tag)));
    let command = || {
        [("::error", Tag::Error), ("::warning", Tag::Warning)].iter().find_map(|(name, tag)| {
            let rest = text.strip_prefix(name)?;
            let (properties, message) = rest.split_once("::")?;
            (properties.is_empty() || properties.starts_with(' ')).then_some((message, *tag))
        })
    };
    match found.or_else(command) {
        Some((text, tag)) => Line { tag: Some(tag), text: text.to_owned(), ..Line::default() },
        None => Line { text: text.to_owned(), ..Line::default() },
    }
}

/// The time in front and what follows it: `2026-02-03T12:43:20.4206727Z `, or as a page shows it,
/// `Tue, 03 Feb 2026 12:43:20 GMT `.
fn split_time(text: &str) -> (Option<&str>, &str) {
    let behind = |end: usize| match text[end..].strip_prefix(' ') {
        Some(rest) => (Some(&text[..end]), rest),
        None if text.len() == end => (Some(text), ""),
        None => (None, text),
    };
    let shaped = |shape: &str| {
        text.len() >= shape.len()
            && text.bytes().zip(shape.bytes()).all(|(byte, shape)| match shape {
                b'd' => byte.is_ascii_digit(),
                b'a' => byte.is_ascii_alphabetic(),
                _ => byte == shape,
            })
    };
    const ISO: &str = "dddd-dd-ddTdd:dd:dd";
    const OF_PAGE: &str = "aaa, dd aaa dddd dd:dd:dd GMT";
    if shaped(ISO) {
        let fraction = text[ISO.len()..].bytes().take_while(|b| *b == b'.' || b.is_ascii_digit()).count();
        let zone = ISO.len() + fraction;
        return if text.as_bytes().get(zone) == Some(&b'Z') { behind(zone + 1) } else { (None, text) };
    }
    if shaped(OF_PAGE) { behind(OF_PAGE.len()) } else { (None, text) }
}

/// Text without escape sequences and control characters; broken UTF-8 as U+FFFD.
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

    fn runner_line(raw: &[u8]) -> Line {
        Dressing::Runner.line(raw)
    }

    #[test]
    fn a_stamped_line_loses_its_time_mark_and_colour() {
        let line = runner_line(
            b"2026-02-03T12:43:20.4206727Z ##[error]\x1b[31mProcess\x1b[0m completed with exit code 11.\r",
        );
        assert_eq!(line.time.as_deref(), Some("2026-02-03T12:43:20.4206727Z"));
        assert_eq!((line.tag, &*line.text), (Some(Tag::Error), "Process completed with exit code 11."));
        let line = runner_line(b"Tue, 03 Feb 2026 12:43:20 GMT a");
        assert_eq!((line.time.as_deref(), &*line.text), (Some("Tue, 03 Feb 2026 12:43:20 GMT"), "a"));
    }

    #[test]
    fn a_continuation_line_keeps_its_text() {
        let line = runner_line(b"    at 2026-02-03T12:43:20Z in the middle");
        assert_eq!((line.time, &*line.text), (None, "    at 2026-02-03T12:43:20Z in the middle"));
    }

    #[test]
    fn a_byte_order_mark_is_dropped_before_and_after_the_time() {
        for raw in [&b"\xef\xbb\xbf2026-02-03T12:43:20.1Z a"[..], b"2026-02-03T12:43:20.1Z \xef\xbb\xbfa"] {
            assert_eq!(&*runner_line(raw).text, "a");
        }
    }

    #[test]
    fn broken_utf8_and_unfinished_escapes_stay_readable() {
        assert_eq!(&*runner_line(b"caf\xe9 \x1b]0;title\x07ok\x1b[3").text, "caf\u{fffd} ok");
        assert_eq!(&*runner_line(b"\x1b").text, "");
    }

    #[test]
    fn a_time_that_is_not_one_is_text() {
        for raw in ["2026-02-03T12:43:20.1Zx", "2026-02-03 12:43:20Z a", "2026-02-03T12:43:2", "Tue, é"] {
            assert_eq!(runner_line(raw.as_bytes()).time, None, "{raw}");
        }
    }

    #[test]
    fn each_form_is_told_by_its_head_and_undressed() {
        let forms: [(&str, Dressing); 5] = [
            ("2026-02-03T12:43:20.1Z ##[error]lost\n", Dressing::Runner),
            ("##[group]Run x\n##[endgroup]\n##[error]lost\n", Dressing::Runner),
            (
                "A b\tGate: g\t\u{feff}2026-02-03T12:43:20.1Z ##[error]lost\nA b\tGate: g\tmore\n",
                Dressing::GhView,
            ),
            ("[G/A b] ⭐ Run Main Gate: g\n[G/A b]   | x\n[G/A b]   ❗  ::error::lost\n", Dressing::Act),
            ("    Run x\n    Error: lost\n", Dressing::Page(4)),
        ];
        for (text, form) in forms {
            assert_eq!(Dressing::of_head(text.as_bytes()), form, "{text}");
            let lost = text.lines().find(|line| line.ends_with("lost")).unwrap();
            let line = form.line(lost.as_bytes());
            assert_eq!((line.tag, &*line.text), (Some(Tag::Error), "lost"), "{text}");
        }
    }

    #[test]
    fn a_line_of_another_form_within_a_log_is_text() {
        let forged = b"2026-02-03T12:43:20.1Z A\tGate: g\t2026-02-03T12:43:20.1Z ##[error]lost";
        let line = runner_line(forged);
        assert_eq!((line.job, line.tag), (None, None));
    }
}
