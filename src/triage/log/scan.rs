//! A log of any length to the few lines that matter, in constant memory.
//!
//! Every line is searched with one automaton of all patterns; only lines in which that finds something are taken apart.
//! What a measured program printed stands between `::stop-commands::TOKEN` and `::TOKEN::`: hits in there are marked,
//! because the program may have forged them. The script that the runner prints under `##[group]Run …` gives no hits.

use super::dressing::Dressing;
use super::line::{Line, Tag};
use crate::error::{Code, Error, Result};
use regex::bytes::Regex as BytesRegex;
use std::collections::{BTreeMap, VecDeque};
use std::io::Read;

const CHUNK: usize = 1 << 20;
/// Text before the current position that is kept for context.
const LOOK_BACK: usize = 64 << 10;
/// Lines of context before a hit, and after it: ten together.
const BEFORE: usize = 7;
const AFTER: usize = 3;
/// A context line or a hit longer than this is cut.
const LONGEST: usize = 2000;
/// Hits kept per pattern, of the driver's and the runner's lines and of measured ones each: the first ones decide.
const KEPT: usize = 3;
/// On a page a script ends with the line that names its shell, at most so many lines below its title.
const LONGEST_SCRIPT: u32 = 400;
/// Commands of a step that are remembered.
const COMMANDS: usize = 8;

/// One pattern, and who must say it.
#[derive(Clone, Copy, Debug)]
pub struct Sought<'p> {
    /// What the message contains, without time, mark and colours. A leading `^` is left out of the first search.
    pub text: &'p regex::Regex,
    /// Anchored over mark and message; `None`: whoever.
    pub by: Option<&'p regex::Regex>,
}

/// What to look for.
#[derive(Debug)]
pub struct Patterns {
    each: Vec<(regex::Regex, Option<regex::Regex>)>,
    any: BytesRegex,
}

/// What changes the reader's state: marks, fences, act's words, our own command; and an escape, which may stand in the
/// middle of what a pattern looks for.
const STATE: &str = r"##\[(?:(?:end)?group|error)\]|::error|::(?:end)?group::|::stop-commands::|\x1b|exitcode '|\xe2\xad\x90|(?:ASSAY_GATES\}?\x22?|assay-gates\x22?) +[a-z]";

impl Patterns {
    /// Joins the patterns.
    ///
    /// # Errors
    /// `RulesInvalid` when they are too large together.
    pub fn new<'p>(patterns: impl IntoIterator<Item = Sought<'p>>) -> Result<Self> {
        let invalid = |error: regex::Error| Error::new(Code::RulesInvalid, format!("log pattern: {error}"));
        let patterns = patterns.into_iter();
        let each: Vec<_> = patterns.map(|sought| (sought.text.clone(), sought.by.cloned())).collect();
        let mut any = format!("(?-u:{STATE})");
        for (pattern, _) in &each {
            any.push_str("|(?:");
            any.push_str(&pattern.as_str().trim_start_matches('^').replace("(?<detail>", "(?:"));
            any.push(')');
        }
        let any = regex::bytes::RegexBuilder::new(&any)
            .unicode(false)
            .size_limit(64 << 20)
            .build()
            .map_err(invalid)?;
        Ok(Self { each, any })
    }
}

/// A line that a pattern fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Index of the pattern.
    pub pattern: usize,
    /// From 1.
    pub line: u64,
    /// The job, where the form of the log names it.
    pub job: Option<String>,
    /// The step, where the form of the log names it.
    pub step: Option<String>,
    /// The runner's time of that line.
    pub time: Option<String>,
    /// Mark and message.
    pub text: String,
    /// What the pattern's group `detail` caught.
    pub detail: Option<String>,
    /// The line stands in what a measured program printed.
    pub measured: bool,
    /// The title of the step's group (`Run …`) and the lines of its script that start this tool.
    pub commands: Vec<String>,
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
    /// Lines in which the runner says that something failed.
    pub failures: u64,
}

