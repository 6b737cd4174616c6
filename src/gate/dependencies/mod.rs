//! What a fixture needs before it is measured: packages from lockfiles, and the interpreters that run it.
//!
//! Everything is installed before measurement, from lockfiles with digests, without running any package's
//! scripts. This module says what is missing or differs, with the command that installs it, and carries that
//! command out for `--install`. It reads metadata only; of what a package brings nothing runs here but the pinned
//! interpreter, which is asked for its version as the measured user.

mod command;
mod complete;
mod distribution;
mod interpreter;
mod npm;
mod pip;

pub use command::InstallCommand;
pub use interpreter::{Interpreter, Version};

use super::Entry;
use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What was found of one gate's dependencies.
#[derive(Debug, Default)]
pub struct Inspection {
    /// Everything that keeps the gate from being measured; each hint is a line to paste or to change.
    pub problems: Vec<Error>,
    /// Interpreters by the name that `${name}` stands for in `command`: `node`, `python`.
    pub interpreters: BTreeMap<String, Interpreter>,
    /// What each of them said of its version.
    pub versions: BTreeMap<String, Version>,
}

impl Inspection {
    fn keep(&mut self, name: &str, interpreter: Interpreter, version: Version) {
        self.interpreters.insert(name.to_owned(), interpreter);
        self.versions.insert(name.to_owned(), version);
    }

    /// The interpreters, when nothing is wrong.
    ///
    /// # Errors
    /// The first problem.
    pub fn ready(self) -> Result<BTreeMap<String, Interpreter>> {
        match self.problems.into_iter().next() {
            Some(problem) => Err(problem),
            None => Ok(self.interpreters),
        }
    }
}

/// Looks at what fixtures need as whoever will be measured finds it, and installs it.
#[derive(Debug, Default)]
pub struct Inspector {
    asker: interpreter::Asker,
}

impl Inspector {
    /// `measured`: user and group that root runs interpreters as, to ask for their versions; when `None` nobody, who has
    /// no more rights than a measured user.
    #[must_use]
    pub fn new(measured: Option<(u32, u32)>) -> Self {
        Self { asker: interpreter::Asker::new(measured) }
    }

    /// Looks at what `entry` needs and what is installed.
    ///
    /// # Errors
    /// `Io`, or `LockfileInvalid` when a lockfile can't be read at all; what is missing is no error, but a problem.
    pub fn inspect(&self, entry: &Entry) -> Result<Inspection> {
        Rights::of_caller()?.act(|| self.look(entry))
    }

    fn look(&self, entry: &Entry) -> Result<Inspection> {
        let fixture = entry.fixture();
        let mut found = Inspection::default();
        let dependencies = &entry.definition.dependencies;
        if let Some(wanted) = &dependencies.npm {
            let locked = npm::Locked::read(&fixture.join(&wanted.folder))?;
            found.problems.extend(locked.inspect(wanted, &entry.file)?);
            let node = match locked.node() {
                // That the pinned one is not installed yet is said of the packages.
                Some(pinned) if !pinned.is_file() => None,
                Some(pinned) => Some(self.asker.pinned_node(&fixture, &pinned)),
                None => Some(self.asker.host_node()),
            };
            match node {
                Some(Ok((node, version))) => {
                    found.problems.extend(locked.refusing(&node.seen_from(&fixture), version));
                    found.keep("node", node, version);
                }
                Some(Err(problem)) => found.problems.push(problem),
                None => {}
            }
        }
        if let Some(wanted) = &dependencies.pip {
            match self.asker.python(&wanted.python) {
                Ok((python, version)) => {
                    found.problems.extend(pip::inspect(&fixture, wanted, &entry.file, (&python, version))?);
                    found.keep("python", python, version);
                }
                Err(problem) => found.problems.push(problem.at(pin_in(&entry.file, "python"))),
            }
        }
        Ok(found)
    }

    /// The commands that install what the fixtures of `entries` need, each once.
    ///
    /// # Errors
    /// As [`Inspector::inspect`]; `InterpreterMissing` when pip packages are needed and no python is there that they are locked for.
    pub fn install_plan<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Vec<InstallCommand>> {
        Rights::of_caller()?.act(|| self.plan(entries))
    }

