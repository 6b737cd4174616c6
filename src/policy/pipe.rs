//! `mcp-wrap` inside a measured session: a pipe to the decider.
//!
//! This process hands its standard streams over and waits. It decides nothing, no byte of a message passes through it,
//! and whoever replaces or traces it gains what the measured program has anyway: the streams that it made itself.

use super::control::{Answer, CONTROL, Cause, Opening, Word};
use super::proxy::{Ended, broken, take_standard_streams};
use super::signals;
use crate::error::{Code, Error, Result};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, BufRead, BufReader, IoSlice, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The decider's socket: at its fixed place, or where `hint` says.
///
/// # Errors
/// Why there is none: no place has a socket, or nobody listens.
pub fn connect(hint: Option<PathBuf>) -> Option<io::Result<UnixStream>> {
    let fixed = Path::new(CONTROL);
    let place = if fixed.exists() { fixed.to_owned() } else { hint? };
    Some(UnixStream::connect(place))
}

/// Opens the server at the decider and waits until it ends.
///
/// # Errors
/// `PolicyRefused`, `ServerNotStarted`, `ProxyBroken`.
pub fn run(mut control: UnixStream, opening: &Opening) -> Result<Ended> {
    let (input, output) =
        take_standard_streams().map_err(|error| broken("cannot take the standard streams", error))?;
    let text = crate::files::compact(opening)?;
    let length = (text.len() as u64).to_le_bytes();
    let error_stream = io::stderr();
    let streams = [input.as_raw_fd(), output.as_raw_fd(), error_stream.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&streams)];
    let gone = |error| broken("the decider does not take the server", error);
    sendmsg::<()>(control.as_raw_fd(), &[IoSlice::new(&length)], &rights, MsgFlags::MSG_NOSIGNAL, None)
        .map_err(|error| gone(error.into()))?;
    // Both ends of each stream must be able to close without this process.
    drop((input, output));
    let mut words = control.try_clone().map_err(gone)?;
    let sent = control.write_all(text.as_bytes());
    signals::forward(move |signal| {
        if let Ok(line) = crate::files::compact(&Word::Signal(signal as i32)) {
            let _it_may_have_ended = words.write_all(format!("{line}\n").as_bytes());
        }
    })?;
    let mut line = String::new();
    BufReader::new(&control).read_line(&mut line).map_err(|error| broken("the decider went away", error))?;
    if line.is_empty() {
        sent.map_err(gone)?;
        let message = "the decider ended the connection: the run is over, or it was told to stop";
        return Err(Error::new(Code::ProxyBroken, message));
    }
    let answer = serde_json::from_str(&line)
        .map_err(|error| Error::new(Code::ProxyBroken, format!("the decider said {line:?}: {error}")))?;
    match answer {
        Answer::Exited(code) => Ok(Ended::Exited(code)),
        Answer::Killed(signal) => Ok(Ended::Killed(signal)),
        Answer::Refused(refusal) => Err(match refusal.cause {
            Cause::Policy => Error::new(Code::PolicyRefused, refusal.message).hint(
                "the gate's definition names the policy (policy.file); leave --policy out, or give that file",
            ),
            Cause::Server => Error::new(Code::ServerNotStarted, refusal.message)
                .hint("give the server's command after --, with a path or a name in PATH"),
            Cause::Wrapper => Error::new(Code::ProxyBroken, refusal.message),
        }),
    }
}
