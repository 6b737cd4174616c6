//! One measured run of one program: made ready, started, awaited, cleared away.
//!
//! ```text
//! Host::enter        lock, leftovers of killed runs reaped
//! Session::prepare   fresh cgroup, work and log folders
//! Session::launch    the launcher builds the sandbox and waits
//!                    (the caller arms the capture on the cgroup here)
//! Launching::go      the launcher joins the cgroup and becomes the program
//! Running::wait      the end, a time limit or a signal; the tree is gone afterwards
//!                    (the caller closes the capture here)
//! Ended::remove      the cgroup is removed
//! ```
//!
//! Whatever goes wrong on the way, dropping any of these kills the tree and removes the cgroup.

use super::cgroup::{self, Leftover, SessionCgroup};
use super::environment::Environment;
use super::folder::Folder;
use super::interrupt::Interrupt;
use super::launch::{self, Bind, FileView, Inherited, Launch, Network, PrivateFolder};
use super::output;
pub use super::output::CapturedStream;
use super::state::{self, HostLock};
use super::user::MeasuredUser;
use super::{BINARY, FIXTURE, LOGS, WORK};
use crate::capture::Outcome;
use crate::error::{Code, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::PipeWriter;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long processes may outlive the root process before they count as stragglers and are killed.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes of the work folder, and of the log folder.
const WORK_BYTES: u64 = 1 << 30;
const LOG_BYTES: u64 = 64 << 20;
const MEBIBYTE: u64 = 1 << 20;

/// The host, taken for measuring.
#[derive(Debug)]
pub struct Host {
    lock: HostLock,
    state: PathBuf,
    /// Cgroups of killed earlier runs that were reaped.
    pub reaped: Vec<Leftover>,
}

impl Host {
    /// Takes the host for `what` (a run id, a gate) and reaps what killed runs left.
    ///
    /// # Errors
    /// `NotRoot`; `HostBusy` while another run is measured; `CgroupUnusable` when a leftover can't be reaped.
    pub fn enter(what: &str) -> Result<Self> {
        Self::enter_at(&state::folder(), what)
    }

    /// As [`Host::enter`], with the lock in another state folder.
    ///
    /// # Errors
    /// As [`Host::enter`].
    pub fn enter_at(state: &Path, what: &str) -> Result<Self> {
        let mut host = Self::visit(state, what)?;
        state::clear_spool(&state::spool(state))?;
        host.reaped = cgroup::reap()?;
        Ok(host)
    }

    /// As [`Host::enter_at`], but leaves what killed runs left where it is.
    ///
    /// # Errors
    /// `NotRoot`; `HostBusy`.
    pub fn visit(state: &Path, what: &str) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            return Err(Error::new(
                Code::NotRoot,
                format!("expected to run as root, found uid {}", nix::unistd::geteuid()),
            )
            .hint("sudo assay-gates …: loading kernel programs and making cgroups needs root"));
        }
        Ok(Self { lock: HostLock::take(state, what)?, state: state.to_owned(), reaped: Vec::new() })
    }

    /// The state folder that holds the lock.
    #[must_use]
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// What a person should know about the host's state, one line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let stale = self.lock.stale.as_ref().map(|holder| {
            format!(
                "stale lock taken over: process {} (measuring {} since {}) ended without giving it back",
                holder.pid, holder.what, holder.since
            )
        });
        let reaped = self.reaped.iter().map(|leftover| {
            format!(
                "reaped {}: its owner, process {}, is gone; {} process(es) killed",
                leftover.folder.display(),
                leftover.owner.pid,
                leftover.processes.len()
            )
        });
        stale.into_iter().chain(reaped).collect()
    }
}

/// Where the measured program stands.
#[derive(Clone, Debug)]
pub enum Place {
    /// Stable paths, the rest of the host read-only, homes and temporary folders out of sight.
    Gate {
        /// Folder that appears read-only at [`FIXTURE`].
        fixture: PathBuf,
        /// Files of the work folder before the run: relative name to bytes.
        seed: BTreeMap<PathBuf, Vec<u8>>,
    },
    /// The host's files as they are, writable where the measured user may write.
    Host {
        /// Working folder.
        cwd: PathBuf,
    },
}

