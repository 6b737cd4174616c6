//! The init of a session: the first process of its namespace, one thread, never measured itself.
//!
//! It builds the sandbox (namespaces, private view, loopback), gives up every right but those of becoming the measured
//! user, and then does as the driver says: makes processes that become programs ([`process`]), reaps whatever is
//! orphaned, and tells how programs ended. See [`super::launch`] for why.

mod fences;
mod process;
mod syscalls;
mod view;

use super::launch::{Failure, Network, Order, Report, Sandbox, receive, send};
use super::program::{self, Who};
use crate::error::{Code, Error, Exit, Result};
use crate::gate::Allowance;
use fences::Landlock;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long the last processes may take to end once the driver has had enough.
const LAST_REPORTS: Duration = Duration::from_secs(1);

/// Runs the init of a session for the driver that speaks over standard input, until that closes it.
#[must_use]
pub fn main() -> Exit {
    let Ok(driver) = take_standard_input() else { return Exit::Usage };
    let Ok(Some((sandbox, passed))) = receive::<Sandbox>(&driver) else { return Exit::Usage };
    let built = build(&sandbox, &passed).and_then(|fences| Ok((fences, watch_children()?)));
    match built {
        Ok((fences, children)) => {
            let mut init = Init { sandbox, passed, fences, driver, children, programs: HashMap::new() };
            init.serve();
            Exit::Passed
        }
        Err(error) => {
            refuse(&driver, &error);
            Exit::CannotMeasure
        }
    }
}

/// The driver's socket as a descriptor that closes with an execve.
fn take_standard_input() -> std::io::Result<UnixStream> {
    let driver = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(driver.into())
}

/// What is put around each program, and all that is in force, in words.
struct Fences {
    names: Vec<String>,
    landlock: Landlock,
    filter: syscalls::Filter,
}

fn build(sandbox: &Sandbox, passed: &[OwnedFd]) -> Result<Fences> {
    let mut namespaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    if sandbox.network == Network::None {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).map_err(|error| fences::failed("unshare", error))?;
    fences::limits()?;
    let writable = view::build(&sandbox.view, passed)?;
    if sandbox.network == Network::None {
        fences::loopback_up()?;
    }
    fences::confine_init()?;
    let allows = |allowance| sandbox.allow.contains(&allowance);
    let mut names = vec![
        if sandbox.alone { "uid of its own" } else { "uid" },
        "no_new_privs",
        "no capabilities",
        "private processes",
        "private mounts",
        "private ipc",
        "private host name",
        "private cgroup view",
    ];
    names.push(match (allows(Allowance::IoUring), allows(Allowance::Namespaces)) {
        (false, false) => "system calls",
        (true, false) => "system calls but io_uring",
        (false, true) => "system calls but namespaces",
        (true, true) => "system calls but io_uring and namespaces",
    });
    names.extend((sandbox.network == Network::None).then_some("private network"));
    names.extend(sandbox.view.read_only.then_some("read-only file system"));
    // Landlock would refuse every mount of the program's own.
    let writable = (sandbox.view.read_only && !allows(Allowance::Namespaces)).then_some(writable.as_slice());
    let landlock = Landlock::new(writable)?;
    names.extend(&landlock.fences);
    let names = names.into_iter().map(str::to_owned).collect();
    Ok(Fences { names, landlock, filter: syscalls::Filter::new(&sandbox.allow)? })
}

/// Readable when a child has ended.
fn watch_children() -> Result<SignalFd> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&mask), None)
        .and_then(|()| SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK))
        .map_err(|error| fences::failed("signalfd", error))
}

/// Answers the first order with what went wrong: nothing can be started here.
fn refuse(driver: &UnixStream, error: &Error) {
    if let Ok(Some((Order { number, .. }, _))) = receive(driver) {
        let _driver_gone = send(driver, &Report::Failed { number, failure: Failure::from(error) }, &[]);
    }
}

/// A session that has been built.
struct Init {
    sandbox: Sandbox,
    passed: Vec<OwnedFd>,
    fences: Fences,
    driver: UnixStream,
    children: SignalFd,
    /// Numbers of orders by process id.
    programs: HashMap<i32, u32>,
}

