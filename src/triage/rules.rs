//! `runbook/rules.yaml`: failure classes, what decides each, and whether a rerun is allowed.
//!
//! The order of the file is the precedence. Every class of kind `infrastructure` stands after every finding, so that a
//! genuine failure always vetoes an infrastructure verdict.

use super::facts::{Fact, FactKind};
use super::log::{Patterns, Sought};
use crate::error::{Code, Error, Exit, Result};
use regex::Regex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The rules that the binary was built with.
pub const EMBEDDED: &str = include_str!("../../runbook/rules.yaml");

/// The schema id of the file.
pub const SCHEMA: &str = "assay.gates.triage_rules.v0";

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "assay.gates.triage_rules.v0")]
pub struct RulesFile {
    /// `assay.gates.triage_rules.v0`.
    pub schema: String,
    /// Who speaks in a log, by name: a regular expression for how each of their lines begins, mark included.
    pub speakers: BTreeMap<String, String>,
    /// In the order of precedence.
    pub classes: Vec<Class>,
}

/// One failure class.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Stable name, in snake case.
    pub id: String,
    /// What it means, in one line.
    pub title: String,
    /// What it says about the run.
    pub kind: Kind,
    /// Whether the run may be started again.
    pub rerun: Rerun,
    /// Why the rerun is or isn't allowed.
    pub why: String,
    /// Exit code of `watch` for a run of this class.
    #[schemars(with = "String")]
    pub exit: Exit,
    /// The exact next command. Filled in: `{run}`, `{repo}`; `{source}`, the run, root or pack as an argument;
    /// `{selection}`, `{runs}` and `{root}`, for a run to go on with. Where only logs are known and it needs more, the page is next.
    pub next: String,
    /// File name of the runbook page, beside this file.
    pub page: String,
    /// Error codes of the tool that mean this class.
    #[serde(default)]
    pub codes: Vec<String>,
    /// Any one of these decides for the class.
    pub any: Vec<Matcher>,
    /// A fact that must be classified so; the tests try it.
    pub example: Example,
}

/// What a class says about the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The measured behaviour, the evidence or the capture is not what it must be.
    Finding,
    /// The host or the tool must be put right first.
    Host,
    /// Nothing decides.
    Unknown,
    /// Around the run, not in it.
    Infrastructure,
    /// Not a failure.
    Fine,
}

/// Whether the run may be started again as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rerun {
    /// As it is.
    Allowed,
    /// After what the page says was done.
    AfterFix,
    /// A rerun would hide it.
    Refused,
}

/// Fits a fact.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Matcher {
    /// What the fact is about; see the kinds.
    pub fact: Option<FactKind>,
    /// Regular expression over the whole key. A group `detail` names the detail.
    pub key: Option<String>,
    /// The value is exactly one of these.
    pub equals: Option<OneOrMany>,
    /// Regular expression that the value contains. A group `detail` names the detail.
    pub matches: Option<String>,
    /// The value is a number above this.
    pub above: Option<f64>,
    /// Regular expression that the name of the step contains. A fact whose step is not known does not fit.
    pub step: Option<String>,
    /// Who says it: one or more of the speakers. A line of a log must have one.
    pub by: Option<OneOrMany>,
    /// Ranks this behind the class of that name, for what decides less than the class's place says.
    pub below: Option<String>,
    /// Also fits what a measured program printed; the confidence is low then.
    #[serde(default)]
    pub measured: bool,
}

/// One text or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn all(&self) -> &[String] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }

    fn contains(&self, text: &str) -> bool {
        self.all().iter().any(|one| one == text)
    }
}

/// A fact to try a class with.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Example {
    /// See [`Matcher::fact`].
    pub fact: FactKind,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// The step.
    #[serde(default)]
    pub step: Option<String>,
}

/// Rules that were checked and compiled.
#[derive(Debug)]
pub struct Rules {
    classes: Vec<Class>,
    matchers: Vec<Compiled>,
    patterns: Patterns,
}

#[derive(Debug)]
struct Compiled {
    class: usize,
    /// Place in the order of precedence: index of a class, and 1 behind it.
    rank: (usize, u8),
    fact: FactKind,
    by: Option<Regex>,
    key: Option<Regex>,
    equals: Option<OneOrMany>,
    matches: Option<Regex>,
    above: Option<f64>,
    step: Option<Regex>,
    measured: bool,
    /// Neither runner, driver nor kernel says it: it counts only where something failed.
    needs_failure: bool,
}

