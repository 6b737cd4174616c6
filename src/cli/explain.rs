//! `assay-gates explain`: the runbook page of a failure class or error code.

use crate::error::{Exit, Result};
use crate::report;
use crate::triage::{Rules, explain};
use clap::Args as ClapArgs;

/// Print the runbook page of a failure class or error code.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates explain ring_drops
  assay-gates explain AG301
  assay-gates explain --list")]
pub struct Args {
    /// Failure class, as `triage` prints it, or error code
    #[arg(value_name = "CLASS|CODE", required_unless_present = "list")]
    name: Option<String>,
    /// List every class and the codes that belong to it, in the order of precedence
    #[arg(long)]
    list: bool,
}

/// Prints it.
pub fn run(args: &Args) -> Result<Exit> {
    let rules = Rules::embedded()?;
    match &args.name {
        Some(name) => report::data(&explain(&rules, name)?),
        None => {
            for class in rules.classes() {
                report::data(&format!("{:<28} {} {}\n", class.id, class.title, class.codes.join(" ")));
            }
        }
    }
    Ok(Exit::Passed)
}
