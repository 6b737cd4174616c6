//! `completions` and `man`: what package managers install beside the binary.

use super::Cli;
use crate::error::{Code, Error, Exit, Result};
use crate::report;
use clap::{Args as ClapArgs, CommandFactory};

/// Print a completion script.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:\n  assay-gates completions bash > /etc/bash_completion.d/assay-gates")]
pub struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Print the manual page.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:\n  assay-gates man | man -l -")]
pub struct Man;

/// Prints the script.
pub fn completions(args: &Completions) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "assay-gates", &mut script);
    report::data(&String::from_utf8_lossy(&script));
    Ok(Exit::Passed)
}

/// Prints the page.
pub fn man(_: &Man) -> Result<Exit> {
    let mut page = Vec::new();
    let failed = |error| Error::new(Code::Internal, format!("cannot write the manual page: {error}"));
    clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(failed)?;
    report::data(&String::from_utf8_lossy(&page));
    Ok(Exit::Passed)
}
