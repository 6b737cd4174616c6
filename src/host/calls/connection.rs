//! One proxy's connection, from the challenge to its end.

use super::peer::Peer;
use super::{Shared, moves};
use crate::capture::CallWindow;
use crate::host::cgroup::ChildCgroup;
use crate::policy::control::{Begin, LONGEST_MESSAGE, Reply, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, send};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// What one server's processes are doing.
struct Connection<'a> {
    shared: &'a Shared,
    socket: &'a OwnedFd,
    peer: Peer,
    /// Where the server's processes are while no call is in flight.
    idle: Option<ChildCgroup>,
    /// Where they are during a call.
    during: Option<ChildCgroup>,
    /// Open calls by the proxy's number, with the index of their windows.
    open: BTreeMap<u64, usize>,
}

/// Serves one connection until it ends or the run does.
pub(super) fn serve(shared: &Shared, socket: &OwnedFd, stopped: &PipeReader) {
    let peer = match introduce(shared, socket, stopped) {
        Ok(peer) => peer,
        Err(why) => {
            // Told after it is counted, so that a refusal that the other side knows of is in the report.
            shared.tally().refuse(why.clone());
            let _it_may_be_gone = reply(socket, &Reply::Refused(why));
            return;
        }
    };
    shared.tally().verified += 1;
    let mut connection = Connection { shared, socket, peer, idle: None, during: None, open: BTreeMap::new() };
    if reply(socket, &Reply::Done).is_ok() {
        connection.run(stopped);
    }
    // Whatever the server still does belongs to no call.
    connection.open.clear();
    connection.leave_call();
}

/// Verifies the peer, and that it is alive in the same image when it answers.
fn introduce(shared: &Shared, socket: &OwnedFd, stopped: &PipeReader) -> Result<Peer, String> {
    let procs = shared.config.cgroup.path().join("cgroup.procs");
    let members = std::fs::read_to_string(&procs)
        .map_err(|error| format!("cannot read the session's members: {error}"))?;
    let members: Vec<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
    let peer = shared.identity.verify(socket, &members)?;
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| format!("no random bytes: {error}"))?;
    let challenge = hex::encode(random);
    reply(socket, &Reply::Challenge(challenge.clone()))?;
    match receive(socket, stopped, peer.pid)? {
        Some(Request::Hello { challenge: said }) if said == challenge => {}
        Some(_) => return Err(format!("process {}: did not repeat the challenge", peer.pid)),
        None => return Err(format!("process {}: left without a word", peer.pid)),
    }
    if peer.is_unchanged() { Ok(peer) } else { Err(format!("process {}: executed another image", peer.pid)) }
}

