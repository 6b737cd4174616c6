//! Where decisions are recorded: by the privileged driver where there is one, else in a file.

use crate::error::{Code, Error, Result};
use crate::policy::control::{Begin, Client, Request};
use crate::report;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The decision log, and the driver behind it if there is one.
#[derive(Debug)]
pub(super) enum Recorder {
    /// A file of the caller's choice: whoever has the same uid can write it too.
    File {
        file: File,
        /// A line could not be written whole; nothing may follow it.
        broken: bool,
    },
    /// The driver writes the log and opens a window for each call.
    Driver(Client),
}

impl Recorder {
    /// Opens the log at `path`, or lets the driver at `control` keep it.
    ///
    /// # Errors
    /// `DecisionLogUnavailable`.
    pub(super) fn open(path: &Path, control: Option<&Path>) -> Result<Self> {
        if let Some(control) = control {
            match Client::connect(control) {
                Ok(client) => return Ok(Self::Driver(client)),
                Err(error) => report::diagnostic(&format!(
                    "mcp-wrap: no driver at {}: {error}; decisions go to {} and count as self-reported",
                    control.display(),
                    path.display()
                )),
            }
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NOCTTY)
            .open(path)
            .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) })
            .map_err(|error| {
                Error::new(Code::DecisionLogUnavailable, format!("cannot open the decision log: {error}"))
                    .at(path.display())
                    .hint("give --decision-log a file in a folder that this user can write; a symbolic link is refused")
                    .because(error)
            })?;
        Ok(Self::File { file, broken: false })
    }

    /// Records a decision; a call that is let through gets its window. Only after this may the call be forwarded.
    pub(super) fn decision(&mut self, line: String, call: Option<Begin>) -> io::Result<()> {
        match self {
            Self::Driver(client) => client.ask(&Request::Decision { line, call }),
            Self::File { broken: true, .. } => {
                Err(io::Error::other("an earlier line could not be written whole"))
            }
            Self::File { file, broken } => {
                let whole = format!("{line}\n");
                let written = file.write_all(whole.as_bytes());
                *broken = written.is_err();
                written
            }
        }
    }

    /// Another request begins beside an open call.
    pub(super) fn overlap(&mut self) -> io::Result<()> {
        self.tell(&Request::Overlap)
    }

    /// A call was answered.
    pub(super) fn end(&mut self, call: u64) -> io::Result<()> {
        self.tell(&Request::End { call })
    }

    fn tell(&mut self, request: &Request) -> io::Result<()> {
        match self {
            Self::Driver(client) => client.ask(request),
            Self::File { .. } => Ok(()),
        }
    }
}
