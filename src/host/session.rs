//! One measured run of one program: made ready, started, awaited, cleared away.
//!
//! ```text
//! Host::enter        lock, leftovers of killed runs reaped
//! Session::prepare   fresh cgroup, work and log folders
//! Session::launch    init builds the sandbox and makes the program's process, which waits
//!                    (the caller arms the capture on the cgroup here)
//! Launching::go      the process joins the cgroup and becomes the program
//! Running::wait      the end, a time limit or a signal; the tree is gone afterwards
//!                    (the caller closes the capture here)
//! Ended::remove      the cgroup is removed
//! ```
//!
//! Whatever goes wrong on the way, dropping any of these kills the tree and removes the cgroup.

mod running;

pub use running::{Ended, Launching, Running};

use super::cgroup::{self, Leftover, SessionCgroup};
use super::environment::Environment;
use super::folder::Folder;
use super::interrupt::Interrupt;
use super::launch::{self, Bind, FileView, Network, Passed, PrivateFolder, Program, Sandbox};
pub use super::output::CapturedStream;
use super::rights::Rights;
use super::state::{self, HostLock};
use super::user::MeasuredUser;
use super::{BINARY, FIXTURE, LOGS, PROGRAM_FOLDERS, WORK};
use crate::error::{Code, Error, Result};
use crate::files::RootPath;
use crate::gate::{Allowance, Limits};
use crate::policy::control::CONTROL;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Bytes of the log folder.
const LOG_BYTES: u64 = 64 << 20;
const MEBIBYTE: u64 = 1 << 20;
/// The descriptors that the launcher gets, in this order.
const WORK_MOUNT: Passed = 0;
const LOGS_MOUNT: Passed = 1;
const FIRST_GROUP: Passed = 2;

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
        Self::need_root()?;
        Ok(Self { lock: HostLock::take(state, what)?, state: state.to_owned(), reaped: Vec::new() })
    }

    /// What comes first, before anything is asked for or installed that root alone could use.
    ///
    /// # Errors
    /// `NotRoot`.
    pub fn need_root() -> Result<()> {
        if nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        Err(Error::new(
            Code::NotRoot,
            format!("expected to run as root, found uid {}", nix::unistd::geteuid()),
        )
        .hint("sudo assay-gates …: loading kernel programs and making cgroups needs root"))
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
    /// The folder that is the program's own, as it sees it. What it works in on the host belongs to others too.
    #[must_use]
    pub fn work(&self) -> Option<&'static str> {
        match self {
            Place::Gate { .. } => Some(super::WORK),
            Place::Host { .. } => None,
        }
    }

    /// The private log folder as the program sees it: below /run where /dev/shm is the host's own.
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
    /// The decider's socket, to stand at [`CONTROL`] inside.
    pub control: Option<PathBuf>,
    /// Files and folders that must not be seen: evidence, proof roots, credentials of the runner.
    pub hide: Vec<PathBuf>,
    /// The tree is killed after this long.
    pub timeout: Option<Duration>,
    /// What the fence around system calls lets through.
    pub allow: Vec<Allowance>,
    /// How much the tree may use before it is ended.
    pub limits: Limits,
    /// This tool's binary: becomes the launcher, and stands at [`BINARY`].
    pub launcher: PathBuf,
    /// File for standard output.
    pub stdout: RootPath,
    /// File for standard error.
    pub stderr: RootPath,
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
        let limits = &spec.limits;
        let work = Folder::new(limits.written_mib * MEBIBYTE, limits.written_files, uid, gid)?;
        let logs = Folder::new(LOG_BYTES, 4096, uid, gid)?;
        if let Place::Gate { seed, .. } = &spec.place {
            for (name, bytes) in seed {
                work.seed(name, bytes, uid, gid)?;
            }
        }
        let cgroup = Arc::new(SessionCgroup::create(limits)?);
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

    /// Starts the session's init, which builds the sandbox and makes the program's process, both outside the cgroup.
    ///
    /// # Errors
    /// `SandboxFailed`.
    pub fn launch(self) -> Result<Launching<'host>> {
        let groups = self.cgroup.procs_files()?;
        let mut passed = vec![self.work.fd(), self.logs.fd()];
        passed.extend(groups.iter().map(AsFd::as_fd));
        let caller = Rights::of_caller()?;
        let sandbox = Sandbox {
            uid: self.spec.user.uid,
            gid: self.spec.user.gid,
            user: self.spec.user.name.clone(),
            alone: self.spec.user.is_alone(),
            allow: self.spec.allow.clone(),
            network: self.spec.network,
            view: self.view(&caller),
            caller,
            // One more than the limit, so that the driver finds it passed; only of a user that nobody else is, since the
            // kernel counts all processes of a user.
            nproc: (!self.cgroup.bounds_processes() && self.spec.user.is_alone())
                .then_some(self.spec.limits.processes + 1),
            procs: (FIRST_GROUP..passed.len()).collect(),
        };
        let program = Program {
            argv: self.spec.argv.iter().map(|argument| argument.as_bytes().to_vec()).collect(),
            environment: launch::environment_lines(&self.environment()),
            cwd: match &self.spec.place {
                Place::Gate { .. } => WORK.into(),
                Place::Host { cwd } => cwd.clone(),
            },
        };
        let init = launch::start(&self.spec.launcher, &sandbox, &passed)?;
        Launching::new(init, program, self)
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

    fn view(&self, caller: &Rights) -> FileView {
        // /run is where the sockets are by which a program could have others act for it: docker, dbus, systemd.
        let mut view = FileView {
            private: vec![empty("/run", 2 * MEBIBYTE, 0o755)],
            binds: vec![Bind {
                source: self.spec.launcher.clone(),
                target: BINARY.into(),
                read_only: true,
                rights: Rights::own(),
            }],
            attach: vec![(WORK_MOUNT, PathBuf::from(WORK)), (LOGS_MOUNT, self.spec.place.logs().to_owned())],
            hide: self.spec.hide.clone(),
            passwd_line: self.spec.user.passwd_line(),
            ..FileView::default()
        };
        view.binds.extend(self.spec.control.iter().map(|socket| Bind {
            source: socket.clone(),
            target: CONTROL.into(),
            read_only: true,
            rights: Rights::own(),
        }));
        match &self.spec.place {
            Place::Gate { fixture, .. } => {
                view.read_only = true;
                view.keep = PROGRAM_FOLDERS.iter().chain(&COVERED).map(PathBuf::from).collect();
                let bind = |source: &Path, target: &str, read_only, rights: &Rights| Bind {
                    source: source.to_owned(),
                    target: target.into(),
                    read_only,
                    rights: rights.clone(),
                };
                view.private.extend([
                    empty("/dev", MEBIBYTE, 0o755),
                    empty("/dev/shm", 64 * MEBIBYTE, 0o1777),
                    empty("/tmp", 256 * MEBIBYTE, 0o1777),
                    empty("/var", MEBIBYTE, 0o755),
                    empty("/var/tmp", 64 * MEBIBYTE, 0o1777),
                ]);
                view.binds.push(bind(fixture, FIXTURE, true, caller));
                let devices = DEVICES.iter().filter(|device| Path::new(device).exists());
                view.binds
                    .extend(devices.map(|device| bind(Path::new(device), device, false, &Rights::own())));
                view.links = LINKS.map(|(at, to)| (at.into(), to.into())).to_vec();
                view.terminals = Some("/dev/pts".into());
            }
            Place::Host { cwd } => {
                if !Path::new("/var/run").is_symlink() {
                    view.private.push(empty("/var/run", MEBIBYTE, 0o755));
                }
                // A working folder below /run would vanish under the private one; the session's own is attached there.
                if cwd.starts_with("/run/") && cwd != Path::new(WORK) {
                    view.binds.push(Bind {
                        source: cwd.clone(),
                        target: cwd.clone(),
                        read_only: false,
                        rights: caller.clone(),
                    });
                }
                let resolver = PathBuf::from("/run/systemd/resolve");
                if self.spec.network == Network::Host && resolver.is_dir() {
                    view.binds.push(Bind {
                        source: resolver.clone(),
                        target: resolver,
                        read_only: true,
                        rights: Rights::own(),
                    });
                }
                view.hide.extend(
                    self.spec.user.home.iter().flat_map(|home| CREDENTIALS.map(|name| home.join(name))),
                );
            }
        }
        view.hide.extend(host_sockets(&view));
        view
    }
}

/// Folders at the top that a gate has beside those of programs: each is covered by one of its own, or holds the kernel's
/// files. Everything else of the host, and every socket of a service there, is covered.
const COVERED: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var"];
/// Devices of a gate; nothing behind them is shared with anybody.
const DEVICES: [&str; 6] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];
const LINKS: [(&str, &str); 7] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
    ("/var/run", "/run"),
    ("/var/lock", "/run/lock"),
];

/// Sockets that services of the host listen on now, where the view would still show them: whoever may write to such a
/// file can have the service act for it, and no mount option stops that.
fn host_sockets(view: &FileView) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let seen = |path: &PathBuf| {
        let kept = view.keep.is_empty() || view.keep.iter().any(|folder| path.starts_with(folder));
        kept && !view.private.iter().any(|folder| path.starts_with(&folder.path))
    };
    // Seven columns, then a path that may hold anything.
    let path = |line: &str| line.find(" /").map(|at| PathBuf::from(&line[at + 1..]));
    let is_socket = |path: &PathBuf| path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    let all: BTreeSet<PathBuf> = table.lines().filter_map(path).filter(seen).filter(is_socket).collect();
    all.into_iter().collect()
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
