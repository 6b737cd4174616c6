//! The decider: the driver's side of every tool call of a measured session.
//!
//! Inside a session `mcp-wrap` is a pipe (see [`crate::policy::control`]). It hands its caller's streams over; threads
//! of the driver read them, decide by the policy that the run was started with, log, and forward to a server that the
//! driver starts itself inside the session. So there is no process of the measured user to be replaced, traced or
//! imitated: every byte that reaches the server has passed here, and who connects is asked for nothing.
//!
//! A server is marked in the kernel before it executes, and all that comes of it is counted to it. Before a call
//! reaches the server, and after its answer, the driver writes the call's number where the kernel programs look when
//! they make a record: each effect is stamped with its call at the moment that it happens, by nobody but the kernel.

mod connection;
mod policies;
mod start;
mod streams;
mod windows;

pub use policies::{Policies, ServerPolicy};
pub use start::{ServerCommand, ServerProcess, ServerStarter};

use crate::capture::{CallMarks, CallWindow};
use crate::error::{Code, Error, Result, is_full};
use crate::policy::control::{Answer, Cause, Refusal};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Connections that are served at a time, a server and three threads each; further ones are refused.
const MOST_CONNECTIONS: usize = 256;

/// Servers of one run; the kernel programs have room for as many.
pub const MOST_SERVERS: u32 = 16384;

/// Bytes of decisions that one run may log; evidence reads no more either.
const MOST_LOGGED: u64 = 16 * 1024 * 1024;

/// Connections that were refused and are listed one by one.
const MOST_LISTED: usize = 32;

/// What the decider needs.
#[derive(Clone, Debug)]
pub struct CallConfig {
    /// Where the socket shall be, as the driver sees it.
    pub socket: PathBuf,
    /// The decision log: a new file in a folder that only root can enter.
    pub log: PathBuf,
    /// What it decides by.
    pub policies: Policies,
}

/// What a run's calls came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallReport {
    /// Each call that was let through, in the order of their decisions.
    pub windows: Vec<CallWindow>,
    /// Servers that were started.
    pub servers: u32,
    /// A server's policy was the measured program's own.
    pub agents_policy: bool,
    /// The log that was kept here.
    pub log: PathBuf,
    /// How many decisions stand in it.
    pub decisions: u64,
    /// A decision could not be written there, because the disk is full.
    pub disk_full: bool,
    /// Why servers were refused.
    pub refused: Vec<String>,
    /// What else a person should know.
    pub notes: Vec<String>,
}

impl CallReport {
    /// The decisions in `log` are those that count: servers were started behind the decider.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.servers > 0
    }

    /// The driver decided, by the run's own policy.
    #[must_use]
    pub fn is_corroborated(&self) -> bool {
        self.is_kept() && !self.agents_policy
    }

    /// `corroborated`, or `self_reported` when decisions or the policy are the measured program's own word.
    #[must_use]
    pub fn origin(&self) -> String {
        if self.is_corroborated() { "corroborated" } else { "self_reported" }.to_owned()
    }
}

/// The control socket of one run, open but not answered yet.
#[derive(Debug)]
pub struct ControlSocket {
    config: CallConfig,
    log: File,
    listener: UnixListener,
}

/// Decides on the calls of one run.
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
    marks: Arc<dyn CallMarks>,
    starter: Box<dyn ServerStarter>,
    tally: Mutex<Tally>,
}

