//! Starts the measured program: the driver's side.
//!
//! The driver has threads, so it can't safely do much between fork and exec. It executes itself as a launcher
//! (`launcher.rs`), one thread, which reads a [`Launch`] from an inherited descriptor and builds the sandbox.
//!
//! **How the cgroup is joined.** The launcher writes `0` to a `cgroup.procs` that root opened, as the last step before
//! execve and after it gave up every privilege. `clone3` with CLONE_INTO_CGROUP would save the one attach event,
//! but the kernel checks it against the privileges of the moment: the drop of privileges would then have to happen
//! inside the cgroup and become part of what is measured. This way, what is measured begins with the return of
//! that write and the execve of the program itself.
//!
//! **When.** Building the sandbox takes milliseconds, and so does arming the capture; they go on side by side. The
//! launcher waits, outside the cgroup, until the driver gives it the word.

use crate::error::{Code, Error, Result};
use nix::libc;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Seek, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Name of the hidden subcommand that becomes the measured program.
pub const SUBCOMMAND: &str = "__launch";

/// Whether the measured program has a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// A network namespace of its own with a loopback device and nothing else.
    None,
    /// The host's.
    Host,
}

/// Everything that the launcher needs to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Launch {
    /// argv; the first is looked up along PATH of `environment`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub environment: Vec<Vec<u8>>,
    /// Working folder, as seen inside.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The user's name, for messages.
    pub user: String,
    /// Network.
    pub network: Network,
    /// What the program sees of the file system.
    pub view: FileView,
    /// Processes of that user, when no pids controller bounds the tree.
    pub nproc: Option<u64>,
    /// Inherited: `cgroup.procs` of the session.
    pub procs_fd: RawFd,
    /// Inherited: `cgroup.procs` of the version 1 pids group.
    pub pids_fd: Option<RawFd>,
    /// Inherited: where reports go.
    pub report_fd: RawFd,
    /// Inherited: a byte comes when the cgroup may be joined.
    pub go_fd: RawFd,
}

/// What a measured program sees of the file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileView {
    /// Everything is read-only but the folders attached and the private ones.
    pub read_only: bool,
    /// Folders replaced by an empty private tmpfs.
    pub private: Vec<PrivateFolder>,
    /// Files and folders that appear at another (or the same) place.
    pub binds: Vec<Bind>,
    /// Detached mounts, by inherited descriptor, and where they are attached.
    pub attach: Vec<(RawFd, PathBuf)>,
    /// Files and folders that are covered, if they exist.
    pub hide: Vec<PathBuf>,
}

/// A folder replaced by an empty tmpfs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PrivateFolder {
    /// The folder; left out when it doesn't exist.
    pub path: PathBuf,
    /// Size in bytes.
    pub bytes: u64,
    /// Mode, e.g. 0o1777.
    pub mode: u32,
}

/// A file or folder of the host and where it appears.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Bind {
    /// On the host.
    pub source: PathBuf,
    /// Inside.
    pub target: PathBuf,
    /// Can't be written.
    pub read_only: bool,
}

/// What the launcher tells before it becomes the program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// About to join the cgroup and execute `program`.
    Ready {
        /// The file that is executed.
        program: PathBuf,
        /// What a person should know, e.g. interpreters that were passed over.
        notes: Vec<String>,
        /// Fences in force, in words.
        fences: Vec<String>,
    },
    /// It went wrong.
    Failed {
        /// `program` or `sandbox`.
        program: bool,
        /// What was expected and found.
        message: String,
        /// What to do.
        hint: Option<String>,
    },
}

/// A launcher that builds its sandbox and then waits for the word. Dropping it ends it.
#[derive(Debug)]
pub struct Launching {
    child: Option<Child>,
    reports: PipeReader,
    go: PipeWriter,
}

