//! `assay-gates verify`: recompute everything that a piece of evidence says of itself.
//!
//! An archive here; a pack (folder or zip) in [`super::verify_pack`].

use crate::error::{Code, Error, Exit, Result};
use crate::evidence::archive::{Finding, examine, read_bounded};
use crate::evidence::{Archive, archive::member};
use crate::files::{Sha256Digest, pretty_sorted, sha256};
use crate::github::rest::{RunTarget, Target};
use crate::report;
use clap::Args as ClapArgs;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Verify an archive or a proof pack: structure, digests, schemas, and everything that follows from the layers.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates verify gates/kernel-only/run-1/runner-kernel-only.tar.gz
  assay-gates verify run.tar.gz --run-id run_kernel_only_determinism --sha256 2f7c…
  assay-gates verify run.tar.gz --format json | jq .findings
  assay-gates verify assay-runner-proof-upload
  assay-gates verify pack.zip --attestation attestation-bundle.json --repo owner/name
  assay-gates verify pack.zip --run owner/name#1234567

Exit code 0 when it verifies, 14 with everything that is wrong when it does not.
Verified means whole and consistent. It does not say who wrote it.")]
pub struct Args {
    /// An archive (.tar.gz), or a pack's folder or zip
    #[arg(value_name = "PATH")]
    file: PathBuf,
    /// Digest that the whole file must have, 64 hex digits (not for a folder)
    #[arg(long, value_name = "HEX", value_parser = digest)]
    sha256: Option<Sha256Digest>,
    /// Run that the archive must be of (not for a pack)
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// Sigstore bundle that must cover the pack; checked offline
    #[arg(long, value_name = "BUNDLE", requires = "repo")]
    attestation: Option<PathBuf>,
    /// Repository whose workflow must have made the attestation
    #[arg(long, value_name = "OWNER/NAME", requires = "attestation")]
    repo: Option<String>,
    /// Workflow run that must have measured the pack: what GitHub recorded of it, steps and log, is compared
    #[arg(long, value_name = "OWNER/NAME#ID", value_parser = of_run)]
    run: Option<OfRun>,
    /// Base URL of GitHub's API, for --run
    #[arg(long, value_name = "URL", env = "GITHUB_API_URL", requires = "run")]
    api_url: Option<String>,
    /// What standard output carries
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Lines for people
    #[default]
    Human,
    /// One JSON object
    Json,
}

/// A run of a repository, and the host that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OfRun {
    /// Host, when a URL named one.
    pub host: Option<String>,
    /// `owner/name`.
    pub repository: String,
    /// The run.
    pub run: u64,
}

/// `owner/name#ID`, or the page of the run.
fn of_run(text: &str) -> std::result::Result<OfRun, String> {
    let wrong = || "expected OWNER/NAME#ID, or the URL of a run".to_owned();
    if text.contains("://") {
        return match Target::parse(text) {
            Ok(Target::Run(RunTarget { host, repository: Some(repository), run: Some(run), .. })) => {
                Ok(OfRun { host, repository, run })
            }
            _ => Err(wrong()),
        };
    }
    let (repository, run) = text.split_once('#').ok_or_else(wrong)?;
    let run = run.parse().map_err(|_| wrong())?;
    let plain = repository.split('/').count() == 2 && !repository.split('/').any(str::is_empty);
    plain.then(|| OfRun { host: None, repository: repository.to_owned(), run }).ok_or_else(wrong)
}

fn digest(text: &str) -> std::result::Result<Sha256Digest, String> {
    format!("sha256:{}", text.strip_prefix("sha256:").unwrap_or(text))
        .parse()
        .map_err(|_| "expected 64 lowercase hex digits".to_owned())
}

/// `--format json` (`assay.gates.verification.v0`).
#[derive(serde::Serialize)]
struct Verification<'a> {
    schema: &'static str,
    input: &'static str,
    file: String,
    sha256: Sha256Digest,
    verified: bool,
    run_id: Option<&'a str>,
    layers: Option<Layers<'a>>,
    findings: &'a [Finding],
    not_established: [&'static str; 2],
}

