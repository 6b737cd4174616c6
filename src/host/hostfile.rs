//! `/etc/assay-gates/host.yaml` (`assay.gates.host.v0`): what of this machine is ours to remove.
//!
//! Root deletes what this file names, so it is the one place that grants it: without the file, or when it
//! does not say `dedicated: true`, nothing is ever removed. Written by an administrator or `host install`.

use super::rights::Rights;
use crate::error::{Code, Error, Result};
use crate::files::{contains, normalise, parse_yaml};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Where the file stands unless the command line names another.
pub const DEFAULT_HOST_FILE: &str = "/etc/assay-gates/host.yaml";

/// The schema id of the file.
pub const HOST_SCHEMA: &str = "assay.gates.host.v0";

/// What of this machine is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostFile {
    /// `assay.gates.host.v0`.
    pub schema: String,
    /// The machine serves measured runs and nothing else. Only then anything is removed.
    pub dedicated: bool,
    /// The Actions runner of this machine.
    pub runner: Runner,
    /// Folders whose entries are proof roots.
    #[serde(default = "default_proof_roots")]
    pub proof_roots: Vec<PathBuf>,
    /// How long results are kept there. Nothing else removes them, a restart least of all.
    #[serde(default)]
    pub retention: Retention,
    /// Shared folders, of which only entries that bear our prefix are removed.
    #[serde(default = "default_scratch")]
    pub scratch: Vec<PathBuf>,
    /// Names of cgroups, network namespaces, pins and scratch entries that are ours: the prefix itself, or it and `-`.
    #[serde(default = "default_prefix")]
    pub prefix: String,
    /// Also run `docker system prune` (all unused images, containers, networks and volumes).
    #[serde(default)]
    pub docker_prune: bool,
    /// What may be built here to run as root. Without it jobs measure with the binary that is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builds: Option<Builds>,
}

/// How long the entries of proof-root folders are kept. What is older than that, or behind so many newer ones, goes in the
/// cleanup before a run; the newest never does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days since an invocation began.
    pub days: u32,
    /// How many of the newest.
    pub newest: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 30, newest: 50 }
    }
}

impl std::fmt::Display for Retention {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "results are kept {} days, at most the newest {}", self.days, self.newest)
    }
}

/// What may be built to run as root: commits that an approved branch of the repository holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Builds {
    /// Where git fetches from. Whoever may push to an approved branch there has code run as root here.
    pub repository: String,
    /// Names of branches.
    pub branches: Vec<String>,
    /// Folders in which the builder finds cargo and clang, before the system's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<PathBuf>,
    /// `RUSTUP_HOME` of a toolchain that rustup manages for everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rustup_home: Option<PathBuf>,
}

impl Builds {
    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        if self.repository.is_empty() || self.repository.starts_with('-') {
            return Err(format!("builds.repository: expected an address, found {:?}", self.repository));
        }
        if self.branches.is_empty() {
            return Err("builds.branches: expected at least one branch, found none".to_owned());
        }
        for name in &self.branches {
            if name.starts_with(['-', '/', '.']) || !name.chars().all(plain) || name.contains("..") {
                return Err(format!("builds.branches: expected the name of a branch, found {name:?}"));
            }
        }
        for folder in self.path.iter().chain(&self.rustup_home) {
            if normalise(folder).as_deref() != Some(folder.as_path()) {
                return Err(format!("builds: expected a plain absolute path, found {}", folder.display()));
            }
        }
        Ok(())
    }
}

/// An Actions runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runner {
    /// The user that it runs as.
    pub user: String,
    /// Where it is installed: holds `.runner`, `bin/` and `_diag/`.
    pub root: PathBuf,
    /// Its work folder; `<root>/_work` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<PathBuf>,
}

fn default_proof_roots() -> Vec<PathBuf> {
    vec![PathBuf::from("/var/lib/assay-gates/proof")]
}

fn default_scratch() -> Vec<PathBuf> {
    vec![PathBuf::from("/tmp"), PathBuf::from("/dev/shm")]
}

fn default_prefix() -> String {
    "assay-gates".to_owned()
}

