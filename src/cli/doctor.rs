//! `doctor`: is this host fit to measure, and what to paste when it isn't.

use crate::error::{Exit, Result};
use clap::ValueEnum;
use std::path::PathBuf;

/// Try for real whether this host can measure, and say how to mend what can't.
#[derive(clap::Args)]
#[command(after_help = "\
Exit code: 0 fit (warnings allowed) · 40 unfit

Examples:
  sudo assay-gates doctor
  sudo assay-gates doctor --format json | jq -r '.checks[] | select(.status != \"PASS\") | .fix'")]
pub(super) struct Args {
    /// How the checks are shown.
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
    /// User that measured programs will run as.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Folder of the gate definitions whose packages must be installed; left out when it doesn't exist.
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// Ask only for what these gates need; every gate when absent.
    #[arg(long = "gate", visible_alias = "gates", value_name = "ID", value_delimiter = ',')]
    gates: Vec<String>,
    /// Give the trials N times their time limits, on a host that is that much slower.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = super::slowness(), env = "ASSAY_GATES_SLOW")]
    slow: u32,
    /// Don't ask the network.
    #[arg(long)]
    offline: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One line a check.
    Human,
    /// One JSON object (`assay.gates.doctor.v0`).
    Json,
}

#[cfg(not(all(feature = "capture", target_os = "linux")))]
pub(super) fn run(_: &Args) -> Result<Exit> {
    Err(super::built_without_capture())
}

#[cfg(all(feature = "capture", target_os = "linux"))]
pub(super) fn run(args: &Args) -> Result<Exit> {
    use crate::gate::Catalog;
    use crate::host::doctor::{Options, examine};
    use crate::host::rights::Rights;
    crate::host::units::check()?;
    crate::host::stop::watch()?;
    let load = || Catalog::load(&args.gates_dir)?.only(&args.gates);
    let catalog = Rights::of_caller()?.act(|| args.gates_dir.is_dir().then(load).transpose())?;
    let report = crate::host::interrupt::unless_told(Ok(examine(Options {
        user: args.user.as_deref(),
        catalog: catalog.as_ref(),
        online: !args.offline,
        slow: args.slow,
        ..Options::default()
    })))?;
    crate::report::data(&match args.format {
        Format::Human => view(&report),
        Format::Json => crate::files::pretty_sorted(&report)?,
    });
    Ok(report.exit())
}

#[cfg(all(feature = "capture", target_os = "linux"))]
fn view(report: &crate::host::doctor::Report) -> String {
    use crate::host::doctor::Status;
    use crate::report::{Colour, bold, coloured};
    use std::fmt::Write;
    let width = report.checks.iter().map(|check| check.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for check in &report.checks {
        let status = match check.status {
            Status::Pass => coloured("PASS", Colour::Green),
            Status::Warn => coloured("WARN", Colour::Yellow),
            Status::Fail => bold(&coloured("FAIL", Colour::Red)),
        };
        let _never_fails = writeln!(text, "{status}  {:width$}  {}", check.name, check.found);
        if let Some(fix) = check.fix.as_ref().filter(|_| check.status != Status::Pass) {
            let _never_fails = writeln!(text, "      {:width$}  → {fix}", "");
        }
    }
    let failures = report.failures().count();
    let _never_fails = match failures {
        0 => writeln!(text, "\nthis host can measure"),
        1 => writeln!(text, "\nthis host can't measure: 1 check failed"),
        count => writeln!(text, "\nthis host can't measure: {count} checks failed"),
    };
    text
}
