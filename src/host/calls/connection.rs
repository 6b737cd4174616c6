//! One wrapper's connection, from its opening to the end of the server that it stands for.

use super::policies::Chosen;
use super::start::{ServerCommand, ServerProcess};
use super::streams::{Ends, Stream, Way, control};
use super::windows::Windows;
use super::{MOST_SERVERS, Shared};
use crate::error::{Code, Error, Result};
use crate::policy::control::{Answer, Cause, LONGEST_OPENING, Opening, Refusal, Word};
use crate::policy::{ConnectionName, Line, Lines, Origin, Session};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::CloneFlags;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use std::fs::File;
use std::io::{self, IoSliceMut, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a server may take to end once its wrapper is gone and its input is closed.
const GRACE: Duration = Duration::from_secs(2);

/// Longest label and source of decisions, in bytes.
const LONGEST_NAME: usize = 1024;

/// Serves one connection until its server ends or the run does.
pub(super) fn serve(shared: &Arc<Shared>, socket: UnixStream, stop: &Arc<PipeReader>) {
    let ends = Ends(vec![Arc::clone(stop)]);
    let answer = match open(shared, &socket, &ends) {
        Ok(Some(server)) => server.run(shared, &socket, stop),
        Ok(None) => return,
        Err(refusal) => Answer::Refused(refusal),
    };
    if let Answer::Refused(refusal) = &answer {
        // Told after it is counted, so that a refusal that the other side knows of is in the report.
        shared.tally().refuse(refusal.message.clone());
    }
    tell(socket, ends, &answer);
}

/// Says the last word, if anybody still listens.
pub(super) fn tell(socket: UnixStream, ends: Ends, answer: &Answer) {
    if let Ok(line) = crate::files::compact(answer) {
        let _it_may_be_gone = control(socket, ends).write_all(format!("{line}\n").as_bytes());
    }
}

/// A server that runs, with the ends of both conversations.
struct Served {
    process: Running,
    session: Arc<Session>,
    caller_in: Stream,
    to_server: OwnedFd,
    from_server: OwnedFd,
    /// The server's mount namespace.
    view: Option<File>,
    /// Tells the two conversations that the wrapper is gone, by being closed.
    wrapper: PipeWriter,
    gone: Arc<PipeReader>,
}

/// A server, killed when nobody carries its conversation any more.
struct Running(Box<dyn ServerProcess>);

impl Running {
    /// Whatever the number is, it reaches the server's process or nobody.
    fn signal(&self, number: i32) {
        // SAFETY: pidfd_send_signal takes two integers, no siginfo and no flags.
        let _it_may_have_ended = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.pidfd().as_raw_fd(),
                number,
                std::ptr::null::<u8>(),
                0,
            )
        };
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(libc::SIGKILL);
    }
}

fn refused(cause: Cause, message: impl Into<String>) -> Refusal {
    Refusal { cause, message: message.into() }
}

