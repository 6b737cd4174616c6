//! A policy and a call give a decision.

use super::definition::{Decoding, Default, Policy};
use super::message::Call;
use super::strict::{differ_in_case_only, shortened};
use serde::Serialize;
use serde_json::{Map, Value};

/// Longest reason text in characters; what a caller wrote may be in it.
const LONGEST_REASON: usize = 400;

/// What becomes of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is forwarded.
    Allow,
    /// The policy refuses it.
    Deny,
    /// It could not be decided on, and is refused.
    Error,
}

/// Why, in one word for programs. The names are part of the decision log's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Reason {
    /// Allowed by name; nothing constrains its arguments.
    #[serde(rename = "E_TOOL_UNCONSTRAINED")]
    Unconstrained,
    /// Allowed, and its arguments satisfy every constraint.
    #[serde(rename = "E_TOOL_CONSTRAINED")]
    Constrained,
    /// `tools.deny` names it.
    #[serde(rename = "E_TOOL_DENIED")]
    Denied,
    /// Nothing allows it.
    #[serde(rename = "E_TOOL_NOT_ALLOWED")]
    NotAllowed,
    /// Its arguments don't satisfy the tool's schema.
    #[serde(rename = "E_ARG_SCHEMA")]
    ArgumentSchema,
    /// An argument's path is missing or outside its folders.
    #[serde(rename = "E_ARG_PATH")]
    ArgumentPath,
    /// The call can be read in more than one way, or in none.
    #[serde(rename = "E_CALL_MALFORMED")]
    Malformed,
    /// The call can't be followed to its response.
    #[serde(rename = "E_CALL_UNFOLLOWABLE")]
    Unfollowable,
}

/// What was looked at to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// A name in a list.
    Name,
    /// A glob in a list.
    Glob,
    /// The stated default.
    Default,
    /// `arguments`.
    ArgumentSchema,
    /// `paths`.
    Path,
    /// The protocol, not the policy.
    Protocol,
}

/// A decision and its grounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What becomes of the call.
    pub outcome: Outcome,
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people.
    pub text: String,
    /// What was looked at.
    pub basis: Basis,
    /// The rule of the policy file that decided, e.g. `tools.allow: read_*`.
    pub rule: Option<String>,
}

impl Decision {
    /// A refusal that no rule of the policy made.
    pub(super) fn error(reason: Reason, text: String) -> Self {
        Self { outcome: Outcome::Error, reason, text: capped(text), basis: Basis::Protocol, rule: None }
    }

    fn deny(reason: Reason, basis: Basis, rule: Option<String>, text: String) -> Self {
        Self { outcome: Outcome::Deny, reason, text: capped(text), basis, rule }
    }

    /// `allow`, `allow_with_obligations` when nothing constrains the arguments, `deny`; none for what could not be
    /// decided on, which readers of the log know no type for.
    #[must_use]
    pub fn typed(&self) -> Option<&'static str> {
        match (self.outcome, self.reason) {
            (Outcome::Allow, Reason::Unconstrained) => Some("allow_with_obligations"),
            (Outcome::Allow, _) => Some("allow"),
            (Outcome::Deny, _) => Some("deny"),
            (Outcome::Error, _) => None,
        }
    }
}

