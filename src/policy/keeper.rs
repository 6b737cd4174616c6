//! Where decisions are kept: each stands in the log before the call that it lets through goes on.

use crate::error::{Code, Error, Result};
use std::fmt::Debug;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

/// A call that is about to be forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Its number, unique in the connection.
    pub call: u64,
    /// What joins it to the other layers.
    pub tool_call_id: String,
    /// Name of the rule by which that id was found.
    pub id_rule: String,
    /// The tool.
    pub tool: String,
    /// Something other than calls was in flight when it began.
    pub overlap: bool,
}

/// Keeps decisions, and hears when calls begin and end.
pub trait Keeper: Send + Debug {
    /// Keeps one decision: a line without a line feed. Only when this succeeded may `call` be forwarded.
    ///
    /// # Errors
    /// Why the line is not in the log.
    fn decision(&mut self, line: &str, call: Option<Begin>) -> io::Result<()>;

    /// Another request begins beside an open call.
    fn overlap(&mut self) {}

    /// The call with this number was answered.
    fn end(&mut self, _call: u64) {}
}

/// A log of the caller's choice: whoever has the same uid can write it too.
#[derive(Debug)]
pub struct LogFile {
    file: File,
    /// A line could not be written whole; nothing may follow it.
    broken: bool,
}

impl LogFile {
    /// Opens the log at `path`, or makes it.
    ///
    /// # Errors
    /// `DecisionLogUnavailable`.
    pub fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.append(true).create(true);
        #[cfg(unix)]
        {
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NOCTTY);
        }
        let file = options
            .open(path)
            .and_then(|file| if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("not a regular file")) })
            .map_err(|error| {
                let error = Error::io_as(Code::DecisionLogUnavailable, "cannot open the decision log", path, error);
                if error.code() == Code::DiskFull {
                    return error;
                }
                error.hint("give --decision-log a file in a folder that this user can write; a symbolic link is refused")
            })?;
        Ok(Self { file, broken: false })
    }
}

impl Keeper for LogFile {
    fn decision(&mut self, line: &str, _call: Option<Begin>) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other("an earlier line could not be written whole"));
        }
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        self.broken = written.is_err();
        written
    }
}
