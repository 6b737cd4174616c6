//! The ends of a conversation that the decider holds: streams that a hostile program made, and the server's pipes.
//!
//! A thread of the driver must never wait for such a stream alone: every read and write also ends when the run or
//! the connection does. The driver's rights must lend a stream nothing either: only pipes, Unix stream sockets, plain
//! files and /dev/null are taken, each in the direction that its descriptor was opened for.

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, SockType, getsockname, getsockopt, recv, send, sockopt};
use nix::sys::stat::fstat;
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC, fstatfs,
};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, PipeReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

/// Which way a stream is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Read,
    Write,
}

/// What ends a wait besides the stream itself: each becomes readable, or is closed at its other end, when it is time.
#[derive(Clone, Debug, Default)]
pub(super) struct Ends(pub(super) Vec<Arc<PipeReader>>);

/// A descriptor of another's making, or a pipe of ours.
#[derive(Debug)]
pub(super) struct Stream {
    end: End,
    ends: Ends,
    /// The reader's: after this one is readable, what is there already is read and no more is waited for.
    last: Option<OwnedFd>,
}

#[derive(Debug)]
enum End {
    /// Not blocking.
    Pipe(File),
    Socket(OwnedFd),
    /// Never blocks for long.
    File(File),
}

impl Stream {
    /// Takes over a descriptor that the measured program handed in.
    ///
    /// # Errors
    /// Why it isn't taken.
    pub(super) fn taken(fd: OwnedFd, way: Way, ends: Ends) -> Result<Self, String> {
        let unknown = |error: nix::Error| format!("cannot look at it: {error}");
        let kind = fstat(&fd).map_err(unknown)?;
        let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL).map_err(unknown)?);
        let open_for = flags & OFlag::O_ACCMODE;
        if flags.contains(OFlag::O_PATH)
            || open_for != OFlag::O_RDWR && (open_for == OFlag::O_WRONLY) != (way == Way::Write)
        {
            return Err(format!("it is not open to {}", if way == Way::Read { "read" } else { "write" }));
        }
        let end = match kind.st_mode & libc::S_IFMT {
            libc::S_IFIFO => End::Pipe(reopened(&fd, way).map_err(|error| format!("a pipe, but {error}"))?),
            libc::S_IFSOCK => {
                let family = getsockname_family(&fd).map_err(unknown)?;
                let socket_type = getsockopt(&fd, sockopt::SockType).map_err(unknown)?;
                if (family, socket_type) != (Some(AddressFamily::Unix), SockType::Stream) {
                    return Err("a socket other than a Unix stream".to_owned());
                }
                End::Socket(fd)
            }
            libc::S_IFCHR if kind.st_rdev == libc::makedev(1, 3) => End::File(fd.into()),
            libc::S_IFREG => {
                let system = fstatfs(&fd).map_err(unknown)?.filesystem_type();
                let plain = [
                    TMPFS_MAGIC,
                    EXT4_SUPER_MAGIC,
                    XFS_SUPER_MAGIC,
                    BTRFS_SUPER_MAGIC,
                    OVERLAYFS_SUPER_MAGIC,
                ];
                if !plain.contains(&system) {
                    return Err(format!("a file of an unknown kind of file system ({:#x})", system.0));
                }
                End::File(fd.into())
            }
            other => {
                return Err(format!("neither pipe, Unix stream, plain file nor /dev/null (type {other:#o})"));
            }
        };
        Ok(Self { end, ends, last: None })
    }

    /// An end of a pipe that the driver made itself.
    pub(super) fn own(pipe: OwnedFd, ends: Ends) -> io::Result<Self> {
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(Self { end: End::Pipe(pipe.into()), ends, last: None })
    }

    /// Once `ended` is readable, this stream ends where it is empty.
    pub(super) fn until(mut self, ended: BorrowedFd<'_>) -> io::Result<Self> {
        self.last = Some(ended.try_clone_to_owned()?);
        Ok(self)
    }

    /// Waits until there is something to read; false when it is time to end.
    pub(super) fn ready(&mut self) -> io::Result<bool> {
        self.wait(Way::Read)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.end {
            End::Pipe(file) | End::File(file) => file.as_fd(),
            End::Socket(fd) => fd.as_fd(),
        }
    }

    /// Waits until the stream is ready; false when it is time to end.
    fn wait(&mut self, way: Way) -> io::Result<bool> {
        let interest = if way == Way::Read { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        loop {
            let mut wanted = vec![PollFd::new(self.fd(), interest)];
            wanted.extend(self.ends.0.iter().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN)));
            let others = wanted.len();
            wanted.extend(self.last.iter().map(|last| PollFd::new(last.as_fd(), PollFlags::POLLIN)));
            match poll(&mut wanted, PollTimeout::NONE) {
                Err(nix::Error::EINTR) => continue,
                Err(error) => return Err(error.into()),
                Ok(_) => {}
            }
            let happened = |fd: &PollFd<'_>| fd.any() == Some(true);
            if wanted[1..others].iter().any(happened) {
                return Ok(false);
            }
            if happened(&wanted[0]) {
                return Ok(true);
            }
            if wanted[others..].iter().any(happened) {
                // Everything was written before the process ended: what is not there now never comes.
                let mut only = [PollFd::new(self.fd(), interest)];
                return Ok(poll(&mut only, PollTimeout::ZERO)? > 0);
            }
        }
    }
}

