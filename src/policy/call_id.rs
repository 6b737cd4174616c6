//! Which call is which: the rules by which a call's id is found in its request.

use super::message::{Call, plain};
use crate::error::{Code, Result};
use crate::files::parse_yaml;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::sync::OnceLock;

/// The rule of an id that is made of connection and request.
pub const REQUEST: &str = "request";

const TEXT: &str = include_str!("call_ids.yaml");
const SCHEMA: &str = "assay.gates.call_ids.v0";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    schema: String,
    rules: Vec<Rule>,
}

/// One place where an id may stand.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// What evidence calls it.
    name: String,
    /// Keys from `params` inwards.
    path: Vec<String>,
}

/// The id of a call as its caller gave it, and the rule that found it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenId {
    /// The id.
    pub text: String,
    /// Name of the rule.
    pub rule: &'static str,
}

/// The first id that stands in `params`.
///
/// # Errors
/// What is wrong with the first that is there.
pub(super) fn given(params: &Map<String, Value>) -> Result<Option<GivenId>, String> {
    for rule in rules() {
        let mut keys = rule.path.iter();
        let mut value = keys.next().and_then(|key| params.get(key));
        for key in keys {
            value = value.and_then(|value| value.get(key));
        }
        match value {
            None => {}
            Some(Value::String(text)) if plain(text) => {
                return Ok(Some(GivenId { text: text.clone(), rule: &rule.name }));
            }
            Some(_) => {
                return Err(format!(
                    "`{}` must be text of 1 to {} bytes without control characters or blanks around it",
                    rule.path.join("."),
                    super::message::LONGEST_NAME
                ));
            }
        }
    }
    Ok(None)
}

/// One connection of a caller with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionName {
    /// The server.
    pub server: String,
    /// Number of the connection among those to servers of that name, from 1.
    pub number: u32,
}

impl ConnectionName {
    /// The server's name as it may stand in a call id: at most 64 characters, blanks and control characters replaced.
    #[must_use]
    pub fn new(label: &str, number: u32) -> Self {
        let kept = label.chars().take(64);
        let server = kept.map(|c| if c.is_whitespace() || c.is_control() || c == '/' { '_' } else { c });
        Self { server: server.collect(), number }
    }
}

/// The id of a request of a connection, where none was given.
fn made(connection: Option<&ConnectionName>, request: &str) -> String {
    match connection {
        Some(ConnectionName { server, number }) => format!("{server}/{number}/{request}"),
        None => format!("req_{request}"),
    }
}

impl super::Origin {
    /// The call's id, and the name of the rule that gave it.
    #[must_use]
    pub fn call_id<'a>(&self, call: &'a Call) -> (String, &'a str) {
        match &call.given_id {
            Some(id) => (id.text.clone(), id.rule),
            None => (self.request_id(&call.request_text()), REQUEST),
        }
    }

    /// The id of whatever the request with this id asks for.
    #[must_use]
    pub fn request_id(&self, request: &str) -> String {
        made(self.connection.as_ref(), request)
    }
}

fn rules() -> &'static [Rule] {
    static RULES: OnceLock<Vec<Rule>> = OnceLock::new();
    // The text is part of this binary, and a test reads it.
    RULES.get_or_init(|| read().unwrap_or_default())
}

fn read() -> Result<Vec<Rule>> {
    let rules: Rules = parse_yaml(TEXT, "call_ids.yaml", Code::Internal)?;
    if rules.schema != SCHEMA {
        return Err(crate::error::Error::new(
            Code::Internal,
            format!("expected {SCHEMA}, found {}", rules.schema),
        ));
    }
    Ok(rules.rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn find(params: Value) -> Result<Option<(String, &'static str)>, String> {
        let Value::Object(params) = params else { panic!("not an object") };
        given(&params).map(|id| id.map(|id| (id.text, id.rule)))
    }

    #[test]
    fn the_rules_are_read_and_each_finds_its_own_place() {
        let rules = read().unwrap();
        assert!(rules.iter().all(|rule| rule.path.len() > 1 && rule.name != REQUEST), "{rules:?}");
        for rule in &rules {
            let nested = rule.path.iter().rev().fold(json!("id"), |value, key| json!({key: value}));
            assert_eq!(find(nested), Ok(Some(("id".into(), rule.name.as_str()))));
            let broken = rule.path.iter().rev().fold(json!(7), |value, key| json!({key: value}));
            assert!(find(broken).unwrap_err().contains(&rule.path.join(".")));
        }
        assert_eq!(find(json!({"_meta": {"progressToken": 1}})), Ok(None));
    }

    #[test]
    fn the_first_rule_wins() {
        let both = json!({"_meta": {"claudecode/toolUseId": "b", "tool_call_id": "a"}});
        assert_eq!(find(both), Ok(Some(("a".into(), "meta"))));
    }

    #[test]
    fn requests_of_different_connections_have_different_ids() {
        let of = |label: &str, number| made(Some(&ConnectionName::new(label, number)), "1");
        assert_eq!(of("files", 1), "files/1/1");
        assert_eq!(of("my server/x\n", 2), "my_server_x_/2/1");
        assert_eq!(made(None, "1"), "req_1");
    }
}
