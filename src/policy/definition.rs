//! The policy file: which tools a caller may call, and with which arguments (`assay.gates.policy.v0`).

use super::pattern::ToolPatterns;
use crate::error::{Code, Error, Result};
use crate::files::{Sha256Digest, parse_yaml, sha256};
use crate::host::rights::Rights;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Schema id of the policy file.
pub const POLICY_SCHEMA: &str = "assay.gates.policy.v0";

/// What the file says. `tools.deny` wins over `tools.allow`, which wins over `default`; constraints can only
/// take away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// `assay.gates.policy.v0`.
    pub schema: String,
    /// What happens to a tool that neither list names. It must be stated.
    pub default: Default,
    /// The two lists.
    #[serde(default)]
    pub tools: Tools,
    /// Per tool, the JSON Schema (draft 2020-12 unless it names another) that its arguments must satisfy.
    #[serde(default)]
    pub arguments: BTreeMap<String, serde_json::Value>,
    /// Per tool and argument, the folders that the argument's path must lie in. The argument must be there, and
    /// must be an absolute path or a list of them.
    #[serde(default)]
    pub paths: BTreeMap<String, BTreeMap<String, Vec<PathBuf>>>,
    /// Per tool, how its server reads the text of a path. Where it is not said, text that could be read in more than one
    /// way (percent signs, variables, wildcards, `file:` URIs, letters with another form) is refused.
    #[serde(default)]
    pub decoding: BTreeMap<String, Decoding>,
}

/// How a server reads the text of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    /// As it is: every byte is part of a name.
    None,
    /// Percent-encoded, decoded once.
    Percent,
    /// A `file:` URI, or a path as it is.
    Uri,
}

/// What happens to a tool that neither list names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Default {
    /// It may be called.
    Allow,
    /// It may not.
    Deny,
}

/// Tool names, or globs over them (`*`, `?`, `[a-z]`, `{a,b}`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// May be called.
    #[serde(default)]
    pub allow: Vec<String>,
    /// May not, whatever else says so.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// A policy that validates, ready to decide.
#[derive(Debug)]
pub struct Policy {
    pub(super) default: Default,
    pub(super) allow: ToolPatterns,
    pub(super) deny: ToolPatterns,
    pub(super) arguments: BTreeMap<String, jsonschema::Validator>,
    pub(super) paths: BTreeMap<String, BTreeMap<String, Vec<PathBuf>>>,
    pub(super) decoding: BTreeMap<String, Decoding>,
    digest: Sha256Digest,
}

impl Policy {
    /// Reads and checks a policy file, as whoever called could read it.
    ///
    /// # Errors
    /// `Io` when it can't be read; otherwise as [`Policy::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text = Rights::of_caller()?.read_text(path)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Checks the text of a policy file; `place` names it in errors.
    ///
    /// # Errors
    /// `PolicyInvalid`, with `file:line:column` for syntax and keys, `file:line` for rules between fields.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        // The generic reader refuses keys given twice in any mapping; typed maps would keep the last.
        parse_yaml::<serde_yaml::Value>(text, place, Code::PolicyInvalid)?;
        let definition: Definition = parse_yaml(text, place, Code::PolicyInvalid)?;
        check(definition, sha256(text.as_bytes())).map_err(|(key, message)| {
            let line = line_of(text, &key);
            Error::new(Code::PolicyInvalid, message).at(format!("{place}:{line}"))
        })
    }

    /// Digest of the file's bytes: which policy decided.
    #[must_use]
    pub fn digest(&self) -> Sha256Digest {
        self.digest
    }
}

/// A key of the file to point at, and what is wrong.
type Broken = (String, String);

