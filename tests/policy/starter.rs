//! Starts servers as a session would, but for the sandbox: in the session's cgroup, as children of the test.

use assay_gates::error::{Code, Error, Result};
use assay_gates::host::calls::{ServerCommand, ServerProcess, ServerStarter};
use assay_gates::host::cgroup::SessionCgroup;
use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;

#[derive(Debug)]
pub struct CgroupStarter(pub Arc<SessionCgroup>);

#[derive(Debug)]
struct Server {
    child: Child,
    pidfd: OwnedFd,
}

impl ServerStarter for CgroupStarter {
    fn start(
        &self,
        command: ServerCommand,
        mark: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Box<dyn ServerProcess>> {
        let text = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
        let unusable = |error: std::io::Error| Error::new(Code::ProgramUnusable, error.to_string());
        let (word, mut give) = std::io::pipe().unwrap();
        nix::fcntl::fcntl(&word, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let number = word.as_raw_fd();
        let script = format!(
            "read _ <&{number}; exec {number}<&-; command -v \"$1\" >/dev/null || exit 126; echo 0 > \"$0\" && exec \"$@\""
        );
        let [input, output, error] = command.stdio;
        let mut child = Command::new("bash")
            .args(["-c", &script])
            .arg(self.0.path().join("cgroup.procs"))
            .args(command.argv.iter().map(|word| text(word)))
            .env_clear()
            .envs(command.environment.iter().map(|line| {
                let at = line.iter().position(|byte| *byte == b'=').unwrap();
                (text(&line[..at]), text(&line[at + 1..]))
            }))
            .current_dir(command.cwd)
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(output))
            .stderr(Stdio::from(error))
            .spawn()
            .map_err(unusable)?;
        drop(word);
        let marked = mark(child.id());
        let Ok(()) = marked else {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(marked.unwrap_err());
        };
        give.write_all(b"\n").map_err(unusable)?;
        // SAFETY: pidfd_open takes integers and gives back a new descriptor or -1.
        let pidfd = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, child.id(), 0) };
        assert!(pidfd >= 0);
        // SAFETY: the descriptor was just made.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
        Ok(Box::new(Server { child, pidfd }))
    }
}

impl ServerProcess for Server {
    fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        self.child.wait().map_err(|error| Error::new(Code::Internal, error.to_string()))
    }
}
