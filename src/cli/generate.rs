//! `completions` and `man`: what package managers install beside the binary.

use crate::error::{Code, Error, Exit, Result};
use crate::report;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// Print a completion script.
#[derive(ClapArgs, Debug)]
#[command(after_help = "Example:\n  assay-gates completions bash > /etc/bash_completion.d/assay-gates")]
pub struct Completions {
    /// The shell.
    shell: clap_complete::Shell,
}

/// Print the manual page, or write those of every command.
#[derive(ClapArgs, Debug)]
#[command(after_help = "\
Examples:
  assay-gates man | man -l -
  assay-gates man run | man -l -
  assay-gates man --out /usr/local/share/man/man1     a page for each command")]
pub struct Man {
    /// The command; the tool itself when there is none.
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    of: Vec<String>,
    /// Folder to write every page to
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Prints the script.
pub fn completions(args: &Completions) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::grammar(), "assay-gates", &mut script);
    report::data(&String::from_utf8_lossy(&script));
    Ok(Exit::Passed)
}

/// Prints the page, or writes all.
pub fn man(args: &Man) -> Result<Exit> {
    let mut grammar = super::grammar().disable_help_subcommand(true);
    grammar.build();
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("cannot create", folder, error))?;
        clap_mangen::generate_to(grammar, folder)
            .map_err(|error| Error::io("cannot write to", folder, error))?;
        return Ok(Exit::Passed);
    }
    let mut command = grammar;
    let mut title = command.get_name().to_owned();
    for name in &args.of {
        title = format!("{title}-{name}");
        command = command.find_subcommand(name).cloned().ok_or_else(|| {
            Error::new(Code::Usage, format!("there is no command `{}`", args.of.join(" ")))
                .hint("assay-gates --help lists them")
        })?;
    }
    let mut page = Vec::new();
    let failed = |error| Error::new(Code::Internal, format!("cannot write the manual page: {error}"));
    clap_mangen::Man::new(command).title(title).render(&mut page).map_err(failed)?;
    report::data(&String::from_utf8_lossy(&page));
    Ok(Exit::Passed)
}
