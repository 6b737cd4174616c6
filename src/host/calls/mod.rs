//! The driver's half of call windows: keeps the decision log, and says which call each tool server is working on.
//!
//! A verified proxy starts a server; the kernel programs count everything that comes of it to that server. Before a
//! call reaches the server, and after its answer, the driver writes the call's number where the programs look when
//! they make a record: each effect is stamped with its call at the moment that it happens, by nobody but the kernel.
//!
//! Whoever connects is verified first (see [`peer`]); the decision log is a file that only the driver can open.

mod connection;
mod peer;

use super::cgroup::SessionCgroup;
use crate::capture::{CallMarks, CallWindow};
use crate::error::{Code, Error, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, listen, setsockopt, socket, sockopt,
};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Connections that are served in one run, a server each; further ones are refused. The kernel programs have room for
/// as many servers.
const MOST_CONNECTIONS: usize = 256;

/// Bytes of decisions that one run may log; evidence reads no more either.
const MOST_LOGGED: u64 = 16 * 1024 * 1024;

/// Connections that were refused and are listed one by one.
const MOST_LISTED: usize = 32;

/// What the server needs.
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// The run, for messages.
    pub run_id: String,
    /// Where the socket shall be, as the driver sees it.
    pub socket: PathBuf,
    /// The decision log: a new file in a folder that only root can enter.
    pub log: PathBuf,
    /// The session.
    pub cgroup: Arc<SessionCgroup>,
    /// Our own binary as the sandbox shows it: a proxy must run exactly this file.
    pub binary: PathBuf,
}

/// What a run's calls came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// Each call that was let through, in the order of their decisions.
    pub windows: Vec<CallWindow>,
    /// Proxies that were verified.
    pub verified: u32,
    /// The log that was kept here.
    pub log: PathBuf,
    /// How many decisions stand in it.
    pub decisions: u64,
    /// Why connections were refused.
    pub refused: Vec<String>,
}

impl CallReport {
    /// The decisions in `log` are those that count: a verified proxy was there.
    #[must_use]
    pub fn is_corroborated(&self) -> bool {
        self.verified > 0
    }

    /// `corroborated`, or `self_reported` when decisions can only come from the measured program's own word.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.is_corroborated() { "corroborated" } else { "self_reported" }.to_owned()
    }
}

/// The control socket of one run, open but not answered yet.
#[derive(Debug)]
pub struct ControlSocket {
    config: CallConfig,
    identity: peer::Identity,
    log: File,
    listener: OwnedFd,
}

/// Serves the control socket of one run.
#[derive(Debug)]
pub struct CallServer {
    shared: Arc<Shared>,
    stop: Option<PipeWriter>,
    accepting: Option<JoinHandle<()>>,
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    config: CallConfig,
    identity: peer::Identity,
    marks: Arc<dyn CallMarks>,
    tally: Mutex<Tally>,
}

#[derive(Debug)]
struct Tally {
    log: File,
    logged: u64,
    log_broken: bool,
    decisions: u64,
    windows: Vec<CallWindow>,
    verified: u32,
    refused: Vec<String>,
    refused_in_all: u64,
}

impl ControlSocket {
    /// Opens the log and the socket. Whoever connects waits until it is served.
    ///
    /// # Errors
    /// `Io`, naming the log; `CallsUnavailable`, naming the socket.
    pub fn open(config: CallConfig) -> Result<Self> {
        let log = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&config.log)
            .map_err(|error| Error::io("cannot create the decision log", &config.log, error))?;
        let identity = peer::Identity::of(&config.binary)?;
        let listener = listener(&config.socket)
            .map_err(|error| unavailable(&config, "cannot make the control socket", error))?;
        Ok(Self { config, identity, log, listener })
    }

    /// Serves it on threads of its own, and marks calls for the capture of the same session.
    ///
    /// # Errors
    /// `CallsUnavailable`.
    pub fn serve(self, marks: Arc<dyn CallMarks>) -> Result<CallServer> {
        let Self { config, identity, log, listener } = self;
        let (stopped, stop) =
            io::pipe().map_err(|error| unavailable(&config, "cannot make a pipe", error))?;
        let tally = Tally {
            log,
            logged: 0,
            log_broken: false,
            decisions: 0,
            windows: Vec::new(),
            verified: 0,
            refused: Vec::new(),
            refused_in_all: 0,
        };
        let shared = Arc::new(Shared { config, identity, marks, tally: Mutex::new(tally) });
        let for_thread = Arc::clone(&shared);
        let accepting = std::thread::Builder::new()
            .name("calls".to_owned())
            .spawn(move || accept(&for_thread, &listener, stopped))
            .map_err(|error| unavailable(&shared.config, "cannot start a thread", error))?;
        Ok(CallServer { shared, stop: Some(stop), accepting: Some(accepting) })
    }
}