/// What is looked for beside the rules, and how its line begins: the tool's own errors (in a gate's log behind the run),
/// the end of a failed step, the runner's version in "Set up job".
const FIXED: [(&str, &str); 3] = [
    (r"\berror\[(?<detail>AG\d{3})\]", r"^(?:##\[error\])?(?:FAIL: )?(?:run \d+: )?error\["),
    (r"Process completed with exit code (?<detail>\d+)", r"^##\[error\]Process completed"),
    (r"Current runner version: '(?<detail>[^']+)'", "^Current runner version"),
];

/// Speakers whose words count in every log.
const TRUSTED: [&str; 4] = ["runner", "driver", "doctor", "kernel"];

/// What a hit of [`Rules::patterns`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// The tool's own error code.
    Code,
    /// Exit status of a step.
    ExitCode,
    /// The runner's version.
    RunnerVersion,
    /// A line that some rule looks for.
    Line,
}

impl Rules {
    /// The rules that the binary was built with.
    ///
    /// # Errors
    /// `RulesInvalid`; the tests exclude it.
    pub fn embedded() -> Result<Self> {
        Self::parse(EMBEDDED, "runbook/rules.yaml")
    }

    /// Reads, checks and compiles rules.
    ///
    /// # Errors
    /// `RulesInvalid`, with line and column, for text that doesn't fit the schema, a pattern that doesn't compile, a
    /// class named twice, or an infrastructure class in front of a finding.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let file: RulesFile = crate::files::parse_yaml(text, name, Code::RulesInvalid)?;
        let invalid = |what: String| Error::new(Code::RulesInvalid, what).at(name);
        if file.schema != SCHEMA {
            return Err(invalid(format!("expected schema {SCHEMA}, found {}", file.schema)));
        }
        let mut behind: Option<&str> = None;
        for (at, class) in file.classes.iter().enumerate() {
            if file.classes[..at].iter().any(|other| other.id == class.id) {
                return Err(invalid(format!("class {} is there twice", class.id)));
            }
            match (class.kind, behind) {
                (Kind::Infrastructure, _) => behind = Some(&class.id),
                (Kind::Finding | Kind::Host | Kind::Unknown, Some(before)) => {
                    return Err(invalid(format!(
                        "class {} must stand before {before}: infrastructure never outranks a genuine failure",
                        class.id
                    )));
                }
                _ => {}
            }
        }
        let mut classes = file.classes;
        let ids: Vec<String> = classes.iter().map(|class| class.id.clone()).collect();
        let mut matchers = Vec::new();
        for (index, class) in classes.iter_mut().enumerate() {
            for matcher in std::mem::take(&mut class.any) {
                let compiled = matcher.compile(index, &ids, &file.speakers);
                matchers.push(compiled.map_err(|what| invalid(format!("class {}: {what}", class.id)))?);
            }
        }
        let lines = matchers.iter().filter(|matcher| matcher.fact == FactKind::Log);
        let lines = lines
            .filter_map(|matcher| Some(Sought { text: matcher.matches.as_ref()?, by: matcher.by.as_ref() }));
        let fixed = FIXED.map(|(text, by)| Some((Regex::new(text).ok()?, Regex::new(by).ok()?)));
        let fixed = fixed.iter().flatten().map(|(text, by)| Sought { text, by: Some(by) });
        let patterns = Patterns::new(fixed.chain(lines))?;
        Ok(Self { classes, matchers, patterns })
    }

    /// In the order of precedence.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// The class of that name.
    #[must_use]
    pub fn class(&self, id: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.id == id)
    }

    /// The class that an error code belongs to.
    #[must_use]
    pub fn class_of_code(&self, code: &str) -> Option<&Class> {
        self.classes.iter().find(|class| class.codes.iter().any(|known| known == code))
    }

    /// What to look for in logs.
    #[must_use]
    pub fn patterns(&self) -> &Patterns {
        &self.patterns
    }

    /// A hit of that pattern counts only in a log in which something failed.
    #[must_use]
    pub fn needs_failure(&self, index: usize) -> bool {
        let Some(line) = index.checked_sub(FIXED.len()) else { return false };
        let lines =
            self.matchers.iter().filter(|matcher| matcher.fact == FactKind::Log && matcher.matches.is_some());
        lines.map(|matcher| matcher.needs_failure).nth(line).unwrap_or(true)
    }

    /// What a hit of [`Self::patterns`] is.
    #[must_use]
    pub fn pattern(&self, index: usize) -> Pattern {
        match index {
            0 => Pattern::Code,
            1 => Pattern::ExitCode,
            2 => Pattern::RunnerVersion,
            _ => Pattern::Line,
        }
    }

    /// Every class that `fact` fits: its index, its rank in the order of precedence, and the detail that was caught.
    pub fn fits<'r>(
        &'r self,
        fact: &'r Fact,
    ) -> impl Iterator<Item = (usize, (usize, u8), Option<String>)> + 'r {
        let by_code = self.classes.iter().enumerate().filter_map(move |(index, class)| {
            let own = fact.kind == FactKind::Code && !fact.measured && class.codes.contains(&fact.value);
            own.then(|| (index, (index, 0), Some(fact.value.clone())))
        });
        let by_rule = self.matchers.iter().filter_map(move |matcher| {
            matcher.fits(fact).map(|detail| (matcher.class, matcher.rank, detail))
        });
        by_code.chain(by_rule)
    }
}

