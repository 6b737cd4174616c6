//! The program that will really be executed, as the measured user finds it.
//!
//! An interpreter below a closed home (pyenv, nvm of root's) is no use to an unprivileged user: it is passed over,
//! or named together with one that works.

use super::rights::Rights;
use crate::error::{Code, Error, Result};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

const STANDARD: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Absolute path of the file to execute.
    pub path: PathBuf,
    /// Nearer candidates that the user can't execute, each with its reason.
    pub passed_over: Vec<String>,
}

/// Who would execute it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// User id.
    pub uid: u32,
    /// Group id; there are no supplementary groups.
    pub gid: u32,
    /// Name for messages.
    pub name: &'a str,
}

impl Who<'_> {
    /// What this user may look at. Programs are looked for with no more: what they are and where links lead is nothing
    /// that root tells anybody.
    #[must_use]
    pub fn rights(self) -> Rights {
        Rights::of_measured(self.uid, self.gid)
    }
}

/// Finds `program` as execvp would for `who`, with that user's rights: itself when it has a slash, else along `search` (a
/// PATH). A script is only usable when its interpreter is. What `who` can't see along `search` is passed over, and told
/// when `caller` can see it.
///
/// # Errors
/// `ProgramUnusable`: what was found, why it doesn't do, and one that does; as [`Rights::act`].
pub fn resolve(
    program: &OsStr,
    search: &OsStr,
    cwd: &Path,
    who: Who<'_>,
    caller: &Rights,
) -> Result<Resolved> {
    let mut passed_over = Vec::new();
    let named = program.as_bytes().contains(&b'/');
    for candidate in candidates(program, search, cwd) {
        match who.rights().act(|| Ok(unusable(&candidate, search, who)))? {
            None => return Ok(Resolved { path: candidate, passed_over }),
            Some(Why::Absent) => {}
            Some(Why::Refused(_)) if !named && !caller.act(|| Ok(is_there(&candidate)))? => {}
            Some(Why::Refused(reason)) => passed_over.push(format!("{}: {reason}", candidate.display())),
        }
    }
    let shown = program.to_string_lossy();
    let found = if passed_over.is_empty() { "found nothing".to_owned() } else { passed_over.join("; ") };
    let error = Error::new(Code::ProgramUnusable, format!("{} can't execute {shown}: {found}", who.name));
    let name = Path::new(program).file_name().unwrap_or(program);
    let standard = candidates(name, OsStr::new(STANDARD), cwd);
    let usable = |path: &PathBuf| unusable(path, search, who).is_none();
    let other = who.rights().act(|| Ok(standard.into_iter().find(usable)))?;
    Err(match other {
        Some(other) => error.hint(format!("use {} instead", other.display())),
        None => error.hint(format!("install {shown} where {} can execute it, e.g. below /usr", who.name)),
    })
}

fn candidates(program: &OsStr, search: &OsStr, cwd: &Path) -> Vec<PathBuf> {
    if program.as_bytes().contains(&b'/') {
        return vec![cwd.join(program)];
    }
    if program.is_empty() {
        return Vec::new();
    }
    std::env::split_paths(search).map(|folder| cwd.join(folder).join(program)).collect()
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

enum Why {
    Absent,
    Refused(String),
}

fn unusable(path: &Path, search: &OsStr, who: Who<'_>) -> Option<Why> {
    if let Some(reason) = closed(path, who) {
        return Some(reason);
    }
    let (program, argument) = interpreter(path)?;
    if let Some(Why::Refused(reason)) = closed(&program, who) {
        return Some(Why::Refused(format!("its interpreter {}: {reason}", program.display())));
    }
    if !program.exists() {
        return Some(Why::Refused(format!("its interpreter {} doesn't exist", program.display())));
    }
    // `#!/usr/bin/env node` says nothing about node yet.
    let name = argument.filter(|name| program.ends_with("env") && !name.as_bytes().contains(&b'/'))?;
    let usable = candidates(&name, search, Path::new("/")).iter().any(|path| closed(path, who).is_none());
    (!usable).then(|| {
        Why::Refused(format!("its interpreter {} is not on PATH for {}", name.to_string_lossy(), who.name))
    })
}

/// The interpreter of a script and its argument; `None` for what isn't a script, or can't be read to tell.
fn interpreter(path: &Path) -> Option<(PathBuf, Option<OsString>)> {
    let mut start = Vec::new();
    std::fs::File::open(path).ok()?.take(256).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let (program, argument) = match line.iter().position(|byte| byte.is_ascii_whitespace()) {
        Some(at) => (&line[..at], Some(OsString::from_vec(line[at..].trim_ascii().to_vec()))),
        None => (line, None),
    };
    Some((PathBuf::from(OsString::from_vec(program.to_vec())), argument))
}

/// Why `who` can't execute `path`: from the modes of its folders and its own, links followed.
fn closed(path: &Path, who: Who<'_>) -> Option<Why> {
    // What isn't there at all is no surprise to anybody.
    if path.symlink_metadata().is_err_and(|error| error.kind() != std::io::ErrorKind::PermissionDenied) {
        return Some(Why::Absent);
    }
    let mut folders: Vec<&Path> = path.ancestors().skip(1).collect();
    folders.reverse();
    for folder in folders {
        match std::fs::metadata(folder) {
            Ok(found) if !permits(&found, who, 0o1) => {
                return Some(Why::Refused(format!("{} is closed to {}", folder.display(), who.name)));
            }
            Ok(_) => {}
            Err(_) => return Some(Why::Absent),
        }
    }
    let real = match std::fs::canonicalize(path) {
        Ok(real) => real,
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            return Some(Why::Refused(format!("what it links to is closed to {}", who.name)));
        }
        Err(_) => return Some(Why::Absent),
    };
    if real != path && real.parent() != path.parent() {
        return closed(&real, who);
    }
    match std::fs::metadata(&real) {
        Ok(found) if !found.is_file() => Some(Why::Refused("not a file".to_owned())),
        Ok(found) if !permits(&found, who, 0o1) => Some(Why::Refused(format!(
            "mode {:04o} doesn't let {} execute it",
            found.mode() & 0o7777,
            who.name
        ))),
        Ok(_) => None,
        Err(_) => Some(Why::Absent),
    }
}

