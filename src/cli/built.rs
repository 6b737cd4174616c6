//! `assay-gates built`: runs a command with a binary that was built here, when it is still what was built.

use crate::error::{Error, Exit, Result};
use std::ffi::OsString;

/// Run a command with the binary that `host build` made of a commit, when it still has its digest.
#[derive(clap::Args)]
#[command(after_help = "\
Example:
  sudo -n assay-gates built 0123456789abcdef0123456789abcdef01234567 doctor")]
pub(super) struct Args {
    /// The commit, 40 hexadecimal digits
    #[arg(value_name = "SHA")]
    commit: String,
    /// The command and its arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<OsString>,
}

/// Becomes that command; comes back only when it could not.
///
/// # Errors
/// `BuildRefused`; `Io`.
pub(super) fn run(args: &Args) -> Result<Exit> {
    use std::os::unix::process::CommandExt;
    // Held open over the exec: the store is root's, so what stands at the path is what was digested.
    let (_digested, path) = crate::host::builds::binary(&args.commit)?;
    let error = std::process::Command::new(&path).args(&args.command).exec();
    Err(Error::io("cannot execute", &path, error))
}
