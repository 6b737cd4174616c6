//! `gates/lanes.yaml` (`assay.gates.lanes.v0`): path patterns to the gate that a change of them needs.

use super::decision::Required;
use crate::error::{Code, Error, Result};
use crate::files::parse_yaml;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::Path;

/// The file as it is written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LaneFile {
    schema: String,
    status: String,
    unknown: Unknown,
    rules: Vec<RuleLines>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unknown {
    gate: Required,
    reason: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleLines {
    id: String,
    gate: Required,
    reason: String,
    paths: Vec<String>,
    #[serde(default)]
    except: Vec<String>,
    #[serde(default)]
    lock: Option<Lock>,
}

/// Lock files that are looked into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Lock {
    /// Cargo.lock: a change that leaves all that the tool is built from as it was needs no gate.
    Cargo,
}

/// One rule: what it matches, what that needs, and why.
#[derive(Debug)]
pub struct Rule {
    /// Its name.
    pub id: String,
    /// The gate that a change of a matching file needs.
    pub gate: Required,
    /// Why.
    pub reason: String,
    paths: GlobSet,
    except: GlobSet,
    lock: Option<Lock>,
}

impl Rule {
    /// True for a path, relative to the repository, that this rule decides.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        self.paths.is_match(path) && !self.except.is_match(path)
    }
}

/// The validated contract.
#[derive(Debug)]
pub struct LaneContract {
    /// Context of the commit status that is posted.
    pub status: String,
    /// The rules, in the order of the file.
    pub rules: Vec<Rule>,
    /// What a path needs that no rule matches.
    pub unknown: Required,
    /// Why.
    pub unknown_reason: String,
}

impl LaneContract {
    /// Reads the contract at `path`.
    ///
    /// # Errors
    /// `LanesInvalid`, with its place and what to write instead.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            Error::new(Code::LanesInvalid, format!("the lane contract can't be read: {error}"))
                .at(path.display())
                .hint("run it in a checkout that has gates/lanes.yaml, or name one with --lanes")
                .because(error)
        })?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Validates `text`; `place` names it in errors.
    ///
    /// # Errors
    /// As [`LaneContract::load`].
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let file: LaneFile = parse_yaml(text, place, Code::LanesInvalid)?;
        let wrong = |message: String| Error::new(Code::LanesInvalid, message).at(place);
        if file.schema != "assay.gates.lanes.v0" {
            return Err(wrong(format!("expected schema assay.gates.lanes.v0, found {:?}", file.schema)));
        }
        let mut ids = BTreeSet::new();
        let mut rules = Vec::new();
        for lines in file.rules {
            if !ids.insert(lines.id.clone()) {
                return Err(wrong(format!("two rules are called `{}`", lines.id)));
            }
            if lines.reason.trim().is_empty() || lines.paths.is_empty() {
                return Err(wrong(format!("rule `{}` needs a reason and at least one path", lines.id)));
            }
            let globs = |patterns: &[String]| {
                set(patterns).map_err(|error| wrong(format!("rule `{}`: {error}", lines.id)))
            };
            rules.push(Rule {
                paths: globs(&lines.paths)?,
                except: globs(&lines.except)?,
                lock: lines.lock,
                id: lines.id.clone(),
                gate: lines.gate,
                reason: lines.reason,
            });
        }
        Ok(Self {
            status: file.status,
            rules,
            unknown: file.unknown.gate,
            unknown_reason: file.unknown.reason,
        })
    }

    /// True for a lock file of cargo whose packages decide what it needs.
    #[must_use]
    pub fn is_cargo_lock(&self, path: &str) -> bool {
        let rules = self.matching(path);
        !rules.is_empty() && rules.iter().all(|rule| rule.lock == Some(Lock::Cargo))
    }

    /// Every rule that matches `path`.
    #[must_use]
    pub fn matching(&self, path: &str) -> Vec<&Rule> {
        self.rules.iter().filter(|rule| rule.matches(path)).collect()
    }

    /// The gates that the rules name.
    #[must_use]
    pub fn gates(&self) -> BTreeSet<&str> {
        let named = self.rules.iter().map(|rule| &rule.gate).chain([&self.unknown]);
        named.filter_map(|required| required.gate().filter(|gate| *gate != "all")).collect()
    }
}

fn set(patterns: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        set.add(GlobBuilder::new(pattern).literal_separator(true).build()?);
    }
    set.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "schema: assay.gates.lanes.v0\nstatus: s\nunknown: {gate: all, reason: r}\n";

    fn parse(rules: &str) -> Result<LaneContract> {
        LaneContract::parse(&format!("{HEAD}rules:\n{rules}"), "lanes.yaml")
    }

    #[test]
    fn a_star_stays_within_a_folder_and_two_cross_folders() {
        let contract = parse(
            "  - {id: a, gate: all, reason: r, paths: ['src/*.rs', 'gates/**'], except: ['**/*.md']}\n",
        )
        .unwrap();
        for (path, matched) in [
            ("src/main.rs", true),
            ("src/cli/run.rs", false),
            ("gates/a/b/c.yaml", true),
            ("gates/a/b/README.md", false),
            ("gates", false),
        ] {
            assert_eq!(!contract.matching(path).is_empty(), matched, "{path}");
        }
    }

    #[test]
    fn what_does_not_validate_is_refused_with_its_place() {
        for (rules, expected) in [
            ("  - {id: a, gates: all, reason: r, paths: [x]}\n", "unknown field `gates`"),
            ("  - {id: a, gate: all, reason: '', paths: [x]}\n", "needs a reason"),
            ("  - {id: a, gate: all, reason: r, paths: []}\n", "at least one path"),
            ("  - {id: a, gate: all, reason: r, paths: ['a[']}\n", "rule `a`"),
            (
                "  - {id: a, gate: 'No Gate', reason: r, paths: [x]}\n",
                "expected none, all or the id of a gate",
            ),
            (
                "  - {id: a, gate: all, reason: r, paths: [x]}\n  - {id: a, gate: all, reason: r, paths: [y]}\n",
                "two rules",
            ),
        ] {
            let error = parse(rules).unwrap_err();
            assert_eq!(error.code(), Code::LanesInvalid);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(error.place().unwrap().starts_with("lanes.yaml"), "{error}");
        }
    }
}
