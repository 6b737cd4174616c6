//! From changed files to the one gate that they need together.

use super::contract::LaneContract;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What must pass: nothing, one gate, or all of them. Written `none`, `all` or the gate's id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Required {
    /// No gate.
    None,
    /// This gate alone.
    Gate(String),
    /// Every gate of `all`.
    All,
}

impl Required {
    /// What both needs need together: two different gates need `all`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Required::None, needed) | (needed, Required::None) => needed,
            (one, other) if one == other => one,
            _ => Required::All,
        }
    }

    /// The value for `--gates`; `None` when nothing is needed.
    #[must_use]
    pub fn gate(&self) -> Option<&str> {
        match self {
            Required::None => None,
            Required::Gate(id) => Some(id),
            Required::All => Some("all"),
        }
    }

    /// True when a run of `selection` shows what is needed.
    #[must_use]
    pub fn shown_by(&self, selection: &str) -> bool {
        match self.gate() {
            None => true,
            Some(gate) => selection == gate || selection == "all",
        }
    }
}

impl TryFrom<String> for Required {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let id = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        match text.as_str() {
            "none" => Ok(Required::None),
            "all" => Ok(Required::All),
            other if !other.is_empty() && other.chars().all(id) => Ok(Required::Gate(text)),
            other => Err(format!("expected none, all or the id of a gate, found {other:?}")),
        }
    }
}

impl From<Required> for String {
    fn from(required: Required) -> Self {
        required.gate().unwrap_or("none").to_owned()
    }
}

/// One file and the rule that decides it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDecision {
    /// Relative to the repository.
    pub path: String,
    /// The rules that match; `unknown` when none does.
    pub rules: Vec<String>,
    /// What it needs.
    pub gate: Required,
    /// Why.
    pub reason: String,
}

/// What a change needs (`assay.gates.lane.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// `assay.gates.lane.v0`.
    pub schema: &'static str,
    /// Commit that the change starts from.
    pub base: String,
    /// Commit that it ends in.
    pub head: String,
    /// The gate that must pass.
    pub required: Required,
    /// Every changed file, sorted.
    pub files: Vec<FileDecision>,
}

impl Decision {
    /// Decides `changed`, paths relative to the repository; of those in `tests_only` only what tests use differs.
    #[must_use]
    pub fn new(
        contract: &LaneContract,
        base: String,
        head: String,
        changed: &BTreeSet<String>,
        tests_only: &BTreeSet<String>,
    ) -> Self {
        let decide = |path: &String| match tests_only.contains(path) && contract.is_cargo_lock(path) {
            true => FileDecision {
                gate: Required::None,
                reason: "only packages that tests use differ".to_owned(),
                ..decide(contract, path)
            },
            false => decide(contract, path),
        };
        let files: Vec<FileDecision> = changed.iter().map(decide).collect();
        let required = files.iter().fold(Required::None, |needed, file| needed.and(file.gate.clone()));
        Self { schema: "assay.gates.lane.v0", base, head, required, files }
    }

    /// For a person: the gate, then each rule with the files that it decides.
    #[must_use]
    pub fn human(&self) -> String {
        let mut by_rule: BTreeMap<(&Required, String, &str), Vec<&str>> = BTreeMap::new();
        for file in &self.files {
            by_rule.entry((&file.gate, file.rules.join(" and "), &file.reason)).or_default().push(&file.path);
        }
        let mut text = format!("required gate: {}\n", String::from(self.required.clone()));
        if self.files.is_empty() {
            text.push_str("nothing changed\n");
        }
        for ((gate, rule, reason), files) in by_rule.iter().rev() {
            let gate = gate.gate().unwrap_or("none");
            let _infallible = writeln!(text, "\n{gate}, by rule {rule}: {reason}");
            for path in files {
                let _infallible = writeln!(text, "  - {}", named(path));
            }
        }
        text
    }
}

/// A name that anybody may have chosen, behind a dash: it begins no line, so it neither ends a fence of Markdown nor starts
/// a workflow command; the older form of those, `##[`, counts anywhere in a line.
fn named(path: &str) -> String {
    crate::host::cleanup::shown(std::path::Path::new(path)).replace("##[", "#\\u{23}[")
}

