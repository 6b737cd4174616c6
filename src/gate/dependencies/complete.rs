//! Whether a list of requirements is complete, from what the installed packages themselves ask for.
//!
//! pip installs the list and resolves nothing: a package that isn't in it is not there. Here the packages' metadata
//! is followed, extras included, as an installer would follow it.

use super::distribution::{Distribution, normal};
use super::interpreter::{Version, shown};
use super::pip::Pinned;
use pep508_rs::pep440_rs::{self, VersionSpecifiers};
use pep508_rs::{
    ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder, Requirement, VerbatimUrl, VersionOrUrl,
};
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

/// What is missing or doesn't fit, and who wants it; one line each.
pub(super) fn gaps(
    locked: &BTreeMap<String, Pinned>,
    installed: &BTreeMap<String, Distribution>,
    python: Version,
) -> Vec<String> {
    let Some(here) = environment(python) else { return Vec::new() };
    let mut gaps = BTreeSet::new();
    let mut seen = BTreeSet::new();
    // With which extras each package is wanted; one that is wanted with another extra is looked at again.
    let mut open: Vec<(String, Vec<String>)> =
        locked.iter().map(|(name, pinned)| (name.clone(), pinned.extras.clone())).collect();
    while let Some((name, extras)) = open.pop() {
        let Some(package) = installed.get(&name) else { continue };
        if !seen.insert((name.clone(), extras.clone())) {
            continue;
        }
        let wanting = match extras.is_empty() {
            true => name.clone(),
            false => format!("{name}[{}]", extras.join(",")),
        };
        let allowed = VersionSpecifiers::from_str(&package.python);
        if allowed.is_ok_and(|allowed| !allowed.contains(here.python_full_version())) {
            gaps.insert(format!(
                "{name} {} works with Python {}, and this is {}",
                package.version,
                package.python,
                shown(python)
            ));
        }
        let with: Vec<ExtraName> =
            extras.iter().filter_map(|extra| ExtraName::from_str(extra).ok()).collect();
        for line in &package.requires {
            let requirement = match Requirement::<VerbatimUrl>::from_str(line) {
                Ok(requirement) => requirement,
                Err(_) => {
                    gaps.insert(format!("{name} asks for {line:?}, which can't be read"));
                    continue;
                }
            };
            if !requirement.evaluate_markers(&here, &with) {
                continue;
            }
            let wanted = normal(requirement.name.as_ref());
            let asked = line.split(';').next().unwrap_or(line).trim();
            match installed.get(&wanted) {
                None => {
                    gaps.insert(format!("{wanted} is missing, and {wanting} asks for {asked}"));
                }
                Some(found) if !satisfied(&requirement, &found.version) => {
                    gaps.insert(format!(
                        "{wanted} {} is locked, and {wanting} asks for {asked}",
                        found.version
                    ));
                }
                Some(_) => {}
            }
            open.push((wanted, requirement.extras.iter().map(|extra| normal(extra.as_ref())).collect()));
        }
    }
    gaps.into_iter().collect()
}

fn satisfied(requirement: &Requirement<VerbatimUrl>, version: &str) -> bool {
    match &requirement.version_or_url {
        Some(VersionOrUrl::VersionSpecifier(allowed)) => {
            pep440_rs::Version::from_str(version).is_ok_and(|version| allowed.contains(&version))
        }
        Some(VersionOrUrl::Url(_)) | None => true,
    }
}

/// What markers are held against: CPython of that version on this machine.
fn environment((major, minor, patch): Version) -> Option<MarkerEnvironment> {
    let full = format!("{major}.{minor}.{patch}");
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: &full,
        os_name: "posix",
        platform_machine: std::env::consts::ARCH,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: &full,
        python_version: &format!("{major}.{minor}"),
        sys_platform: "linux",
    })
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(packages: &[(&str, &str, &[&str])]) -> BTreeMap<String, Distribution> {
        let package = |&(name, version, requires): &(&str, &str, &[&str])| {
            let requires = requires.iter().map(|&line| line.to_owned()).collect();
            (
                name.to_owned(),
                Distribution { version: version.to_owned(), requires, ..Distribution::default() },
            )
        };
        packages.iter().map(package).collect()
    }

    fn found(packages: &[(&str, &str, &[&str])], python: Version) -> Vec<String> {
        let installed = all(packages);
        let pinned = |extras: &[&str]| Pinned::plain("1", extras);
        let locked = installed.keys().map(|name| (name.clone(), pinned(&[]))).collect();
        gaps(&locked, &installed, python)
    }

    #[test]
    fn what_is_missing_is_named_with_who_wants_it() {
        let app: &[&str] =
            &["auth[requests]>=2", "left; python_version < '3'", "win; sys_platform == 'win32'"];
        let auth: &[&str] = &["Requests<3,>=2.20; extra == 'requests'", "aiohttp; extra == 'aiohttp'"];
        for (packages, expected) in [
            (vec![("app", "1", app), ("auth", "2.1", auth), ("requests", "2.30", &[][..])], vec![]),
            (
                vec![("app", "1", app), ("auth", "2.1", auth)],
                vec!["requests is missing, and auth[requests] asks for Requests<3,>=2.20"],
            ),
            (
                vec![("app", "1", app), ("auth", "1.9", auth), ("requests", "3.0", &[][..])],
                vec![
                    "auth 1.9 is locked, and app asks for auth[requests]>=2",
                    "requests 3.0 is locked, and auth[requests] asks for Requests<3,>=2.20",
                ],
            ),
            (vec![("app", "1", app)], vec!["auth is missing, and app asks for auth[requests]>=2"]),
        ] {
            assert_eq!(found(&packages, (3, 11, 2)), expected);
        }
    }

    #[test]
    fn markers_are_held_against_the_python_that_will_run_it() {
        let app: &[&str] = &["backport>=1; python_version < '3.12'"];
        assert_eq!(found(&[("app", "1", app)], (3, 12, 0)), Vec::<String>::new());
        assert_eq!(
            found(&[("app", "1", app)], (3, 11, 9)),
            ["backport is missing, and app asks for backport>=1"]
        );
    }

    #[test]
    fn a_package_that_does_not_work_with_this_python_is_named() {
        let mut installed = all(&[("app", "1.5", &[])]);
        installed.get_mut("app").unwrap().python = ">=3.12".to_owned();
        let locked = BTreeMap::from([("app".to_owned(), Pinned::plain("1.5", &[]))]);
        assert_eq!(
            gaps(&locked, &installed, (3, 11, 2)),
            ["app 1.5 works with Python >=3.12, and this is 3.11.2"]
        );
        assert_eq!(gaps(&locked, &installed, (3, 13, 0)), Vec::<String>::new());
    }

    #[test]
    fn an_extra_of_the_list_itself_is_followed() {
        let installed = all(&[("auth", "2.1", &["requests; extra == 'requests'"])]);
        let locked = BTreeMap::from([("auth".to_owned(), Pinned::plain("2.1", &["requests"]))]);
        assert_eq!(
            gaps(&locked, &installed, (3, 11, 2)),
            ["requests is missing, and auth[requests] asks for requests"]
        );
    }
}