#[derive(Debug)]
struct Tally {
    log: File,
    logged: u64,
    log_broken: bool,
    disk_full: bool,
    decisions: u64,
    windows: Vec<CallWindow>,
    /// Numbers that were given to servers.
    numbers: u32,
    servers: u32,
    /// Connections by the name of their server.
    connections: BTreeMap<String, u32>,
    agents_policy: bool,
    refused: Vec<String>,
    refused_in_all: u64,
    notes: Vec<String>,
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
        let listener = listener(&config.socket)
            .map_err(|error| unavailable(&config, "cannot make the control socket", error))?;
        Ok(Self { config, log, listener })
    }

    /// Serves it on threads of its own: `starter` starts servers in the session, `marks` tells the capture of the same
    /// session of them and of their calls.
    ///
    /// # Errors
    /// `CallsUnavailable`.
    pub fn serve(self, marks: Arc<dyn CallMarks>, starter: Box<dyn ServerStarter>) -> Result<CallServer> {
        let Self { config, log, listener } = self;
        let (stopped, stop) =
            io::pipe().map_err(|error| unavailable(&config, "cannot make a pipe", error))?;
        let tally = Tally {
            log,
            logged: 0,
            log_broken: false,
            disk_full: false,
            decisions: 0,
            windows: Vec::new(),
            numbers: 0,
            servers: 0,
            connections: BTreeMap::new(),
            agents_policy: false,
            refused: Vec::new(),
            refused_in_all: 0,
            notes: Vec::new(),
        };
        let shared = Arc::new(Shared { config, marks, starter, tally: Mutex::new(tally) });
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
            refused.push(format!("{unlisted} more servers were refused"));
        }
        let mut windows = tally.windows.clone();
        // What can't be told of one call of a group can't be told of any.
        let torn: BTreeSet<u64> =
            windows.iter().filter(|window| window.ambiguous).filter_map(|window| window.group).collect();
        for window in &mut windows {
            window.ambiguous |= window.group.is_some_and(|group| torn.contains(&group));
        }
        CallReport {
            windows,
            servers: tally.servers,
            agents_policy: tally.agents_policy,
            log: self.shared.config.log.clone(),
            decisions: tally.decisions,
            disk_full: tally.disk_full,
            refused,
            notes: tally.notes.clone(),
        }
    }

    fn stop(&mut self) {
        self.stop.take();
        if let Some(accepting) = self.accepting.take()
            && accepting.join().is_err()
        {
            self.shared.tally().note("the thread that accepts connections panicked".to_owned());
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

    fn note(&mut self, text: String) {
        if self.notes.len() < MOST_LISTED {
            self.notes.push(text);
        }
    }

    /// A number for a server that is about to be started.
    fn next_server(&mut self) -> Option<u32> {
        if self.numbers == MOST_SERVERS {
            return None;
        }
        self.numbers += 1;
        Some(self.numbers)
    }

    /// A server was started: the number of its connection among those of its label.
    fn started(&mut self, label: &str, agents_policy: bool) -> u32 {
        self.servers += 1;
        self.agents_policy |= agents_policy;
        let number = self.connections.entry(label.to_owned()).or_default();
        *number += 1;
        *number
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
            self.disk_full = is_full(&error, Path::new(""));
            format!("cannot write the decision log: {error}")
        })?;
        self.logged += length;
        self.decisions += 1;
        Ok(())
    }
}

fn listener(path: &Path) -> io::Result<UnixListener> {
    // A socket's path has 107 bytes at most, that of a folder has 4095.
    let folder = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let short =
        PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&folder))).join(name);
    let listener = UnixListener::bind(&short)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts until told to stop, then waits for every connection to end.
fn accept(shared: &Arc<Shared>, listener: &UnixListener, stopped: PipeReader) {
    let stopped = Arc::new(stopped);
    let mut serving: Vec<JoinHandle<()>> = Vec::new();
    loop {
        let mut wanted = [
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(listener.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => {
                shared.tally().note(format!("cannot wait for connections: {error}"));
                break;
            }
            Ok(_) => {}
        }
        if wanted[0].any() == Some(true) {
            break;
        }
        let Ok((socket, _)) = listener.accept() else { continue };
        serving.retain(|thread| !thread.is_finished());
        if serving.len() >= MOST_CONNECTIONS {
            let message = format!("more than {MOST_CONNECTIONS} servers at a time");
            shared.tally().refuse(message.clone());
            let refusal = Refusal { cause: Cause::Wrapper, message };
            connection::tell(socket, streams::Ends(vec![Arc::clone(&stopped)]), &Answer::Refused(refusal));
            continue;
        }
        let (shared_too, stopped_too) = (Arc::clone(shared), Arc::clone(&stopped));
        let thread = std::thread::Builder::new()
            .name("call".to_owned())
            .spawn(move || connection::serve(&shared_too, socket, &stopped_too));
        match thread {
            Ok(thread) => serving.push(thread),
            Err(error) => shared.tally().refuse(format!("cannot start a thread: {error}")),
        }
    }
    for thread in serving {
        if thread.join().is_err() {
            shared.tally().note("a connection's thread panicked".to_owned());
        }
    }
}
