//! `assay-gates dependencies`: what the gates' fixtures need, and whether it is installed.

use crate::error::{Error, Exit, Result};
use crate::files::pretty_sorted;
use crate::gate::Catalog;
use crate::gate::dependencies::Inspector;
use crate::host::rights::Rights;
use crate::report;
use clap::ValueEnum;
use serde::Serialize;
use std::path::PathBuf;

/// Say whether the packages of the gates' fixtures are installed as their lockfiles pin them, and install them
#[derive(clap::Args)]
#[command(after_help = "\
Packages come from npm and PyPI, by the digests in the lockfiles; no package's scripts are run.

Examples:
  assay-gates dependencies                    what is missing, with the command that installs it
  assay-gates dependencies --install          carry those commands out
  assay-gates dependencies --gate hidden_write --install

Exit codes: 0 everything is there · 10 another version than a gate expects · 13 installing failed · 40 something is missing")]
pub struct Args {
    /// Only these gates and their baselines, or `all`; every gate when absent
    #[arg(long = "gate", visible_alias = "gates", value_name = "ID", value_delimiter = ',')]
    gates: Vec<String>,
    /// Install what is missing or differs
    #[arg(long)]
    install: bool,
    /// Folder of the gate definitions
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

#[derive(Serialize)]
struct Report {
    schema: &'static str,
    gates: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    gate: String,
    ready: bool,
    problems: Vec<Problem>,
}

#[derive(Serialize)]
struct Problem {
    code: &'static str,
    message: String,
    hint: Option<String>,
}

/// Carries it out.
///
/// # Errors
/// `GateUnknown`, `LockfileInvalid`, `InstallFailed`.
pub fn run(args: &Args) -> Result<Exit> {
    let caller = Rights::of_caller()?;
    let catalog = caller.act(|| Catalog::load(&args.gates_dir)?.only(&args.gates))?;
    let entries = catalog.entries();
    let inspector = Inspector::default();
    if args.install {
        inspector.install(entries, report::diagnostic)?;
    }
    let mut exits = Vec::new();
    let mut gates = Vec::new();
    for entry in entries {
        let problems = inspector.inspect(entry)?.problems;
        exits.extend(problems.iter().map(Error::exit));
        gates.push(Row {
            gate: entry.definition.id.clone(),
            ready: problems.is_empty(),
            problems: problems.iter().map(problem).collect(),
        });
    }
    let report = Report { schema: "assay.gates.dependencies.v0", gates };
    report::data(&match args.format {
        Format::Json => pretty_sorted(&report)?,
        Format::Human => human(&report),
    });
    Ok(Exit::worst(exits))
}

fn problem(error: &Error) -> Problem {
    Problem { code: error.code().name(), message: error.to_string(), hint: error.advice().map(str::to_owned) }
}

/// A line for each gate; a problem that several gates share is told once, with its command.
fn human(report: &Report) -> String {
    let mut text = String::new();
    let mut told = std::collections::BTreeSet::new();
    for row in &report.gates {
        text.push_str(&format!("{:<36} {}\n", row.gate, if row.ready { "ready" } else { "not ready" }));
        for problem in row.problems.iter().filter(|problem| told.insert((&problem.message, &problem.hint))) {
            text.push_str(&format!("  {}: {}\n", problem.code, problem.message));
            if let Some(hint) = &problem.hint {
                text.push_str(&format!("  {hint}\n"));
            }
        }
    }
    text
}
