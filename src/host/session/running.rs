//! From the word to the end: the launcher becomes the program, and the tree is awaited until nothing of it is left.

use super::{Host, Session, Spec};
use crate::capture::Outcome;
use crate::error::{Code, Error, Result};
use crate::files::RootPath;
use crate::host::cgroup::SessionCgroup;
use crate::host::folder::Folder;
use crate::host::interrupt::Interrupt;
use crate::host::launch;
use crate::host::output::{self, CapturedStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::PipeWriter;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long processes may outlive the root process before they count as stragglers and are killed.
const LINGER: Duration = Duration::from_secs(2);
fn lost(path: &RootPath, error: std::io::Error) -> Error {
    Error::new(Code::OutputLost, format!("cannot keep the measured program's output: {error}"))
        .at(path.path().display())
        .because(error)
}

type Reader = JoinHandle<CapturedStream>;

/// A run whose launcher is getting ready. Its cgroup is still empty.
#[derive(Debug)]
pub struct Launching<'host> {
    pub(super) launcher: launch::Launching,
    pub(super) session: Session<'host>,
}

impl<'host> Launching<'host> {
    /// The launcher joins the cgroup and becomes the program.
    ///
    /// # Errors
    /// `SandboxFailed`, `ProgramUnusable`, `OutputLost`.
    pub fn go(self) -> Result<Running<'host>> {
        let Self { launcher, session } = self;
        let started = Instant::now();
        let mut launched = launcher.go()?;
        let (stop, stopper) = std::io::pipe().map_err(|error| lost(&session.spec.stdout, error))?;
        let readers = readers(&session.spec, &mut launched.child, stop);
        let mut running = Running {
            cgroup: session.cgroup,
            work: session.work,
            logs: session.logs,
            interrupt: session.interrupt,
            timeout: session.spec.timeout,
            child: launched.child,
            program: launched.program,
            notes: launched.notes,
            fences: launched.fences,
            started,
            stopper,
            stdout: None,
            stderr: None,
            _host: session.host,
        };
        let (stdout, stderr) = readers?;
        (running.stdout, running.stderr) = (Some(stdout), Some(stderr));
        Ok(running)
    }
}

/// A run that has begun. Dropping it kills the tree.
#[derive(Debug)]
pub struct Running<'host> {
    cgroup: Arc<SessionCgroup>,
    work: Folder,
    logs: Folder,
    interrupt: Interrupt,
    timeout: Option<Duration>,
    child: Child,
    program: PathBuf,
    notes: Vec<String>,
    fences: Vec<String>,
    started: Instant,
    stopper: PipeWriter,
    stdout: Option<Reader>,
    stderr: Option<Reader>,
    /// Keeps the host taken until the run is over.
    _host: &'host Host,
}

/// A run that is over; no process is left of it.
#[derive(Debug)]
pub struct Ended {
    /// How the root process ended.
    pub outcome: Outcome,
    /// The file that was executed.
    pub program: PathBuf,
    /// What a person should know, one line each.
    pub notes: Vec<String>,
    /// Fences that were in force, in words.
    pub fences: Vec<String>,
    /// Captured standard output.
    pub stdout: CapturedStream,
    /// Captured standard error.
    pub stderr: CapturedStream,
    /// What the program left in its work folder. Everything in it is untrusted.
    pub work: Folder,
    /// What the program left in its log folder. Everything in it is untrusted.
    pub logs: Folder,
    cgroup: Arc<SessionCgroup>,
}

impl Ended {
    /// Removes the cgroup; call after the capture is closed.
    ///
    /// # Errors
    /// `CgroupUnusable`, naming what stayed.
    pub fn remove(&self) -> Result<()> {
        self.cgroup.remove()
    }
}

enum Stop {
    Exited,
    TimedOut,
    Interrupted,
}