impl Place {
    /// The private log folder as the program sees it: below /dev in a gate, since the evidence filter takes what is
    /// there for telemetry; below /run where /dev/shm is the host's own.
    #[must_use]
    pub fn logs(&self) -> &'static Path {
        Path::new(match self {
            Place::Gate { .. } => LOGS,
            Place::Host { .. } => "/run/assay-gates/logs",
        })
    }
}

/// What to measure, and how.
#[derive(Clone, Debug)]
pub struct Spec {
    /// argv; the first is looked up along the PATH of `environment`.
    pub argv: Vec<OsString>,
    /// Its variables, complete but for those of the driver's own that only the sandbox knows (HOME of a gate).
    pub environment: Environment,
    /// As whom.
    pub user: MeasuredUser,
    /// Network.
    pub network: Network,
    /// Where.
    pub place: Place,
    /// Files and folders that must not be seen: evidence, proof roots, credentials of the runner.
    pub hide: Vec<PathBuf>,
    /// The tree is killed after this long.
    pub timeout: Option<Duration>,
    /// Processes at once.
    pub pids: u64,
    /// This tool's binary: becomes the launcher, and stands at [`BINARY`].
    pub launcher: PathBuf,
    /// File for standard output.
    pub stdout: PathBuf,
    /// File for standard error.
    pub stderr: PathBuf,
    /// Bytes of each stream that are kept.
    pub output_bytes: u64,
}

/// The file of this very binary. A path, because a mount of it must be cloned from the sandbox's namespace, to which
/// `/proc/self/exe` does not belong.
#[must_use]
pub fn own_binary() -> PathBuf {
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"))
}

/// A run made ready. Its cgroup is empty.
#[derive(Debug)]
pub struct Session<'host> {
    spec: Spec,
    cgroup: Arc<SessionCgroup>,
    work: Folder,
    logs: Folder,
    interrupt: Interrupt,
    host: &'host Host,
}

impl<'host> Session<'host> {
    /// Makes cgroup and folders.
    ///
    /// # Errors
    /// `CgroupUnusable`, `SandboxFailed`, or `Io` when the work folder can't be seeded.
    pub fn prepare(host: &'host Host, spec: Spec) -> Result<Self> {
        let interrupt = Interrupt::install()?;
        let (uid, gid) = (spec.user.uid, spec.user.gid);
        let work = Folder::new(WORK_BYTES, WORK_BYTES / 4096, uid, gid)?;
        let logs = Folder::new(LOG_BYTES, 4096, uid, gid)?;
        if let Place::Gate { seed, .. } = &spec.place {
            for (name, bytes) in seed {
                work.seed(name, bytes, uid, gid)?;
            }
        }
        let cgroup = Arc::new(SessionCgroup::create(spec.pids)?);
        Ok(Self { spec, cgroup, work, logs, interrupt, host })
    }

    /// The fresh cgroup.
    #[must_use]
    pub fn cgroup(&self) -> &Arc<SessionCgroup> {
        &self.cgroup
    }

    /// What the program will see at [`LOGS`]. Write to it before [`Session::launch`]: the launcher mounts it.
    #[must_use]
    pub fn logs(&self) -> &Folder {
        &self.logs
    }

