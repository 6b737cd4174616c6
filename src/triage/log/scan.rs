//! A log of any length to the few lines that matter, in constant memory.
//!
//! The text is searched a mebibyte at a time with one automaton of all patterns; only lines in which that finds
//! something are taken apart. What a measured program printed stands between `::stop-commands::TOKEN` and `::TOKEN::`:
//! hits in there are marked, because the program may have forged them.

use super::line::{self, Tag};
use crate::error::{Code, Error, Result};
use regex::bytes::Regex as BytesRegex;
use std::collections::VecDeque;
use std::io::Read;

const CHUNK: usize = 1 << 20;
/// Text before the current position that is kept for context.
const LOOK_BACK: usize = 64 << 10;
/// Lines of context before a hit, and after it: ten together.
const BEFORE: usize = 7;
const AFTER: usize = 3;
/// A context line or a hit longer than this is cut.
const LONGEST: usize = 2000;
/// Hits kept per pattern: the first ones decide.
const KEPT: usize = 3;

/// What to look for. Patterns see the message without time, mark and colours, but must not be anchored.
#[derive(Debug)]
pub struct Patterns {
    each: Vec<regex::Regex>,
    any: BytesRegex,
}

impl Patterns {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// `RulesInvalid` for a pattern that isn't a regular expression.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Self> {
        let invalid = |error: regex::Error| Error::new(Code::RulesInvalid, format!("log pattern: {error}"));
        let patterns: Vec<&str> = patterns.into_iter().collect();
        let each: Result<Vec<_>> = patterns.iter().map(|p| regex::Regex::new(p).map_err(invalid)).collect();
        // The marks change the reader's state; an escape may stand in the middle of what a pattern looks for.
        let mut any = r"##\[(?:end)?group\]|::stop-commands::|\x1b".to_owned();
        for pattern in &patterns {
            any.push_str("|(?:");
            any.push_str(&pattern.replace("(?<detail>", "(?:"));
            any.push(')');
        }
        let any = regex::bytes::RegexBuilder::new(&any).size_limit(64 << 20).build().map_err(invalid)?;
        Ok(Self { each: each?, any })
    }
}

/// A line that a pattern fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Index of the pattern.
    pub pattern: usize,
    /// From 1.
    pub line: u64,
    /// The runner's time of that line.
    pub time: Option<String>,
    /// The message.
    pub text: String,
    /// What the pattern's group `detail` caught.
    pub detail: Option<String>,
    /// The line stands in what a measured program printed.
    pub measured: bool,
    /// The group that the line stands in.
    pub group: Option<String>,
    /// Up to seven lines before, the line itself marked `> `, up to three after.
    pub context: Vec<String>,
}

/// What a log gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// In the order of the log.
    pub hits: Vec<Hit>,
    /// Lines read.
    pub lines: u64,
    /// Bytes read.
    pub bytes: u64,
}

/// Reads a log to its end.
///
/// # Errors
/// What the reader fails with; what was found before is lost, because a cut log proves nothing.
pub fn scan(mut reader: impl Read, patterns: &Patterns) -> std::io::Result<Scan> {
    let mut scanner = Scanner::new(patterns);
    let mut buffer: Vec<u8> = Vec::with_capacity(CHUNK + LOOK_BACK);
    let (mut done, mut end) = (0, false);
    while !end {
        let start = buffer.len();
        let read = std::io::Read::by_ref(&mut reader).take(CHUNK as u64).read_to_end(&mut buffer)?;
        end = read < CHUNK;
        scanner.found.bytes += read as u64;
        // Whole lines only, unless a line fills the chunk.
        let whole = match buffer[start..].iter().rposition(|byte| *byte == b'\n') {
            Some(at) if !end => start + at + 1,
            None if !end && buffer.len() - done < CHUNK => continue,
            _ => buffer.len(),
        };
        scanner.chunk(&buffer[..whole], done);
        let keep = whole.saturating_sub(LOOK_BACK);
        buffer.drain(..keep);
        done = whole - keep;
    }
    Ok(scanner.finish())
}

struct Scanner<'p> {
    patterns: &'p Patterns,
    found: Scan,
    group: Option<String>,
    /// `::TOKEN::`, while commands are stopped.
    fence: Option<Vec<u8>>,
    /// Hits that still want lines after them.
    open: VecDeque<(usize, usize)>,
    kept: Vec<usize>,
    ends_with_newline: bool,
}

