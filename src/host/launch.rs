//! Starts measured programs: the driver's side.
//!
//! The driver has threads, so it can't safely do much between fork and exec. It executes itself as a launcher
//! (`launcher.rs`), one thread, in a new process namespace of which that is the first process: its *init*. The init
//! builds the sandbox, then starts programs in it as the driver asks, reaps what is orphaned, and tells how programs
//! ended. It stays outside of the session's cgroup, keeps root's uid without root's rights but those of becoming the
//! measured user, and runs nothing that is measured.
//!
//! Both talk over one socket, the launcher's standard input ([`frame`]): the [`Sandbox`] and [`Program`]s go down with
//! their descriptors, [`Report`]s come up. When that socket closes, init ends, and the kernel ends everything in its
//! namespace with it: no tree outlives its driver.
//!
//! **How the cgroup is joined.** A program's process writes `0` to a `cgroup.procs` that root opened, as the last step
//! before execve and after it gave up every privilege. `clone3` with CLONE_INTO_CGROUP would save the one attach
//! event, but the kernel checks it against the privileges of the moment: the drop of privileges would then have to
//! happen inside the cgroup and become part of what is measured. This way, what is measured begins with the return of
//! that write and the execve of the program itself.
//!
//! **When.** Building the sandbox takes milliseconds, and so does arming the capture; they go on side by side. A
//! program's process waits, outside the cgroup and not yet as the measured user, until the driver gives it the word.
//!
//! **Further programs.** [`Spawner::spawn`] makes a process that waits, [`PendingProcess::start`] gives it the word. In
//! between, the driver knows its id and can mark it: nothing of it has been executed, and no record of it exists.

mod frame;

pub(super) use frame::{receive, send};

use super::rights::Rights;
use crate::error::{Code, Error, Result};
use crate::gate::Allowance;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Name of the hidden subcommand that becomes the session's init.
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

/// Everything that init needs to know before it starts a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sandbox {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// The user's name, for messages.
    pub user: String,
    /// Whoever called: of files that the measured user can't see, only those are told of that this one can.
    pub caller: Rights,
    /// No other process of the host is this user.
    pub alone: bool,
    /// Network.
    pub network: Network,
    /// What the fence around system calls lets through.
    pub allow: Vec<Allowance>,
    /// What programs see of the file system.
    pub view: FileView,
    /// Processes and threads of that user, when it is nobody else's and no pids controller bounds the tree.
    pub nproc: Option<u64>,
    /// `cgroup.procs` of the session: a process joins them in this order, the one that is measured last.
    pub procs: Vec<Passed>,
}

/// One program of a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// argv; the first is looked up along PATH of `environment`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub environment: Vec<Vec<u8>>,
    /// Working folder, as seen inside.
    pub cwd: PathBuf,
}

/// Place of a descriptor among those that are passed with the sandbox.
pub type Passed = usize;

/// What a measured program sees of the file system.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct FileView {
    /// Everything is read-only but the folders attached and the private ones.
    pub read_only: bool,
    /// Folders at the top that are seen; every other one is covered. Empty: all are seen.
    pub keep: Vec<PathBuf>,
    /// Folders replaced by an empty private tmpfs, outer ones first.
    pub private: Vec<PrivateFolder>,
    /// Files and folders that appear at another (or the same) place.
    pub binds: Vec<Bind>,
    /// Symbolic links below private folders: where, and what to.
    pub links: Vec<(PathBuf, PathBuf)>,
    /// Where terminals of the session's own are, if anywhere.
    pub terminals: Option<PathBuf>,
    /// Line of the measured user in `/etc/passwd`, when the host has none.
    pub passwd_line: Option<String>,
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
    /// With whose rights the source is looked up: a user's own folder with that user's.
    pub rights: Rights,
}

/// What the driver asks of init, after the [`Sandbox`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    /// The driver's number for it, from 0.
    pub number: u32,
    /// What to make a process for. Standard input, output and error come with the frame.
    pub program: Program,
}