fn unavailable(config: &CallConfig, doing: &str, error: io::Error) -> Error {
    Error::new(Code::CallsUnavailable, format!("{doing}: {error}")).at(config.socket.display()).because(error)
}

impl CallServer {
    /// Ends all connections and tells what happened. To be called when the measured tree is gone.
    #[must_use]
    pub fn finish(mut self) -> CallReport {
        self.stop();
        let tally = self.shared.tally();
        let mut refused = tally.refused.clone();
        let unlisted = tally.refused_in_all.saturating_sub(refused.len() as u64);
        if unlisted > 0 {
            refused.push(format!("{unlisted} more connections were refused"));
        }
        CallReport {
            windows: tally.windows.clone(),
            verified: tally.verified,
            log: self.shared.config.log.clone(),
            decisions: tally.decisions,
            refused,
        }
    }

    fn stop(&mut self) {
        self.stop.take();
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
        {
            self.shared.tally().refuse("the thread that accepts connections panicked".to_owned());
        }
    }
}

impl Drop for CallServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    fn refuse(&mut self, reason: String) {
        self.refused_in_all += 1;
        if self.refused.len() < MOST_LISTED {
            self.refused.push(reason);
        }
    }

    /// Appends one decision. After a line that could not be written whole, nothing more is.
    fn append(&mut self, line: &str) -> Result<(), String> {
        if self.log_broken {
            return Err("an earlier decision could not be written whole".to_owned());
        }
        if line.is_empty() || line.contains('\n') {
            return Err("a decision is one line".to_owned());
        }
        let length = line.len() as u64 + 1;
        if self.logged + length > MOST_LOGGED {
            return Err(format!("the decision log is full at {MOST_LOGGED} bytes"));
        }
        self.log.write_all(format!("{line}\n").as_bytes()).map_err(|error| {
            self.log_broken = true;
            format!("cannot write the decision log: {error}")
        })?;
        self.logged += length;
        self.decisions += 1;
        Ok(())
    }
}

fn listener(path: &std::path::Path) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // Inherited by accepted connections before anything can be sent on them.
    setsockopt(&socket, sockopt::PassCred, &true)?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&socket, Backlog::new(64)?)?;
    Ok(socket)
}

/// Accepts until told to stop, then waits for every connection to end.
fn accept(shared: &Arc<Shared>, listener: &OwnedFd, stopped: PipeReader) {
    let stopped = Arc::new(stopped);
    let mut serving = Vec::new();
    loop {
        let mut wanted = [
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => {
                shared.tally().refuse(format!("cannot wait for connections: {error}"));
                break;
            }
            Ok(_) => {}
        }
        if wanted[0].any() == Some(true) {
            break;
        }
        let Ok(connection) = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) else { continue };
        // SAFETY: accept4 just gave this descriptor to us alone.
        let connection = unsafe { OwnedFd::from_raw_fd(connection) };
        if serving.len() >= MOST_CONNECTIONS {
            shared.tally().refuse(format!("more than {MOST_CONNECTIONS} connections"));
            continue;
        }
        let (shared_too, stopped_too) = (Arc::clone(shared), Arc::clone(&stopped));
        let thread = std::thread::Builder::new()
            .name("call".to_owned())
            .spawn(move || connection::serve(&shared_too, &connection, &stopped_too));
        match thread {
            Ok(thread) => serving.push(thread),
            Err(error) => shared.tally().refuse(format!("cannot start a thread: {error}")),
        }
    }
    for thread in serving {
        if thread.join().is_err() {
            shared.tally().refuse("a connection's thread panicked".to_owned());
        }
    }
}