impl<'p> Scanner<'p> {
    fn new(patterns: &'p Patterns) -> Self {
        Self {
            patterns,
            found: Scan::default(),
            group: None,
            fence: None,
            open: VecDeque::new(),
            kept: vec![0; patterns.each.len()],
            ends_with_newline: true,
        }
    }

    /// Takes `text[from..]`; what stands before is context.
    fn chunk(&mut self, text: &[u8], from: usize) {
        self.after_context(text, from);
        let (mut at, mut counted) = (from, from);
        while at < text.len() {
            // In a fence, everything up to its end is the measured program's.
            let fence_end =
                self.fence.as_ref().map(|close| find(&text[at..], close).map_or(text.len(), |end| at + end));
            let limit = fence_end.unwrap_or(text.len());
            let Some(candidate) = self.patterns.any.find_at(&text[..limit], at) else {
                at = limit;
                if fence_end.is_some_and(|end| end < text.len()) {
                    self.fence = None;
                    at = line_end(text, limit);
                }
                continue;
            };
            // A line longer than a chunk goes on behind what was counted already.
            let start = line_start(text, candidate.start()).max(counted);
            let end = line_end(text, candidate.start());
            self.found.lines += count_newlines(&text[counted..start]);
            counted = start;
            self.line(text, start, end, fence_end.is_some());
            at = end.max(candidate.start() + 1);
        }
        self.found.lines += count_newlines(&text[counted..]);
        if text.len() > from {
            self.ends_with_newline = text.ends_with(b"\n");
        }
    }

    fn line(&mut self, text: &[u8], start: usize, end: usize, measured: bool) {
        let line = line::parse(text[start..end].strip_suffix(b"\n").unwrap_or(&text[start..end]));
        let measured = measured || is_quoted(&line.text);
        if !measured {
            match line.tag {
                Some(Tag::Group) => self.group = Some(cut(&line.text)),
                Some(Tag::EndGroup) => self.group = None,
                _ => {}
            }
            if let Some(token) = line.text.trim_start().strip_prefix("::stop-commands::") {
                self.fence = Some(format!("::{}::", token.trim_end()).into_bytes());
                return;
            }
        }
        for (index, pattern) in self.patterns.each.iter().enumerate() {
            if self.kept[index] >= KEPT {
                continue;
            }
            let Some(caught) = pattern.captures(&line.text) else { continue };
            self.kept[index] += 1;
            let mut context = before(text, start);
            context.push(format!("> {}", cut(&line.text)));
            self.found.hits.push(Hit {
                pattern: index,
                line: self.found.lines + 1,
                time: line.time.map(str::to_owned),
                text: cut(&line.text),
                detail: caught.name("detail").map(|detail| detail.as_str().to_owned()),
                measured,
                group: self.group.clone(),
                context,
            });
            let mut at = end;
            let mut wanted = AFTER;
            while wanted > 0 && at < text.len() {
                at = self.add_context(self.found.hits.len() - 1, text, at);
                wanted -= 1;
            }
            if wanted > 0 {
                self.open.push_back((self.found.hits.len() - 1, wanted));
            }
        }
    }

    /// Gives hits at the end of the last chunk their lines after.
    fn after_context(&mut self, text: &[u8], from: usize) {
        for (hit, mut wanted) in std::mem::take(&mut self.open) {
            let mut at = from;
            while wanted > 0 && at < text.len() {
                at = self.add_context(hit, text, at);
                wanted -= 1;
            }
        }
    }

    fn add_context(&mut self, hit: usize, text: &[u8], at: usize) -> usize {
        let end = line_end(text, at);
        self.found.hits[hit].context.push(format!("  {}", cut(&line::parse(trim(&text[at..end])).text)));
        end
    }

    fn finish(mut self) -> Scan {
        if !self.ends_with_newline {
            self.found.lines += 1;
        }
        self.found
    }
}

/// `run 1 stderr | …`: how a gate's log quotes what the measured program printed.
fn is_quoted(text: &str) -> bool {
    let quoted = || {
        let rest = text.strip_prefix("run ")?.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.strip_prefix(" stdout | ").or_else(|| rest.strip_prefix(" stderr | "))
    };
    quoted().is_some()
}

fn before(text: &[u8], start: usize) -> Vec<String> {
    let mut lines = VecDeque::new();
    let mut end = start;
    while end > 0 && lines.len() < BEFORE {
        let begin = line_start(text, end - 1);
        lines.push_front(format!("  {}", cut(&line::parse(trim(&text[begin..end])).text)));
        end = begin;
    }
    lines.into()
}