/// Reads a log to its end, in whatever form it comes.
///
/// # Errors
/// What the reader fails with; what was found before is lost, because a cut log proves nothing.
pub fn scan(mut reader: impl Read, patterns: &Patterns) -> std::io::Result<Scan> {
    let mut head = Vec::new();
    reader.by_ref().take(LOOK_BACK as u64).read_to_end(&mut head)?;
    let dressing = Dressing::of_head(&head);
    scan_as(head.as_slice().chain(reader), patterns, dressing)
}

/// As [`scan`], of a log whose form is known.
///
/// # Errors
/// As [`scan`].
pub fn scan_as(mut reader: impl Read, patterns: &Patterns, dressing: Dressing) -> std::io::Result<Scan> {
    let mut scanner = Scanner::new(patterns, dressing);
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

/// Where the reader stands in the lines of one job or step.
#[derive(Clone, Debug, Default)]
struct State {
    step: Option<String>,
    commands: Vec<String>,
    /// `::TOKEN::`, while commands are stopped.
    fence: Option<Vec<u8>>,
    script: Script,
}

/// Whether the lines are the script that the runner prints before a step.
#[derive(Clone, Copy, Debug, Default)]
enum Script {
    #[default]
    No,
    /// Between the marks of its group.
    Printed,
    /// Below a title without marks: hits from there on are taken back when the line comes that names the shell.
    Perhaps { first: usize, left: u32 },
    /// Behind that line: the environment, further in.
    Environment,
}

struct Scanner<'p> {
    patterns: &'p Patterns,
    dressing: Dressing,
    found: Scan,
    origin: Vec<u8>,
    state: State,
    others: BTreeMap<Vec<u8>, State>,
    /// Hits that still want lines after them.
    open: VecDeque<(usize, usize)>,
    kept: Vec<[usize; 2]>,
    ends_with_newline: bool,
}

impl<'p> Scanner<'p> {
    fn new(patterns: &'p Patterns, dressing: Dressing) -> Self {
        Self {
            patterns,
            dressing,
            found: Scan::default(),
            origin: Vec::new(),
            state: State::default(),
            others: BTreeMap::new(),
            open: VecDeque::new(),
            kept: vec![[0; 2]; patterns.each.len()],
            ends_with_newline: true,
        }
    }

    /// Takes `text[from..]`; what stands before is context.
    fn chunk(&mut self, text: &[u8], from: usize) {
        self.after_context(text, from);
        let mut start = from;
        while start < text.len() {
            let end = line_end(text, start);
            self.line(text, start, end);
            self.found.lines += u64::from(text[end - 1] == b'\n');
            start = end;
        }
        if text.len() > from {
            self.ends_with_newline = text.ends_with(b"\n");
        }
    }

    fn line(&mut self, text: &[u8], start: usize, end: usize) {
        let raw = trim(&text[start..end]);
        let origin = self.dressing.origin(raw);
        if origin != self.origin {
            let next = self.others.remove(origin).unwrap_or_default();
            let before = std::mem::replace(&mut self.origin, origin.to_vec());
            self.others.insert(before, std::mem::replace(&mut self.state, next));
        }
        let closes = self.state.fence.as_ref().is_some_and(|close| find(raw, close).is_some());
        let on_page = matches!(self.dressing, Dressing::Page(_));
        if !closes && !on_page && !self.patterns.any.is_match(raw) {
            return;
        }
        let line = self.dressing.line(raw);
        if let Some(close) = &self.state.fence {
            if closes && line.text.trim_start().as_bytes().starts_with(close) {
                self.state.fence = None;
                return;
            }
        } else if !is_quoted(&line.text) && self.turns(&line) {
            return;
        }
        let measured = self.state.fence.is_some() || is_quoted(&line.text);
        self.hits(&line, measured, text, start, end);
    }

