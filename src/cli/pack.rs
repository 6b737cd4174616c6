//! `assay-gates pack`: a proof root to a proof pack.

use crate::error::{Exit, Result};
use crate::gate::{Catalog, Group};
use crate::pack::{self, Provenance};
use crate::report;
use clap::Args as ClapArgs;
use std::path::PathBuf;

/// Build the proof pack of a proof root, or one pack of the packs of several machines
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates pack --root proof --out assay-runner-proof-upload
  assay-gates pack --root proof --out assay-runner-proof-upload --zip pack.zip --format json
  assay-gates pack --merge shards/* --out assay-runner-proof-upload
  assay-gates pack --root proof --out assay-runner-proof-upload --test-result test-result.json
  cosign attest-blob --predicate test-result.json --type https://in-toto.io/attestation/test-result/v0.1 \\
    assay-runner-proof-upload/manifest.json

Gates that failed, were skipped or never ran are in the pack with that status.
The same root gives the same bytes.")]
pub struct Args {
    /// Proof root, as `run --root` wrote it
    #[arg(long, value_name = "DIR", required_unless_present = "merge", conflicts_with = "merge")]
    root: Option<PathBuf>,
    /// Packs of one run's attempt, a gate each: verified, then joined; refused when head or kernel programs differ
    #[arg(long, value_name = "PACK", num_args = 1..)]
    merge: Vec<PathBuf>,
    /// Folder to write; replaced when it holds an earlier pack
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Also write the pack as one zip file
    #[arg(long, value_name = "FILE")]
    zip: Option<PathBuf>,
    /// Also write the in-toto test-result predicate v0.1 of the pack, for a signer: how each gate ended
    #[arg(long, value_name = "FILE")]
    test_result: Option<PathBuf>,
    /// Checkout whose git trees stand for the measuring code
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
    /// What standard output carries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    /// Lines for people
    #[default]
    Human,
    /// One JSON object
    Json,
}

/// `--format json` (`assay.gates.pack_result.v0`).
#[derive(serde::Serialize)]
struct Built<'a> {
    schema: &'static str,
    folder: String,
    zip: Option<String>,
    manifest_sha256: String,
    files: usize,
    bytes: u64,
    gates: Vec<(&'a str, &'static str)>,
    claims: &'a [String],
    notes: &'a [String],
}

/// Builds, and says what is in it.
pub fn run(args: &Args) -> Result<Exit> {
    let zip = args.zip.as_deref();
    let built = match &args.root {
        Some(root) => pack::build(root, &args.out, zip, &Provenance::from_environment(&args.repository))?,
        None => pack::merge(&args.merge, &args.out, zip, &gates_of_all(&args.repository)?)?,
    };
    let manifest = &built.manifest;
    if let Some(file) = &args.test_result {
        let predicate = crate::files::pretty_sorted(&pack::statement::test_result(manifest))?;
        crate::files::write_atomic(file, predicate.as_bytes())?;
    }
    let gates: Vec<(&str, &str)> =
        manifest.gates.iter().map(|gate| (gate.gate.as_str(), gate.status.as_str())).collect();
    match args.format {
        Format::Json => report::data(&crate::files::pretty_sorted(&Built {
            schema: "assay.gates.pack_result.v0",
            folder: built.folder.display().to_string(),
            zip: built.zip.as_ref().map(|path| path.display().to_string()),
            manifest_sha256: built.manifest_sha256.to_string(),
            files: manifest.payload_files.len(),
            bytes: manifest.pack_size_bytes,
            gates,
            claims: &built.claims.lines(),
            notes: &built.notes,
        })?),
        Format::Human => {
            let mut text = format!(
                "proof pack {}\n  {} files, {} bytes, manifest {}\n",
                built.folder.display(),
                manifest.payload_files.len(),
                manifest.pack_size_bytes,
                built.manifest_sha256
            );
            for (gate, status) in gates {
                text.push_str(&format!("  {status:<10} {gate}\n"));
            }
            for claim in built.claims.lines() {
                text.push_str(&format!("  {claim}\n"));
            }
            if let Some(zip) = &built.zip {
                text.push_str(&format!("  zip        {}\n", zip.display()));
            }
            report::data(&text);
        }
    }
    for note in &built.notes {
        report::diagnostic(&format!("note: {note}"));
    }
    Ok(Exit::Passed)
}

/// What `all` means in the checkout; nothing where there are no definitions.
fn gates_of_all(repository: &std::path::Path) -> Result<Vec<String>> {
    let folder = repository.join("gates");
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let catalog = Catalog::load(&folder)?;
    let all = catalog.entries().iter().filter(|entry| entry.definition.group == Group::All);
    Ok(all.map(|entry| entry.definition.id.clone()).collect())
}
