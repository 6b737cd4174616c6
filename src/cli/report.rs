//! `assay-gates report`: an invocation as a page, or as GitHub shows it.

use super::github::{Repository, with_client};
use crate::error::{Code, Error, Exit, Result};
use crate::files::write_atomic;
use crate::github::rest::{RunTarget, Target};
use crate::judge::GateVerdict;
use crate::report::page::{Document, read, render};
use crate::report::{self, ArtifactLine, Definitions};
use crate::triage::gather::{OnDisk, PACK_NAME, Tree, recognise};
use clap::Args as ClapArgs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Show a run, a pack or a proof root as one self-contained HTML page, or as a step summary.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  assay-gates report proof                           the summary, as Markdown, on standard output
  assay-gates report proof --html report.html
  assay-gates report 123456789 --html report.html     the pack of a run on GitHub
  assay-gates report proof --sarif gates.sarif        the findings, for code scanning
  assay-gates report proof --format github            into $GITHUB_STEP_SUMMARY, annotations to standard output

The page needs no network and no script. It shows what the files say; `assay-gates verify` checks them.")]
pub struct Args {
    /// Run id or URL, pack (folder or zip), or proof root
    #[arg(value_name = "RUN|PACK|ROOT")]
    target: String,
    /// File to write the page to
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// File to write the findings to, as SARIF 2.1.0
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// File to write the verdicts to, as JUnit
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Folder of the gate definitions, which findings and annotations point to
    #[arg(long, value_name = "DIR", default_value = "gates")]
    gates_dir: PathBuf,
    /// Another view
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    repository: Repository,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Step summary and annotations of a workflow
    Github,
}

/// Shows it.
pub fn run(args: &Args) -> Result<Exit> {
    let path = Path::new(&args.target);
    let document = match Target::parse(&args.target)? {
        Target::Run(run) if run.repository.is_some() || !path.exists() => of_run(&run, args)?,
        // A workflow whose host was unfit has no root; its summary says that nothing was measured.
        _ if !path.exists() && args.format == Some(Format::Github) => Document::default(),
        _ => of_path(path, &args.target)?,
    };
    if let Some(html) = &args.html {
        write_atomic(html, render(&document).as_bytes())?;
        report::diagnostic(&format!("wrote {}", html.display()));
    }
    let definitions = definitions(&args.gates_dir);
    if let Some(file) = &args.sarif {
        write_atomic(file, report::sarif(&document, &definitions).as_bytes())?;
        report::diagnostic(&format!("wrote {}", file.display()));
    }
    if let Some(file) = &args.junit {
        write_atomic(file, report::junit(&verdicts(&document), document.claims.as_ref()).as_bytes())?;
        report::diagnostic(&format!("wrote {}", file.display()));
    }
    match args.format {
        Some(Format::Github) => github(&document, &definitions)?,
        None if args.html.is_none() && args.sarif.is_none() && args.junit.is_none() => {
            report::data(&report::summary(
                &verdicts(&document),
                &document.gaps,
                document.claims.as_ref(),
                None,
            ));
        }
        None => {}
    }
    Ok(Exit::Passed)
}

fn of_path(path: &Path, name: &str) -> Result<Document> {
    let prefix = match recognise(path)? {
        OnDisk::ProofRoot => "",
        OnDisk::Pack => "payload/",
        OnDisk::Logs | OnDisk::Log => {
            let what = "expected a proof root or a pack, found logs";
            return Err(Error::new(Code::TriageInput, what)
                .at(path.display())
                .hint(format!("assay-gates triage {name}")));
        }
    };
    Ok(read(&mut Tree::open(path)?, prefix, name))
}

/// The pack of a run on GitHub.
fn of_run(target: &RunTarget, args: &Args) -> Result<Document> {
    let settings = args.repository.settings(target, Duration::from_secs(60))?;
    let id = target.run.unwrap_or_default();
    with_client(settings, async |client| {
        let scratch =
            tempfile::tempdir().map_err(|error| Error::io("cannot create", &std::env::temp_dir(), error))?;
        let zip = scratch.path().join("pack.zip");
        client.artifact_of_run(id, PACK_NAME, &zip).await?;
        Ok(read(&mut Tree::open(&zip)?, "payload/", &args.target))
    })
}

/// The verdict of each gate; one that was not written is its own.
fn verdicts(document: &Document) -> Vec<GateVerdict> {
    document
        .gates
        .iter()
        .map(|gate| {
            let missing = || {
                GateVerdict::skipped(&gate.id, Exit::CaptureIncomplete, "no verdict was written".to_owned())
            };
            gate.verdict.clone().unwrap_or_else(missing)
        })
        .collect()
}

/// Those of the checkout that the job, or whoever asks, works in.
fn definitions(folder: &Path) -> Definitions {
    let workspace = std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from);
    let inside = |base: &PathBuf| std::env::current_dir().is_ok_and(|here| here.starts_with(base));
    Definitions::read(folder, &workspace.filter(inside).unwrap_or_else(|| PathBuf::from(".")))
}

fn github(document: &Document, definitions: &Definitions) -> Result<()> {
    let verdicts = verdicts(document);
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let artifact = variable("ARTIFACT_URL").map(|url| ArtifactLine {
        url,
        digest: variable("ARTIFACT_DIGEST").unwrap_or_else(|| "unknown".to_owned()),
    });
    let summary = report::summary(&verdicts, &document.gaps, document.claims.as_ref(), artifact.as_ref());
    match variable("GITHUB_STEP_SUMMARY") {
        None => report::data(&summary),
        Some(file) => {
            let path = Path::new(&file);
            let io = |error| Error::io("cannot append", path, error);
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(io)?;
            crate::files::append_whole(&mut file, summary.as_bytes()).map_err(io)?;
        }
    }
    report::data(&report::annotations(&verdicts, document.claims.as_ref(), definitions));
    Ok(())
}
