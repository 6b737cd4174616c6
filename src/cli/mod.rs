//! The command line: one file per subcommand, its arguments and the call it makes.

#[cfg(all(feature = "capture", target_os = "linux"))]
mod clean;
mod pack;

use crate::error::Exit;
use crate::error::Result;
use crate::report;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "assay-gates",
    version,
    about,
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Pack(pack::Args),
    #[cfg(all(feature = "capture", target_os = "linux"))]
    Clean(clean::Args),
}

/// Parses, calls, and maps the outcome to an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let help = !usage.use_stderr();
            let _closed_pipe = usage.print();
            return ExitCode::from(if help { Exit::Passed } else { Exit::Usage }.code());
        }
    };
    match run(cli.command) {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(error) => {
            report::error(&error);
            ExitCode::from(error.exit().code())
        }
    }
}

fn run(command: Command) -> Result<Exit> {
    match command {
        Command::Pack(args) => pack::run(&args),
        #[cfg(all(feature = "capture", target_os = "linux"))]
        Command::Clean(args) => clean::run(&args),
    }
}
