//! `assay-gates clean`: the cleanup plan of a phase.

use crate::error::{Code, Error, Exit, Result};
use crate::files::{RootPath, pretty_sorted};
use crate::host::cleanup::{Phase, Places, Plan, apply, survey, view};
use crate::host::hostfile::{DEFAULT_HOST_FILE, HostFile};
use crate::host::rights::Rights;
use crate::host::state::cleanup_record;
use crate::report;
use clap::ValueEnum;
use std::path::PathBuf;

/// Print the cleanup plan of a phase; with --apply, carry it out and check that nothing stayed
#[derive(clap::Args)]
#[command(after_help = "\
Removes only what lies under the roots that the host file names, and only on a host that it calls dedicated.
Never follows a symbolic link, never crosses a mount, kills by control group and never by name.

Examples:
  assay-gates clean --phase before-run                       the plan, nothing is touched
  sudo assay-gates clean --phase before-run --apply          carry it out
  assay-gates clean --phase after-run --format json          the plan as data

Exit codes: 0 clean, 2 the host file does not validate, 13 something stayed or a measured run is in progress,
40 the host is not dedicated.")]
pub struct Args {
    /// When the cleanup happens; decides what may go
    #[arg(long, value_enum)]
    phase: Phase,
    /// Carry the plan out
    #[arg(long)]
    apply: bool,
    /// The file that names the roots
    #[arg(long, value_name = "FILE", default_value = DEFAULT_HOST_FILE, env = "ASSAY_GATES_HOST_FILE")]
    host_file: PathBuf,
    /// Write the outcome (cleanup.json) there as well
    #[arg(long, value_name = "FILE", requires = "apply")]
    report: Option<PathBuf>,
    /// How to print the plan or its outcome
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// Plans, and carries out when asked.
///
/// # Errors
/// `HostFile`, `NotDedicated`, `CleanupBusy`, `CleanupIncomplete`, `Io`.
pub fn run(args: &Args) -> Result<Exit> {
    let host = match args.apply || args.host_file.exists() {
        true => HostFile::load(&args.host_file)?,
        false => HostFile::of_no_one(),
    };
    let places = Places::of_this_machine();
    let found = survey(args.phase, &host, &places)?;
    let plan = Plan::new(args.phase, &args.host_file, &host, &found);
    let phase = args.phase.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
    if !args.apply {
        report::data(&match args.format {
            Format::Human => view::plan(&plan, &phase),
            Format::Json => pretty_sorted(&plan)?,
        });
        return Ok(Exit::Passed);
    }
    if let Some(why) = &plan.refused {
        let code = if host.dedicated { Code::CleanupBusy } else { Code::NotDedicated };
        return Err(Error::new(code, why.clone())
            .at(args.host_file.display())
            .hint(format!("assay-gates clean --phase {phase} shows what would be removed")));
    }
    if nix::unistd::geteuid().is_root() {
        for unfinished in crate::run::unfinished::mark(&host.proof_roots)? {
            report::diagnostic(&unfinished.to_string());
        }
    }
    let done = apply(&plan, &host, &places)?;
    let json = pretty_sorted(&done)?;
    if let Some(file) = &args.report {
        RootPath::of(file, Rights::of_caller()?)?.write(json.as_bytes())?;
    }
    if args.phase == Phase::BeforeRun && nix::unistd::geteuid().is_root() {
        // The next proof root takes it over: what was there before a run belongs to its evidence.
        cleanup_record()?.write(json.as_bytes())?;
    }
    report::data(&match args.format {
        Format::Human => view::plan(&plan, &phase) + &view::outcome(&done),
        Format::Json => json,
    });
    match done.stayed.first() {
        None => Ok(Exit::Passed),
        Some(first) => Err(Error::new(
            Code::CleanupIncomplete,
            format!("{} entries stayed, the first: {}", done.stayed_count, first.why),
        )
        .at(&first.path)
        .hint("remove the cause, then: sudo assay-gates clean --phase before-run --apply")),
    }
}