impl Policy {
    /// Decides on a call. Looks at the disk when paths are constrained.
    #[must_use]
    pub fn decide(&self, call: &Call) -> Decision {
        let tool = call.tool.as_str();
        let shown = shortened(tool);
        let basis = |glob| if glob { Basis::Glob } else { Basis::Name };
        if let Some((rule, glob)) = self.deny.matching_any_spelling(tool) {
            let rule = Some(format!("tools.deny: {rule}"));
            return Decision::deny(Reason::Denied, basis(glob), rule, format!("tool {shown:?} is denied"));
        }
        let (basis, rule) = match (self.allow.matching(tool), self.default) {
            (Some((rule, glob)), _) => (basis(glob), format!("tools.allow: {rule}")),
            (None, Default::Allow) => (Basis::Default, "default: allow".to_owned()),
            (None, Default::Deny) => {
                let rule = Some("default: deny".to_owned());
                return Decision::deny(
                    Reason::NotAllowed,
                    Basis::Default,
                    rule,
                    format!("no rule allows tool {shown:?}"),
                );
            }
        };
        if let Some(other) = self.constrained_alike(tool) {
            let text = format!("tool {shown:?} is spelled like {other:?}, whose arguments are constrained");
            return Decision::deny(Reason::NotAllowed, Basis::Name, Some(rule), text);
        }
        let schema = self.arguments.get(tool);
        if let Some(validator) = schema {
            let arguments = Value::Object(without_call_id(&call.arguments));
            if let Err(error) = validator.validate(&arguments) {
                let rule = Some(format!("arguments.{tool}"));
                let text = format!("argument {:?}: {error}", error.instance_path().to_string());
                return Decision::deny(Reason::ArgumentSchema, Basis::ArgumentSchema, rule, text);
            }
        }
        let paths = self.paths.get(tool);
        for (argument, roots) in paths.into_iter().flatten() {
            let decoding = self.decoding.get(tool).copied();
            if let Err(why) = check_path(&call.arguments, argument, roots, decoding) {
                let rule = Some(format!("paths.{tool}.{argument}"));
                return Decision::deny(
                    Reason::ArgumentPath,
                    Basis::Path,
                    rule,
                    format!("argument {argument:?} {why}"),
                );
            }
        }
        let (reason, text) = if schema.is_none() && paths.is_none() {
            (Reason::Unconstrained, format!("tool {shown:?} is allowed; nothing constrains its arguments"))
        } else {
            (
                Reason::Constrained,
                format!("tool {shown:?} is allowed and its arguments satisfy every constraint"),
            )
        };
        Decision { outcome: Outcome::Allow, reason, text: capped(text), basis, rule: Some(rule) }
    }
}

impl Policy {
    /// A tool with constraints of which `tool` is another spelling.
    fn constrained_alike(&self, tool: &str) -> Option<&str> {
        let form = super::name::folded(tool);
        let constrained = self.arguments.keys().chain(self.paths.keys());
        constrained.map(String::as_str).find(|name| *name != tool && super::name::folded(name) == form)
    }
}

fn check_path(
    arguments: &Map<String, Value>,
    name: &str,
    roots: &[std::path::PathBuf],
    decoding: Option<Decoding>,
) -> Result<(), String> {
    if let Some(other) = arguments.keys().find(|key| differ_in_case_only(name, key)) {
        return Err(format!("is also given as {:?}, the same to parsers that ignore case", shortened(other)));
    }
    let value = arguments.get(name).ok_or("is missing")?;
    let texts = match value {
        Value::Array(list) => list.iter().collect(),
        other => vec![other],
    };
    if texts.is_empty() {
        return Err("is an empty list".to_owned());
    }
    for text in texts {
        let text = text.as_str().ok_or("is neither text nor a list of texts")?;
        super::path::inside(text, roots, decoding).map_err(|why| format!("({:?}) {why}", shortened(text)))?;
    }
    Ok(())
}

