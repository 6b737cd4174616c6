//! How the decider starts MCP servers: inside the measured session, from outside of it.

use crate::error::Result;
use crate::host::launch::{Program, SpawnRequest, SpawnedProcess, Spawner};
use std::fmt::Debug;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitStatus;

/// A server to start.
#[derive(Debug)]
pub struct ServerCommand {
    /// argv; the first is looked up along PATH of `environment`.
    pub argv: Vec<Vec<u8>>,
    /// `NAME=value` each.
    pub environment: Vec<Vec<u8>>,
    /// Working folder, as seen inside.
    pub cwd: PathBuf,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
}

/// Starts servers inside one session, as its measured user and with all of its fences.
pub trait ServerStarter: Send + Sync + Debug {
    /// Starts one. `mark` is told its process id before it has executed anything of the command's and before anything
    /// of it is recorded; when `mark` fails, so does the start.
    ///
    /// # Errors
    /// `SandboxFailed`, also when the session is over; `ProgramUnusable`; what `mark` fails with.
    fn start(
        &self,
        command: ServerCommand,
        mark: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Box<dyn ServerProcess>>;
}

/// A server that runs.
pub trait ServerProcess: Send + Debug {
    /// Readable when the process has ended.
    fn pidfd(&self) -> BorrowedFd<'_>;

    /// Waits for its end.
    ///
    /// # Errors
    /// When that can't be known.
    fn wait(&mut self) -> Result<ExitStatus>;
}

impl ServerStarter for Spawner {
    fn start(
        &self,
        command: ServerCommand,
        mark: &mut dyn FnMut(u32) -> Result<()>,
    ) -> Result<Box<dyn ServerProcess>> {
        let ServerCommand { argv, environment, cwd, stdio } = command;
        let pending = self.spawn(SpawnRequest { program: Program { argv, environment, cwd }, stdio })?;
        mark(pending.pid())?;
        Ok(Box::new(pending.start()?))
    }
}

impl ServerProcess for SpawnedProcess {
    fn pidfd(&self) -> BorrowedFd<'_> {
        SpawnedProcess::pidfd(self)
    }

    fn wait(&mut self) -> Result<ExitStatus> {
        SpawnedProcess::wait(self)
    }
}