/// Reads what the wrapper wants and starts its server; none when the wrapper left or the run is over.
fn open(shared: &Arc<Shared>, socket: &UnixStream, ends: &Ends) -> Result<Option<Served>, Refusal> {
    let wrapper = |message: String| refused(Cause::Wrapper, message);
    let Some((opening, streams)) = receive(socket, ends).map_err(wrapper)? else { return Ok(None) };
    let name = String::from_utf8_lossy(opening.argv.first().map_or(&[][..], Vec::as_slice)).into_owned();
    for (what, text) in [("label", &opening.label), ("event source", &opening.source)] {
        if text.trim().is_empty() || text.len() > LONGEST_NAME || text.contains(char::is_control) {
            return Err(wrapper(format!(
                "server {name}: expected a {what} of 1 to {LONGEST_NAME} bytes without control characters"
            )));
        }
    }
    let Chosen { policy, by_agent } = shared.config.policies.choose(&opening)?;
    let failed =
        |error: &dyn std::fmt::Display| refused(Cause::Server, format!("server {}: {error}", opening.label));
    let (gone, on_wrapper) = io::pipe().map_err(|error| failed(&error))?;
    let gone = Arc::new(gone);
    let both = Ends(ends.0.iter().cloned().chain([Arc::clone(&gone)]).collect());
    let [caller_in, caller_out, error] = streams;
    let taken = |fd, way, ends: &Ends, what: &str| {
        Stream::taken(fd, way, ends.clone()).map_err(|why| {
            wrapper(format!("server {}: the caller's {what} is not taken: {why}", opening.label))
        })
    };
    let caller_in = taken(caller_in, Way::Read, &both, "input")?;
    let caller_out = taken(caller_out, Way::Write, ends, "output")?;
    let number = shared.tally().next_server().ok_or_else(|| {
        wrapper(format!("server {}: more than {MOST_SERVERS} servers in one run", opening.label))
    })?;
    let (server_in, to_server) = io::pipe().map_err(|error| failed(&error))?;
    let (from_server, server_out) = io::pipe().map_err(|error| failed(&error))?;
    let command = ServerCommand {
        argv: opening.argv,
        environment: opening.environment,
        cwd: opening.cwd,
        stdio: [server_in.into(), server_out.into(), error],
    };
    let mut view = None;
    let mut mark = |pid| {
        view = Some(File::open(format!("/proc/{pid}/ns/mnt")).map_err(|error| {
            Error::new(Code::CallsUnavailable, format!("cannot hold the server's view: {error}"))
        })?);
        shared.marks.server(pid, number)
    };
    let process = shared.starter.start(command, &mut mark).map_err(|error| failed(&error))?;
    let name = ConnectionName::new(&opening.label, shared.tally().started(&opening.label, by_agent));
    let keeper = Windows::new(Arc::clone(shared), number, &name);
    let origin = Origin {
        source: opening.source,
        label: opening.label,
        policy_digest: policy.digest(),
        connection: Some(name),
    };
    let session = Arc::new(Session::new(policy, origin, Box::new(keeper), Box::new(caller_out)));
    Ok(Some(Served {
        process: Running(process),
        session,
        caller_in,
        to_server: to_server.into(),
        from_server: from_server.into(),
        view,
        wrapper: on_wrapper,
        gone,
    }))
}

impl Served {
    /// Carries the conversation until the server ends; kills it when its wrapper or the run is gone.
    fn run(self, shared: &Shared, socket: &UnixStream, stop: &Arc<PipeReader>) -> Answer {
        match self.carry(shared, socket, stop) {
            Ok(status) => match (status.code(), status.signal()) {
                (_, Some(signal)) => Answer::Killed(signal),
                (code, None) => Answer::Exited(code.unwrap_or(1)),
            },
            Err(error) => Answer::Refused(refused(Cause::Wrapper, error.to_string())),
        }
    }