fn decide(contract: &LaneContract, path: &str) -> FileDecision {
    let rules = contract.matching(path);
    let (gate, reason) = match rules.as_slice() {
        [] => (contract.unknown.clone(), contract.unknown_reason.clone()),
        [one] => (one.gate.clone(), one.reason.clone()),
        // A contract in which rules overlap is a mistake, never a way around a gate.
        several => (
            several.iter().fold(Required::None, |needed, rule| needed.and(rule.gate.clone())),
            "several rules match".to_owned(),
        ),
    };
    let rules = match rules.is_empty() {
        true => vec!["unknown".to_owned()],
        false => rules.iter().map(|rule| rule.id.clone()).collect(),
    };
    FileDecision { path: path.to_owned(), rules, gate, reason }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn contract() -> LaneContract {
        LaneContract::parse(
            "schema: assay.gates.lanes.v0\nstatus: s\nunknown: {gate: all, reason: nobody knows it}\nrules:\n\
             - {id: docs, gate: none, reason: words, paths: ['**/*.md']}\n\
             - {id: a, gate: gate-a, reason: a, paths: ['a/**']}\n\
             - {id: b, gate: gate-b, reason: b, paths: ['b/**', 'a/b/**']}\n",
            "lanes.yaml",
        )
        .unwrap()
    }

    fn required(paths: &[&str]) -> String {
        let changed = paths.iter().map(|path| (*path).to_owned()).collect();
        String::from(Decision::new(&contract(), "b".into(), "h".into(), &changed, &BTreeSet::new()).required)
    }

    #[test]
    fn the_required_gate_is_what_all_files_need_together() {
        for (paths, expected) in [
            (&[][..], "none"),
            (&["x.md"], "none"),
            (&["x.md", "a/x"], "gate-a"),
            (&["a/x", "a/y"], "gate-a"),
            (&["a/x", "b/x"], "all"),
            (&["a/b/x"], "all"),
            (&["new/thing"], "all"),
            (&["x.md", "new"], "all"),
        ] {
            assert_eq!(required(paths), expected, "{paths:?}");
        }
    }

    #[test]
    fn a_selection_shows_a_need_only_when_it_is_that_gate_or_all() {
        let a = Required::Gate("gate-a".into());
        assert!(a.shown_by("gate-a") && a.shown_by("all") && !a.shown_by("gate-b"));
        assert!(Required::All.shown_by("all") && !Required::All.shown_by("gate-a"));
        assert!(Required::None.shown_by("gate-b"));
    }

    #[test]
    fn the_screen_names_the_gate_first_and_the_strictest_rule_next() {
        let changed = ["x.md", "a/x", "odd\nname"].map(str::to_owned).into();
        insta::assert_snapshot!(Decision::new(&contract(), "b".into(), "h".into(), &changed, &BTreeSet::new()).human(), @r"
        required gate: all

        all, by rule unknown: nobody knows it
          - odd\nname

        gate-a, by rule a: a
          - a/x

        none, by rule docs: words
          - x.md
        ");
    }

    #[test]
    fn no_name_ends_a_fence_or_commands_a_workflow() {
        for name in [
            "```",
            "::error::x",
            " ::stop-commands::x",
            "##[group]x",
            "x##[add-mask]y",
            "a\n::error::x",
            "~~~",
            "\u{1b}[2J",
        ] {
            let changed = [name.to_owned()].into();
            let human =
                Decision::new(&contract(), "b".into(), "h".into(), &changed, &BTreeSet::new()).human();
            for line in human.lines().map(str::trim_start) {
                assert!(
                    !line.starts_with("::") && !line.starts_with("```") && !line.starts_with("~~~"),
                    "{human}"
                );
            }
            assert!(!human.contains("##[") && !human.contains('\u{1b}'), "{human}");
        }
    }

    fn any_required() -> impl Strategy<Value = Required> {
        prop_oneof![Just(Required::None), Just(Required::All), "[ab]".prop_map(Required::Gate),]
    }

    proptest! {
        #[test]
        fn needs_join_in_any_order_and_never_become_less(a in any_required(), b in any_required(), c in any_required()) {
            let joined = a.clone().and(b.clone()).and(c.clone());
            prop_assert_eq!(&joined, &c.clone().and(b.clone().and(a.clone())));
            for one in [a, b, c] {
                prop_assert_eq!(&joined.clone().and(one), &joined);
            }
        }
    }
}