/// What init tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// A process waits for the word. With the frame come its pidfd and the socket for the word.
    Waiting {
        /// The order's number.
        number: u32,
        /// The file that it will execute.
        program: PathBuf,
        /// What a person should know, e.g. interpreters that were passed over.
        notes: Vec<String>,
        /// Fences in force, in words.
        fences: Vec<String>,
    },
    /// A process has ended.
    Ended {
        /// The order's number.
        number: u32,
        /// As `waitpid` gave it.
        status: i32,
    },
    /// An order could not be carried out.
    Failed {
        /// The order's number.
        number: u32,
        /// Why.
        failure: Failure,
    },
}

/// What went wrong on the way to a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    /// The program is at fault, not the sandbox.
    pub program: bool,
    /// What was expected and found.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self {
            program: error.code() == Code::ProgramUnusable,
            message: error.to_string(),
            hint: error.advice().map(str::to_owned),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let code = if failure.program { Code::ProgramUnusable } else { Code::SandboxFailed };
        let error = Error::new(code, failure.message);
        match failure.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// A program to start beside the one that a session is about, e.g. an MCP server.
#[derive(Debug)]
pub struct SpawnRequest {
    /// What to execute.
    pub program: Program,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// The init of a session. Dropping it ends everything in its namespace.
#[derive(Debug)]
pub struct Init {
    child: Child,
    spawner: Spawner,
    reader: Option<JoinHandle<()>>,
}

/// Starts programs inside a session, from any thread, until the session ends.
#[derive(Clone, Debug)]
pub struct Spawner {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: UnixStream,
    next: AtomicU32,
    /// Programs that were executed.
    started: Arc<AtomicU32>,
    /// Frames go out one at a time.
    sending: Mutex<()>,
    /// Who waits for what of which order; `None` when init is gone.
    waiting: Mutex<Option<HashMap<u32, Waiting>>>,
}

#[derive(Debug)]
struct Waiting {
    answer: Sender<Result<Answer>>,
    ended: Sender<ExitStatus>,
}

#[derive(Debug)]
struct Answer {
    program: PathBuf,
    notes: Vec<String>,
    fences: Vec<String>,
    pidfd: OwnedFd,
    word: OwnedFd,
}

/// An order that init is working on.
#[derive(Debug)]
pub struct Ordered {
    answer: Receiver<Result<Answer>>,
    ended: Receiver<ExitStatus>,
    started: Arc<AtomicU32>,
}

/// A process of the session that has executed nothing yet. It is outside of the session's cgroup and waits for the
/// word; dropping this ends it.
#[derive(Debug)]
pub struct PendingProcess {
    pid: u32,
    pidfd: OwnedFd,
    word: UnixStream,
    ended: Receiver<ExitStatus>,
    started: Arc<AtomicU32>,
    program: PathBuf,
    notes: Vec<String>,
    fences: Vec<String>,
}

/// A process of the session that has executed its program.
#[derive(Debug)]
pub struct SpawnedProcess {
    pid: u32,
    pidfd: OwnedFd,
    ended: Receiver<ExitStatus>,
    /// The file that was executed.
    pub program: PathBuf,
    /// What a person should know.
    pub notes: Vec<String>,
    /// Fences in force, in words.
    pub fences: Vec<String>,
}

/// Starts `launcher` (this binary) as the init of a new process namespace, with `sandbox`. It gets ready by itself and
/// does not touch the cgroup.
///
/// # Errors
/// `SandboxFailed`.
pub fn start(launcher: &Path, sandbox: &Sandbox, passed: &[BorrowedFd<'_>]) -> Result<Init> {
    let failed = |step: &str, error: io::Error| {
        Error::new(Code::SandboxFailed, format!("cannot start the launcher ({step}): {error}")).because(error)
    };
    let (socket, theirs) = UnixStream::pair().map_err(|error| failed("socket", error))?;
    let child = first_of_namespace(launcher, theirs.into()).map_err(|error| failed("exec", error))?;
    let shared = Arc::new(Shared {
        socket,
        next: AtomicU32::new(0),
        started: Arc::default(),
        sending: Mutex::new(()),
        waiting: Mutex::new(Some(HashMap::new())),
    });
    // Before anything is sent: from here on, dropping ends the child.
    let mut init = Init { child, spawner: Spawner { shared: Arc::clone(&shared) }, reader: None };
    send(&shared.socket, sandbox, passed).map_err(|error| failed("what to build", error))?;
    let reader = std::thread::Builder::new().name("init".to_owned()).spawn(move || shared.read());
    init.reader = Some(reader.map_err(|error| failed("thread", error))?);
    Ok(init)
}

/// A process namespace for children is a property of the thread that asked for it: a thread of its own does, so that
/// nothing else that the driver starts lands there. The child is the driver's all the same.
fn first_of_namespace(launcher: &Path, socket: OwnedFd) -> io::Result<Child> {
    let mut command = Command::new(launcher);
    command
        .arg(SUBCOMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(socket)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID)?;
        command.spawn()
    })?;
    thread.join().map_err(|_| io::Error::other("the thread panicked"))?
}