    /// What the line does to the state; true when it can't be a hit.
    fn turns(&mut self, line: &Line) -> bool {
        if let Some(token) = line.text.trim_start().strip_prefix("::stop-commands::") {
            self.state.fence = Some(format!("::{}::", token.trim_end()).into_bytes());
            return true;
        }
        let first = self.found.hits.len();
        match line.tag {
            Some(Tag::Step) => {
                self.state = State { step: Some(line.text.clone()), ..State::default() };
                return true;
            }
            Some(Tag::Group | Tag::Title) => {
                let script = match line.tag {
                    Some(Tag::Title) => Script::Perhaps { first, left: LONGEST_SCRIPT },
                    _ => Script::Printed,
                };
                let is_script = line.text.starts_with("Run ");
                self.state.script = if is_script { script } else { Script::No };
                if is_script {
                    self.state.commands = vec![cut(&line.text)];
                }
                return true;
            }
            Some(Tag::EndGroup) => self.state.script = Script::No,
            Some(Tag::Error) => {
                self.state.script = Script::No;
                self.found.failures += 1;
            }
            _ => {}
        }
        match self.state.script {
            Script::No => return line.tag == Some(Tag::EndGroup),
            Script::Printed => {}
            Script::Perhaps { first, .. } if line.text.starts_with("shell: ") => {
                for hit in self.found.hits.drain(first.min(self.found.hits.len())..) {
                    let kept = &mut self.kept[hit.pattern][usize::from(hit.measured)];
                    *kept = kept.saturating_sub(1);
                }
                self.open.retain(|(hit, _)| *hit < first);
                self.state.script = Script::Environment;
            }
            Script::Perhaps { first, left } => {
                self.remember(&line.text);
                self.state.script = match left {
                    0 => Script::No,
                    _ => Script::Perhaps { first, left: left - 1 },
                };
                return false;
            }
            Script::Environment if line.text.starts_with("  ") || line.text == "env:" => {}
            Script::Environment => {
                self.state.script = Script::No;
                return false;
            }
        }
        self.remember(&line.text);
        true
    }

    /// A line of a script that starts this tool tells what the step does.
    fn remember(&mut self, text: &str) {
        if self.state.commands.len() < COMMANDS
            && (text.contains("assay-gates") || text.contains("ASSAY_GATES"))
        {
            self.state.commands.push(cut(text));
        }
    }

