//! `assay-gates diff`: what changed between two pieces of evidence.

use crate::error::{Code, Error, Exit, Result};
use crate::evidence::Archive;
use crate::evidence::archive::MAX_SOURCE;
use crate::judge::diff::{CapabilityDiff, CrossRuntimeDiff, EffectsDiff, Evidence, WorkPrefix, chosen, sdks};
use crate::pack;
use crate::report;
use clap::Args as ClapArgs;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Compare two runs: what is touched, decided and done now that was not before.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates diff base.tar.gz head.tar.gz
  assay-gates diff yesterday/pack.zip today/pack.zip
  assay-gates diff proof-before proof-after --gate openai-agents-kernel-policy --effects
  assay-gates diff openai/run-1 gemini/run-1 --cross-runtime \\
    --base-prefix /run/assay-gates/work/ --head-prefix /run/assay-gates/work/

BASE and HEAD are archives, extracted members, run folders, proof roots, or packs (folder or zip). Of two
roots or packs every gate is compared by what it did, as with --effects; a gate that one side lacks is a difference.
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
    if gate.is_none() && !args.cross_runtime {
        let (base, head) = (gates(&args.base)?, gates(&args.head)?);
        if !base.is_empty() && !head.is_empty() {
            return all_gates(args, &base, &head);
        }
    }
    let (base, head) = (opened(&args.base, gate)?, opened(&args.head, gate)?);
    if args.effects {
        let diff = by_effects(args, &base, &head)?;
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
    let made_by = sdks(&base.side.sdks(), &head.side.sdks());
    show(args.format, &diff, &(diff.shown() + &made_by))?;
    Ok(diff.exit())
}

fn by_effects(args: &Args, base: &Evidence, head: &Evidence) -> Result<EffectsDiff> {
    let (before, after) = (effects(base, &args.base)?, effects(head, &args.head)?);
    let diff = EffectsDiff::of(
        (&base.side.health, before, args.base_prefix.as_ref()),
        (&head.side.health, after, args.head_prefix.as_ref()),
    );
    Ok(diff.by(&base.side, &head.side))
}

/// Every gate of either side. In JSON, an object with the comparison of each gate; null where there is none.
fn all_gates(args: &Args, base: &BTreeSet<String>, head: &BTreeSet<String>) -> Result<Exit> {
    let (mut exits, mut documents, mut text) = (vec![Exit::Passed], BTreeMap::new(), String::new());
    for gate in base.union(head) {
        let lacking = [("base", base), ("head", head)].into_iter().find(|(_, side)| !side.contains(gate));
        if let Some((side, _)) = lacking {
            text += &format!("gate {gate}: {side} lacks it\n");
            exits.push(Exit::RunsDisagree);
            documents.insert(gate, None);
            continue;
        }
        let compared =
            || by_effects(args, &opened(&args.base, Some(gate))?, &opened(&args.head, Some(gate))?);
        let diff = match compared() {
            Ok(diff) => diff,
            Err(error) => {
                text += &format!("gate {gate}: can't be compared: {error}\n");
                exits.push(error.exit());
                documents.insert(gate, None);
                continue;
            }
        };
        text += &match diff.exit() {
            Exit::Passed => format!("gate {gate}: the same\n"),
            _ => format!("gate {gate}: {}", diff.shown()),
        };
        exits.push(diff.exit());
        documents.insert(gate, Some(diff));
    }
    show(args.format, &documents, &text)?;
    Ok(Exit::worst(exits))
}

fn is_zip(path: &Path) -> bool {
    let mut magic = [0; 2];
    path.is_file()
        && std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && &magic == b"PK"
}

/// The gates of a proof root or pack; none of anything else.
fn gates(path: &Path) -> Result<BTreeSet<String>> {
    if !is_zip(path) {
        return Evidence::gates(path);
    }
    let invalid =
        |wrong: pack::Finding| Error::new(Code::EvidenceInvalid, wrong.to_string()).at(path.display());
    let source = pack::Source::open(path).map_err(invalid)?;
    let of = |name: &String| Some(name.strip_prefix("payload/gates/")?.split_once('/')?.0.to_owned());
    Ok(source.members().keys().filter_map(of).collect())
}

fn opened(path: &Path, gate: Option<&str>) -> Result<Evidence> {
    if is_zip(path) { of_zip(path, gate) } else { Evidence::open(path, gate) }
}

/// The first run of a gate in a zipped pack.
fn of_zip(path: &Path, gate: Option<&str>) -> Result<Evidence> {
    let invalid =
        |wrong: pack::Finding| Error::new(Code::EvidenceInvalid, wrong.to_string()).at(path.display());
    let source = pack::Source::open(path).map_err(invalid)?;
    let gates: BTreeSet<&str> = source
        .members()
        .keys()
        .filter_map(|name| name.strip_prefix("payload/gates/")?.split_once('/').map(|(gate, _)| gate))
        .collect();
    let folder =
        format!("payload/gates/{}/run-1/", chosen(&gates, gate).map_err(|error| error.at(path.display()))?);
    let mut archives = source.members().keys().filter(|name| {
        name.strip_prefix(&folder)
            .is_some_and(|name| name.starts_with("runner-") && name.ends_with(".tar.gz"))
    });
    let (Some(name), None) = (archives.next(), archives.next()) else {
        return Err(Error::new(
            Code::EvidenceInvalid,
            "expected one archive (runner-*.tar.gz), found none or several",
        )
        .at(format!("{}: {folder}", path.display())));
    };
    let archive = source.read(name, MAX_SOURCE).map_err(invalid)?;
    let archive = Archive::from_bytes(&archive).map_err(|error| {
        let place = format!("{}: {name}: {}", path.display(), error.place().unwrap_or("archive"));
        error.at(place)
    })?;
    let beside = format!("{folder}tool_effects.json");
    let effects = source
        .members()
        .contains_key(&beside)
        .then(|| source.read(&beside, MAX_SOURCE))
        .transpose()
        .map_err(invalid)?;
    Evidence::of_archive(&archive, effects.as_deref(), &path.join(folder))
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