/// The same pipe, through an open file of our own: whether it blocks must not depend on the other side.
fn reopened(fd: &OwnedFd, way: Way) -> io::Result<File> {
    OpenOptions::new()
        .read(way == Way::Read)
        .write(way == Way::Write)
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn getsockname_family(fd: &OwnedFd) -> nix::Result<Option<AddressFamily>> {
    use nix::sys::socket::{SockaddrLike, SockaddrStorage};
    Ok(getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family())
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !matches!(self.end, End::File(_)) && !self.wait(Way::Read)? {
                return Ok(0);
            }
            let read = match &mut self.end {
                End::Pipe(file) | End::File(file) => file.read(buffer),
                End::Socket(fd) => recv(fd.as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT).map_err(Into::into),
            };
            match read {
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            // Nearly always there is room: to wait first would be one more system call a line.
            let written = match &mut self.end {
                End::Pipe(file) | End::File(file) => file.write(bytes),
                End::Socket(fd) => send(fd.as_raw_fd(), bytes, flags).map_err(Into::into),
            };
            match written {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.wait(Way::Write)? {
                        return Err(ErrorKind::BrokenPipe.into());
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The wrapper's socket, read and written in the same way.
pub(super) fn control(socket: UnixStream, ends: Ends) -> Stream {
    Stream { end: End::Socket(socket.into()), ends, last: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn ends() -> (Ends, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        (Ends(vec![Arc::new(reader)]), writer)
    }

    #[test]
    fn only_harmless_descriptors_are_taken_and_only_in_their_own_direction() {
        let take = |fd: OwnedFd, way| Stream::taken(fd, way, Ends::default()).map(drop);
        let (reader, writer) = io::pipe().unwrap();
        assert!(
            take(reader.try_clone().unwrap().into(), Way::Write).unwrap_err().contains("not open to write")
        );
        assert!(
            take(writer.try_clone().unwrap().into(), Way::Read).unwrap_err().contains("not open to read")
        );
        assert_eq!(take(reader.into(), Way::Read), Ok(()));
        drop(writer);
        let (one, other) = UnixStream::pair().unwrap();
        assert_eq!(take(one.into(), Way::Read), Ok(()));
        assert_eq!(take(other.into(), Way::Write), Ok(()));
        assert_eq!(take(File::open("/dev/null").unwrap().into(), Way::Read), Ok(()));
        assert_eq!(take(tempfile::tempfile().unwrap().into(), Way::Write), Ok(()));
        let by_path = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open("/dev/null").unwrap();
        let netlink = nix::sys::socket::socket(
            AddressFamily::Netlink,
            SockType::Raw,
            nix::sys::socket::SockFlag::empty(),
            None,
        );
        let refused: [(OwnedFd, &str); 6] = [
            (by_path.into(), "not open"),
            (File::open("/proc/self/mem").unwrap().into(), "unknown kind of file system"),
            (File::open("/dev/zero").unwrap().into(), "neither"),
            (File::open("/").unwrap().into(), "neither"),
            (netlink.unwrap(), "a socket other"),
            (std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into(), "a socket other"),
        ];
        for (fd, why) in refused {
            let said = take(fd, Way::Read).unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
    }

    #[test]
    fn neither_a_silent_writer_nor_a_full_reader_holds_a_thread_beyond_its_end() {
        let (one, other) = UnixStream::pair().unwrap();
        let (pipe_reader, pipe_writer) = io::pipe().unwrap();
        let (silent_reader, _silent_writer) = io::pipe().unwrap();
        for (fd, way) in [
            (OwnedFd::from(one.try_clone().unwrap()), Way::Read),
            (one.into(), Way::Write),
            (silent_reader.into(), Way::Read),
            (pipe_writer.into(), Way::Write),
        ] {
            let (ends, stop) = ends();
            let mut stream = Stream::taken(fd, way, ends).unwrap();
            let began = Instant::now();
            let thread = std::thread::spawn(move || match way {
                Way::Read => stream.read(&mut [0; 16]).map(|_| ()),
                Way::Write => loop {
                    stream.write_all(&[0; 65536])?;
                },
            });
            std::thread::sleep(Duration::from_millis(20));
            drop(stop);
            let ended = thread.join().unwrap();
            assert_eq!(ended.is_err(), way == Way::Write);
            assert!(began.elapsed() < Duration::from_secs(5));
        }
        drop((other, pipe_reader));
    }
}