impl Init {
    /// Until the driver is gone or has had enough.
    fn serve(&mut self) {
        loop {
            let mut wanted = [
                PollFd::new(self.driver.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut wanted, PollTimeout::NONE) {
                Ok(_) => {}
                Err(Errno::EINTR) => continue,
                Err(_) => return,
            }
            let (ordered, ended) = (wanted[0].any() == Some(true), wanted[1].any() == Some(true));
            if ended && self.reap().is_none() {
                return;
            }
            if ordered && self.order().is_none() {
                return self.finish();
            }
        }
    }

    /// What was killed a moment ago may not have come to its end: its status is still told, if it comes soon.
    fn finish(&mut self) {
        let until = Instant::now() + LAST_REPORTS;
        while self.reap().is_some() && !self.programs.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let mut wanted = [PollFd::new(self.children.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            if left.is_zero() || !matches!(poll(&mut wanted, timeout), Ok(1..) | Err(Errno::EINTR)) {
                return;
            }
        }
    }

    /// Reaps everything that has ended; `None` when the driver is gone.
    fn reap(&mut self) -> Option<()> {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let mut status = 0;
            // SAFETY: waitpid writes one integer.
            let pid = unsafe { nix::libc::waitpid(-1, &raw mut status, nix::libc::WNOHANG) };
            if pid <= 0 {
                return Some(());
            }
            // What isn't here was orphaned: nobody's business, as outside.
            if let Some(number) = self.programs.remove(&pid) {
                send(&self.driver, &Report::Ended { number, status }, &[]).ok()?;
            }
        }
    }

    /// Carries out the next order; `None` when there is none any more.
    fn order(&mut self) -> Option<()> {
        let (order, stdio) = receive::<Order>(&self.driver).ok()??;
        let number = order.number;
        let sent = match self.make(&order, stdio) {
            Ok(made) => {
                let report = Report::Waiting {
                    number,
                    program: made.program,
                    notes: made.notes,
                    fences: self.fences.names.clone(),
                };
                send(&self.driver, &report, &[made.pidfd.as_fd(), made.word.as_fd()])
            }
            Err(error) => send(&self.driver, &Report::Failed { number, failure: Failure::from(&error) }, &[]),
        };
        sent.ok()
    }

    fn make(&mut self, order: &Order, stdio: Vec<OwnedFd>) -> Result<Made> {
        let Ok(stdio) = <[OwnedFd; 3]>::try_from(stdio) else {
            return Err(Error::new(Code::Internal, "expected three descriptors for a program"));
        };
        let sandbox = &self.sandbox;
        let who = Who { uid: sandbox.uid, gid: sandbox.gid, name: &sandbox.user };
        let program = &order.program;
        let first = program.argv.first().map_or(&[][..], Vec::as_slice);
        let search = path_of(&program.environment);
        let found = program::resolve(OsStr::from_bytes(first), search, &program.cwd, who, &sandbox.caller)?;
        let failed = |step: &'static str| {
            move |error: std::io::Error| {
                Error::new(Code::SandboxFailed, format!("cannot make a process ({step}): {error}"))
                    .because(error)
            }
        };
        let (word, theirs) = UnixStream::pair().map_err(failed("socket"))?;
        let ready = process::Ready::new(sandbox, &self.passed, &self.fences, program, &found.path)?;
        // SAFETY: this process has one thread.
        let child = match unsafe { nix::unistd::fork() }.map_err(|error| fences::failed("fork", error))? {
            nix::unistd::ForkResult::Child => {
                // Or its own copy would keep it waiting for a word that never comes.
                drop(word);
                ready.run(theirs, stdio)
            }
            nix::unistd::ForkResult::Parent { child } => child,
        };
        let pidfd = pidfd(child.as_raw())?;
        self.programs.insert(child.as_raw(), order.number);
        let notes = found
            .passed_over
            .iter()
            .map(|reason| format!("{} was used: {reason}", found.path.display()))
            .collect();
        Ok(Made { program: found.path, notes, pidfd, word: word.into() })
    }
}

/// A process that waits for its word.
struct Made {
    program: std::path::PathBuf,
    notes: Vec<String>,
    pidfd: OwnedFd,
    word: OwnedFd,
}

/// A child that was not waited for keeps its id.
fn pidfd(pid: i32) -> Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: pidfd_open takes integers and gives back a new descriptor or -1.
    let fd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return Err(fences::failed("pidfd_open", Errno::last()));
    }
    // SAFETY: the descriptor was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn path_of(environment: &[Vec<u8>]) -> &OsStr {
    let line = environment.iter().find_map(|line| line.strip_prefix(b"PATH="));
    OsStr::from_bytes(line.unwrap_or(super::environment::GATE_PATH.as_bytes()))
}