impl Running<'_> {
    /// The root process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the whole tree. At the time limit, or when this process is told to stop, the tree is
    /// killed; processes that outlive the root by two seconds are killed too, and counted.
    ///
    /// # Errors
    /// `TreeSurvives` when something lives on after `cgroup.kill`; `OutputLost` when a reader died.
    pub fn wait(mut self) -> Result<Ended> {
        let stop = self.wait_for_root()?;
        if !matches!(stop, Stop::Exited) {
            self.cgroup.kill()?;
        }
        let status = self.child.wait().map_err(|error| {
            Error::new(Code::TreeSurvives, format!("cannot wait for process {}: {error}", self.child.id()))
        })?;
        let stragglers = self.end_stragglers()?;
        let outcome = outcome(status, &stop, stragglers, self.started.elapsed());
        // From here on nobody of the tree can write; what the pipes hold is all that there will be.
        drop(self.stopper);
        Ok(Ended {
            outcome,
            program: self.program,
            notes: self.notes,
            fences: self.fences,
            stdout: join(self.stdout)?,
            stderr: join(self.stderr)?,
            work: self.work,
            logs: self.logs,
            cgroup: self.cgroup,
        })
    }

    fn wait_for_root(&self) -> Result<Stop> {
        let root = pidfd(self.child.id())?;
        let until = self.timeout.map(|timeout| self.started + timeout);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Stop::TimedOut);
            }
            let mut fds = vec![PollFd::new(root.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.interrupt.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            // Rounded up, so that the last round doesn't spin.
            let timeout = left.map_or(PollTimeout::NONE, |left| {
                PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => {
                    return Err(Error::new(Code::Internal, format!("cannot wait for the run: {error}")));
                }
            }
            if fds[0].revents().is_some_and(|events| !events.is_empty()) {
                return Ok(Stop::Exited);
            }
            if self.interrupt.requested().is_some() {
                return Ok(Stop::Interrupted);
            }
        }
    }

    fn end_stragglers(&self) -> Result<u32> {
        if self.cgroup.wait_empty(LINGER)? {
            return Ok(0);
        }
        let stragglers = self.cgroup.processes();
        self.cgroup.kill()?;
        if self.cgroup.wait_empty(Duration::from_secs(10))? {
            return Ok(u32::try_from(stragglers.len()).unwrap_or(u32::MAX));
        }
        Err(Error::new(
            Code::TreeSurvives,
            format!("processes {:?} live on 10 s after cgroup.kill", self.cgroup.processes()),
        )
        .at(self.cgroup.path().display())
        .hint("a process in uninterruptible sleep: cat /proc/PID/stack, or restart the host"))
    }
}

fn readers(spec: &Spec, child: &mut Child, stop: std::io::PipeReader) -> Result<(Reader, Reader)> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Error::new(Code::Internal, "the launcher was started without pipes"));
    };
    let limit = spec.output_bytes;
    let second = stop.try_clone().map_err(|error| lost(&spec.stderr, error))?;
    let stdout =
        output::capture(stdout, stop, &spec.stdout, limit).map_err(|error| lost(&spec.stdout, error))?;
    let stderr =
        output::capture(stderr, second, &spec.stderr, limit).map_err(|error| lost(&spec.stderr, error))?;
    Ok((stdout, stderr))
}

fn outcome(status: ExitStatus, stop: &Stop, stragglers: u32, elapsed: Duration) -> Outcome {
    Outcome {
        exit_code: status.code(),
        signal: status.signal(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        timed_out: matches!(stop, Stop::TimedOut),
        interrupted: matches!(stop, Stop::Interrupted),
        stragglers,
    }
}

fn join(reader: Option<Reader>) -> Result<CapturedStream> {
    let died = || Error::new(Code::OutputLost, "the reader of the measured program's output died");
    reader.ok_or_else(died)?.join().map_err(|_| died())
}

fn pidfd(pid: u32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers and gives back a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(Error::new(
            Code::Internal,
            format!("cannot watch process {pid}: {}", nix::Error::last()),
        ));
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