impl Matcher {
    /// The matcher of the class at `class`; the error is a fragment.
    fn compile(
        self,
        class: usize,
        ids: &[String],
        speakers: &BTreeMap<String, String>,
    ) -> Result<Compiled, String> {
        let regex = |pattern: Option<String>| {
            pattern.map(|p| Regex::new(&p)).transpose().map_err(|error| error.to_string())
        };
        let fact = self.fact.ok_or("a matcher without fact")?;
        if fact == FactKind::Log && self.by.is_none() {
            return Err("a line of a log without `by`: who says it?".to_owned());
        }
        let names = self.by.as_ref().map_or(&[][..], OneOrMany::all);
        let begins: Result<Vec<&str>, String> = names
            .iter()
            .map(|name| Ok(speakers.get(name).ok_or(format!("there is no speaker {name}"))?.as_str()))
            .collect();
        let by = (!names.is_empty()).then_some(begins?.join("|")).map(|any| format!("^(?:{any})"));
        let rank = match &self.below {
            None => (class, 0),
            Some(above) => {
                (ids.iter().position(|id| id == above).ok_or(format!("there is no class {above}"))?, 1)
            }
        };
        Ok(Compiled {
            class,
            rank,
            fact,
            by: regex(by)?,
            key: regex(self.key.map(|key| format!("^(?:{key})$")))?,
            equals: self.equals,
            matches: regex(self.matches)?,
            above: self.above,
            step: regex(self.step)?,
            measured: self.measured,
            needs_failure: fact == FactKind::Log
                && !names.iter().any(|name| TRUSTED.contains(&name.as_str())),
        })
    }
}

impl Compiled {
    fn fits(&self, fact: &Fact) -> Option<Option<String>> {
        let mut detail = None;
        let mut caught = |regex: &Regex, text: &str| {
            let found = regex.captures(text)?;
            if let Some(named) = found.name("detail") {
                detail = Some(named.as_str().to_owned());
            }
            Some(())
        };
        if self.fact != fact.kind || (fact.measured && !self.measured) {
            return None;
        }
        if let Some(key) = &self.key {
            caught(key, &fact.key)?;
        }
        if self.by.as_ref().is_some_and(|by| !by.is_match(&fact.value)) {
            return None;
        }
        if let Some(pattern) = &self.matches {
            caught(pattern, unmarked(fact))?;
        }
        if self.equals.as_ref().is_some_and(|equals| !equals.contains(&fact.value)) {
            return None;
        }
        if let Some(above) = self.above
            && !fact.value.parse::<f64>().is_ok_and(|value| value > above)
        {
            return None;
        }
        if let Some(pattern) = &self.step
            && !fact.place.step.as_ref().is_some_and(|step| pattern.is_match(step))
        {
            return None;
        }
        Some(detail)
    }
}

/// The value of a fact; of a line of a log the message, without its mark.
fn unmarked(fact: &Fact) -> &str {
    let value = fact.value.as_str();
    match fact.kind {
        FactKind::Log => {
            let marks = ["##[error]", "##[warning]"];
            marks.iter().find_map(|mark| value.strip_prefix(mark)).unwrap_or(value)
        }
        _ => value,
    }
}

/// The JSON Schema of the file, as it stands in `proof-pack/schemas`.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(RulesFile)
}
