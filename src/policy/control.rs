//! What the proxy and the privileged driver say to each other, over one socket per proxy.
//!
//! The socket keeps message boundaries (`SOCK_SEQPACKET`) and the kernel stamps each message with its sender's
//! process id. The driver begins with a challenge; after that each request of the proxy gets one reply. The driver
//! writes the decision log, so that no process of the measured uid can, and tells the kernel programs which call the
//! proxy's server is working on.

use serde::{Deserialize, Serialize};

/// Environment variable that names the driver's socket inside the sandbox.
pub const CONTROL_VARIABLE: &str = "ASSAY_GATES_CONTROL";

/// Longest message, in bytes.
pub const LONGEST_MESSAGE: usize = 64 * 1024;

/// What the proxy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Answers the challenge.
    Hello {
        /// What the challenge said.
        challenge: String,
    },
    /// A decision. It must stand in the log before the reply.
    Decision {
        /// The line, without a line feed.
        line: String,
        /// The call that is forwarded next, when it was allowed.
        call: Option<Begin>,
    },
    /// Another request runs beside the open calls.
    Overlap,
    /// A call was answered.
    End {
        /// Its number.
        call: u64,
    },
}

/// A call that is about to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    /// Its number, unique in the connection.
    pub call: u64,
    /// What joins it to the other layers.
    pub tool_call_id: String,
    /// The tool.
    pub tool: String,
    /// Something else was in flight when it began.
    pub overlap: bool,
}

/// What the driver says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Reply {
    /// First message of every connection: to be repeated in [`Request::Hello`].
    Challenge(String),
    /// Done.
    Done,
    /// Not done, and why.
    Refused(String),
}

#[cfg(target_os = "linux")]
pub use client::Client;

#[cfg(target_os = "linux")]
mod client {
    use super::{LONGEST_MESSAGE, Reply, Request};
    use nix::sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, socket,
    };
    use std::io;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::Path;

    /// The proxy's end.
    #[derive(Debug)]
    pub struct Client(OwnedFd);

    impl Client {
        /// Connects and lets the driver verify this process.
        ///
        /// # Errors
        /// The socket's, or that the driver refused, with its reason.
        pub fn connect(path: &Path) -> io::Result<Self> {
            let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
            connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
            let client = Self(socket);
            match client.receive()? {
                Reply::Challenge(challenge) => client.ask(&Request::Hello { challenge })?,
                other => return Err(unexpected(&other)),
            }
            Ok(client)
        }

        /// One request and its reply.
        ///
        /// # Errors
        /// The socket's, or that the driver refused, with its reason.
        pub fn ask(&self, request: &Request) -> io::Result<()> {
            let message = serde_json::to_vec(request).map_err(io::Error::other)?;
            if message.len() > LONGEST_MESSAGE {
                return Err(io::Error::other(format!(
                    "message of {} bytes is above {LONGEST_MESSAGE}",
                    message.len()
                )));
            }
            send(self.0.as_raw_fd(), &message, MsgFlags::MSG_NOSIGNAL)?;
            match self.receive()? {
                Reply::Done => Ok(()),
                Reply::Refused(reason) => Err(io::Error::other(format!("the driver refused: {reason}"))),
                other => Err(unexpected(&other)),
            }
        }

        fn receive(&self) -> io::Result<Reply> {
            let mut buffer = vec![0; LONGEST_MESSAGE];
            let length = loop {
                match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                    Err(nix::errno::Errno::EINTR) => {}
                    other => break other?,
                }
            };
            if length == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the driver closed the control socket",
                ));
            }
            serde_json::from_slice(&buffer[..length]).map_err(io::Error::other)
        }
    }

    fn unexpected(reply: &Reply) -> io::Error {
        let what = match reply {
            Reply::Challenge(_) => "a challenge out of turn".to_owned(),
            Reply::Done => "done before anything was asked".to_owned(),
            Reply::Refused(reason) => format!("refused: {reason}"),
        };
        io::Error::other(format!("the driver said {what}"))
    }
}