impl Init {
    /// Its process id: children of this process are those that may join the session's cgroup.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts programs in this session.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Ends init when everything that it started has ended, and waits until it has told how.
    pub fn finish(mut self) {
        self.end(Shutdown::Write);
    }

    /// Ends init, and with it whatever is left in its namespace.
    fn end(&mut self, how: Shutdown) {
        let _gone_already = self.spawner.shared.socket.shutdown(how);
        if let Some(reader) = self.reader.take() {
            let _it_panicked = reader.join();
        }
        let _dead_already = self.child.kill();
        let _reaped = self.child.wait();
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        self.end(Shutdown::Both);
    }
}

impl Spawner {
    /// Makes a process for a program, and waits until it waits for its word. Standard streams are closed on this side.
    ///
    /// # Errors
    /// `ProgramUnusable` when the measured user can't execute it; `SandboxFailed` when the session is over.
    pub fn spawn(&self, request: SpawnRequest) -> Result<PendingProcess> {
        self.order(request)?.pending()
    }

    /// As [`Spawner::spawn`], without waiting.
    ///
    /// # Errors
    /// `SandboxFailed` when the session is over.
    pub fn order(&self, request: SpawnRequest) -> Result<Ordered> {
        let shared = &self.shared;
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = channel();
        let (ended, ending) = channel();
        shared.waiting().as_mut().ok_or_else(over)?.insert(number, Waiting { answer, ended });
        let SpawnRequest { program, stdio } = request;
        let order = Order { number, program };
        let sending = shared.sending.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = send(&shared.socket, &order, &[stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()]);
        drop(sending);
        match sent {
            // Init is gone; what it said before that is with the reader, and says why.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => {
                return Err(Error::new(Code::SandboxFailed, format!("cannot ask for a program: {error}"))
                    .because(error));
            }
            Ok(()) => {}
        }
        Ok(Ordered { answer: answered, ended: ending, started: Arc::clone(&shared.started) })
    }

    /// Programs that were executed so far.
    #[must_use]
    pub fn started(&self) -> u32 {
        self.shared.started.load(Ordering::Relaxed)
    }
}

