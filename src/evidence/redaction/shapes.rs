//! What a secret looks like.

use crate::error::{Code, Error, Result};
use regex::{Regex, RegexSet};
use std::sync::OnceLock;

/// Name and pattern of each shape. The names are part of the contract: they stand in placeholders.
const SHAPES: &[(&str, &str)] = &[
    ("aws-access-key-id", r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    (
        "github-token",
        r"ghs_[0-9A-Za-z]+_eyJ[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+|gh[pousr]_[0-9A-Za-z]{36,}",
    ),
    ("github-fine-grained-pat", r"github_pat_[0-9A-Za-z_]{22,}"),
    ("openai-key", r"sk-(?:proj-)?[0-9A-Za-z_-]{20,}"),
    ("slack-token", r"xox[baprs]-[0-9A-Za-z-]{10,}"),
    ("google-api-key", r"AIza[0-9A-Za-z_-]{35}"),
    ("stripe-key", r"[sp]k_(?:live|test)_[0-9A-Za-z]{16,}"),
    (
        "private-key-pem",
        // The header alone names the shape; what follows it up to the footer is the secret.
        r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY-----(?:[0-9A-Za-z+/=\s]*-----END (?:[A-Z0-9]+ )*PRIVATE KEY-----|[0-9A-Za-z+/=\s]*)",
    ),
    ("jwt", r"eyJ[0-9A-Za-z_-]{7,}\.eyJ[0-9A-Za-z_-]{7,}\.[0-9A-Za-z_-]{10,}"),
    ("bearer-token", r"(?i:bearer)\s+[0-9A-Za-z._~+/=-]{20,}"),
    ("sensitive-query-param", r#"(?i:access_token|refresh_token|signature|sig)=[^\s&"'#]{6,}"#),
    (
        "credential-assignment",
        r#"(?i:api[_-]?key|secret|token|password|passwd|access[_-]?key|client[_-]?secret)\s*[=:]\s*[^\s"']{6,}"#,
    ),
];

/// Shapes that begin with letters common inside words (`task-…`), so they count only at the start of a word.
const WORD_START: &[&str] = &["openai-key", "stripe-key"];

/// Rules that are not shapes; known here so that their placeholders are.
const OTHER_RULES: &[&str] = &["url-userinfo", "credential-flag-value"];

/// The compiled shapes.
#[derive(Debug)]
pub struct Shapes {
    set: RegexSet,
    each: Vec<(&'static str, Regex)>,
    placeholder: Regex,
    userinfo: Regex,
}

/// One hit: the rule and the range of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The rule's name.
    pub rule: &'static str,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Shapes {
    /// The shapes, compiled once for the process.
    ///
    /// # Errors
    /// `Internal` when a pattern doesn't compile, which a test rules out.
    pub fn shared() -> Result<&'static Self> {
        static COMPILED: OnceLock<Shapes> = OnceLock::new();
        match COMPILED.get() {
            Some(shapes) => Ok(shapes),
            None => {
                let shapes = Self::compile()?;
                Ok(COMPILED.get_or_init(|| shapes))
            }
        }
    }

    fn compile() -> Result<Self> {
        let wrong = |error: regex::Error| Error::new(Code::Internal, format!("redaction shape: {error}"));
        let names: Vec<&str> =
            SHAPES.iter().map(|(name, _)| *name).chain(OTHER_RULES.iter().copied()).collect();
        Ok(Self {
            set: RegexSet::new(SHAPES.iter().map(|(_, pattern)| *pattern)).map_err(wrong)?,
            each: SHAPES
                .iter()
                .map(|(name, pattern)| Ok((*name, Regex::new(pattern).map_err(wrong)?)))
                .collect::<Result<_>>()?,
            placeholder: Regex::new(&format!("<redacted:(?:{}):[0-9a-f]{{8}}>", names.join("|")))
                .map_err(wrong)?,
            userinfo: Regex::new(r"[A-Za-z][0-9A-Za-z+.-]*://([^/\s:@]*:[^/\s@]*)@").map_err(wrong)?,
        })
    }

    /// Where `user:password` stands in addresses with a scheme.
    pub(super) fn userinfo(&self, text: &str) -> Vec<(usize, usize)> {
        self.userinfo
            .captures_iter(text)
            .filter_map(|found| found.get(1).map(|secret| (secret.start(), secret.end())))
            .collect()
    }

    /// Whether `text` could hold a hit at all; a cheap first question.
    #[must_use]
    pub fn maybe(&self, text: &str) -> bool {
        self.set.is_match(text)
    }

    /// Every hit, left to right: the earliest match wins, the longest on a tie; placeholders are skipped.
    #[must_use]
    pub fn hits(&self, text: &str) -> Vec<Hit> {
        let mut hits = Vec::new();
        if !self.maybe(text) {
            return hits;
        }
        let mut start = 0;
        for placeholder in self.placeholder.find_iter(text) {
            self.hits_between(text, start, placeholder.start(), &mut hits);
            start = placeholder.end();
        }
        self.hits_between(text, start, text.len(), &mut hits);
        hits
    }

    fn hits_between(&self, text: &str, mut start: usize, end: usize, hits: &mut Vec<Hit>) {
        while let Some(hit) = self
            .each
            .iter()
            .filter_map(|(rule, pattern)| first(rule, pattern, &text[..end], start))
            .min_by_key(|hit| (hit.start, std::cmp::Reverse(hit.end)))
        {
            hits.push(hit);
            start = hit.end;
        }
    }
}

fn first(rule: &'static str, pattern: &Regex, text: &str, mut start: usize) -> Option<Hit> {
    loop {
        let found = pattern.find_at(text, start)?;
        let inside_a_word = WORD_START.contains(&rule)
            && text[..found.start()].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
        if !inside_a_word {
            return Some(Hit { rule, start: found.start(), end: found.end() });
        }
        start = found.start() + 1;
    }
}