impl HostFile {
    /// A file for a machine with one runner, everything else at its default.
    #[must_use]
    pub fn new(user: impl Into<String>, root: impl Into<PathBuf>) -> Self {
        Self {
            schema: HOST_SCHEMA.to_owned(),
            dedicated: true,
            runner: Runner { user: user.into(), root: root.into(), work: None },
            proof_roots: default_proof_roots(),
            retention: Retention::default(),
            scratch: default_scratch(),
            prefix: default_prefix(),
            docker_prune: false,
            builds: None,
        }
    }

    /// What holds without a file: kernel objects can be recognised, no folder is ours, nothing may go.
    #[must_use]
    pub fn of_no_one() -> Self {
        let mut file = Self::new("", "/nonexistent");
        file.dedicated = false;
        file.proof_roots.clear();
        file.scratch.clear();
        file
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// `HostFile` when it is missing, can be changed by anyone but root and its reader, or does not validate.
    pub fn load(path: &Path) -> Result<Self> {
        let unreadable = |error: Error| {
            Error::new(Code::HostFile, format!("the host file can't be read: {}", error.message()))
                .at(path.display())
                .hint("sudo assay-gates host install --user github-runner")
                .because(error)
        };
        let mut file = Rights::of_caller()?.open(path).map_err(unreadable)?;
        #[cfg(unix)]
        check_owner(path, &file)?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| unreadable(Error::io("cannot read", path, error)))?;
        Self::parse(&text, path)
    }

    /// Validates `text`; `place` names it in errors.
    ///
    /// # Errors
    /// `HostFile`, with the line, for an unknown key, a relative path or a root that can't be ours.
    pub fn parse(text: &str, place: &Path) -> Result<Self> {
        let file: Self = parse_yaml(text, place.display(), Code::HostFile)?;
        file.check().map_err(|message| Error::new(Code::HostFile, message).at(place.display()))?;
        Ok(file)
    }

    fn check(&self) -> Result<(), String> {
        if self.schema != HOST_SCHEMA {
            return Err(format!("expected schema {HOST_SCHEMA}, found {:?}", self.schema));
        }
        let name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.prefix.len() < 4 || !self.prefix.chars().all(name) || self.prefix.starts_with('-') {
            return Err(format!("expected a prefix of four or more of [a-z0-9-], found {:?}", self.prefix));
        }
        if !self.runner.root.is_absolute() {
            return Err(format!("runner.root: expected an absolute path, found {:?}", self.runner.root));
        }
        let work = self.work();
        for (key, root) in std::iter::once(("runner.work", &work))
            .chain(self.proof_roots.iter().map(|root| ("proof_roots", root)))
        {
            check_root(root).map_err(|why| format!("{key}: {} {why}", root.display()))?;
        }
        if self.retention.days == 0 || self.retention.newest == 0 {
            return Err("retention: expected at least one day and one result, found 0".to_owned());
        }
        self.builds.iter().try_for_each(Builds::check)?;
        for folder in &self.scratch {
            if normalise(folder).as_deref() != Some(folder.as_path()) || folder.parent().is_none() {
                return Err(format!("scratch: expected a plain absolute path, found {}", folder.display()));
            }
        }
        Ok(())
    }

    /// The work folder of the runner.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.runner.work.clone().unwrap_or_else(|| self.runner.root.join("_work"))
    }

    /// True when `name` bears our prefix: equal to it, or followed by `-`.
    #[must_use]
    pub fn is_ours(&self, name: &[u8]) -> bool {
        name.strip_prefix(self.prefix.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'-')
    }
}

/// A folder whose whole content may be removed: absolute, plain, at least two levels down, not of the system.
fn check_root(root: &Path) -> Result<(), &'static str> {
    const SYSTEM: [&str; 12] = [
        "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/run", "/sbin", "/sys", "/usr",
    ];
    if normalise(root).as_deref() != Some(root) {
        return Err("is not an absolute path without `.` and `..`");
    }
    if root.components().count() < 3 {
        return Err("is too near the root of the file system to be emptied");
    }
    if SYSTEM.iter().any(|system| contains(Path::new(system), root)) {
        return Err("belongs to the system");
    }
    Ok(())
}

