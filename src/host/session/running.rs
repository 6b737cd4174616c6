//! From the word to the end: the launcher becomes the program, and the tree is awaited until nothing of it is left.

use super::{Host, Session, Spec};
use crate::capture::Outcome;
use crate::error::{Code, Error, Result};
use crate::files::RootPath;
use crate::gate::Limits;
use crate::host::cgroup::SessionCgroup;
use crate::host::folder::Folder;
use crate::host::interrupt::Interrupt;
use crate::host::launch::{Init, Ordered, Program, SpawnRequest, SpawnedProcess, Spawner};
use crate::host::output::{self, CapturedStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked whether the tree has run into a limit.
const LOOK: Duration = Duration::from_millis(100);
/// How long processes may outlive the root process before they count as stragglers and are killed.
const LINGER: Duration = Duration::from_secs(2);
fn lost(path: &RootPath, error: std::io::Error) -> Error {
    Error::io_as(Code::OutputLost, "cannot keep the measured program's output", &path.path(), error)
}

type Reader = JoinHandle<CapturedStream>;

/// A run whose init is getting ready. Its cgroup is still empty.
#[derive(Debug)]
pub struct Launching<'host> {
    // The init before the rest: it ends before the cgroup is removed and the folders go.
    init: Init,
    program: Ordered,
    stdout: PipeReader,
    stderr: PipeReader,
    session: Session<'host>,
}

impl<'host> Launching<'host> {
    pub(super) fn new(init: Init, program: Program, session: Session<'host>) -> Result<Self> {
        let pipe = |path: &RootPath| std::io::pipe().map_err(|error| lost(path, error));
        let (stdout, to_stdout) = pipe(&session.spec.stdout)?;
        let (stderr, to_stderr) = pipe(&session.spec.stderr)?;
        let nothing = File::open("/dev/null")
            .map_err(|error| Error::io("cannot open", Path::new("/dev/null"), error))?;
        let stdio = [nothing.into(), to_stdout.into(), to_stderr.into()];
        let program = init.spawner().order(SpawnRequest { program, stdio })?;
        Ok(Self { init, program, stdout, stderr, session })
    }

    /// The process whose children may join the session's cgroup.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init.pid()
    }

    /// Starts further programs in this session; a program's process exists before the session's own begins, if need be.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.init.spawner()
    }

    /// The process joins the cgroup and becomes the program.
    ///
    /// # Errors
    /// `SandboxFailed`, `ProgramUnusable`, `OutputLost`.
    pub fn go(self) -> Result<Running<'host>> {
        let Self { init, program, stdout, stderr, session } = self;
        let pending = program.pending()?;
        let started = Instant::now();
        let root = pending.start()?;
        let (stop, stopper) = std::io::pipe().map_err(|error| lost(&session.spec.stdout, error))?;
        let readers = readers(&session.spec, stdout, stderr, stop);
        let mut running = Running {
            cgroup: session.cgroup,
            init,
            root,
            work: session.work,
            logs: session.logs,
            interrupt: session.interrupt,
            timeout: session.spec.timeout,
            limits: session.spec.limits,
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
    init: Init,
    root: SpawnedProcess,
    work: Folder,
    logs: Folder,
    interrupt: Interrupt,
    timeout: Option<Duration>,
    limits: Limits,
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
    /// Programs that the driver started, the root among them: so many processes joined the session from outside.
    pub programs: u32,
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
    Exceeded(String),
    TimedOut,
    Interrupted,
}

impl Running<'_> {
    /// The root process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.root.pid()
    }

    /// Starts further programs in this session.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        self.init.spawner()
    }

    /// As [`Running::wait_watching`], with nothing else to watch.
    ///
    /// # Errors
    /// As there.
    pub fn wait(self) -> Result<Ended> {
        self.wait_watching(&|| None)
    }

    /// Waits for the end of the whole tree. At the time limit, when it runs into another limit (of the session, or one
    /// that `exceeded` names), or when this process is told to stop, the tree is killed; processes that outlive the root by two seconds are killed too, and counted.
    ///
    /// # Errors
    /// `TreeSurvives` when something lives on after `cgroup.kill`; `OutputLost` when a reader died.
    pub fn wait_watching(self, exceeded: &dyn Fn() -> Option<String>) -> Result<Ended> {
        let exceeded = || self.exceeded().or_else(exceeded);
        let mut stop = self.wait_for_root(&exceeded)?;
        if !matches!(stop, Stop::Exited) {
            self.cgroup.kill()?;
        }
        let status = self.root.wait()?;
        let stragglers = self.end_stragglers()?;
        // What a short run ran into, or the kernel ended it for, between two looks.
        if let (Stop::Exited, Some(limit)) = (&stop, exceeded()) {
            stop = Stop::Exceeded(limit);
        }
        let outcome = outcome(status, &stop, stragglers, self.started.elapsed());
        let programs = self.init.spawner().started();
        self.init.finish();
        // From here on nobody of the tree can write; what the pipes hold is all that there will be.
        drop(self.stopper);
        Ok(Ended {
            outcome,
            programs,
            program: self.root.program,
            notes: self.root.notes,
            fences: self.root.fences,
            stdout: join(self.stdout)?,
            stderr: join(self.stderr)?,
            work: self.work,
            logs: self.logs,
            cgroup: self.cgroup,
        })
    }

    /// The limit of the session that the tree has run into.
    fn exceeded(&self) -> Option<String> {
        let written = || {
            let limits = &self.limits;
            let (bytes, files) = (limits.written_mib, limits.written_files);
            self.work.is_full().then(|| format!("written: {bytes} MiB or {files} files in the work folder"))
        };
        self.cgroup.exceeded().or_else(written)
    }

    fn wait_for_root(&self, exceeded: &dyn Fn() -> Option<String>) -> Result<Stop> {
        let until = self.timeout.map(|timeout| self.started + timeout);
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Stop::TimedOut);
            }
            let mut fds = vec![PollFd::new(self.root.pidfd(), PollFlags::POLLIN)];
            fds.extend(self.interrupt.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            // Rounded up, so that the last round doesn't spin.
            let left = left.map_or(LOOK, |left| LOOK.min(left + Duration::from_millis(1)));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
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
            if let Some(limit) = exceeded() {
                return Ok(Stop::Exceeded(limit));
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

fn readers(
    spec: &Spec,
    stdout: PipeReader,
    stderr: PipeReader,
    stop: PipeReader,
) -> Result<(Reader, Reader)> {
    let limit = spec.output_bytes;
    let second = stop.try_clone().map_err(|error| lost(&spec.stderr, error))?;
    Ok((
        output::capture(stdout, stop, &spec.stdout, limit)?,
        output::capture(stderr, second, &spec.stderr, limit)?,
    ))
}

fn outcome(status: ExitStatus, stop: &Stop, stragglers: u32, elapsed: Duration) -> Outcome {
    Outcome {
        exit_code: status.code(),
        signal: status.signal(),
        elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        timed_out: matches!(stop, Stop::TimedOut),
        interrupted: matches!(stop, Stop::Interrupted),
        exceeded: match stop {
            Stop::Exceeded(limit) => Some(limit.clone()),
            _ => None,
        },
        stragglers,
    }
}

fn join(reader: Option<Reader>) -> Result<CapturedStream> {
    let died = || Error::new(Code::OutputLost, "the reader of the measured program's output died");
    reader.ok_or_else(died)?.join().map_err(|_| died())
}