fn over() -> Error {
    Error::new(Code::SandboxFailed, "the session is over: its init has ended")
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Option<HashMap<u32, Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what init tells to who waits for it, until init is gone.
    fn read(&self) {
        while let Ok(Some((report, passed))) = receive(&self.socket) {
            let mut waiting = self.waiting();
            let Some(waiting) = waiting.as_mut() else { return };
            // Who doesn't wait any more doesn't mind.
            let _nobody_waits = match report {
                Report::Waiting { number, program, notes, fences } => {
                    let mut passed = passed.into_iter();
                    let (Some(pidfd), Some(word), Some(who)) =
                        (passed.next(), passed.next(), waiting.get(&number))
                    else {
                        continue;
                    };
                    who.answer.send(Ok(Answer { program, notes, fences, pidfd, word })).is_ok()
                }
                Report::Failed { number, failure } => {
                    waiting.remove(&number).is_some_and(|who| who.answer.send(Err(failure.into())).is_ok())
                }
                Report::Ended { number, status } => waiting
                    .remove(&number)
                    .is_some_and(|who| who.ended.send(ExitStatus::from_raw(status)).is_ok()),
            };
        }
        *self.waiting() = None;
    }
}

impl Ordered {
    /// Waits until the process waits for its word.
    ///
    /// # Errors
    /// As [`Spawner::spawn`].
    pub fn pending(self) -> Result<PendingProcess> {
        let answer = self.answer.recv();
        let Answer { program, notes, fences, pidfd, word } =
            answer.map_err(|_| Error::new(Code::SandboxFailed, "the launcher ended without a word"))??;
        let pid = pid_of(&pidfd)?;
        let (word, Self { ended, started, .. }) = (word.into(), self);
        Ok(PendingProcess { pid, pidfd, word, ended, started, program, notes, fences })
    }
}

impl PendingProcess {
    /// Its id, as the driver and the kernel programs see it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Holds on to the process, whatever becomes of its id.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Gives the word, and waits until the program has been executed.
    ///
    /// # Errors
    /// `SandboxFailed` or `ProgramUnusable`; the process is gone then.
    pub fn start(mut self) -> Result<SpawnedProcess> {
        let _what_it_reports_says_why_it_is_gone = self.word.write(b"!");
        let mut told = Vec::new();
        match self.word.read_to_end(&mut told) {
            // It was gone before it took the word; what it said before that is here.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => {
                return Err(Error::new(
                    Code::SandboxFailed,
                    format!("cannot tell whether it started: {error}"),
                ));
            }
            Ok(_) => {}
        }
        // The socket closes with execve; who fails says so before.
        if !told.is_empty() {
            return Err(match serde_json::from_slice::<Failure>(&told) {
                Ok(failure) => failure.into(),
                Err(error) => Error::new(
                    Code::Internal,
                    format!("a launched process said {:?}: {error}", String::from_utf8_lossy(&told)),
                ),
            });
        }
        let Self { pid, pidfd, ended, started, program, notes, fences, word: _ } = self;
        started.fetch_add(1, Ordering::Relaxed);
        Ok(SpawnedProcess { pid, pidfd, ended, program, notes, fences })
    }
}

impl SpawnedProcess {
    /// Its id, as the driver and the kernel programs see it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable once it has ended.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `TreeSurvives` when init is gone, which ends everything in the session, without having told.
    pub fn wait(&self) -> Result<ExitStatus> {
        self.ended.recv().map_err(|_| {
            Error::new(Code::TreeSurvives, format!("the session's init ended before process {}", self.pid))
        })
    }
}

/// The id by which this process knows another one.
fn pid_of(pidfd: &OwnedFd) -> Result<u32> {
    use std::os::fd::AsRawFd;
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))
        .map_err(|error| Error::new(Code::Internal, format!("cannot read of a pidfd: {error}")))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse::<i64>().ok());
    // -1: it has ended already.
    pid.and_then(|pid| u32::try_from(pid).ok())
        .filter(|pid| *pid != 0)
        .ok_or_else(|| Error::new(Code::SandboxFailed, "a process ended before it was given the word"))
}

/// `NAME=value` lines of an environment.
#[must_use]
pub fn environment_lines(variables: &super::environment::Environment) -> Vec<Vec<u8>> {
    let line = |name: &OsStr, value: &OsStr| [name.as_bytes(), b"=", value.as_bytes()].concat();
    variables.iter().map(|(name, value)| line(name, value)).collect()
}
