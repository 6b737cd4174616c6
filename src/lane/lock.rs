//! What a change of Cargo.lock changes: what the tool is built from, or only what its tests use.
//!
//! Whatever can't be read with certainty counts as what the tool is built from.

use std::collections::{BTreeMap, BTreeSet};

/// A package by name, version and source.
type Key = (String, String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    source: Option<String>,
    checksum: Option<String>,
    dependencies: Vec<String>,
}

/// True when two lock files of one unchanged manifest differ at most in packages that only its dev-dependencies need.
#[must_use]
pub fn only_tests_change(manifest: &str, before: &str, after: &str) -> bool {
    match (built_from(manifest, before), built_from(manifest, after)) {
        (Some(before), Some(after)) => before == after,
        _ => false,
    }
}

/// Every package that the one local package is built from.
fn built_from(manifest: &str, lock: &str) -> Option<BTreeMap<Key, Package>> {
    let packages = packages(lock)?;
    let mut local = packages.iter().filter(|package| package.source.is_none());
    let (own, None) = (local.next()?, local.next()) else { return None };
    let tests = only_of_tests(manifest);
    let mut found = BTreeMap::new();
    let mut next: Vec<&str> = own
        .dependencies
        .iter()
        .map(String::as_str)
        .filter(|dependency| !tests.contains(dependency.split(' ').next().unwrap_or_default()))
        .collect();
    while let Some(wanted) = next.pop() {
        let package = find(&packages, wanted)?;
        let source = package.source.clone()?;
        let key = (package.name.clone(), package.version.clone(), source);
        if found.insert(key, package.clone()).is_none() {
            next.extend(package.dependencies.iter().map(String::as_str));
        }
    }
    Some(found)
}

/// The package that `name`, `name version` or `name version (source)` means.
fn find<'a>(packages: &'a [Package], wanted: &str) -> Option<&'a Package> {
    let mut parts = wanted.splitn(3, ' ');
    let (name, version, source) = (parts.next()?, parts.next(), parts.next());
    let source = source.map(|text| text.trim_start_matches('(').trim_end_matches(')'));
    let mut fitting = packages.iter().filter(|package| {
        package.name == name
            && version.is_none_or(|version| package.version == version)
            && source.is_none_or(|source| package.source.as_deref() == Some(source))
    });
    let (found, None) = (fitting.next()?, fitting.next()) else { return None };
    Some(found)
}

/// Names that stand in `[dev-dependencies]` and nowhere else in the manifest, not even as a word.
fn only_of_tests(manifest: &str) -> BTreeSet<&str> {
    let (mut inside, mut tests, mut elsewhere) = (false, BTreeSet::new(), BTreeSet::new());
    for line in manifest.lines() {
        if line.trim_start().starts_with('[') {
            inside = line.trim() == "[dev-dependencies]";
        }
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if inside {
            let code = line.split('#').next().unwrap_or_default();
            if let Some((name, _)) = code.split_once('=') {
                tests.insert(name.trim().trim_matches('"'));
            }
            // Of an entry with another name for its package, neither is known for certain.
            if code.contains("package") {
                elsewhere.extend(code.split(word));
            }
        } else {
            elsewhere.extend(line.split(word));
        }
    }
    &tests - &elsewhere
}

/// The packages of a lock file; none for anything that is not written as cargo writes it.
fn packages(lock: &str) -> Option<Vec<Package>> {
    let mut packages: Vec<Package> = Vec::new();
    let mut in_list = false;
    for line in lock.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if in_list {
            match line {
                "]" => in_list = false,
                entry => {
                    let name = entry.trim_end_matches(',').strip_prefix('"')?.strip_suffix('"')?;
                    packages.last_mut()?.dependencies.push(name.to_owned());
                }
            }
            continue;
        }
        if line == "[[package]]" {
            packages.push(Package::default());
            continue;
        }
        let (key, value) = line.split_once(" = ")?;
        let text = || value.strip_prefix('"')?.strip_suffix('"').map(str::to_owned);
        match (key, packages.last_mut()) {
            // The version of the format.
            ("version", None) => {}
            ("name", Some(package)) => package.name = text()?,
            ("version", Some(package)) => package.version = text()?,
            ("source", Some(package)) => package.source = Some(text()?),
            ("checksum", Some(package)) => package.checksum = Some(text()?),
            ("dependencies", Some(_)) if value == "[" => in_list = true,
            _ => return None,
        }
    }
    (!in_list && !packages.is_empty()).then_some(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str = include_str!("../../Cargo.toml");
    const LOCK: &str = include_str!("../../Cargo.lock");

    /// The lock with a change of one package's checksum.
    fn touched(name: &str) -> String {
        let begin = LOCK.find(&format!("name = \"{name}\"\n")).unwrap();
        let checksum = begin + LOCK[begin..].find("checksum = \"").unwrap() + "checksum = \"".len();
        format!("{}{}{}", &LOCK[..checksum], "0".repeat(64), &LOCK[checksum + 64..])
    }

    #[test]
    fn every_package_of_the_lock_is_of_the_tool_or_of_its_tests() {
        let all = packages(LOCK).unwrap();
        let built = built_from(MANIFEST, LOCK).unwrap();
        let names: BTreeSet<&str> = built.keys().map(|(name, ..)| name.as_str()).collect();
        for name in ["clap", "serde_norway", "sha2", "libc", "aya", "ring"] {
            assert!(names.contains(name), "{name} is built in");
        }
        let tests = ["assay-evidence", "assay-runner-schema", "criterion", "wiremock", "insta", "assert_cmd"];
        for name in tests {
            assert!(!names.contains(name), "{name} is of the tests");
        }
        assert!(built.len() < all.len() - 1);
        // A package that is touched alone is told apart.
        for package in all.iter().filter(|package| package.checksum.is_some()).step_by(11) {
            if all.iter().filter(|other| other.name == package.name).count() > 1 {
                continue;
            }
            let is_tests = !names.contains(package.name.as_str());
            let only = only_tests_change(MANIFEST, LOCK, &touched(&package.name));
            assert_eq!(only, is_tests, "{}", package.name);
        }
    }

    #[test]
    fn what_is_not_understood_is_what_the_tool_is_built_from() {
        assert!(only_tests_change(MANIFEST, LOCK, LOCK));
        for (manifest, after) in [
            (MANIFEST, String::new()),
            (MANIFEST, LOCK.replace("checksum = ", "digest = ")),
            (MANIFEST, LOCK.replace("[[package]]", "[package]")),
            (MANIFEST, format!("{LOCK}\n[[package]]\nname = \"another-local\"\nversion = \"1.0.0\"\n")),
            ("", touched("criterion")),
            (
                "[dev-dependencies]\ncriterion = \"1\"\n[dependencies]\nx = {package = \"criterion\"}\n",
                touched("criterion"),
            ),
            ("[dev-dependencies]\ny = {package = \"criterion\"}\n", touched("criterion")),
        ] {
            assert!(!only_tests_change(manifest, LOCK, &after), "{manifest:.60}");
        }
    }
}