fn check(mut definition: Definition, digest: Sha256Digest) -> Result<Policy, Broken> {
    if definition.schema != POLICY_SCHEMA {
        let found = &definition.schema;
        return Err(("schema".into(), format!("schema: expected {POLICY_SCHEMA}, found {found:?}")));
    }
    let patterns = |list: Vec<String>, name: &str| {
        ToolPatterns::new(list).map_err(|(pattern, why)| (pattern, format!("tools.{name}: {why}")))
    };
    let tools = std::mem::take(&mut definition.tools);
    let allow = patterns(tools.allow, "allow")?;
    let deny = patterns(tools.deny, "deny")?;
    let constrained = definition.arguments.keys().chain(definition.paths.keys());
    for tool in constrained {
        let reachable = definition.default == Default::Allow || allow.matching(tool).is_some();
        if !reachable || deny.matching(tool).is_some() {
            let message = format!(
                "tool {tool:?} is constrained but may never be called: add it to tools.allow or drop the constraint"
            );
            return Err((tool.clone(), message));
        }
    }
    let mut arguments = BTreeMap::new();
    for (tool, schema) in std::mem::take(&mut definition.arguments) {
        let validator = jsonschema::validator_for(&schema)
            .map_err(|error| (tool.clone(), format!("arguments.{tool}: not a JSON Schema: {error}")))?;
        arguments.insert(tool, validator);
    }
    for (tool, constraints) in &definition.paths {
        if constraints.is_empty() {
            return Err((tool.clone(), format!("paths.{tool}: expected at least one argument")));
        }
        for (argument, roots) in constraints {
            if roots.is_empty() {
                return Err((tool.clone(), format!("paths.{tool}.{argument}: expected at least one folder")));
            }
            if let Some(root) = roots.iter().find(|root| !super::path::is_plain_absolute(root)) {
                let message = format!(
                    "paths.{tool}.{argument}: expected an absolute folder without `..`, found {root:?}"
                );
                return Err((tool.clone(), message));
            }
        }
    }
    if let Some(tool) = definition.decoding.keys().find(|tool| !definition.paths.contains_key(*tool)) {
        let message =
            format!("decoding.{tool}: expected a tool with paths, found none of that name in `paths`");
        return Err((tool.clone(), message));
    }
    let Definition { default, paths, decoding, .. } = definition;
    Ok(Policy { default, allow, deny, arguments, paths, decoding, digest })
}

/// First line that has `key` as a key, else the first that mentions it, for the reader's eye; 1 when none does.
fn line_of(text: &str, key: &str) -> usize {
    let is_key = |line: &str| {
        line.trim_start()
            .trim_start_matches(['"', '\''])
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    };
    let found = text.lines().position(is_key).or_else(|| text.lines().position(|line| line.contains(key)));
    found.map_or(1, |at| at + 1)
}

/// The JSON Schema of the policy file, as `proof-pack/schemas/assay.gates.policy.v0.json` carries it.
///
/// # Errors
/// `Internal` when it can't be serialised.
pub fn policy_json_schema() -> Result<String> {
    let mut schema = schemars::schema_for!(Definition);
    schema.insert("$id".to_owned(), POLICY_SCHEMA.into());
    schema.insert(
        "title".to_owned(),
        "policy.yaml: which tools may be called, and with which arguments".into(),
    );
    crate::files::pretty_sorted(&schema)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> Error {
        Policy::parse(text, "policy.yaml").unwrap_err()
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_key() {
        let error = broken("schema: assay.gates.policy.v0\ndefault: deny\ntools:\n  alow: [read_file]\n");
        assert_eq!(error.code(), Code::PolicyInvalid);
        assert_eq!(error.place(), Some("policy.yaml:4:3"));
        assert_eq!(error.advice(), Some("did you mean `allow`?"));
    }

    #[test]
    fn the_default_must_be_stated() {
        let error = broken("schema: assay.gates.policy.v0\ntools: {allow: [read_file]}\n");
        assert!(error.message().contains("missing field `default`"), "{error}");
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let error =
            broken("schema: assay.gates.policy.v0\ndefault: allow\npaths:\n  t: {a: [/x]}\n  t: {a: [/]}\n");
        assert!(error.message().contains("duplicate"), "{error}");
    }

    #[test]
    fn each_rule_between_fields_names_what_it_refuses() {
        for (text, line, message) in [
            ("schema: other\ndefault: deny\n", 1, "expected assay.gates.policy.v0, found \"other\""),
            ("schema: assay.gates.policy.v0\ndefault: deny\ntools:\n  deny: ['[a']\n", 4, "tools.deny"),
            ("schema: assay.gates.policy.v0\ndefault: deny\ntools:\n  allow: ['']\n", 1, "tools.allow"),
            (
                "schema: assay.gates.policy.v0\ndefault: deny\narguments:\n  t: {type: object}\n",
                4,
                "may never be called",
            ),
            (
                "schema: assay.gates.policy.v0\ndefault: allow\narguments:\n  t: {type: 5}\n",
                4,
                "not a JSON Schema",
            ),
            (
                "schema: assay.gates.policy.v0\ndefault: allow\npaths:\n  t: {p: []}\n",
                4,
                "at least one folder",
            ),
            (
                "schema: assay.gates.policy.v0\ndefault: allow\npaths:\n  t: {p: [rel]}\n",
                4,
                "expected an absolute folder",
            ),
            (
                "schema: assay.gates.policy.v0\ndefault: allow\npaths:\n  t: {p: [/a/../b]}\n",
                4,
                "expected an absolute folder",
            ),
        ] {
            let error = broken(text);
            assert!(error.message().contains(message), "{text}: {error}");
            assert_eq!(error.place(), Some(format!("policy.yaml:{line}").as_str()), "{text}");
        }
    }
}
