//! `assay-gates triage`: what failed, the line that decides it, and what to do.

use crate::error::{Code, Error, Exit, Result};
use crate::triage::{Diagnosis, Rules, diagnose, gather, human, markdown};
use crate::{files, report};
use clap::Args as ClapArgs;
use std::path::Path;

/// Say what failed in a run, which line decides it, whether a rerun is allowed, and what to do next.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates triage                          the latest run of the gates workflow
  assay-gates triage 123456789 --attempt 1
  assay-gates triage https://github.com/o/r/actions/runs/123456789/job/42
  assay-gates triage pack.zip                 a pack, a proof root, a log, or a zip of logs; needs no token
  assay-gates triage proof --format markdown  a block to paste into an issue

What isn't known reads `unknown`. Exit code 0 says that there is a diagnosis, not that the run was good.")]
pub struct Args {
    /// Run id, URL of a run or job, or a path; without it the latest run
    #[arg(value_name = "RUN|PACK|LOG")]
    target: Option<String>,
    /// What standard output carries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What standard output carries.
#[derive(Clone, Copy, Default, clap::ValueEnum)]
pub enum Format {
    /// Seven parts for people
    #[default]
    Human,
    /// One JSON object, `assay.gates.triage.v0`
    Json,
    /// A block to paste into an issue
    Markdown,
}

/// Diagnoses.
pub fn run(args: &Args) -> Result<Exit> {
    let rules = Rules::embedded()?;
    let target = args.target.as_deref().unwrap_or_default();
    let path = Path::new(target);
    if !path.exists() {
        return Err(Error::new(
            Code::TriageInput,
            format!("expected a run, a URL or a path, found {target:?}"),
        ));
    }
    let case = gather::from_disk(&rules, path)?;
    show(&diagnose(&rules, &case)?, args.format)?;
    Ok(Exit::Passed)
}

/// Prints a diagnosis.
pub fn show(diagnosis: &Diagnosis, format: Format) -> Result<()> {
    report::data(&match format {
        Format::Human => human(diagnosis),
        Format::Markdown => markdown(diagnosis),
        Format::Json => files::pretty_sorted(diagnosis)?,
    });
    Ok(())
}