/// A measured program that has begun.
#[derive(Debug)]
pub struct Launched {
    /// The process, a direct child.
    pub child: Child,
    /// The file that is executed.
    pub program: PathBuf,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Fences in force, in words.
    pub fences: Vec<String>,
}

/// Descriptors that the launcher inherits, by the number that [`Launch`] names.
pub struct Inherited<'a>(pub Vec<BorrowedFd<'a>>);

/// Starts `launcher` (this binary) with `launch`. It gets ready by itself and does not touch the cgroup.
///
/// # Errors
/// `SandboxFailed`.
pub fn start(launcher: &Path, mut launch: Launch, inherited: &Inherited<'_>) -> Result<Launching> {
    let failed = |step: &str, error: std::io::Error| {
        Error::new(Code::SandboxFailed, format!("cannot start the launcher ({step}): {error}")).because(error)
    };
    let (reports, report) = std::io::pipe().map_err(|error| failed("pipe", error))?;
    let (wait, go) = std::io::pipe().map_err(|error| failed("pipe", error))?;
    (launch.report_fd, launch.go_fd) = (report.as_raw_fd(), wait.as_raw_fd());
    let spec = memory_file(&crate::files::compact(&launch)?).map_err(|error| failed("memfd", error))?;
    let mut passed: Vec<RawFd> = inherited.0.iter().map(AsRawFd::as_raw_fd).collect();
    passed.extend([report.as_raw_fd(), wait.as_raw_fd(), spec.as_raw_fd()]);
    let mut command = Command::new(launcher);
    command
        .arg(SUBCOMMAND)
        .arg(spec.as_raw_fd().to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only fcntl is called, which is async-signal-safe; the vector was made before.
    unsafe {
        command.pre_exec(move || {
            for fd in &passed {
                if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let child = command.spawn().map_err(|error| failed("exec", error))?;
    Ok(Launching { child: Some(child), reports, go })
}

impl Launching {
    /// Gives the word, and waits until the program has been executed.
    ///
    /// # Errors
    /// `SandboxFailed` or `ProgramUnusable`, as the launcher reports; the child is gone then.
    pub fn go(mut self) -> Result<Launched> {
        let _what_it_reports_says_why_it_is_gone = self.go.write(b"!");
        let mut told = String::new();
        let read = self.reports.read_to_string(&mut told);
        let (program, notes, fences) = outcome(&told)?;
        match self.child.take() {
            Some(child) if read.is_ok() => Ok(Launched { child, program, notes, fences }),
            child => {
                self.child = child;
                Err(Error::new(Code::SandboxFailed, "the launcher's report can't be read"))
            }
        }
    }
}

impl Drop for Launching {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _dead_already = child.kill();
            let _reaped = child.wait();
        }
    }
}

fn outcome(told: &str) -> Result<(PathBuf, Vec<String>, Vec<String>)> {
    let mut ready = None;
    for line in told.lines() {
        match serde_json::from_str(line) {
            Ok(Report::Ready { program, notes, fences }) => ready = Some((program, notes, fences)),
            Ok(Report::Failed { program, message, hint }) => {
                let code = if program { Code::ProgramUnusable } else { Code::SandboxFailed };
                let error = Error::new(code, message);
                return Err(match hint {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
            }
            Err(error) => {
                return Err(Error::new(Code::Internal, format!("the launcher said {line:?}: {error}")));
            }
        }
    }
    ready.ok_or_else(|| Error::new(Code::SandboxFailed, "the launcher ended without a word"))
}

fn memory_file(text: &str) -> std::io::Result<OwnedFd> {
    // SAFETY: memfd_create reads a C string and gives back a new descriptor or -1.
    let fd = unsafe { libc::memfd_create(c"launch".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file.into())
}

/// `NAME=value` lines of an environment.
#[must_use]
pub fn environment_lines(variables: &super::environment::Environment) -> Vec<Vec<u8>> {
    let line = |name: &OsStr, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes()].concat();
    variables.iter().map(|(name, value)| line(name, value)).collect()
}