    /// Starts and runs the program without waiting for anybody.
    ///
    /// # Errors
    /// `SandboxFailed`, `ProgramUnusable`, `OutputLost`.
    pub fn spawn(self) -> Result<Running<'host>> {
        self.launch()?.go()
    }

    /// Starts the launcher, which gets ready outside the cgroup.
    ///
    /// # Errors
    /// `SandboxFailed`.
    pub fn launch(self) -> Result<Launching<'host>> {
        let procs = self.cgroup.procs_file()?;
        let pids = self.cgroup.pids_file()?;
        let mut inherited = vec![procs.as_fd(), self.work.fd(), self.logs.fd()];
        inherited.extend(pids.as_ref().map(AsFd::as_fd));
        let launch = Launch {
            argv: self.spec.argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            environment: launch::environment_lines(&self.environment()),
            cwd: match &self.spec.place {
                Place::Gate { .. } => WORK.into(),
                Place::Host { cwd } => cwd.clone(),
            },
            uid: self.spec.user.uid,
            gid: self.spec.user.gid,
            user: self.spec.user.name.clone(),
            network: self.spec.network,
            view: self.view(),
            nproc: self.cgroup.limits().is_empty().then_some(self.spec.pids),
            procs_fd: procs.as_raw_fd(),
            pids_fd: pids.as_ref().map(AsRawFd::as_raw_fd),
            report_fd: -1,
            go_fd: -1,
        };
        let launcher = launch::start(&self.spec.launcher, launch, &Inherited(inherited))?;
        Ok(Launching { launcher, session: self })
    }

    fn readers(&self, child: &mut Child, stop: std::io::PipeReader) -> Result<(Reader, Reader)> {
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(Error::new(Code::Internal, "the launcher was started without pipes"));
        };
        let (spec, limit) = (&self.spec, self.spec.output_bytes);
        let second = stop.try_clone().map_err(|error| lost(&spec.stderr, error))?;
        let stdout =
            output::capture(stdout, stop, &spec.stdout, limit).map_err(|error| lost(&spec.stdout, error))?;
        let stderr = output::capture(stderr, second, &spec.stderr, limit)
            .map_err(|error| lost(&spec.stderr, error))?;
        Ok((stdout, stderr))
    }

    fn environment(&self) -> Environment {
        let mut variables = self.spec.environment.clone();
        let own = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        variables.extend([own("ASSAY_GATES_BIN", BINARY), own("ASSAY_GATES_WORK", WORK)]);
        if matches!(self.spec.place, Place::Gate { .. }) {
            variables.extend([own("ASSAY_GATES_FIXTURE", FIXTURE), own("HOME", WORK)]);
        }
        variables
    }

    fn view(&self) -> FileView {
        // /run is where the sockets are by which a program could have others act for it: docker, dbus, systemd.
        let mut private = vec![empty("/run", 2 * MEBIBYTE, 0o755)];
        if !Path::new("/var/run").is_symlink() {
            private.push(empty("/var/run", MEBIBYTE, 0o755));
        }
        let mut binds =
            vec![Bind { source: self.spec.launcher.clone(), target: BINARY.into(), read_only: true }];
        let attach = vec![
            (self.work.fd().as_raw_fd(), PathBuf::from(WORK)),
            (self.logs.fd().as_raw_fd(), self.spec.place.logs().to_owned()),
        ];
        let mut hide = self.spec.hide.clone();
        let mut read_only = false;
        match &self.spec.place {
            Place::Gate { fixture, .. } => {
                read_only = true;
                private.push(empty("/dev/shm", 64 * MEBIBYTE, 0o1777));
                private.push(empty("/tmp", 256 * MEBIBYTE, 0o1777));
                private.push(empty("/var/tmp", 64 * MEBIBYTE, 0o1777));
                binds.push(Bind { source: fixture.clone(), target: FIXTURE.into(), read_only: true });
                hide.extend(["/root", "/home"].map(PathBuf::from));
            }
            Place::Host { cwd } => {
                // A working folder below /run would vanish under the private one; the session's own is attached there.
                if cwd.starts_with("/run/") && cwd != Path::new(WORK) {
                    binds.push(Bind { source: cwd.clone(), target: cwd.clone(), read_only: false });
                }
                let resolver = PathBuf::from("/run/systemd/resolve");
                if self.spec.network == Network::Host && resolver.is_dir() {
                    binds.push(Bind { source: resolver.clone(), target: resolver, read_only: true });
                }
                hide.extend(
                    self.spec.user.home.iter().flat_map(|home| CREDENTIALS.map(|name| home.join(name))),
                );
            }
        }
        FileView { read_only, private, binds, attach, hide }
    }
}

/// Where credentials commonly stand in a home.
const CREDENTIALS: [&str; 14] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".azure",
    ".config/gcloud",
    ".config/gh",
    ".config/containers",
    ".docker",
    ".kube",
    ".netrc",
    ".git-credentials",
    ".npmrc",
    ".pypirc",
    ".cargo/credentials.toml",
];

fn empty(path: &str, bytes: u64, mode: u32) -> PrivateFolder {
    PrivateFolder { path: path.into(), bytes, mode }
}

fn lost(path: &Path, error: std::io::Error) -> Error {
    Error::new(Code::OutputLost, format!("cannot keep the measured program's output: {error}"))
        .at(path.display())
        .because(error)
}

type Reader = JoinHandle<CapturedStream>;

/// A run whose launcher is getting ready. Its cgroup is still empty.
#[derive(Debug)]
pub struct Launching<'host> {
    launcher: launch::Launching,
    session: Session<'host>,
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
        let readers = session.readers(&mut launched.child, stop);
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
