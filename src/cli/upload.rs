//! `assay-gates upload`: a proof pack to a workflow artifact, and back.

use crate::error::{Code, Error, Exit, Result};
use crate::github::artifact::{
    self, Backoff, Job, Notice, Proof, Request, RestArtifact, Service, SystemClock, Timeouts, Uploaded,
};
use crate::github::rest::{Client, Settings};
use crate::triage::gather::Tree;
use crate::{pack, report};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes that a runner takes of one step's summary; above it shows nothing of it.
const SUMMARY_LIMIT: u64 = 1024 * 1024;

/// Upload a proof pack as an artifact of this workflow run, and read it back.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates upload assay-runner-proof-upload
  assay-gates upload pack.zip --retention-days 365 --overwrite

Needs ACTIONS_RESULTS_URL and ACTIONS_RUNTIME_TOKEN, which runners set for actions but not for `run:` steps.
With GITHUB_TOKEN or GH_TOKEN (actions: read) the artifact is looked up through the REST API too.
Outputs: artifact-id, artifact-url, artifact-digest, artifact-name, run-id, run-attempt, retention-days.
A failed upload leaves the pack where it is and exits with 13.")]
pub struct Args {
    /// Folder or zip of a pack
    #[arg(value_name = "PACK")]
    pack: PathBuf,
    /// Name of the artifact [default: assay-runner-delegated-proof-pack-<run id>]
    #[arg(long)]
    name: Option<String>,
    /// Days to keep it, at most what the repository allows [default: the repository's]
    #[arg(long, value_name = "N")]
    retention_days: Option<u32>,
    /// Replace an artifact of that name
    #[arg(long)]
    overwrite: bool,
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

/// What was stored (`assay.gates.artifact.v0`).
#[derive(Debug, serde::Serialize)]
struct Stored {
    schema: &'static str,
    artifact_id: String,
    artifact_name: String,
    artifact_url: Option<String>,
    artifact_digest: String,
    bytes: u64,
    run_id: String,
    run_attempt: String,
    retention_days: Option<u32>,
    expires_at: Option<String>,
    confirmed_by: Vec<&'static str>,
    recovered: bool,
}

/// Uploads, reads back, and tells the job.
pub fn run(args: &Args) -> Result<Exit> {
    let job = Job::gather(|name| std::env::var(name).ok())?;
    if job.in_actions {
        report::diagnostic(&format!("::add-mask::{}", job.token.reveal()));
    }
    let kept = |error: Error| keep(error, args);
    let zip = zip_of(&args.pack)?;
    let name =
        args.name.clone().unwrap_or_else(|| format!("assay-runner-delegated-proof-pack-{}", job.run_id));
    let retention_days = artifact::retention(args.retention_days, job.retention_cap);
    if let (Some(wanted), Some(given)) = (args.retention_days, retention_days)
        && given < wanted
    {
        report::diagnostic(&format!(
            "note: the repository keeps artifacts for {given} days at most, not {wanted}"
        ));
    }
    let request = Request { name, zip: zip.clone(), retention_days, overwrite: args.overwrite };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::new(Code::Internal, format!("cannot start the network runtime: {error}")))?;
    let stored = runtime.block_on(send(&job, &request)).map_err(kept)?;
    tell(&job, &stored, args.format)?;
    Ok(Exit::Passed)
}

/// The zip of a pack: itself, or written beside the folder.
fn zip_of(pack: &Path) -> Result<PathBuf> {
    let facts = std::fs::metadata(pack).map_err(|error| {
        Error::io("cannot look at", pack, error).hint("assay-gates pack --root DIR --out DIR")
    })?;
    holds_something(pack).map_err(|what| {
        Error::new(Code::PackInvalid, format!("expected a pack (manifest.json, payload/), found {what}"))
            .at(pack.display())
            .hint("assay-gates pack --root DIR --out DIR")
    })?;
    if !facts.is_dir() {
        return Ok(pack.to_owned());
    }
    let whole = pack.canonicalize().map_err(|error| Error::io("cannot resolve", pack, error))?;
    let mut name = whole.file_name().unwrap_or_default().to_owned();
    name.push(".zip");
    let zip = whole.with_file_name(name);
    pack::zip_folder(&whole, &zip)?;
    Ok(zip)
}

/// An upload of nothing would look like a proof.
fn holds_something(pack: &Path) -> std::result::Result<(), String> {
    let tree = Tree::open(pack).map_err(|error| error.message().to_owned())?;
    let has = |test: &dyn Fn(&str) -> bool| tree.names().iter().any(|name| test(name));
    if !has(&|name| name == pack::manifest::MANIFEST_PATH) {
        return Err("no manifest.json".to_owned());
    }
    if has(&|name| name.starts_with("payload/")) { Ok(()) } else { Err("no payload".to_owned()) }
}

