//! What the measured program prints: kept in a file up to a limit, read to the end beyond it.

use crate::error::{Code, Error, Result, is_full};
use crate::files::RootPath;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, PipeReader, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::thread::JoinHandle;

/// One captured stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapturedStream {
    /// The file that holds its beginning.
    pub path: PathBuf,
    /// Bytes that were printed.
    pub bytes: u64,
    /// Bytes that stand in the file.
    pub kept: u64,
    /// Why the file holds less than the limit allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// It is because the disk is full.
    #[serde(default)]
    pub disk_full: bool,
}

impl CapturedStream {
    /// What was printed is not kept, because the disk is full.
    ///
    /// # Errors
    /// `DiskFull`.
    pub fn fits(&self) -> Result<()> {
        match self.disk_full {
            true => {
                let full = ErrorKind::StorageFull.into();
                Err(Error::io("cannot keep the measured program's output", &self.path, full))
            }
            false => Ok(()),
        }
    }

    /// More was printed than is kept.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.kept < self.bytes
    }
}

/// Reads `stream` on a thread of its own until it ends, or until `stop` is closed and nothing more is there: a
/// program may have handed the pipe to somebody who keeps it open. A reader that stops earlier would block the
/// measured program, so reading goes on past the limit and past a full disk.
pub(super) fn capture(
    stream: impl Read + AsFd + Send + 'static,
    stop: PipeReader,
    path: &RootPath,
    limit: u64,
) -> Result<JoinHandle<CapturedStream>> {
    let lost = |error: std::io::Error| {
        Error::io_as(Code::OutputLost, "cannot keep the measured program's output", &path.path(), error)
    };
    let file = path.create_file()?;
    let captured = CapturedStream { path: path.path(), bytes: 0, kept: 0, failure: None, disk_full: false };
    let flags = fcntl(&stream, FcntlArg::F_GETFL).map_err(|errno| lost(errno.into()))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&stream, FcntlArg::F_SETFL(flags)).map_err(|errno| lost(errno.into()))?;
    let stream = Stoppable { stream, stop };
    std::thread::Builder::new()
        .name("output".to_owned())
        .spawn(move || drain(stream, file, limit, captured))
        .map_err(lost)
}

/// Ends when `stop` is closed and the stream has nothing to give.
struct Stoppable<S> {
    stream: S,
    stop: PipeReader,
}

impl<S: Read + AsFd> Read for Stoppable<S> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                other => return other,
            }
            let mut fds = [
                PollFd::new(self.stream.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            if ready(&fds[1]) && !ready(&fds[0]) {
                return Ok(0);
            }
        }
    }
}

fn drain(
    mut stream: impl Read,
    mut file: impl Write,
    limit: u64,
    mut captured: CapturedStream,
) -> CapturedStream {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) => return captured,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => {
                captured.failure.get_or_insert(format!("cannot read it: {error}"));
                return captured;
            }
        };
        captured.bytes += count as u64;
        let room = usize::try_from(limit - captured.kept).unwrap_or(usize::MAX).min(count);
        if room > 0 && captured.failure.is_none() {
            match file.write_all(&buffer[..room]) {
                Ok(()) => captured.kept += room as u64,
                Err(error) => {
                    captured.disk_full = is_full(&error, &captured.path);
                    captured.failure = Some(format!("cannot write it: {error}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> CapturedStream {
        CapturedStream { path: "x".into(), bytes: 0, kept: 0, failure: None, disk_full: false }
    }

    #[test]
    fn a_flood_is_counted_but_not_kept() {
        let mut file = Vec::new();
        let captured = drain(std::io::repeat(b'x').take(500_000), &mut file, 1000, empty());
        assert_eq!((captured.bytes, captured.kept, file.len()), (500_000, 1000, 1000));
        assert!(captured.truncated());
    }

    #[test]
    fn a_pipe_that_somebody_keeps_open_does_not_keep_the_driver() {
        let home = tempfile::tempdir().unwrap();
        let (stream, mut kept_open) = std::io::pipe().unwrap();
        let (stop, stopper) = std::io::pipe().unwrap();
        kept_open.write_all(b"before").unwrap();
        let log = RootPath::of(&home.path().join("log"), crate::host::rights::Rights::own()).unwrap();
        let reader = capture(stream, stop, &log, 100).unwrap();
        drop(stopper);
        assert_eq!(reader.join().unwrap().bytes, 6);
        drop(kept_open);
    }

    #[test]
    fn a_full_disk_is_named_and_the_stream_is_still_read_to_its_end() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(std::io::Error::from_raw_os_error(nix::libc::ENOSPC))
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let captured = drain(std::io::repeat(b'x').take(200_000), Full, 1 << 20, empty());
        assert_eq!((captured.bytes, captured.kept), (200_000, 0));
        assert_eq!(captured.fits().unwrap_err().code(), Code::DiskFull);
        assert!(captured.failure.unwrap().contains("No space left"));
    }
}
