//! `assay-gates lane`: which gate a change must pass before merge.

use crate::error::{Exit, Result};
use crate::files::pretty_sorted;
use crate::lane::{Decision, LaneContract, changed_files, resolve};
use crate::report;
use clap::ValueEnum;
use std::path::PathBuf;

/// Say which gate a change must pass before merge, and which rule and files decide that
#[derive(clap::Args)]
#[command(after_help = "\
The rules are data: gates/lanes.yaml. Files that no rule knows need every gate.

Examples:
  assay-gates lane --base origin/main --head HEAD
  assay-gates lane --base origin/main --head HEAD --format github >> \"$GITHUB_OUTPUT\"")]
pub struct Args {
    /// Revision that the change starts from
    #[arg(long, value_name = "REV", default_value = "origin/main")]
    base: String,
    /// Revision that it ends in
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    head: String,
    /// The repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
    /// The lane contract; gates/lanes.yaml of the repository when absent
    #[arg(long, value_name = "FILE")]
    lanes: Option<PathBuf>,
    /// How to print the decision; github prints `gate=…` for $GITHUB_OUTPUT
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
    Github,
}

/// Decides and prints.
///
/// # Errors
/// `LanesInvalid`, `LaneGit`.
pub fn run(args: &Args) -> Result<Exit> {
    let lanes = args.lanes.clone().unwrap_or_else(|| args.repository.join("gates/lanes.yaml"));
    let contract = LaneContract::load(&lanes)?;
    let (base, head) = (resolve(&args.repository, &args.base)?, resolve(&args.repository, &args.head)?);
    let changed = changed_files(&args.repository, &base, &head)?;
    let decision = Decision::new(&contract, base, head, &changed);
    report::data(&match args.format {
        Format::Human => decision.human(),
        Format::Json => pretty_sorted(&decision)?,
        Format::Github => format!("gate={}\n", String::from(decision.required.clone())),
    });
    Ok(Exit::Passed)
}