    fn hits(&mut self, line: &Line, measured: bool, text: &[u8], start: usize, end: usize) {
        let whole = line.to_string();
        for (index, (pattern, by)) in self.patterns.each.iter().enumerate() {
            if self.kept[index][usize::from(measured)] >= KEPT {
                continue;
            }
            let Some(caught) = pattern.captures(&line.text) else { continue };
            if by.as_ref().is_some_and(|by| !by.is_match(&whole)) {
                continue;
            }
            self.kept[index][usize::from(measured)] += 1;
            let mut context = self.before(text, start);
            context.push(format!("> {}", cut(&whole)));
            self.found.hits.push(Hit {
                pattern: index,
                line: self.found.lines + 1,
                job: line.job.clone(),
                step: line.step.clone().or_else(|| self.state.step.clone()),
                time: line.time.clone(),
                text: cut(&whole),
                detail: caught.name("detail").map(|detail| detail.as_str().to_owned()),
                measured,
                commands: self.state.commands.clone(),
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
        self.found.hits[hit]
            .context
            .push(format!("  {}", cut(&self.dressing.line(trim(&text[at..end])).to_string())));
        end
    }

    fn before(&self, text: &[u8], start: usize) -> Vec<String> {
        let mut lines = VecDeque::new();
        let mut end = start;
        while end > 0 && lines.len() < BEFORE {
            let begin = line_start(text, end - 1);
            lines.push_front(format!("  {}", cut(&self.dressing.line(trim(&text[begin..end])).to_string())));
            end = begin;
        }
        lines.into()
    }

    fn finish(mut self) -> Scan {
        if !self.ends_with_newline {
            self.found.lines += 1;
        }
        self.found
    }
}

/// How the driver quotes what a measured program printed or touched: `run 1 stderr | …`, `diff | …`, `  | …`.
fn is_quoted(text: &str) -> bool {
    let of_run = || {
        let rest = text.strip_prefix("run ")?.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.strip_prefix(" stdout | ").or_else(|| rest.strip_prefix(" stderr | "))
    };
    text.starts_with("diff | ") || text.starts_with("  | ") || of_run().is_some()
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
        let patterns: Vec<_> = patterns.iter().map(|text| regex::Regex::new(text).unwrap()).collect();
        let patterns = Patterns::new(patterns.iter().map(|text| Sought { text, by: None })).unwrap();
        scan(text, &patterns).unwrap()
    }

    #[test]
    fn a_hit_has_its_line_number_detail_group_and_ten_lines_of_context() {
        let mut log =
            String::from("2026-01-01T00:00:00.0Z ##[group]Run gates\n2026-01-01T00:00:00.0Z ##[endgroup]\n");
        for n in 3..=11 {
            log += &format!("2026-01-01T00:00:00.0Z line {n}\n");
        }
        log += "2026-01-01T00:00:00.0Z error[\x1b[1mAG301\x1b[0m]: lost\na\nb\nc\nd";
        let scan = hits(log.as_bytes(), &[r"error\[AG(?<detail>\d+)\]"]);
        let hit = &scan.hits[0];
        assert_eq!(
            (hit.line, hit.detail.as_deref(), hit.commands.as_slice()),
            (12, Some("301"), ["Run gates".to_owned()].as_slice())
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
    fn only_a_line_of_its_own_ends_a_fence_and_another_step_has_none() {
        let log = b"A\tone\t2026-01-01T00:00:00.0Z ::stop-commands::tok1\n\
                    A\tone\t2026-01-01T00:00:00.0Z said ::tok1:: needle\n\
                    A\ttwo\t2026-01-01T00:00:00.0Z needle\n";
        let found = hits(log, &["needle"]).hits;
        let marked: Vec<_> = found.iter().map(|hit| (hit.step.as_deref(), hit.measured)).collect();
        assert_eq!(marked, [(Some("one"), true), (Some("two"), false)]);
    }

    #[test]
    fn the_script_of_a_step_gives_no_hits_but_tells_what_the_step_runs() {
        let marked = b"##[group]Run set -e\nneedle\nassay-gates run --gate g\n##[endgroup]\nneedle\n";
        let page = b"Run set -e\nneedle\nassay-gates run --gate g\nshell: /usr/bin/bash -e {0}\nenv:\n  A: needle\nneedle\n";
        for (log, line) in [(&marked[..], 5), (&page[..], 7)] {
            let found = hits(log, &["needle"]).hits;
            assert_eq!(found.iter().map(|hit| hit.line).collect::<Vec<_>>(), [line]);
            assert_eq!(found[0].commands, ["Run set -e", "assay-gates run --gate g"]);
        }
    }

    #[test]
    fn what_is_said_counts_only_from_who_may_say_it() {
        let (text, by) = (regex::Regex::new("lost").unwrap(), regex::Regex::new(r"^##\[error\]").unwrap());
        let sought = [Sought { text: &text, by: Some(&by) }];
        let log = b"lost\n##[error]lost\n";
        let found = scan(&log[..], &Patterns::new(sought).unwrap()).unwrap().hits;
        assert_eq!(
            found.iter().map(|hit| (hit.line, &*hit.text)).collect::<Vec<_>>(),
            [(2, "##[error]lost")]
        );
    }

    #[test]
    fn what_a_measured_program_repeats_does_not_crowd_out_the_rest() {
        let log = ["::stop-commands::t\n", &"needle\n".repeat(9), "::t::\nneedle\n"].concat();
        assert!(hits(log.as_bytes(), &["needle"]).hits.iter().any(|hit| !hit.measured && hit.line == 12));
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
