//! `assay-gates diff`: what changed between two pieces of evidence.

use crate::error::{Code, Error, Exit, Result};
use crate::judge::diff::{CapabilityDiff, CrossRuntimeDiff, EffectsDiff, Evidence, WorkPrefix};
use crate::report;
use clap::Args as ClapArgs;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Compare two runs: what is touched, decided and done now that was not before.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates diff base.tar.gz head.tar.gz
  assay-gates diff proof-before proof-after --gate openai-agents-kernel-policy --effects
  assay-gates diff openai/run-1 gemini/run-1 --cross-runtime \\
    --base-prefix /run/assay-gates/work/ --head-prefix /run/assay-gates/work/

BASE and HEAD are archives, extracted members, run folders, proof roots or pack folders.
Exit code 0 when they are equal, 11 when they differ, 12 when they can't be compared, 14 when one is invalid.")]
pub struct Args {
    /// What was before
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// What is now
    #[arg(value_name = "HEAD")]
    head: PathBuf,
    /// Gate to take from proof roots and packs
    #[arg(long, value_name = "ID")]
    gate: Option<String>,
    /// Compare what each tool call did instead of the surfaces
    #[arg(long, conflicts_with = "cross_runtime")]
    effects: bool,
    /// Compare runs of two SDKs
    #[arg(long, requires = "base_prefix", requires = "head_prefix")]
    cross_runtime: bool,
    /// Base's work folder, ending in /
    #[arg(long, value_name = "DIR/", value_parser = WorkPrefix::parse)]
    base_prefix: Option<WorkPrefix>,
    /// Head's work folder, ending in /
    #[arg(long, value_name = "DIR/", value_parser = WorkPrefix::parse)]
    head_prefix: Option<WorkPrefix>,
    /// What standard output carries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// Lines for people
    #[default]
    Human,
    /// The document of the comparison
    Json,
}

/// Compares, and says what changed.
pub fn run(args: &Args) -> Result<Exit> {
    if !args.cross_runtime && !args.effects && (args.base_prefix.is_some() || args.head_prefix.is_some()) {
        return Err(Error::new(
            Code::Usage,
            "expected --cross-runtime or --effects with a prefix, found neither: paths of one runtime are compared as they are",
        ));
    }
    let gate = args.gate.as_deref();
    let (base, head) = (Evidence::open(&args.base, gate)?, Evidence::open(&args.head, gate)?);
    if args.effects {
        let (before, after) = (effects(&base, &args.base)?, effects(&head, &args.head)?);
        let diff = EffectsDiff::of(
            (&base.side.health, before, args.base_prefix.as_ref()),
            (&head.side.health, after, args.head_prefix.as_ref()),
        );
        show(args.format, &diff, &diff.shown())?;
        return Ok(diff.exit());
    }
    if let (true, Some(base_prefix), Some(head_prefix)) =
        (args.cross_runtime, &args.base_prefix, &args.head_prefix)
    {
        let diff = CrossRuntimeDiff::of(&base.side, &head.side, base_prefix, head_prefix)?;
        show(args.format, &diff, &diff.shown())?;
        return Ok(diff.exit());
    }
    let diff = CapabilityDiff::of(&base.side, &head.side)?;
    show(args.format, &diff, &diff.shown())?;
    Ok(diff.exit())
}

fn effects<'a>(evidence: &'a Evidence, path: &Path) -> Result<&'a crate::evidence::ToolEffects> {
    evidence.effects.as_ref().ok_or_else(|| {
        Error::new(Code::NotComparable, "expected tool_effects.json beside the archive, found none")
            .at(path.display())
            .hint("leave --effects out, or measure again with `record --effects DIR` or `run`")
    })
}

/// The contract's documents keep their declared order.
fn show<T: Serialize>(format: Format, document: &T, text: &str) -> Result<()> {
    match format {
        Format::Human => report::data(text),
        Format::Json => {
            let mut json = serde_json::to_string_pretty(document)
                .map_err(|error| Error::new(Code::Internal, format!("cannot serialise: {error}")))?;
            json.push('\n');
            report::data(&json);
        }
    }
    Ok(())
}