async fn send(job: &Job, request: &Request) -> Result<Stored> {
    let service = Service::new(&job.results_url, &job.token, Timeouts::default())?;
    let (backoff, clock) = (Backoff::default(), SystemClock);
    let in_actions = job.in_actions;
    let mut notice = move |notice: Notice| match notice {
        Notice::Mask(secret) if in_actions => report::diagnostic(&format!("::add-mask::{secret}")),
        Notice::Mask(_) => {}
        Notice::Said(text) => report::diagnostic(&format!("note: {text}")),
        Notice::Sent(sent, total) if sent < total => tracing::info!(sent, total, "uploading"),
        Notice::Sent(_, total) => report::diagnostic(&format!("sent {total} bytes")),
    };
    let uploaded = artifact::upload(&service, request, &backoff, &clock, &mut notice).await?;
    let mut confirmed_by = vec![match uploaded.proof {
        Proof::Listing => "service listing",
        Proof::Download => "download",
    }];
    let rest = look_up(job, &uploaded, &backoff, &clock, &mut notice).await?;
    if rest.is_some() {
        confirmed_by.push("REST API");
    }
    Ok(Stored {
        schema: "assay.gates.artifact.v0",
        artifact_url: job.artifact_url(&uploaded.artifact_id),
        artifact_id: uploaded.artifact_id,
        artifact_name: uploaded.name,
        artifact_digest: uploaded.digest.to_string(),
        bytes: uploaded.bytes,
        run_id: job.run_id.clone(),
        run_attempt: job.run_attempt.clone(),
        retention_days: request.retention_days,
        expires_at: rest.and_then(|artifact| artifact.expires_at).or(uploaded.expires_at),
        confirmed_by,
        recovered: uploaded.recovered,
    })
}

/// The REST API's word, when a token is there. Its silence is said, not fatal: the service has confirmed the bytes.
async fn look_up(
    job: &Job,
    uploaded: &Uploaded,
    backoff: &Backoff,
    clock: &SystemClock,
    notice: &mut dyn FnMut(Notice),
) -> Result<Option<RestArtifact>> {
    let (Some(token), Some(repository)) = (&job.rest_token, &job.repository) else { return Ok(None) };
    let short = Backoff { attempts: backoff.attempts.min(4), ..backoff.clone() };
    let found = async {
        let client = Client::new(Settings {
            base_url: job.api_url.clone(),
            repository: repository.clone(),
            token: Some(token.reveal().to_owned()),
            patience: Duration::from_secs(60),
        })?;
        artifact::compare_rest(&client, &job.run_id, uploaded, &short, clock, notice).await
    };
    let found = found.await;
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == Code::ArtifactReadBack => Err(error),
        Err(error) => {
            report::diagnostic(&format!("note: not confirmed through the REST API: {error}"));
            Ok(None)
        }
    }
}

fn tell(job: &Job, stored: &Stored, format: Format) -> Result<()> {
    let url = stored.artifact_url.as_deref().unwrap_or("-");
    let retention =
        stored.retention_days.map_or_else(|| "repository default".to_owned(), |days| days.to_string());
    // What the job is told of it first: a full disk there must not leave a claim behind.
    if let Some(path) = &job.output {
        let mut lines = String::new();
        for (name, value) in [
            ("artifact-id", stored.artifact_id.as_str()),
            ("artifact-url", url),
            ("artifact-digest", &stored.artifact_digest),
            ("artifact-name", &stored.artifact_name),
            ("run-id", &stored.run_id),
            ("run-attempt", &stored.run_attempt),
            ("retention-days", &retention),
        ] {
            // None of these can hold a line break: names are checked, the rest are ids and digests of one line.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
            lines.push_str(&format!("{name}={value}\n"));
        }
        append(path, &lines)?;
    }
    if let Some(path) = &job.summary {
        let text = format!(
            "\n| proof pack | |\n|---|---|\n| artifact | [{}]({url}) |\n| id | {} |\n| digest | `{}` |\n| size | {} bytes |\n\
             | run | {} attempt {} |\n| retention days | {retention} |\n| confirmed by | {} |\n",
            stored.artifact_name,
            stored.artifact_id,
            stored.artifact_digest,
            stored.bytes,
            stored.run_id,
            stored.run_attempt,
            stored.confirmed_by.join(", "),
        );
        let held = std::fs::metadata(path).map_or(0, |facts| facts.len());
        if held + text.len() as u64 > SUMMARY_LIMIT {
            report::diagnostic(&format!(
                "note: the summary holds {held} bytes; a runner shows none of a summary above {SUMMARY_LIMIT}, so nothing is added"
            ));
        } else {
            append(path, &text)?;
        }
    }
    match format {
        Format::Json => report::data(&crate::files::pretty_sorted(stored)?),
        Format::Human => report::data(&format!(
            "artifact {} (id {})\n  {} bytes, {}\n  confirmed by {}\n  {url}\n",
            stored.artifact_name,
            stored.artifact_id,
            stored.bytes,
            stored.artifact_digest,
            stored.confirmed_by.join(", "),
        )),
    }
    Ok(())
}

fn append(path: &Path, text: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .and_then(|mut file| crate::files::append_whole(&mut file, text.as_bytes()))
        .map_err(|error| Error::io("cannot append to", path, error))
}

/// The pack stays; the error says where, and how to try again.
fn keep(error: Error, args: &Args) -> Error {
    let again = format!(
        "the pack is unharmed; again: assay-gates upload {} --overwrite{}",
        args.pack.display(),
        args.name.as_ref().map_or_else(String::new, |name| format!(" --name {name}")),
    );
    let hint = match error.advice() {
        Some(hint) => format!("{hint}\n  hint: {again}"),
        None => again,
    };
    error.hint(hint)
}
