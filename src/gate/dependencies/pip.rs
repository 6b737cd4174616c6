//! PyPI packages: is what `requirements.txt` pins what stands in the isolated target folder?
//!
//! Read from the metadata that every wheel installs (`*.dist-info`): no interpreter is asked, no code runs.

use super::distribution::{self, Distribution, normal};
use super::interpreter::Version;
use super::{InstallCommand, Interpreter, complete, version_differs};
use crate::error::{Code, Error, Result};
use crate::gate::PipDependencies;
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::path::Path;

/// How a list of requirements is made anew.
const RELOCK: &str = "uv pip compile --universal --generate-hashes requirements.in -o requirements.txt";

/// A pinned line of a requirements file.
#[derive(Debug, PartialEq)]
pub(super) struct Pinned {
    pub version: String,
    /// Only wanted where an environment marker holds.
    conditional: bool,
    /// Extras that the line names.
    pub extras: Vec<String>,
}

#[cfg(test)]
impl Pinned {
    pub(super) fn plain(version: &str, extras: &[&str]) -> Self {
        let extras = extras.iter().map(|&extra| extra.to_owned()).collect();
        Self { version: version.to_owned(), conditional: false, extras }
    }
}

/// What differs between the requirements, what is installed and what `gate.yaml` expects.
pub(super) fn inspect(
    fixture: &Path,
    wanted: &PipDependencies,
    gate: &Path,
    (python, version): (&Interpreter, Version),
) -> Result<Vec<Error>> {
    let file = fixture.join(&wanted.requirements);
    let text = Rights::of_caller()?.read_text(&file)?;
    let locked = parse(&text, &file)?;
    let target = fixture.join(&wanted.target);
    let command = install_command(fixture, wanted, python)?.shown();
    if !target.is_dir() {
        return Ok(vec![
            Error::new(Code::DependencyMissing, "the fixture's Python packages are not installed")
                .at(target.display())
                .hint(command),
        ]);
    }
    let installed = distribution::installed(&target)?;
    if let Some(difference) = first_difference(&locked, &installed, version) {
        return Ok(vec![Error::new(Code::DependencyDiffers, difference).at(target.display()).hint(command)]);
    }
    let gaps = complete::gaps(&locked, &installed, version);
    if let Some((first, rest)) = gaps.split_first() {
        let more = if rest.is_empty() { String::new() } else { format!("; {}", rest.join("; ")) };
        return Ok(vec![
            Error::new(Code::LockfileInvalid, format!("the requirements are not complete: {first}{more}"))
                .at(file.display())
                .hint(RELOCK),
        ]);
    }
    let problems = wanted.packages.iter().filter_map(|(name, expected)| {
        let found = installed.get(&normal(name)).map(|package| package.version.as_str());
        (found != Some(expected)).then(|| version_differs(gate, name, expected, found))
    });
    Ok(problems.collect())
}

/// The commands that install exactly the requirements, from wheels alone, and compile them once.
///
/// Compiled files are marked as never to be checked against their sources: whether a file's time changed on the
/// way to this host then makes no difference to what a measured run opens.
pub(super) fn install_command(
    fixture: &Path,
    wanted: &PipDependencies,
    python: &Interpreter,
) -> Result<InstallCommand> {
    if !crate::files::contains(fixture, &fixture.join(&wanted.target))
        || fixture.join(&wanted.target) == fixture
    {
        return Err(Error::new(
            Code::DefinitionInvalid,
            format!("dependencies.pip.target: {:?} is not a folder inside the fixture", wanted.target),
        ));
    }
    let python = python.seen_from(fixture).display().to_string();
    let words = |line: &str| {
        std::iter::once(python.clone()).chain(line.split(' ').map(str::to_owned)).collect::<Vec<_>>()
    };
    let mut install = words(
        "-m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes --only-binary :all: --no-compile --target",
    );
    install.extend([wanted.target.clone(), "-r".to_owned(), wanted.requirements.clone()]);
    let mut compile = words("-I -m compileall -q -j 0 --invalidation-mode unchecked-hash");
    compile.push(wanted.target.clone());
    Ok(InstallCommand::new(fixture, vec![install, compile]).replacing(&wanted.target))
}

/// Pinned requirements by normalised name.
fn parse(text: &str, file: &Path) -> Result<BTreeMap<String, Pinned>> {
    let mut found = BTreeMap::new();
    for (number, line) in logical_lines(text) {
        let wrong = |message: &str| {
            Err(Error::new(Code::LockfileInvalid, format!("{message}: {line}"))
                .at(format!("{}:{number}", file.display()))
                .hint(RELOCK))
        };
        let Some((requirement, hashes)) = line.split_once("--hash=") else {
            return wrong("expected a requirement with --hash=sha256:…");
        };
        if !hashes.starts_with("sha256:") {
            return wrong("expected a sha256 digest");
        }
        let (pin, marker) = match requirement.split_once(';') {
            Some((pin, marker)) => (pin, Some(marker)),
            None => (requirement, None),
        };
        let Some((name, version)) = pin.split_once("==") else { return wrong("expected name==version") };
        let (name, extras) = name.split_once('[').unwrap_or((name, ""));
        let extras = extras.trim_end().trim_end_matches(']').split(',').map(normal);
        let pinned = Pinned {
            version: version.trim().to_owned(),
            conditional: marker.is_some(),
            extras: extras.filter(|extra| !extra.is_empty()).collect(),
        };
        found.insert(normal(name.trim()), pinned);
    }
    Ok(found)
}