/// Arguments without the call id that older callers put among them, so that a closed schema still fits.
fn without_call_id(arguments: &Map<String, Value>) -> Map<String, Value> {
    let ours = |meta: &Value| {
        meta.as_object()
            .is_some_and(|meta| meta.len() == 1 && meta.get("tool_call_id").is_some_and(Value::is_string))
    };
    arguments
        .iter()
        .filter(|(key, value)| key.as_str() != "_meta" || !ours(value))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn capped(text: String) -> String {
    match text.char_indices().nth(LONGEST_REASON) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn decide(policy: &str, tool: &str, arguments: Value) -> Decision {
        let policy = format!("schema: assay.gates.policy.v0\n{policy}");
        let Value::Object(arguments) = arguments else { panic!("not an object") };
        let call = Call { request_id: json!(1), tool: tool.into(), given_id: None, arguments, task: false };
        Policy::parse(&policy, "policy.yaml").unwrap().decide(&call)
    }

    fn grounds(decision: Decision) -> (Outcome, Reason, Basis, Option<String>) {
        (decision.outcome, decision.reason, decision.basis, decision.rule)
    }

    #[test]
    fn an_allowed_tool_without_constraints_carries_obligations() {
        let decision = decide(
            "default: deny\ntools: {allow: [read_file]}\n",
            "read_file",
            json!({"path": "/etc/passwd"}),
        );
        assert_eq!(decision.typed(), Some("allow_with_obligations"));
        assert_eq!(serde_json::to_value(decision.reason).unwrap(), "E_TOOL_UNCONSTRAINED");
        assert_eq!(
            grounds(decision),
            (Outcome::Allow, Reason::Unconstrained, Basis::Name, Some("tools.allow: read_file".into()))
        );
    }

    #[test]
    fn deny_wins_over_allow_and_allow_over_the_default() {
        let policy = "default: deny\ntools:\n  allow: ['*_file']\n  deny: [write_file]\n";
        let outcome = |tool| grounds(decide(policy, tool, json!({})));
        assert_eq!(
            outcome("read_file"),
            (Outcome::Allow, Reason::Unconstrained, Basis::Glob, Some("tools.allow: *_file".into()))
        );
        assert_eq!(
            outcome("write_file"),
            (Outcome::Deny, Reason::Denied, Basis::Name, Some("tools.deny: write_file".into()))
        );
        assert_eq!(
            outcome("move"),
            (Outcome::Deny, Reason::NotAllowed, Basis::Default, Some("default: deny".into()))
        );
        assert_eq!(decide("default: allow\n", "move", json!({})).outcome, Outcome::Allow);
    }

    #[test]
    fn arguments_must_satisfy_the_schema_of_their_tool() {
        let policy = "default: allow\narguments:\n  t: {type: object, required: [n], properties: {n: {type: integer, maximum: 3}}, additionalProperties: false}\n";
        assert_eq!(decide(policy, "t", json!({"n": 3})).reason, Reason::Constrained);
        assert_eq!(
            decide(policy, "t", json!({"n": 3, "_meta": {"tool_call_id": "x"}})).typed(),
            Some("allow")
        );
        for wrong in [
            json!({}),
            json!({"n": 4}),
            json!({"n": "1"}),
            json!({"n": 1, "m": 1}),
            json!({"n": 1, "_meta": {"tool_call_id": "x", "y": 1}}),
        ] {
            assert_eq!(decide(policy, "t", wrong.clone()).reason, Reason::ArgumentSchema, "{wrong}");
        }
        assert_eq!(decide(policy, "u", json!({"n": 4})).reason, Reason::Unconstrained);
    }

    #[test]
    fn paths_must_be_there_and_lie_inside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let policy = format!("default: allow\npaths:\n  t: {{path: [{}]}}\n", root.display());
        let inside = root.join("a").display().to_string();
        for good in [json!({"path": inside}), json!({"path": [inside, root.join("b")], "other": "/etc"})] {
            assert_eq!(decide(&policy, "t", good.clone()).reason, Reason::Constrained, "{good}");
        }
        for bad in [
            json!({}),
            json!({"path": "/etc/passwd"}),
            json!({"path": []}),
            json!({"path": [inside, "/etc/passwd"]}),
            json!({"path": 5}),
            json!({"path": null}),
            json!({"path": {"a": inside}}),
            json!({"path": inside, "Path": "/etc/passwd"}),
        ] {
            assert_eq!(decide(&policy, "t", bad.clone()).reason, Reason::ArgumentPath, "{bad}");
        }
    }

    #[test]
    fn another_spelling_passes_neither_a_denial_nor_a_constraint() {
        let policy = "default: allow\ntools: {deny: [delete_file]}\narguments:\n  t: {maxProperties: 0}\n";
        for spelling in ["Delete_File", "delete\u{200b}_file", "\u{ff44}elete_file"] {
            assert_eq!(decide(policy, spelling, json!({})).reason, Reason::Denied, "{spelling:?}");
        }
        assert_eq!(decide(policy, "T", json!({"x": 1})).outcome, Outcome::Deny);
        assert_eq!(decide(policy, "u", json!({"x": 1})).outcome, Outcome::Allow);
    }

    #[test]
    fn a_reason_never_grows_with_what_the_caller_wrote() {
        let policy = "default: allow\narguments:\n  t: {maxProperties: 0}\n";
        let decision = decide(policy, "t", json!({"x": "y".repeat(100_000)}));
        assert!(decision.text.chars().count() <= LONGEST_REASON + 1, "{}", decision.text.len());
    }
}