fn permits(found: &std::fs::Metadata, who: Who<'_>, bit: u32) -> bool {
    let shift = if found.uid() == who.uid {
        6
    } else if found.gid() == who.gid {
        3
    } else {
        0
    };
    found.mode() >> shift & bit != 0
}

/// Whether `who` can enter `folder`, from the modes on the way there.
#[must_use]
pub fn can_enter(folder: &Path, who: Who<'_>) -> bool {
    folder.ancestors().all(|part| std::fs::metadata(part).is_ok_and(|found| permits(&found, who, 0o1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOBODY: Who<'static> = Who { uid: 65534, gid: 65534, name: "nobody" };

    fn executable(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn open_folder() -> tempfile::TempDir {
        let home = tempfile::tempdir_in("/tmp").unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        home
    }

    #[test]
    fn an_interpreter_below_a_closed_home_is_passed_over_and_named() {
        let home = open_folder();
        let (closed, open) = (home.path().join("closed/sh"), home.path().join("open/sh"));
        executable(&closed, "#!/bin/sh\n");
        executable(&open, "#!/bin/sh\n");
        std::fs::set_permissions(closed.parent().unwrap(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let search = std::env::join_paths([closed.parent().unwrap(), open.parent().unwrap()]).unwrap();
        let found = resolve(OsStr::new("sh"), &search, Path::new("/"), NOBODY, &Rights::own()).unwrap();
        assert_eq!(found.path, open);
        assert_eq!(found.passed_over.len(), 1);
        assert!(found.passed_over[0].contains("closed is closed to nobody"), "{:?}", found.passed_over);

        let refused =
            resolve(closed.as_os_str(), &search, Path::new("/"), NOBODY, &Rights::own()).unwrap_err();
        assert_eq!(refused.code(), Code::ProgramUnusable);
        assert!(refused.advice().unwrap().ends_with("/bin/sh instead"), "{:?}", refused.advice());
    }

    #[test]
    fn a_script_is_unusable_when_its_interpreter_is() {
        let home = open_folder();
        for (name, text, reason) in [
            ("a", "#!/no/such/interpreter -x\n", "its interpreter /no/such/interpreter doesn't exist"),
            ("b", "#!/usr/bin/env no-such-interpreter\n", "no-such-interpreter is not on PATH for nobody"),
        ] {
            let script = home.path().join(name);
            executable(&script, text);
            let refused = resolve(
                script.as_os_str(),
                OsStr::new("/usr/bin:/bin"),
                Path::new("/"),
                NOBODY,
                &Rights::own(),
            )
            .unwrap_err();
            assert!(refused.message().contains(reason), "{}", refused.message());
        }
    }

    #[test]
    fn what_does_not_exist_or_may_not_be_executed_is_said() {
        let refused = resolve(
            OsStr::new("no-such-program"),
            OsStr::new("/bin"),
            Path::new("/"),
            NOBODY,
            &Rights::own(),
        )
        .unwrap_err();
        assert!(refused.message().ends_with("found nothing"));
        let refused =
            resolve(OsStr::new("/etc/passwd"), OsStr::new("/bin"), Path::new("/"), NOBODY, &Rights::own())
                .unwrap_err();
        assert!(
            refused.message().contains("mode 0644 doesn't let nobody execute it"),
            "{}",
            refused.message()
        );
    }
}
