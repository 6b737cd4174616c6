//! `mcp-wrap` where nobody measures: it starts the server itself, between the caller's standard streams and the
//! server's, and keeps its own log. What such a log says is the word of whoever runs it.

use super::session::Session;
use super::{LogFile, Origin, Policy, signals};
use crate::error::{Code, Error, Result};
use crate::host::rights::Rights;
use crate::report;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

/// What a proxy needs to know.
#[derive(Debug)]
pub struct Options {
    /// Decides on tool calls.
    pub policy: Policy,
    /// What every line of the log has in common.
    pub origin: Origin,
    /// Where decisions go.
    pub decision_log: PathBuf,
    /// argv of the server.
    pub server: Vec<OsString>,
}

/// How the server ended; the proxy ends in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited with this status.
    Exited(i32),
    /// This signal killed it.
    Killed(i32),
}

/// Runs the server behind the proxy until the server ends.
///
/// The log is open before the first byte of the caller is read.
///
/// # Errors
/// `DecisionLogUnavailable`, `ServerNotStarted`, `ProxyBroken`.
pub fn run(options: Options) -> Result<Ended> {
    let log = LogFile::open(&options.decision_log)?;
    let (caller_in, caller_out) =
        take_standard_streams().map_err(|error| broken("cannot take the standard streams", error))?;
    let mut server = spawn(&options.server)?;
    let (Some(to_server), Some(from_server)) = (server.stdin.take(), server.stdout.take()) else {
        return Err(Error::new(Code::ProxyBroken, "the server has no standard streams"));
    };
    let running = Arc::new(Mutex::new(Some(pid_of(&server)?)));
    let to_whom = Arc::clone(&running);
    signals::forward(move |signal| {
        if let Some(pid) = *to_whom.lock().unwrap_or_else(PoisonError::into_inner) {
            let _it_may_have_ended = kill(pid, signal);
        }
    })?;

    let session =
        Arc::new(Session::new(Arc::new(options.policy), options.origin, Box::new(log), Box::new(caller_out)));
    let inward = Arc::clone(&session);
    thread("caller", move || {
        // Both ends close when this returns: the server sees the end of its input, the caller a closed pipe.
        note("caller", inward.serve_caller(caller_in, to_server));
    })?;
    let (exited, server_runs) = io::pipe().map_err(|error| broken("cannot make a pipe", error))?;
    let outward = thread("server", move || {
        note("server", session.serve_server(UntilExit { pipe: from_server, exited }));
    })?;

    let status = wait(&mut server, &running).map_err(|error| broken("cannot wait for the server", error))?;
    drop(server_runs);
    if outward.join().is_err() {
        return Err(Error::new(Code::Internal, "the thread that reads the server panicked"));
    }
    Ok(match (status.code(), status.signal()) {
        (_, Some(signal)) => Ended::Killed(signal),
        (code, None) => Ended::Exited(code.unwrap_or(1)),
    })
}

/// Ends this process as the server ended.
pub fn end_like(ended: Ended) -> ! {
    match ended {
        Ended::Exited(code) => std::process::exit(code),
        Ended::Killed(number) => {
            if let Ok(signal) = Signal::try_from(number) {
                let mut only = SigSet::empty();
                only.add(signal);
                let _if_it_is_ignored_we_exit_below =
                    only.thread_unblock().and_then(|()| nix::sys::signal::raise(signal));
            }
            std::process::exit(128 + number)
        }
    }
}

fn spawn(argv: &[OsString]) -> Result<Child> {
    let (program, arguments) = argv
        .split_first()
        .ok_or_else(|| Error::new(Code::Usage, "expected the server's command after --"))?;
    let spawned =
        Rights::own().command(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    spawned.map_err(|error| {
        Error::new(Code::ServerNotStarted, format!("cannot start the MCP server: {error}"))
            .at(program.display())
            .hint("give the server's command after --, with a path or a name in PATH")
            .because(error)
    })
}

/// The caller's streams as descriptors of their own; the standard ones lead to /dev/null, so that closing works.
pub(super) fn take_standard_streams() -> io::Result<(File, File)> {
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    Ok((input, output))
}

/// Waits for the server. Its process id is given up before it is free for another process.
fn wait(server: &mut Child, running: &Mutex<Option<Pid>>) -> io::Result<ExitStatus> {
    let pid = *running.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pid) = pid {
        while let Err(error) = waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
            if error != nix::Error::EINTR {
                return Err(error.into());
            }
        }
    }
    running.lock().unwrap_or_else(PoisonError::into_inner).take();
    server.wait()
}

fn pid_of(child: &Child) -> Result<Pid> {
    let pid = i32::try_from(child.id());
    pid.map(Pid::from_raw).map_err(|error| Error::new(Code::Internal, format!("process id: {error}")))
}

pub(super) fn thread<F: FnOnce() + Send + 'static>(
    name: &str,
    work: F,
) -> Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|error| broken("cannot start a thread", error))
}

/// A closed pipe is the other side's decision; anything else is worth a line.
fn note(side: &str, result: io::Result<()>) {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            report::diagnostic(&format!("mcp-wrap: the {side}'s stream broke: {error}"));
        }
        _ => {}
    }
}

pub(super) fn broken(doing: &str, error: io::Error) -> Error {
    Error::new(Code::ProxyBroken, format!("{doing}: {error}")).because(error)
}

/// The server's output, which ends when all that was written has been read after the server's exit, even if some
/// process that it left behind still holds the pipe.
struct UntilExit {
    pipe: ChildStdout,
    exited: PipeReader,
}

impl Read for UntilExit {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut timeout = PollTimeout::NONE;
        loop {
            let mut wanted = [
                PollFd::new(self.pipe.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.exited.as_fd(), PollFlags::POLLIN),
            ];
            // After the exit only the pipe counts, and only what is in it now.
            let count = if timeout == PollTimeout::NONE { 2 } else { 1 };
            match poll(&mut wanted[..count], timeout) {
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            if wanted[0].any() == Some(true) {
                return self.pipe.read(buffer);
            }
            if timeout != PollTimeout::NONE {
                return Ok(0);
            }
            timeout = PollTimeout::ZERO;
        }
    }
}