impl Connection<'_> {
    fn run(&mut self, stopped: &PipeReader) {
        loop {
            let answer = match receive(self.socket, stopped, self.peer.pid) {
                Ok(Some(request)) => self.handle(request),
                Ok(None) => return,
                Err(why) => {
                    self.shared.tally().refuse(why.clone());
                    let _it_may_be_gone = reply(self.socket, &Reply::Refused(why));
                    return;
                }
            };
            if reply(self.socket, &answer).is_err() {
                return;
            }
        }
    }

    fn handle(&mut self, request: Request) -> Reply {
        let done = match request {
            Request::Hello { .. } => Err("hello was said already".to_owned()),
            Request::Spawning => self.spawning(),
            Request::Spawned => self.move_proxy(self.shared.config.cgroup.path().to_path_buf()),
            Request::Decision { line, call } => {
                let logged = self.shared.tally().append(&line);
                if let (Ok(()), Some(begin)) = (&logged, call) {
                    self.begin(begin);
                }
                logged
            }
            Request::Overlap => {
                self.blur_open_windows();
                Ok(())
            }
            Request::End { call } => self.end(call),
        };
        done.map_or_else(Reply::Refused, |()| Reply::Done)
    }

    /// The proxy goes where its server shall be born; it comes back with `Spawned`.
    fn spawning(&mut self) -> Result<(), String> {
        if self.idle.is_some() {
            return Err("a server was spawned already".to_owned());
        }
        let number = {
            let mut tally = self.shared.tally();
            tally.servers += 1;
            tally.servers
        };
        let child = self.shared.config.cgroup.create_child(&format!("server-{number}"));
        let child = child.map_err(|error| error.to_string())?;
        let path = child.path.clone();
        self.idle = Some(child);
        self.move_proxy(path)
    }

    fn move_proxy(&self, to: std::path::PathBuf) -> Result<(), String> {
        moves::move_process(self.peer.pid, &to).map_err(|error| format!("cannot move the proxy: {error}"))
    }

    /// Opens the window of a call. What can't be told apart is marked so; the call goes on in any case.
    fn begin(&mut self, begin: Begin) {
        let alone = self.open.is_empty();
        let clear = alone && !begin.overlap && self.enter_call();
        if !alone {
            self.blur_open_windows();
        }
        let place = self.during.as_ref().or(self.idle.as_ref());
        let window = CallWindow {
            tool_call_id: begin.tool_call_id,
            tool: begin.tool,
            cgroup_id: place.map_or(0, |place| place.id),
            ambiguous: !clear,
        };
        let mut tally = self.shared.tally();
        tally.windows.push(window);
        let index = tally.windows.len() - 1;
        if let Some(replaced) = self.open.insert(begin.call, index) {
            tally.windows[replaced].ambiguous = true;
        }
    }

    /// Moves the server's processes into a cgroup of the call's own; false when not all of them could be.
    fn enter_call(&mut self) -> bool {
        let Some(idle) = &self.idle else { return false };
        let number = {
            let mut tally = self.shared.tally();
            tally.calls += 1;
            tally.calls
        };
        let Ok(child) = self.shared.config.cgroup.create_child(&format!("call-{number}")) else {
            return false;
        };
        let moved = moves::move_all(&idle.path, &child.path);
        self.during = Some(child);
        moved.is_ok()
    }

    fn end(&mut self, call: u64) -> Result<(), String> {
        let index = self.open.remove(&call).ok_or("no such call is open")?;
        if self.open.is_empty() && !self.leave_call() {
            // Something stayed behind and goes on in the call's cgroup.
            if let Some(window) = self.shared.tally().windows.get_mut(index) {
                window.ambiguous = true;
            }
        }
        Ok(())
    }

    /// Moves the server's processes back; false when not all of them could be.
    fn leave_call(&mut self) -> bool {
        let Some(during) = self.during.take() else { return true };
        let Some(idle) = &self.idle else { return false };
        let moved = moves::move_all(&during.path, &idle.path).is_ok();
        // A dying task may keep it busy; it goes with the session then.
        let _later = std::fs::remove_dir(&during.path);
        moved
    }

    fn blur_open_windows(&self) {
        let mut tally = self.shared.tally();
        for index in self.open.values() {
            if let Some(window) = tally.windows.get_mut(*index) {
                window.ambiguous = true;
            }
        }
    }
}

/// The next request; None when the connection or the run ended. Every message must come from the verified process.
fn receive(socket: &OwnedFd, stopped: &PipeReader, pid: i32) -> Result<Option<Request>, String> {
    loop {
        let mut wanted =
            [PollFd::new(socket.as_fd(), PollFlags::POLLIN), PollFd::new(stopped.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wanted, PollTimeout::NONE) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(format!("cannot wait for a message: {error}")),
            Ok(_) => {}
        }
        if wanted[0].any() == Some(true) {
            break;
        }
        if wanted[1].any() == Some(true) {
            return Ok(None);
        }
    }
    let mut buffer = vec![0; LONGEST_MESSAGE];
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
        Ok(message) => message,
        Err(nix::Error::ECONNRESET) => return Ok(None),
        Err(error) => return Err(format!("cannot receive: {error}")),
    };
    let (length, cut) = (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
    if length == 0 {
        return Ok(None);
    }
    let sender =
        message.cmsgs().map_err(|error| format!("control data was cut: {error}"))?.find_map(|control| {
            match control {
                ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
                _ => None,
            }
        });
    if sender != Some(pid) {
        return Err(format!("process {pid}: a message came from process {}", sender.unwrap_or(0)));
    }
    if cut {
        return Err(format!("process {pid}: a message is above {LONGEST_MESSAGE} bytes"));
    }
    serde_json::from_slice(&buffer[..length])
        .map(Some)
        .map_err(|error| format!("process {pid}: not a request: {error}"))
}

fn reply(socket: &OwnedFd, reply: &Reply) -> Result<(), String> {
    let message = serde_json::to_vec(reply).map_err(|error| error.to_string())?;
    // A peer that doesn't read must not hold the driver up.
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    send(socket.as_raw_fd(), &message, flags).map(drop).map_err(|error| format!("cannot answer: {error}"))
}
