//! One proxy's connection, from the challenge to its end.

use super::Shared;
use super::peer::Peer;
use crate::capture::CallWindow;
use crate::policy::control::{Begin, LONGEST_MESSAGE, Reply, Request};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, send};
use std::collections::BTreeMap;
use std::io::{IoSliceMut, PipeReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// One proxy, the server behind it, and the calls that it has let through.
struct Connection<'a> {
    shared: &'a Shared,
    socket: &'a OwnedFd,
    peer: Peer,
    /// Number of the server.
    server: u32,
    /// Open calls by the proxy's number, with the index of their windows.
    open: BTreeMap<u64, usize>,
}

/// Serves one connection until it ends or the run does.
pub(super) fn serve(shared: &Shared, socket: &OwnedFd, stopped: &PipeReader) {
    let (peer, server) = match introduce(shared, socket, stopped) {
        Ok(introduced) => introduced,
        Err(why) => {
            // Told after it is counted, so that a refusal that the other side knows of is in the report.
            shared.tally().refuse(why.clone());
            let _it_may_be_gone = reply(socket, &Reply::Refused(why));
            return;
        }
    };
    let mut connection = Connection { shared, socket, peer, server, open: BTreeMap::new() };
    if reply(socket, &Reply::Done).is_ok() {
        connection.run(stopped);
    }
    // Whatever the server still does belongs to no call.
    if shared.marks.call(server, 0).is_err() {
        connection.blur_open_windows();
    }
}

/// Verifies the peer, that it is alive in the same image when it answers, and gives it the number of the server that
/// it will start.
fn introduce(shared: &Shared, socket: &OwnedFd, stopped: &PipeReader) -> Result<(Peer, u32), String> {
    let procs = shared.config.cgroup.path().join("cgroup.procs");
    let members = std::fs::read_to_string(&procs)
        .map_err(|error| format!("cannot read the session's members: {error}"))?;
    let members: Vec<i32> = members.lines().filter_map(|line| line.parse().ok()).collect();
    let peer = shared.identity.verify(socket, &members)?;
    let pid = peer.pid.cast_unsigned();
    if shared.marks.is_server(pid).map_err(|error| error.to_string())? {
        return Err(format!("process {pid}: belongs to a tool server itself"));
    }
    let mut random = [0u8; 16];
    getrandom::fill(&mut random).map_err(|error| format!("no random bytes: {error}"))?;
    let challenge = hex::encode(random);
    reply(socket, &Reply::Challenge(challenge.clone()))?;
    match receive(socket, stopped, peer.pid)? {
        Some(Request::Hello { challenge: said }) if said == challenge => {}
        Some(_) => return Err(format!("process {}: did not repeat the challenge", peer.pid)),
        None => return Err(format!("process {}: left without a word", peer.pid)),
    }
    if !peer.is_unchanged() {
        return Err(format!("process {}: executed another image", peer.pid));
    }
    let mut tally = shared.tally();
    let server = tally.verified + 1;
    shared.marks.proxy(pid, server).map_err(|error| error.to_string())?;
    tally.verified = server;
    drop(tally);
    Ok((peer, server))
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

    /// Opens the window of a call. What can't be told apart is marked so; the call goes on in any case.
    fn begin(&mut self, begin: Begin) {
        let alone = self.open.is_empty();
        if !alone {
            self.blur_open_windows();
        }
        let mut tally = self.shared.tally();
        let number = tally.windows.len() as u64 + 1;
        // Beside another call the server's effects stay with that one: neither is believed.
        let marked = alone && self.shared.marks.call(self.server, number).is_ok();
        tally.windows.push(CallWindow {
            tool_call_id: begin.tool_call_id,
            tool: begin.tool,
            number,
            ambiguous: !marked || begin.overlap,
        });
        let index = tally.windows.len() - 1;
        if let Some(replaced) = self.open.insert(begin.call, index) {
            tally.windows[replaced].ambiguous = true;
        }
    }

    fn end(&mut self, call: u64) -> Result<(), String> {
        let index = self.open.remove(&call).ok_or("no such call is open")?;
        if self.open.is_empty()
            && self.shared.marks.call(self.server, 0).is_err()
            && let Some(window) = self.shared.tally().windows.get_mut(index)
        {
            window.ambiguous = true;
        }
        Ok(())
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
