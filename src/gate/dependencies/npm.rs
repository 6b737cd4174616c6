//! npm packages: is what `package-lock.json` pins what stands in `node_modules`?

use super::{InstallCommand, version_differs};
use crate::error::{Code, Error, Result};
use crate::gate::NpmDependencies;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// `package-lock.json`, and `node_modules/.package-lock.json`, which npm writes beside what it installed.
#[derive(Deserialize)]
struct Lockfile {
    #[serde(rename = "lockfileVersion")]
    version: u64,
    packages: BTreeMap<String, Package>,
}

#[derive(Deserialize)]
struct Package {
    version: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    link: bool,
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
}

/// What differs between the lockfile, what is installed and what `gate.yaml` expects.
pub(super) fn inspect(fixture: &Path, wanted: &NpmDependencies, gate: &Path) -> Result<Vec<Error>> {
    let folder = fixture.join(&wanted.folder);
    let lock_path = folder.join("package-lock.json");
    let lock = read(&lock_path)?;
    check_pins(&lock, &lock_path)?;
    let command = install_command(&folder).shown();
    let installed_path = folder.join("node_modules/.package-lock.json");
    if !installed_path.is_file() {
        return Ok(vec![
            Error::new(Code::DependencyMissing, "the fixture's npm packages are not installed")
                .at(folder.display())
                .hint(command),
        ]);
    }
    let installed = read(&installed_path)?;
    if let Some(difference) = first_difference(&folder, &lock, &installed) {
        return Ok(vec![
            Error::new(Code::DependencyDiffers, difference)
                .at(folder.join("node_modules").display())
                .hint(command),
        ]);
    }
    let problems = wanted.packages.iter().filter_map(|(name, expected)| {
        let found = version_on_disk(&folder, &format!("node_modules/{name}"));
        (found.as_deref() != Some(expected)).then(|| version_differs(gate, name, expected, found.as_deref()))
    });
    Ok(problems.collect())
}

/// The command that installs exactly the lockfile and runs no scripts.
pub(super) fn install_command(folder: &Path) -> InstallCommand {
    let words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    InstallCommand::new(folder, vec![words.map(str::to_owned).to_vec()])
}

fn read(path: &Path) -> Result<Lockfile> {
    let text =
        std::fs::read_to_string(path).map_err(|error| Error::io("cannot read the lockfile", path, error))?;
    serde_json::from_str(&text).map_err(|error| {
        let place = format!("{}:{}:{}", path.display(), error.line(), error.column());
        Error::new(Code::LockfileInvalid, format!("expected a package-lock.json: {error}")).at(place)
    })
}

/// A lockfile without digests pins nothing.
fn check_pins(lock: &Lockfile, path: &Path) -> Result<()> {
    let wrong = |message: String| Err(Error::new(Code::LockfileInvalid, message).at(path.display()));
    if lock.version < 2 {
        return wrong(format!("expected lockfileVersion 2 or 3, found {}", lock.version));
    }
    for (name, package) in lock.packages.iter().filter(|(name, _)| !name.is_empty()) {
        if package.link || package.version.is_none() || package.integrity.is_none() {
            return wrong(format!("{name}: expected a version and an integrity digest"));
        }
    }
    Ok(())
}

fn first_difference(folder: &Path, lock: &Lockfile, installed: &Lockfile) -> Option<String> {
    for (name, wanted) in lock.packages.iter().filter(|(name, _)| !name.is_empty()) {
        let Some(found) = installed.packages.get(name) else {
            // Optional packages are left out where they don't fit the platform.
            if wanted.optional {
                continue;
            }
            return Some(format!("{name} is in the lockfile, but not installed"));
        };
        if found.integrity != wanted.integrity || found.version != wanted.version {
            return Some(format!("{name}: {} is locked, {} is installed", text(wanted), text(found)));
        }
        let on_disk = version_on_disk(folder, name);
        if on_disk != wanted.version {
            let found = on_disk.unwrap_or_else(|| "nothing".to_owned());
            return Some(format!("{name}: {} is locked, {found} is there", text(wanted)));
        }
    }
    installed
        .packages
        .keys()
        .find(|name| !lock.packages.contains_key(*name))
        .map(|extra| format!("{extra} is installed, but not in the lockfile"))
}

fn text(package: &Package) -> &str {
    package.version.as_deref().unwrap_or("no version")
}

fn version_on_disk(folder: &Path, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(folder.join(name).join("package.json")).ok()?;
    serde_json::from_str::<Manifest>(&text).ok().map(|manifest| manifest.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: &str = r#"{"lockfileVersion":3,"packages":{"":{"version":"1.0.0"},
        "node_modules/a":{"version":"1.0.0","integrity":"sha512-a"},
        "node_modules/b":{"version":"2.0.0","integrity":"sha512-b","optional":true}}}"#;

    fn fixture(installed: Option<&str>, on_disk: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("package-lock.json"), LOCK).unwrap();
        if let Some(text) = installed {
            std::fs::create_dir_all(folder.path().join("node_modules/a")).unwrap();
            std::fs::write(folder.path().join("node_modules/.package-lock.json"), text).unwrap();
            std::fs::write(
                folder.path().join("node_modules/a/package.json"),
                format!(r#"{{"name":"a","version":"{on_disk}"}}"#),
            )
            .unwrap();
        }
        folder
    }

    fn problems(folder: &Path, pinned: &str) -> Vec<Error> {
        let wanted = NpmDependencies {
            folder: ".".into(),
            packages: BTreeMap::from([("a".to_owned(), pinned.to_owned())]),
        };
        inspect(folder, &wanted, &folder.join("gate.yaml")).unwrap()
    }

    const INSTALLED: &str =
        r#"{"lockfileVersion":3,"packages":{"node_modules/a":{"version":"1.0.0","integrity":"sha512-a"}}}"#;

    #[test]
    fn what_matches_has_no_problems_and_absent_optional_packages_are_none() {
        assert!(problems(fixture(Some(INSTALLED), "1.0.0").path(), "1.0.0").is_empty());
    }

    #[test]
    fn each_way_to_differ_is_named() {
        let other = INSTALLED.replace("sha512-a", "sha512-x");
        let extra =
            INSTALLED.replace(r#""packages":{"#, r#""packages":{"node_modules/z":{"version":"1.0.0"},"#);
        for (installed, on_disk, pinned, code) in [
            (None, "1.0.0", "1.0.0", Code::DependencyMissing),
            (Some(other.as_str()), "1.0.0", "1.0.0", Code::DependencyDiffers),
            (Some(extra.as_str()), "1.0.0", "1.0.0", Code::DependencyDiffers),
            (Some(INSTALLED), "1.0.1", "1.0.0", Code::DependencyDiffers),
            (Some(INSTALLED), "1.0.0", "1.1.0", Code::DependencyVersion),
        ] {
            let folder = fixture(installed, on_disk);
            let found = problems(folder.path(), pinned);
            assert_eq!(found.iter().map(Error::code).collect::<Vec<_>>(), [code], "{installed:?}");
            assert!(found[0].advice().is_some());
        }
    }

    #[test]
    fn a_lockfile_without_digests_is_refused() {
        let folder = fixture(None, "");
        let loose = LOCK.replace(r#","integrity":"sha512-a""#, "");
        std::fs::write(folder.path().join("package-lock.json"), loose).unwrap();
        let wanted = NpmDependencies { folder: ".".into(), packages: BTreeMap::new() };
        let error = inspect(folder.path(), &wanted, Path::new("gate.yaml")).unwrap_err();
        assert_eq!(error.code(), Code::LockfileInvalid);
    }
}
