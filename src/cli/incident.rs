//! `assay-gates incident`: one run of a proof pack as an incident package.

use crate::error::{Exit, Result};
use crate::files::write_atomic;
use crate::pack::incident;
use crate::report;
use std::path::PathBuf;

/// Export one run of a proof pack as an incident package (assay.incident.*.v1)
#[derive(clap::Args)]
#[command(after_help = "\
Health, kernel layer, decision log and policy go in byte for byte, each record is listed, and nothing more is said: how
much was seen is for whoever relies on the package to state. The pack must verify; what does not is not exported.
The context beside the package is what it is verified with: its assessment names the context's digest.

Examples:
  assay-gates incident pack.zip --gate openai-agents-hidden-write --out incident.tar
  assay-gates incident proof/pack --gate kernel-policy --run 2 --out incident.tar --context context.json

Exit codes: 0 exported, 2 no such run, 14 the pack does not verify, or holds what the format can't take.")]
pub struct Args {
    /// Proof pack, folder or zip
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Gate, as the pack names it
    #[arg(long, value_name = "ID")]
    gate: String,
    /// Which of its runs
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    run: u32,
    /// The package
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    /// The context that it is verified with; by default the package's name and .context.json
    #[arg(long, value_name = "FILE")]
    context: Option<PathBuf>,
}

/// Exports.
///
/// # Errors
/// As [`incident::export`]; `Io`.
pub fn run(args: &Args) -> Result<Exit> {
    let package = incident::export(&args.pack, &args.gate, args.run)?;
    let context = args.context.clone().unwrap_or_else(|| {
        let mut name = args.out.clone().into_os_string();
        name.push(".context.json");
        name.into()
    });
    write_atomic(&context, &package.context)?;
    write_atomic(&args.out, &package.tar)?;
    report::data(&format!(
        "incident package: {} ({} records of run {} of {}), context: {}\n",
        args.out.display(),
        package.records,
        args.run,
        args.gate,
        context.display()
    ));
    Ok(Exit::Passed)
}