fn trim(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\n").unwrap_or(line)
}

fn line_start(text: &[u8], at: usize) -> usize {
    text[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1)
}

fn line_end(text: &[u8], at: usize) -> usize {
    find(&text[at..], b"\n").map_or(text.len(), |newline| at + newline + 1)
}

fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    memchr::memmem::find(text, needle)
}

fn count_newlines(text: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', text).count() as u64
}

fn cut(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    let mut end = LONGEST;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}… ({} bytes)", &text[..end], text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(text: &[u8], patterns: &[&str]) -> Scan {
        let patterns = Patterns::new(patterns.iter().copied()).unwrap();
        scan(text, &patterns).unwrap()
    }

    #[test]
    fn a_hit_has_its_line_number_detail_group_and_ten_lines_of_context() {
        let mut log = String::from("2026-01-01T00:00:00.0Z ##[group]Run gates\n");
        for n in 2..=11 {
            log += &format!("2026-01-01T00:00:00.0Z line {n}\n");
        }
        log += "2026-01-01T00:00:00.0Z error[\x1b[1mAG301\x1b[0m]: lost\na\nb\nc\nd";
        let scan = hits(log.as_bytes(), &[r"error\[AG(?<detail>\d+)\]"]);
        let hit = &scan.hits[0];
        assert_eq!(
            (hit.line, hit.detail.as_deref(), hit.group.as_deref()),
            (12, Some("301"), Some("Run gates"))
        );
        assert_eq!(hit.context.len(), 11);
        assert_eq!((&*hit.context[0], &*hit.context[10]), ("  line 5", "  c"));
        assert_eq!(scan.lines, 16);
    }

    #[test]
    fn what_a_measured_program_printed_is_marked() {
        let log = b"::stop-commands::tok1\nNo space left\n::other::\n::endgroup::\n::tok1::\nNo space left\n";
        let marked: Vec<_> =
            hits(log, &["No space left"]).hits.iter().map(|hit| (hit.line, hit.measured)).collect();
        assert_eq!(marked, [(2, true), (6, false)]);
    }

    #[test]
    fn what_a_gate_log_quotes_is_marked() {
        let log = b"run 12 stderr | No space left\nrun 1: No space left\n";
        let marked: Vec<_> = hits(log, &["No space left"]).hits.iter().map(|hit| hit.measured).collect();
        assert_eq!(marked, [true, false]);
    }

    #[test]
    fn a_fence_that_is_never_closed_reaches_to_the_end() {
        let mut log = b"::stop-commands::tok1\n".to_vec();
        log.resize(3 * CHUNK, b'\n');
        log.extend_from_slice(b"No space left\n");
        let scan = hits(&log, &["No space left"]);
        assert!(scan.hits[0].measured);
        assert_eq!(scan.hits[0].line, (3 * CHUNK - 21 + 1) as u64);
    }

    #[test]
    fn a_line_longer_than_a_chunk_is_searched_and_cut() {
        let mut log = vec![b'x'; 3 * CHUNK];
        log.extend_from_slice(b" needle \nnext needle\n");
        let scan = hits(&log, &["needle"]);
        assert_eq!(scan.hits.len(), 2, "{:?}", scan.hits.iter().map(|hit| hit.line).collect::<Vec<_>>());
        assert_eq!(scan.lines, 2);
        assert!(scan.hits.iter().all(|hit| hit.text.len() < LONGEST + 40));
    }

    #[test]
    fn context_reaches_over_the_edge_of_a_chunk() {
        let mut log = Vec::new();
        while log.len() < CHUNK - 10 {
            log.extend_from_slice(b"0123456789abcdef\n");
        }
        log.truncate(CHUNK - 8);
        log.extend_from_slice(b"\nneedle\nafter 1\nafter 2\n");
        let scan = hits(&log, &["needle"]);
        assert_eq!(scan.hits[0].context.len(), BEFORE + 1 + 2);
        assert_eq!(scan.hits[0].context.last().map(String::as_str), Some("  after 2"));
    }

    #[test]
    fn only_the_first_hits_of_a_pattern_are_kept() {
        assert_eq!(hits("needle\n".repeat(1000).as_bytes(), &["needle"]).hits.len(), KEPT);
    }
}
