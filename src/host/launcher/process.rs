//! Becomes a measured program: a child of init that waits for its word.
//!
//! Order: the word, session and streams, limits, control groups that only limit, giving up every privilege, signals,
//! closing descriptors, the fence around system calls, the session's cgroup, execve. Until the word it is still root, so that nobody in the session
//! can signal or trace it; afterwards it executes nothing but what stands here.

use super::{Fences, fences};
use crate::error::{Code, Error, Result};
use crate::host::launch::{Failure, Program, Sandbox};
use nix::libc;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout};
use std::convert::Infallible;
use std::ffi::CString;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Everything that is needed, made before the fork.
pub(super) struct Ready<'a> {
    sandbox: &'a Sandbox,
    passed: &'a [OwnedFd],
    fences: &'a Fences,
    cwd: &'a Path,
    path: CString,
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl<'a> Ready<'a> {
    pub(super) fn new(
        sandbox: &'a Sandbox,
        passed: &'a [OwnedFd],
        fences: &'a Fences,
        program: &'a Program,
        path: &Path,
    ) -> Result<Self> {
        Ok(Self {
            sandbox,
            passed,
            fences,
            cwd: &program.cwd,
            path: c_string(path.as_os_str().as_bytes())?,
            argv: program.argv.iter().map(|argument| c_string(argument)).collect::<Result<_>>()?,
            environment: program.environment.iter().map(|line| c_string(line)).collect::<Result<_>>()?,
        })
    }

    /// Waits for the word and becomes the program, or says why not; never comes back.
    pub(super) fn run(&self, mut word: UnixStream, stdio: [OwnedFd; 3]) -> ! {
        // Nothing comes when the driver is gone or has given up: then there is nothing to become.
        let status = match word.read_exact(&mut [0]) {
            Err(_) => 0,
            Ok(()) => {
                let Err(error) = self.become_program(stdio);
                let failure = serde_json::to_vec(&Failure::from(&error)).unwrap_or_default();
                let _driver_gone = word.write_all(&failure);
                40
            }
        };
        // SAFETY: ends this process; what the parent would do at its exit is the parent's.
        unsafe { libc::_exit(status) }
    }

    fn become_program(&self, [stdin, stdout, stderr]: [OwnedFd; 3]) -> Result<Infallible> {
        let sandbox = self.sandbox;
        nix::unistd::setsid().map_err(|error| fences::failed("setsid", error))?;
        dup2_stdin(stdin)
            .and_then(|()| dup2_stdout(stdout))
            .and_then(|()| dup2_stderr(stderr))
            .map_err(|error| fences::failed("standard streams", error))?;
        fences::limit_processes(sandbox.nproc)?;
        let (session, limiting) = sandbox
            .procs
            .split_last()
            .ok_or_else(|| Error::new(Code::Internal, "a sandbox without a cgroup"))?;
        for group in limiting {
            join(&self.passed[*group])?;
        }
        fences::become_user(sandbox.uid, sandbox.gid, &self.fences.landlock)?;
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
        std::env::set_current_dir(self.cwd).map_err(|error| {
            let user = &sandbox.user;
            Error::new(Code::ProgramUnusable, format!("{user} can't enter the working folder: {error}"))
                .at(self.cwd.display())
                .hint(format!("chmod o+x its parents, or cd to a folder that {user} can enter"))
        })?;
        fences::default_signals()?;
        // Everything but stdio closes with the execve; until then the driver and cgroup.procs are needed.
        // SAFETY: close_range with CLOEXEC only sets a flag.
        if unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } < 0 {
            return Err(fences::failed("close_range", nix::Error::last()));
        }
        self.fences.filter.apply()?;
        join(&self.passed[*session])?;
        let error = match nix::unistd::execve(&self.path, &self.argv, &self.environment) {
            Ok(never) => match never {},
            Err(error) => error,
        };
        let path = self.path.to_string_lossy();
        Err(Error::new(Code::ProgramUnusable, format!("cannot execute {path}: {error}")))
    }
}

/// `0` in `cgroup.procs` means the writer.
fn join(procs: &OwnedFd) -> Result<()> {
    match nix::unistd::write(procs, b"0") {
        Ok(1) => Ok(()),
        Ok(_) => Err(fences::failed("joining the cgroup", nix::Error::EIO)),
        Err(error) => Err(fences::failed("joining the cgroup", error)),
    }
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::new(Code::Usage, "an argument or a variable holds a NUL byte"))
}