    fn plan<'a>(&self, entries: impl IntoIterator<Item = &'a Entry>) -> Result<Vec<InstallCommand>> {
        let mut plan = Vec::new();
        let mut seen = BTreeSet::new();
        for entry in entries {
            let fixture = entry.fixture();
            if let Some(wanted) = &entry.definition.dependencies.npm {
                let folder = fixture.join(&wanted.folder);
                if seen.insert(folder.clone())
                    && !npm::Locked::read(&folder)?.inspect(wanted, &entry.file)?.is_empty()
                {
                    plan.push(npm::install_command(&folder));
                }
            }
            if let Some(wanted) = &entry.definition.dependencies.pip {
                let target = fixture.join(&wanted.target);
                let (python, version) = self.asker.python(&wanted.python)?;
                if seen.insert(target)
                    && !pip::inspect(&fixture, wanted, &entry.file, (&python, version))?.is_empty()
                {
                    plan.push(pip::install_command(&fixture, wanted, &python)?);
                }
            }
        }
        Ok(plan)
    }

    /// Carries out the plan for `entries`, and tells each command to `tell` before it runs.
    ///
    /// # Errors
    /// As [`Inspector::install_plan`] and [`InstallCommand::run`]; `InstallFailed` when an installer said that all went well
    /// and what it left is still not what is locked.
    pub fn install<'a>(
        &self,
        entries: impl IntoIterator<Item = &'a Entry> + Clone,
        tell: impl Fn(&str),
    ) -> Result<()> {
        let plan = self.install_plan(entries.clone())?;
        for command in &plan {
            tell(&format!("installing: {}", command.shown()));
            command.run()?;
        }
        if plan.is_empty() {
            return Ok(());
        }
        for entry in entries {
            let problems = self.inspect(entry)?.problems;
            let again = |problem: &Error| {
                let ran = plan.iter().find(|ran| problem.advice() == Some(&ran.shown()))?;
                Some(
                    Error::new(Code::InstallFailed, format!("installed, and still: {problem}"))
                        .hint(ran.loud()),
                )
            };
            if let Some(error) = problems.iter().find_map(again) {
                return Err(error);
            }
        }
        Ok(())
    }
}

/// Puts interpreters in the place of `${node}` and `${python}`; `sandbox` is where the measured process sees its fixture.
///
/// # Errors
/// `DefinitionInvalid` for a placeholder that the gate's dependencies don't give a meaning to.
pub fn expand(
    command: &[String],
    interpreters: &BTreeMap<String, Interpreter>,
    sandbox: &Path,
) -> Result<Vec<String>> {
    command
        .iter()
        .map(|word| {
            let Some(name) = word.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) else {
                return Ok(word.clone());
            };
            match interpreters.get(name) {
                Some(interpreter) => Ok(interpreter.seen_from(sandbox).display().to_string()),
                None => Err(Error::new(
                    Code::DefinitionInvalid,
                    format!("command: nothing in `dependencies` says what ${{{name}}} is"),
                )
                .hint("${node} needs dependencies.npm, ${python} needs dependencies.pip")),
            }
        })
        .collect()
}

/// The place of the line in `gate.yaml` that pins `package`, so that a changed version names what to edit.
fn pin_in(file: &Path, package: &str) -> String {
    let text = Rights::of_caller().and_then(|caller| caller.read_text(file)).unwrap_or_default();
    let line = text.lines().position(|line| {
        let key = line.trim_start().trim_start_matches(['"', '\'']);
        key.strip_prefix(package).is_some_and(|rest| rest.trim_start_matches(['"', '\'']).starts_with(':'))
    });
    match line {
        Some(at) => format!("{}:{}", file.display(), at + 1),
        None => file.display().to_string(),
    }
}

/// A pinned version that isn't the installed one; `found` is `None` when the package isn't there.
fn version_differs(file: &Path, package: &str, expected: &str, found: Option<&str>) -> Error {
    let installed =
        found.map_or_else(|| "is not installed".to_owned(), |found| format!("{found} is installed"));
    let error = Error::new(
        Code::DependencyVersion,
        format!("{package}: this gate expects version {expected}, {installed}"),
    )
    .at(pin_in(file, package));
    match found {
        Some(found) => error.hint(format!("change that line to `\"{package}\": {found}`, or the lockfile")),
        None => error.hint("take the line out, or add the package to the lockfile"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_become_the_interpreter_as_the_sandbox_sees_it() {
        let interpreters = BTreeMap::from([
            ("node".to_owned(), Interpreter::InFixture("node_modules/x/bin/node".into())),
            ("python".to_owned(), Interpreter::OnHost("/usr/bin/python3".into())),
        ]);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let sandbox = Path::new("/run/fixture");
        assert_eq!(
            expand(&words(&["${node}", "a ${node}", "${python}"]), &interpreters, sandbox).unwrap(),
            ["/run/fixture/node_modules/x/bin/node", "a ${node}", "/usr/bin/python3"]
        );
        let error = expand(&words(&["${ruby}"]), &interpreters, sandbox).unwrap_err();
        assert_eq!(error.code(), Code::DefinitionInvalid);
    }

    #[test]
    fn a_wrong_version_names_the_line_to_change() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gate.yaml");
        std::fs::write(&file, "a: 1\n    \"@openai/agents\": 0.1.0\n").unwrap();
        let error = version_differs(&file, "@openai/agents", "0.1.0", Some("0.2.0"));
        assert_eq!(error.place(), Some(format!("{}:2", file.display()).as_str()));
        assert_eq!(error.advice(), Some("change that line to `\"@openai/agents\": 0.2.0`, or the lockfile"));
    }
}
