//! Secrets are replaced before anything is hashed, and nothing is written when one survives.
//!
//! A hit becomes `<redacted:RULE:H8>`; H8 comes from a keyed hash of the matched text, so that the same secret reads
//! the same in two artifacts of one host and can't be guessed from the outside.

mod key;
mod shapes;

pub use key::RedactionKey;
pub use shapes::{Hit, Shapes};

use super::contract::Redaction;
use crate::error::{Code, Error, Result};
use hmac::{Hmac, KeyInit, Mac};
use std::collections::BTreeMap;

/// Flags whose value is a credential, compared without case.
const SECRET_FLAGS: &[&str] = &[
    "--token",
    "--api-key",
    "--apikey",
    "--api_key",
    "--key",
    "--secret",
    "--client-secret",
    "--password",
    "--passwd",
    "--pass",
    "-p",
    "--access-key",
    "--access-token",
    "--auth",
    "--authorization",
    "--bearer",
];

/// Replaces secrets and counts what it replaced.
#[derive(Debug)]
pub struct Redactor<'k> {
    key: &'k RedactionKey,
    shapes: &'static Shapes,
    by_rule: BTreeMap<String, u64>,
    by_field: BTreeMap<String, u64>,
}

impl<'k> Redactor<'k> {
    /// With the key of this host or invocation.
    ///
    /// # Errors
    /// `Internal` when a pattern doesn't compile, which a test rules out.
    pub fn new(key: &'k RedactionKey) -> Result<Self> {
        Ok(Self { key, shapes: Shapes::shared()?, by_rule: BTreeMap::new(), by_field: BTreeMap::new() })
    }

    /// Redacts `text` in place by its shape; `field` names where it stands.
    pub fn text(&mut self, field: &str, text: &mut String) {
        self.shaped(field, text);
        // JSON writes some characters as escapes, and the sweep reads what is written: a shape that only the
        // escaped form has would stop the run. The whole value goes then.
        if text.bytes().any(|byte| byte == b'"' || byte == b'\\' || byte < b' ')
            && let Ok(escaped) = serde_json::to_string(text.as_str())
            && let Some(hit) = self.shapes.hits(&escaped).first().copied()
        {
            let whole = std::mem::take(text);
            *text = self.placeholder(field, hit.rule, &whole);
        }
    }

    /// Redacts an endpoint or another address: first `user:password` in it, then its shape.
    pub fn address(&mut self, field: &str, text: &mut String) {
        for (start, end) in self.shapes.userinfo(text).into_iter().rev() {
            let secret = text[start..end].to_owned();
            let placeholder = self.placeholder(field, "url-userinfo", &secret);
            text.replace_range(start..end, &placeholder);
        }
        self.text(field, text);
    }

    /// Redacts an argument vector: values of credential flags, addresses, then shapes. The program's name is only
    /// redacted by its shape.
    pub fn argv(&mut self, field: &str, argv: &mut [String]) {
        let mut value_of_flag = false;
        for (index, token) in argv.iter_mut().enumerate() {
            if index > 0 {
                value_of_flag = self.argument(field, token, value_of_flag);
            }
            self.address(field, token);
        }
    }

    /// Redacts the text of an exec: the words after the first are arguments.
    pub fn exec(&mut self, field: &str, text: &mut String) {
        let mut words: Vec<String> = text.split(' ').map(str::to_owned).collect();
        let mut value_of_flag = false;
        for word in words.iter_mut().skip(1) {
            value_of_flag = self.argument(field, word, value_of_flag);
        }
        *text = words.join(" ");
        self.text(field, text);
    }

    /// Redacts one argument; gives back whether the next one is the value of a credential flag.
    fn argument(&mut self, field: &str, token: &mut String, value_of_flag: bool) -> bool {
        let is_secret = |flag: &str| SECRET_FLAGS.iter().any(|known| known.eq_ignore_ascii_case(flag));
        if value_of_flag && !token.is_empty() {
            let value = std::mem::take(token);
            *token = self.placeholder(field, "credential-flag-value", &value);
            return false;
        }
        match token.split_once('=') {
            Some((flag, value)) if is_secret(flag) && !value.is_empty() => {
                let placeholder = self.placeholder(field, "credential-flag-value", value);
                *token = format!("{flag}={placeholder}");
                false
            }
            _ => is_secret(token),
        }
    }

    fn shaped(&mut self, field: &str, text: &mut String) {
        let hits = self.shapes.hits(text);
        for hit in hits.iter().rev() {
            let secret = text[hit.start..hit.end].to_owned();
            let placeholder = self.placeholder(field, hit.rule, &secret);
            text.replace_range(hit.start..hit.end, &placeholder);
        }
    }

    fn placeholder(&mut self, field: &str, rule: &str, secret: &str) -> String {
        for (counts, name) in [(&mut self.by_rule, rule), (&mut self.by_field, field)] {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
        format!("<redacted:{rule}:{}>", self.key.mark(secret))
    }

    /// Whether the written `text` still holds something that looks like a secret.
    ///
    /// # Errors
    /// `RedactionIncomplete`, naming `place` and the rule; the text itself is not shown.
    pub fn sweep(&self, place: &str, text: &str) -> Result<()> {
        match self.shapes.hits(text).first() {
            None => Ok(()),
            Some(hit) => Err(Error::new(
                Code::RedactionIncomplete,
                format!("expected no text like a secret after redaction, found one of rule {}", hit.rule),
            )
            .at(format!("{place} byte {}", hit.start))),
        }
    }

    /// What was done so far, for the health document.
    #[must_use]
    pub fn receipt(&self) -> Redaction {
        Redaction {
            mode: "shape_and_flag".to_owned(),
            redacted_count: self.by_rule.values().sum(),
            by_rule: self.by_rule.clone(),
            by_field: self.by_field.clone(),
            key_scope: self.key.scope().to_owned(),
            key_id: self.key.id(),
        }
    }
}

fn hmac8(key: &[u8; 32], text: &[u8]) -> String {
    // HMAC fills a short key up with zeros to the block of 64 bytes; doing it here leaves nothing that can fail.
    let mut block = [0; 64];
    block[..32].copy_from_slice(key);
    let mut mac = Hmac::<sha2::Sha256>::new(&block.into());
    mac.update(text);
    hex::encode(&mac.finalize().into_bytes()[..4])
}
