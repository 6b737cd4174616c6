//! Definitions are YAML; one way to read them and to say what is wrong.

use crate::error::{Code, Error, Result};
use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Reads `text` as a `T`. `place` names the file, `code` the kind of definition.
///
/// # Errors
/// `code`, with `file:line:column`; for an unknown key or value the hint names the nearest one that is known.
pub fn parse_yaml<T: DeserializeOwned>(text: &str, place: impl Display, code: Code) -> Result<T> {
    serde_yaml::from_str(text).map_err(|error| {
        let message = error.to_string();
        let place = match error.location() {
            Some(location) => format!("{place}:{}:{}", location.line(), location.column()),
            None => place.to_string(),
        };
        let mut wrong = Error::new(code, without_location(&message)).at(place);
        if let Some(near) = nearest_named(&message) {
            wrong = wrong.hint(format!("did you mean `{near}`?"));
        }
        wrong.because(error)
    })
}

/// The known name nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, name)| *distance <= (name.len().max(word.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// serde says "unknown field `x`, expected one of `a`, `b`": the nearest of those named.
fn nearest_named(message: &str) -> Option<&str> {
    let (unknown, expected) = message.split_once(", expected ")?;
    if !unknown.contains("unknown field") && !unknown.contains("unknown variant") {
        return None;
    }
    let word = unknown.split('`').nth(1)?;
    nearest(word, expected.split('`').skip(1).step_by(2))
}

fn without_location(message: &str) -> &str {
    message.rfind(" at line ").map_or(message, |end| &message[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "only its name matters")]
        timeout_seconds: u64,
        #[allow(dead_code, reason = "only its name matters")]
        title: Option<String>,
    }

    #[test]
    fn an_unknown_key_names_file_line_column_and_the_nearest_key() {
        let error = parse_yaml::<Sample>(
            "title: a\ntimeout_secnds: 3\n",
            "gates/x/gate.yaml",
            Code::DefinitionInvalid,
        )
        .unwrap_err();
        assert_eq!(error.place(), Some("gates/x/gate.yaml:2:1"));
        assert_eq!(error.advice(), Some("did you mean `timeout_seconds`?"));
        assert!(error.message().contains("unknown field `timeout_secnds`"), "{error}");
    }

    #[test]
    fn a_far_key_gets_no_suggestion() {
        let error = parse_yaml::<Sample>("zebra: 3\n", "f", Code::DefinitionInvalid).unwrap_err();
        assert_eq!(error.advice(), None);
    }
}
