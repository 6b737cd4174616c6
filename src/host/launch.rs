//! Starts the measured program: the driver's side.
//!
//! The driver has threads, so it can't safely do much between fork and exec. It executes itself as a launcher
//! (`launcher.rs`), one thread, which builds the sandbox. Both talk over one socket, the launcher's standard input: the
//! [`Launch`] and descriptors go down, then the word to begin; reports come up, and the end of the stream when the
//! program has been executed. Nothing is inherited, so that no hook between fork and exec is needed and the driver's
//! memory, with the whole ring in it, is never copied.
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
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
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
    /// `cgroup.procs` of the session.
    pub procs: Passed,
    /// `cgroup.procs` of the version 1 pids group.
    pub pids: Option<Passed>,
}

/// Place of a descriptor among those that are passed to the launcher.
pub type Passed = usize;

/// Descriptors that a launch can pass.
const MOST_PASSED: usize = 8;

/// What a measured program sees of the file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileView {
    /// Everything is read-only but the folders attached and the private ones.
    pub read_only: bool,
    /// Folders replaced by an empty private tmpfs.
    pub private: Vec<PrivateFolder>,
    /// Files and folders that appear at another (or the same) place.
    pub binds: Vec<Bind>,
    /// Detached mounts and where they are attached.
    pub attach: Vec<(Passed, PathBuf)>,
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
    socket: UnixStream,
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

/// Starts `launcher` (this binary) with `launch`. It gets ready by itself and does not touch the cgroup.
///
/// # Errors
/// `SandboxFailed`.
pub fn start(launcher: &Path, launch: &Launch, passed: &[BorrowedFd<'_>]) -> Result<Launching> {
    let failed = |step: &str, error: io::Error| {
        Error::new(Code::SandboxFailed, format!("cannot start the launcher ({step}): {error}")).because(error)
    };
    let (socket, theirs) = UnixStream::pair().map_err(|error| failed("socket", error))?;
    let child = Command::new(launcher)
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed("exec", error))?;
    let launching = Launching { child: Some(child), socket };
    let text = crate::files::compact(launch)?;
    send(&launching.socket, &text, passed).map_err(|error| failed("what to launch", error))?;
    Ok(launching)
}

fn send(mut socket: &UnixStream, text: &str, passed: &[BorrowedFd<'_>]) -> io::Result<()> {
    let length = (text.len() as u64).to_le_bytes();
    let descriptors: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(&length)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(text.as_bytes())
}

/// The launcher's end of what [`start`] sends.
pub(super) fn receive(socket: &UnixStream) -> io::Result<(Launch, Vec<OwnedFd>)> {
    let mut length = [0; 8];
    let mut space = nix::cmsg_space!([RawFd; MOST_PASSED]);
    let mut parts = [IoSliceMut::new(&mut length)];
    let message =
        recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut passed = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel just made these descriptors for this process, and nobody else knows them.
            passed.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let mut text = Vec::new();
    socket.take(u64::from_le_bytes(length)).read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, passed))
}

impl Launching {
    /// Gives the word, and waits until the program has been executed.
    ///
    /// # Errors
    /// `SandboxFailed` or `ProgramUnusable`, as the launcher reports; the child is gone then.
    pub fn go(mut self) -> Result<Launched> {
        let _what_it_reports_says_why_it_is_gone = self.socket.write(b"!");
        let mut told = Vec::new();
        let read = match self.socket.read_to_end(&mut told) {
            // It was gone before it took the word; what it said before that is here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(told.len()),
            other => other,
        };
        let (program, notes, fences) = outcome(&String::from_utf8_lossy(&told))?;
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

/// `NAME=value` lines of an environment.
#[must_use]
pub fn environment_lines(variables: &super::environment::Environment) -> Vec<Vec<u8>> {
    let line = |name: &OsStr, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes()].concat();
    variables.iter().map(|(name, value)| line(name, value)).collect()
}
