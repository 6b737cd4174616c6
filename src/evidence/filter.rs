//! Which opens are telemetry and not evidence: rules as data, counted when they match.
//!
//! Applied in user space, after everything was recorded, and to nothing but opens that only read: what creates, writes,
//! truncates, deletes, renames, signals or listens is evidence wherever it happens, by its type and before any rule is
//! tried. What the kernel opened decides, never what was asked for; only an open that failed, which opened nothing, goes
//! by the name that was asked for, and then the name must match once `.` and `..` are resolved by text too, and lead
//! through none of the links below `/proc` that end elsewhere. What an `io_uring` opened is known by request only, and
//! so is always evidence. Below the work folder nothing is telemetry.

use crate::capture::{Effect, Operation, PathState, PathValue};
use crate::error::{Code, Error, Result};
use crate::files;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::OnceLock;

/// The rules of this release.
const RULES: &str = include_str!("filter.yaml");

/// Distinct filtered paths of one run, but those of rules with a number of their own; more is a named refusal.
pub const MAX_DISTINCT_PATHS: usize = 1024;

/// The rules, in the order in which they are tried.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    schema: String,
    rules: Vec<Rule>,
}

/// One rule: all of its conditions must hold.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    name: String,
    why: String,
    #[serde(default)]
    exact: Vec<String>,
    #[serde(default)]
    prefix: Vec<String>,
    #[serde(default)]
    suffix: Vec<String>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    and_contains: Vec<String>,
    #[serde(default)]
    shared_object: bool,
    #[serde(default)]
    own_executable: bool,
    #[serde(default)]
    distinct: Option<usize>,
}

impl Rule {
    /// The stable name, as counted.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why such an open is telemetry.
    #[must_use]
    pub fn why(&self) -> &str {
        &self.why
    }

    fn matches(&self, path: &str, image: Option<&str>) -> bool {
        let any = |items: &[String], holds: &dyn Fn(&str) -> bool| {
            items.is_empty() || items.iter().any(|item| holds(item))
        };
        any(&self.exact, &|item| path == item)
            && any(&self.prefix, &|item| path.starts_with(item))
            && any(&self.suffix, &|item| path.ends_with(item))
            && any(&self.contains, &|item| path.contains(item))
            && any(&self.and_contains, &|item| path.contains(item))
            && (!self.own_executable || image == Some(path))
            && (!self.shared_object || path.ends_with(".so") || path.contains(".so."))
    }

    /// Says of which paths it speaks; a rule that doesn't would match everything.
    fn is_bounded(&self) -> bool {
        self.own_executable
            || [&self.exact, &self.prefix, &self.suffix, &self.contains].iter().any(|items| !items.is_empty())
    }
}

/// Whether an open with these flags writes, creates or truncates.
#[must_use]
pub fn writes(flags: u64) -> bool {
    const O_CREAT_OR_TRUNC: u64 = 0o1100;
    flags & 3 != 0 || flags & O_CREAT_OR_TRUNC != 0
}

impl Filter {
    /// The rules that are part of this build.
    ///
    /// # Errors
    /// `DefinitionInvalid` when they don't validate, which a test rules out.
    pub fn embedded() -> Result<&'static Self> {
        static PARSED: OnceLock<Filter> = OnceLock::new();
        match PARSED.get() {
            Some(filter) => Ok(filter),
            None => {
                let filter = Self::parse(RULES, "filter.yaml")?;
                Ok(PARSED.get_or_init(|| filter))
            }
        }
    }

    /// Reads rules; `place` names the file in errors.
    ///
    /// # Errors
    /// `DefinitionInvalid`: unknown key, another schema, a rule without a condition, a name twice.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let filter: Self = files::parse_yaml(text, place, Code::DefinitionInvalid)?;
        let wrong = |message: String| Error::new(Code::DefinitionInvalid, message).at(place);
        if filter.schema != "assay.gates.filter.v0" {
            return Err(wrong(format!("expected schema assay.gates.filter.v0, found {}", filter.schema)));
        }
        let mut names = std::collections::BTreeSet::new();
        for rule in &filter.rules {
            if !rule.is_bounded() {
                return Err(wrong(format!(
                    "rule `{}` needs one of exact, prefix, suffix, contains, own_executable; it would match everything",
                    rule.name
                )));
            }
            if !names.insert(&rule.name) {
                return Err(wrong(format!("rule `{}` stands twice", rule.name)));
            }
        }
        Ok(filter)
    }

    /// Digest of the rules of this build, so that evidence names what filtered it.
    #[must_use]
    pub fn digest() -> files::Sha256Digest {
        files::sha256(RULES.as_bytes())
    }

    /// The rules in order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// The rules at work on the effects of one run, given in order.
#[derive(Clone, Debug)]
pub struct Sieve<'a> {
    filter: &'a Filter,
    /// The work folder as the measured program sees it; nothing below it is telemetry.
    work: Option<String>,
    /// What each process runs.
    images: HashMap<u32, String>,
}

impl<'a> Sieve<'a> {
    /// For one run. `work` is its work folder as the measured program sees it.
    #[must_use]
    pub fn new(filter: &'a Filter, work: Option<&str>) -> Self {
        Self { filter, work: work.map(str::to_owned), images: HashMap::new() }
    }

