//! Frames between driver and init: a length, descriptors with it, then that many bytes of JSON.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Descriptors that one frame can carry.
const MOST_PASSED: usize = 12;
/// Bytes of one frame: arguments and variables of a program are below 2 MiB, and take up to four times that in JSON.
const LONGEST: u64 = 16 << 20;

/// Sends one frame.
///
/// # Errors
/// What the socket says, `BrokenPipe` when the other side is gone.
pub(in crate::host) fn send<T: Serialize>(
    mut socket: &UnixStream,
    what: &T,
    passed: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = (text.len() as u64).to_le_bytes();
    let descriptors: Vec<RawFd> = passed.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(&length)];
    sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(&text)
}

/// The next frame and its descriptors; `None` when the other side is gone.
///
/// # Errors
/// What the socket says; `InvalidData` for what is no frame.
pub(in crate::host) fn receive<T: DeserializeOwned>(
    mut socket: &UnixStream,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut length = [0; 8];
    let mut space = nix::cmsg_space!([RawFd; MOST_PASSED]);
    let mut parts = [IoSliceMut::new(&mut length)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let received = loop {
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags) {
            Err(nix::Error::EINTR) => {}
            Err(nix::Error::ECONNRESET) => return Ok(None),
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    let whole = received.bytes == size_of::<u64>();
    let mut passed = Vec::new();
    for control in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(descriptors) = control {
            // SAFETY: the kernel just made these descriptors for this process, and nobody else knows them.
            passed.extend(descriptors.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    let length = u64::from_le_bytes(length);
    if !whole || length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a frame"));
    }
    let mut text = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    socket.read_exact(&mut text)?;
    Ok(Some((serde_json::from_slice(&text)?, passed)))
}