/// What the archive's own health says of each layer, and how many lines it has.
#[derive(serde::Serialize)]
struct Layers<'a> {
    kernel: (&'a str, usize),
    policy: (&'a str, usize),
    sdk: (&'a str, usize),
    correlation: &'a str,
}

/// What no verification of these bytes can show.
const NOT_ESTABLISHED: [&str; 2] = [
    "authenticity: who wrote these bytes",
    "that the measured program did nothing outside of what was observed",
];

/// Verifies, and says what is wrong.
pub fn run(args: &Args) -> Result<Exit> {
    if is_pack(&args.file)? {
        if args.run_id.is_some() {
            return Err(Error::new(Code::Usage, "a pack holds many runs: --run-id is for an archive"));
        }
        let wanted = super::verify_pack::Wanted {
            path: &args.file,
            sha256: args.sha256,
            attestation: args.attestation.as_deref().zip(args.repo.as_deref()),
            run: args.run.as_ref().map(|run| (run, args.api_url.as_deref())),
            json: args.format == Format::Json,
        };
        return super::verify_pack::run(&wanted);
    }
    if args.run.is_some() {
        return Err(Error::new(Code::Usage, "a run leaves a pack: --run is not for an archive"));
    }
    if args.attestation.is_some() {
        return Err(Error::new(Code::Usage, "attestations cover packs: --attestation is not for an archive"));
    }
    let bytes = read_archive(&args.file)?;
    let found = sha256(&bytes);
    let examined = examine(&bytes);
    let mut findings = Vec::new();
    if let Some(expected) = args.sha256.filter(|expected| *expected != found) {
        findings.push(finding("archive", expected.to_string(), found.to_string()));
    }
    if let (Some(expected), Ok(archive)) = (&args.run_id, &examined)
        && expected != archive.run_id()
    {
        findings.push(finding(member::MANIFEST, format!("run_id {expected}"), archive.run_id().to_owned()));
    }
    let archive = match examined {
        Ok(archive) => Some(archive),
        Err(inside) => {
            findings.extend(inside);
            None
        }
    };
    match args.format {
        Format::Json => report::data(&pretty_sorted(&Verification {
            schema: "assay.gates.verification.v0",
            input: "archive",
            file: args.file.display().to_string(),
            sha256: found,
            verified: findings.is_empty(),
            run_id: archive.as_ref().map(Archive::run_id),
            layers: archive.as_ref().map(layers),
            findings: &findings,
            not_established: NOT_ESTABLISHED,
        })?),
        Format::Human => {
            if let Some(archive) = archive.as_ref().filter(|_| findings.is_empty()) {
                report::data(&shown(&args.file, archive));
            }
        }
    }
    let mut all = findings.into_iter();
    let Some(first) = all.next() else { return Ok(Exit::Passed) };
    if args.format == Format::Human {
        report::error(&first.into_error().hint("do not use this archive; measure again"));
        all.for_each(|finding| report::diagnostic(&format!("  also {finding}")));
    }
    Ok(Exit::EvidenceInvalid)
}

fn finding(place: &str, expected: String, found: String) -> Finding {
    Finding { place: place.to_owned(), expected, found }
}

/// A folder, or a file that begins as a zip does.
fn is_pack(path: &Path) -> Result<bool> {
    if path.is_dir() {
        return Ok(true);
    }
    let mut head = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut head))
        .map_err(|error| Error::io("cannot read", path, error))?;
    Ok(head == *b"PK\x03\x04" || head == *b"PK\x05\x06")
}

/// Reads the file when it is a gzip file; anything else is named.
fn read_archive(path: &Path) -> Result<Vec<u8>> {
    let bytes = read_bounded(path)?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        Ok(bytes)
    } else {
        Err(not_an_archive(path, "another kind of file"))
    }
}

fn not_an_archive(path: &Path, found: &str) -> Error {
    Error::new(
        Code::EvidenceInvalid,
        format!("expected an archive (.tar.gz) or a pack (folder or zip), found {found}"),
    )
    .at(path.display())
}

fn layers(archive: &Archive) -> Layers<'_> {
    let health = &archive.health;
    Layers {
        kernel: (&health.kernel_layer, archive.kernel.len()),
        policy: (&health.policy_layer, archive.policy.len()),
        sdk: (&health.sdk_layer, archive.sdk.len()),
        correlation: &archive.correlation.status,
    }
}

fn shown(path: &Path, archive: &Archive) -> String {
    let health = &archive.health;
    let mut text = format!("verified {}\n", path.display());
    for (name, value) in [
        ("run", archive.run_id().to_owned()),
        ("digest", archive.sha256.to_string()),
        (
            "kernel",
            format!(
                "{}, {} events, {} lost",
                health.kernel_layer,
                archive.kernel.len(),
                health.ringbuf_drops
            ),
        ),
        ("policy", format!("{}, {} decisions", health.policy_layer, archive.policy.len())),
        ("sdk", format!("{}, {} events", health.sdk_layer, archive.sdk.len())),
        ("correlation", archive.correlation.status.clone()),
    ] {
        text.push_str(&format!("  {name:<12} {value}\n"));
    }
    for what in NOT_ESTABLISHED {
        text.push_str(&format!("  not shown    {what}\n"));
    }
    text
}