    fn carry(self, shared: &Shared, socket: &UnixStream, stop: &Arc<PipeReader>) -> Result<ExitStatus> {
        let failed = |error: io::Error| {
            Error::new(Code::CallsUnavailable, format!("cannot carry a server's calls: {error}"))
        };
        let Self { mut process, session, caller_in, to_server, from_server, view, wrapper, gone } = self;
        let to_server = Stream::own(to_server, Ends(vec![Arc::clone(stop), gone])).map_err(failed)?;
        let from_server = Stream::own(from_server, Ends(vec![Arc::clone(stop)]))
            .and_then(|stream| stream.until(process.0.pidfd()))
            .map_err(failed)?;
        let both_ways = Arc::clone(&session);
        let decide = move || {
            enter(view)?;
            both_ways.serve_caller(caller_in, to_server)
        };
        let inward = thread("caller", decide).map_err(failed)?;
        let outward = thread("server", move || session.serve_server(from_server)).map_err(failed)?;
        watch(&process, socket, stop, wrapper).map_err(|error| failed(error.into()))?;
        let status = process.0.wait();
        for (side, thread) in [("server", outward), ("caller", inward)] {
            match thread.join() {
                Ok(Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => {
                    shared.tally().note(format!("the {side}'s stream broke: {error}"));
                }
                Ok(_) => {}
                Err(_) => shared.tally().note(format!("the thread of the {side}'s stream panicked")),
            }
        }
        status
    }
}

/// Until the server has ended: passes signals on, and ends it when nobody is left to speak with it.
fn watch(
    process: &Running,
    socket: &UnixStream,
    stop: &PipeReader,
    wrapper: PipeWriter,
) -> Result<(), nix::Error> {
    let mut wrapper = Some(wrapper);
    let mut words = words(socket);
    loop {
        let mut wanted = vec![
            PollFd::new(process.0.pidfd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
        ];
        wanted.extend(wrapper.as_ref().map(|_| PollFd::new(socket.as_fd(), PollFlags::POLLIN)));
        let timeout = if wrapper.is_some() {
            PollTimeout::NONE
        } else {
            PollTimeout::try_from(GRACE).unwrap_or(PollTimeout::ZERO)
        };
        let happened = match poll(&mut wanted, timeout) {
            Err(nix::Error::EINTR) => continue,
            Err(error) => return Err(error),
            Ok(count) => count,
        };
        let on = |at: usize| wanted.get(at).is_some_and(|fd| fd.any() == Some(true));
        if on(0) {
            return Ok(());
        }
        if on(1) || happened == 0 {
            process.signal(libc::SIGKILL);
            return Ok(());
        }
        if on(2) {
            match words.as_mut().and_then(|words| words.read().ok().flatten()) {
                Some(Line::Whole(line)) => {
                    if let Ok(Word::Signal(number)) = serde_json::from_slice(line) {
                        process.signal(number);
                    }
                }
                Some(Line::TooLong { .. }) => {}
                // Its input closes; what the server still has to say is passed on.
                None => wrapper = None,
            }
        }
    }
}

/// Makes this thread see the files that the server sees: a path in a call is looked at where the server will look.
fn enter(view: Option<File>) -> io::Result<()> {
    let view = view.ok_or_else(|| io::Error::other("the server was never marked"))?;
    // The other threads of the driver keep their root and working folder.
    nix::sched::unshare(CloneFlags::CLONE_FS)?;
    Ok(nix::sched::setns(view, CloneFlags::CLONE_NEWNS)?)
}

fn words(socket: &UnixStream) -> Option<Lines<UnixStream>> {
    Some(Lines::new(socket.try_clone().ok()?))
}

fn thread<F>(name: &str, work: F) -> io::Result<JoinHandle<io::Result<()>>>
where
    F: FnOnce() -> io::Result<()> + Send + 'static,
{
    std::thread::Builder::new().name(name.to_owned()).spawn(work)
}

/// The opening and the three descriptors; none when the wrapper left or the run is over.
fn receive(socket: &UnixStream, ends: &Ends) -> Result<Option<(Opening, [OwnedFd; 3])>, String> {
    let mut length = [0; 8];
    let mut space = nix::cmsg_space!([RawFd; 3]);
    let mut stream = control(socket.try_clone().map_err(|error| error.to_string())?, ends.clone());
    if !stream.ready().map_err(|error| error.to_string())? {
        return Ok(None);
    }
    let mut parts = [IoSliceMut::new(&mut length)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let (bytes, cut, passed) = {
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::Error::ECONNRESET) => return Ok(None),
            Err(error) => return Err(format!("a wrapper's opening can't be received: {error}")),
        };
        let mut passed = Vec::new();
        for part in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(descriptors) = part {
                // SAFETY: the kernel just made these descriptors for this process, and nobody else knows them.
                passed.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        (message.bytes, message.flags.contains(MsgFlags::MSG_CTRUNC), passed)
    };
    if bytes == 0 {
        return Ok(None);
    }
    let count = passed.len();
    let (8, false, Ok(streams)) = (bytes, cut, <[OwnedFd; 3]>::try_from(passed)) else {
        return Err(format!(
            "a wrapper's opening: expected its length and three descriptors, found {bytes} bytes and {count} descriptors"
        ));
    };
    let length = u64::from_le_bytes(length);
    if length > LONGEST_OPENING {
        return Err(format!("a wrapper's opening: expected at most {LONGEST_OPENING} bytes, found {length}"));
    }
    let mut text = Vec::new();
    stream.take(length).read_to_end(&mut text).map_err(|error| format!("a wrapper's opening: {error}"))?;
    if text.len() as u64 != length {
        return Ok(None);
    }
    let opening: Opening = serde_json::from_slice(&text)
        .map_err(|error| format!("a wrapper's opening is no opening: {error}"))?;
    Ok(Some((opening, streams)))
}