/// Lines joined at backslashes, without comments and empty ones, with the number of their first line.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.split(" #").next().unwrap_or(line).trim();
        if line.starts_with('#') || (line.is_empty() && !open) {
            continue;
        }
        let continues = line.ends_with('\\');
        let line = line.trim_end_matches('\\').trim();
        match lines.last_mut() {
            Some((_, last)) if open => {
                last.push(' ');
                last.push_str(line);
            }
            _ => lines.push((at + 1, line.to_owned())),
        }
        open = continues;
    }
    lines
}

fn first_difference(
    locked: &BTreeMap<String, Pinned>,
    installed: &BTreeMap<String, Distribution>,
    (major, minor, _): Version,
) -> Option<String> {
    for (name, wanted) in locked {
        match installed.get(name) {
            None if wanted.conditional => {}
            None => return Some(format!("{name} {} is locked, but not installed", wanted.version)),
            Some(found) if found.version != wanted.version => {
                return Some(format!("{name}: {} is locked, {} is installed", wanted.version, found.version));
            }
            Some(found) => {
                if !fits(&found.tags, (major, minor)) {
                    return Some(format!(
                        "{name} was installed for {}, and this is Python {major}.{minor}",
                        found.tags.join(", "),
                    ));
                }
            }
        }
    }
    installed
        .keys()
        .find(|name| !locked.contains_key(*name))
        .map(|extra| format!("{extra} is installed, but not in the requirements"))
}

/// Whether a wheel of these tags works with that Python.
fn fits(tags: &[String], (major, minor): (u64, u64)) -> bool {
    tags.is_empty()
        || tags.iter().any(|tag| {
            let mut parts = tag.split('-');
            let (interpreter, abi) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            interpreter.split('.').any(|one| {
                let exact = one == format!("cp{major}{minor}") || one == format!("py{major}{minor}");
                let stable = abi == "abi3"
                    && one
                        .strip_prefix(&format!("cp{major}"))
                        .and_then(|m| m.parse::<u64>().ok())
                        .is_some_and(|m| m <= minor);
                exact || stable || one == format!("py{major}")
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = "# a comment\nAlpha_Beta[extra]==1.2 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n\
                        gamma==2.0 ; python_version < '3.11' \\\n    --hash=sha256:cc\n";

    fn locked() -> BTreeMap<String, Pinned> {
        parse(LOCK, Path::new("requirements.txt")).unwrap()
    }

    fn have(packages: &[(&str, &str, &str)]) -> BTreeMap<String, Distribution> {
        let package = |(name, version, tag): &(&str, &str, &str)| {
            let tags = vec![(*tag).to_owned()];
            (normal(name), Distribution { version: (*version).to_owned(), tags, ..Distribution::default() })
        };
        packages.iter().map(package).collect()
    }

    #[test]
    fn requirements_are_read_with_markers_continuations_and_comments() {
        let expected = [("alpha-beta", "1.2", false), ("gamma", "2.0", true)];
        let found = locked();
        let found: Vec<_> =
            found.iter().map(|(name, r)| (name.as_str(), r.version.as_str(), r.conditional)).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_requirement_without_a_digest_or_an_exact_version_is_refused_with_its_line() {
        for (text, line) in [("a==1\n", 1), ("\na>=1 --hash=sha256:aa\n", 2), ("a==1 --hash=md5:aa\n", 1)] {
            let error = parse(text, Path::new("r.txt")).unwrap_err();
            assert_eq!(
                (error.code(), error.place()),
                (Code::LockfileInvalid, Some(format!("r.txt:{line}").as_str()))
            );
        }
    }

    #[test]
    fn differences_between_locked_and_installed_are_named() {
        let python = (3, 11, 2);
        let right = ("alpha.beta", "1.2", "py3-none-any");
        assert_eq!(first_difference(&locked(), &have(&[right]), python), None);
        for (installed, expected) in [
            (vec![], "alpha-beta 1.2 is locked, but not installed"),
            (vec![("alpha-beta", "1.3", "py3-none-any")], "alpha-beta: 1.2 is locked, 1.3 is installed"),
            (vec![right, ("delta", "1", "py3-none-any")], "delta is installed, but not in the requirements"),
            (
                vec![("alpha-beta", "1.2", "cp312-cp312-linux")],
                "alpha-beta was installed for cp312-cp312-linux, and this is Python 3.11",
            ),
        ] {
            assert_eq!(first_difference(&locked(), &have(&installed), python).as_deref(), Some(expected));
        }
    }

    #[test]
    fn wheel_tags_fit_by_version_and_stable_abi() {
        for (tag, fitting) in [
            ("py2.py3-none-any", true),
            ("cp311-cp311-manylinux", true),
            ("cp310-cp310-manylinux", false),
            ("cp39-abi3-manylinux", true),
            ("cp312-abi3-manylinux", false),
        ] {
            assert_eq!(fits(&[tag.to_owned()], (3, 11)), fitting, "{tag}");
        }
    }

    #[test]
    fn a_target_outside_the_fixture_is_never_replaced() {
        for target in ["../elsewhere", ".", "/etc"] {
            let wanted = PipDependencies {
                requirements: "r.txt".into(),
                target: target.into(),
                python: vec!["3.11".into()],
                packages: BTreeMap::new(),
            };
            let python = Interpreter::OnHost("/usr/bin/python3".into());
            let error = install_command(Path::new("/srv/fixture"), &wanted, &python).unwrap_err();
            assert_eq!(error.code(), Code::DefinitionInvalid, "{target}");
        }
    }
}