/// Whoever can write the file decides what root removes.
#[cfg(unix)]
fn check_owner(path: &Path, file: &std::fs::File) -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let found = file.metadata().map_err(|error| Error::io("cannot look at", path, error))?;
    let reader = nix::unistd::geteuid().as_raw();
    if (found.uid() != 0 && found.uid() != reader) || found.mode() & 0o022 != 0 {
        return Err(Error::new(
            Code::HostFile,
            format!(
                "the host file can be changed by others: owner {}, mode {:o}",
                found.uid(),
                found.mode() & 0o7777
            ),
        )
        .at(path.display())
        .hint(format!("sudo chown root:root {0} && sudo chmod 0644 {0}", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostFile> {
        HostFile::parse(text, Path::new("host.yaml"))
    }

    const MINIMAL: &str =
        "schema: assay.gates.host.v0\ndedicated: true\nrunner: {user: r, root: /opt/runner}\n";

    #[test]
    fn the_minimal_file_gets_the_documented_defaults() {
        let file = parse(MINIMAL).unwrap();
        assert_eq!(file, HostFile::new("r", "/opt/runner"));
        assert_eq!(file.work(), Path::new("/opt/runner/_work"));
        assert!(!file.docker_prune);
    }

    #[test]
    fn what_is_written_reads_back() {
        let file = HostFile::new("github-runner", "/opt/actions-runner");
        assert_eq!(parse(&serde_yaml::to_string(&file).unwrap()).unwrap(), file);
    }

    #[test]
    fn an_unknown_key_names_the_nearest() {
        let error = parse(&format!("{MINIMAL}dockerprune: true\n")).unwrap_err();
        assert_eq!(error.code(), Code::HostFile);
        assert_eq!(error.advice(), Some("did you mean `docker_prune`?"));
    }

    #[test]
    fn roots_of_the_system_are_refused() {
        for root in [
            "/",
            "/home",
            "/etc/x/y",
            "/usr/lib/x",
            "/proc/1/root",
            "work/a",
            "/opt/a/../../etc/x",
            "/sys/fs/bpf",
        ] {
            let text = format!("{MINIMAL}proof_roots: [{root}]\n");
            assert!(parse(&text).is_err(), "{root} was accepted");
        }
        assert!(parse(&format!("{MINIMAL}proof_roots: [/srv/proof]\n")).is_ok());
    }

    #[test]
    fn a_retention_is_of_both_bounds_or_the_default_and_never_of_nothing() {
        let kept = |text: &str| parse(&format!("{MINIMAL}{text}")).map(|file| file.retention);
        assert_eq!(kept("").unwrap(), Retention { days: 30, newest: 50 });
        assert_eq!(kept("retention: {days: 7}\n").unwrap(), Retention { days: 7, newest: 50 });
        assert_eq!(kept("retention: {days: 7, newest: 3}\n").unwrap(), Retention { days: 7, newest: 3 });
        for text in ["retention: {days: 0}\n", "retention: {newest: 0}\n", "retention: {weeks: 1}\n"] {
            assert!(kept(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_that_matches_too_much_is_refused() {
        for prefix in ["''", "a", "'-x-y'", "'a b c'", "'*abc'"] {
            assert!(parse(&format!("{MINIMAL}prefix: {prefix}\n")).is_err(), "{prefix}");
        }
    }

    #[test]
    fn a_name_is_ours_only_by_whole_prefix() {
        let file = HostFile::new("r", "/opt/runner");
        for (name, ours) in [
            ("assay-gates", true),
            ("assay-gates-1", true),
            ("assay-gatesx", false),
            ("x-assay-gates", false),
            ("", false),
        ] {
            assert_eq!(file.is_ours(name.as_bytes()), ours, "{name}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), MINIMAL).unwrap();
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o664)).unwrap();
        let error = HostFile::load(file.path()).unwrap_err();
        assert_eq!(error.code(), Code::HostFile);
        assert!(error.advice().unwrap().contains("chmod 0644"));
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
        HostFile::load(file.path()).unwrap();
    }
}