    /// The first rule by which the effect is telemetry, and the path that it matched.
    #[must_use]
    pub fn telemetry<'p>(&mut self, effect: &'p Effect) -> Option<(&'a Rule, &'p str)> {
        self.learn(effect);
        if effect.operation != Operation::Open || effect.flags.is_none_or(writes) {
            return None;
        }
        let path = effect.path.as_ref()?;
        let text = self.known(path, effect.return_value?)?;
        if self.work.as_deref().is_some_and(|work| below(text, work)) {
            return None;
        }
        let image = self.images.get(&effect.process).map(String::as_str);
        self.filter.rules.iter().find(|rule| rule.matches(text, image)).map(|rule| (rule, text))
    }

    /// The path, when it is known what was opened; or that nothing was, at a plain name.
    fn known<'p>(&self, path: &'p PathValue, result: i64) -> Option<&'p str> {
        let text = path.value.as_str();
        match path.state {
            PathState::Resolved | PathState::Deleted | PathState::Anonymous if result >= 0 => Some(text),
            PathState::Requested if result < 0 && !leads_elsewhere(text) => {
                let normal = files::normalise(Path::new(text))?;
                // A name with `..` means another file when a folder in it is a link.
                (normal.to_str() == Some(text)).then_some(text)
            }
            _ => None,
        }
    }

    fn learn(&mut self, effect: &Effect) {
        match effect.operation {
            Operation::Exec if effect.return_value == Some(0) => {
                if let Some(path) = &effect.path {
                    self.images.insert(effect.process, path.value.clone());
                }
            }
            Operation::Fork => {
                let parent = effect.detail.as_deref().and_then(|detail| detail.strip_prefix("process of "));
                let parent = parent.and_then(|parent| parent.parse().ok());
                if let Some(image) = parent.and_then(|parent: u32| self.images.get(&parent).cloned()) {
                    self.images.insert(effect.process, image);
                }
            }
            _ => {}
        }
    }
}

fn below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether a name below /proc goes through a link that ends anywhere: `cwd`, `root`, `exe`, `fd/N`, `map_files/…`.
fn leads_elsewhere(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    parts.next() == Some("proc")
        && parts.any(|part| matches!(part, "cwd" | "root" | "exe" | "fd" | "map_files" | "ns"))
}

/// What was filtered: opens per rule and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    paths: BTreeMap<String, BTreeMap<String, u64>>,
    distinct: usize,
}

impl Tally {
    /// Counts one filtered open.
    ///
    /// # Errors
    /// `BudgetExceeded` at more than [`MAX_DISTINCT_PATHS`] distinct paths, or more than the rule's own number.
    pub fn count(&mut self, rule: &Rule, path: &str) -> Result<()> {
        if !self.paths.contains_key(&rule.name) {
            self.paths.insert(rule.name.clone(), BTreeMap::new());
        }
        let Some(paths) = self.paths.get_mut(&rule.name) else { return Ok(()) };
        if let Some(count) = paths.get_mut(path) {
            *count += 1;
            return Ok(());
        }
        let (used, limit) = match rule.distinct {
            Some(own) => (paths.len(), own),
            None => (self.distinct, MAX_DISTINCT_PATHS),
        };
        if used == limit {
            return Err(Error::new(
                Code::BudgetExceeded,
                format!("expected at most {limit} distinct filtered paths, found more; the next is {path}"),
            )
            .at(format!("rule {}", rule.name))
            .hint("measure a smaller step, or keep generated files out of the filtered folders"));
        }
        self.distinct += usize::from(rule.distinct.is_none());
        paths.insert(path.to_owned(), 1);
        Ok(())
    }

    /// Opens filtered in total.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.paths.values().flat_map(BTreeMap::values).sum()
    }

    /// The `n` most frequent paths: count descending, then path ascending.
    #[must_use]
    pub fn top(&self, n: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<(&str, u64)> =
            self.paths.values().flatten().map(|(path, count)| (path.as_str(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        all.truncate(n);
        all
    }

    /// Rule, count and paths, for `filter.json`; every rule stands there, also with 0.
    #[must_use]
    pub fn report(&self, filter: &Filter, run_id: &str, work: Option<&str>, kept: u64) -> FilterReport {
        FilterReport {
            schema: FilterReport::SCHEMA.to_owned(),
            run_id: run_id.to_owned(),
            filter_sha256: Filter::digest(),
            work: work.map(str::to_owned),
            kept,
            filtered: self.total(),
            rules: filter
                .rules
                .iter()
                .map(|rule| {
                    let paths = self.paths.get(rule.name()).cloned().unwrap_or_default();
                    FilteredByRule { rule: rule.name.clone(), count: paths.values().sum(), paths }
                })
                .collect(),
        }
    }
}

/// `filter.json`: what of a run's opens was called telemetry, by which rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilterReport {
    /// [`FilterReport::SCHEMA`].
    pub schema: String,
    /// The run.
    pub run_id: String,
    /// Digest of the rules.
    pub filter_sha256: files::Sha256Digest,
    /// The work folder as the measured program saw it, below which nothing is telemetry; absent when it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
    /// Records kept as evidence.
    pub kept: u64,
    /// Opens filtered.
    pub filtered: u64,
    /// Every rule, in the order in which they are tried.
    pub rules: Vec<FilteredByRule>,
}

impl FilterReport {
    /// Schema id.
    pub const SCHEMA: &str = "assay.gates.filter_report.v0";
}

/// What one rule filtered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FilteredByRule {
    /// The rule's name.
    pub rule: String,
    /// Opens.
    pub count: u64,
    /// Opens by path.
    pub paths: BTreeMap<String, u64>,
}
