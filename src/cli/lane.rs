//! `assay-gates lane`: which gate a change must pass before merge, and whether a pack proves that it did.

use super::github::{Repository, with_client};
use crate::error::{Code, Error, Exit, Result};
use crate::files::pretty_sorted;
use crate::gate::{Catalog, Group};
use crate::github::rest::{Branch, Client, RunTarget};
use crate::lane::{
    Check, Claim, Decision, LaneContract, PackFacts, Required, RunOutcome, Status, changed_files, check,
    file_at, job_logs, object_of, resolve, run_facts, standing_proof, test_only_locks, yaml_digests_below,
};
use crate::pack::{UnverifiedPack, VerifiedPack};
use crate::report;
use clap::ValueEnum;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Say which gate a change must pass before merge, and which rule and files decide that
#[derive(clap::Args)]
#[command(after_help = "\
The rules are data: gates/lanes.yaml. Files that no rule knows need every gate.
A pack proves a head when it verifies, is the artifact of the run, measured the trees that the head has, every
required gate passed, and GitHub's own record of the `Gate: <id>` steps says the same, in both directions, and the
log of the job holds the nonce and the end of each gate's chain, printed while its step ran.
What is required follows from the protected branch as GitHub has it; definitions and policies must be the head's.
A run that failed, was cancelled or ended in any other way is named by --run without --prove: the status says so, and a
proof that stands already is taken back by a failure alone.

Examples:
  assay-gates lane --base origin/main --head HEAD
  assay-gates lane --base origin/main --head HEAD --format github >> \"$GITHUB_OUTPUT\"
  assay-gates lane --base origin/main --head HEAD --prove pack.zip --run 1234567 --post-status
  assay-gates lane --head HEAD --run 1234567 --post-status

Exit codes: 0 decided or proved, 10 not proved, 13 GitHub can't be asked, 14 the pack does not verify.")]
pub struct Args {
    /// Revision that the change starts from; a proof starts from the protected branch instead
    #[arg(long, value_name = "REV", default_value = "origin/main")]
    base: String,
    /// Protected branch that a proof starts from, as GitHub has it; the default branch when absent
    #[arg(long, value_name = "NAME", requires = "run")]
    protected: Option<String>,
    /// Revision that it ends in
    #[arg(long, value_name = "REV", default_value = "HEAD")]
    head: String,
    /// The checkout
    #[arg(long, value_name = "DIR", default_value = ".")]
    repository: PathBuf,
    /// The lane contract; gates/lanes.yaml of the base when absent
    #[arg(long, value_name = "FILE")]
    lanes: Option<PathBuf>,
    /// Folder of the gate definitions; gates/ of the checkout when absent
    #[arg(long, value_name = "DIR")]
    gates_dir: Option<PathBuf>,
    /// Proof pack, as it was downloaded, that shall prove the head
    #[arg(long, value_name = "ZIP", requires = "run")]
    prove: Option<PathBuf>,
    /// Id of the workflow run that uploaded it; alone, of a run that ended without a proof
    #[arg(long, value_name = "ID")]
    run: Option<u64>,
    /// Post the outcome as a commit status of the head
    #[arg(long)]
    post_status: bool,
    #[command(flatten)]
    github: Repository,
    /// How to print the decision; github prints `gate=…` for $GITHUB_OUTPUT
    #[arg(long, value_enum, default_value_t = Format::Human)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Human,
    Json,
    Github,
}

/// `--prove --format json` (`assay.gates.lane_proof.v0`).
#[derive(Serialize)]
struct Proof<'a> {
    schema: &'static str,
    proved: bool,
    required: &'a Required,
    head: &'a str,
    run: u64,
    checks: &'a [Check],
}

/// Decides, proves when asked, and prints.
///
/// # Errors
/// `LanesInvalid`, `LaneGit`, `LaneUnproven`, `LaneStatus`, `PackInvalid`, what the API fails with.
pub fn run(args: &Args) -> Result<Exit> {
    let head = resolve(&args.repository, &args.head)?;
    match (&args.prove, args.run) {
        (Some(pack), Some(run)) => prove(args, head, pack, run),
        (None, Some(run)) => without_proof(args, head, run),
        _ => {
            let base = resolve(&args.repository, &args.base)?;
            let (contract, decision) = decision(args, base, head)?;
            decide(args, &contract, &decision)
        }
    }
}

/// What the change from `base` to `head` needs, by the rules of `base`: a change can't lower what is asked of it.
fn decision(args: &Args, base: String, head: String) -> Result<(LaneContract, Decision)> {
    let contract = match &args.lanes {
        Some(lanes) => LaneContract::load(lanes)?,
        None => {
            let bytes = file_at(&args.repository, &base, LANES)?;
            LaneContract::parse(&String::from_utf8_lossy(&bytes), &format!("{base}:{LANES}"))?
        }
    };
    let changed = changed_files(&args.repository, &base, &head)?;
    let tests_only = test_only_locks(&args.repository, &contract, &base, &head, &changed)?;
    let decision = Decision::new(&contract, base, head, &changed, &tests_only);
    Ok((contract, decision))
}

fn decide(args: &Args, contract: &LaneContract, decision: &Decision) -> Result<Exit> {
    report::data(&match args.format {
        Format::Human => decision.human(),
        Format::Json => pretty_sorted(decision)?.replace("##[", "#\\u0023["),
        Format::Github => format!("gate={}\n", String::from(decision.required.clone())),
    });
    if args.post_status {
        let status = match decision.required.gate() {
            None => Status::no_gate(&contract.status),
            Some(gate) => {
                let what = format!("needs gate {gate}: assay-gates dispatch --gates {gate}");
                Status::new("pending", &contract.status, &what, None)
            }
        };
        let settings = args.github.settings(&RunTarget::default(), PATIENCE)?;
        with_client(settings, async |client| post(&client, decision, &status).await)?;
    }
    Ok(Exit::Passed)
}

/// Posts a status, but nothing that is open in the place of a proof that stands: a run may end before the change is
/// looked at, and another one may be cancelled after it.
async fn post(client: &Client, decision: &Decision, status: &Status) -> Result<()> {
    if status.state == "pending"
        && let Some(gate) = decision.required.gate()
        && let Some(proved) = standing_proof(client, &decision.head, &status.context).await?
        && proved.gate().is_some_and(|proved| decision.required.shown_by(proved))
    {
        report::diagnostic(&format!("note: {} stays proved, which shows gate {gate}", decision.head));
        return Ok(());
    }
    status.post(client, &decision.head).await
}

/// What a run says that left no pack to prove with.
fn without_proof(args: &Args, head: String, run: u64) -> Result<Exit> {
    let settings = args.github.settings(&RunTarget::default(), PATIENCE)?;
    let (decision, outcome, posted) = with_client(settings, async |client| {
        let (_, base) = protected(args, &client).await?;
        let (contract, decision) = decision(args, base, head)?;
        let outcome = RunOutcome::of(&run_facts(&client, run).await?);
        let Some(status) = outcome.status(&contract.status, &decision.required, run) else {
            return Err(Error::new(Code::Usage, format!("run {run} succeeded: its pack is the proof"))
                .hint("download it and name it with --prove"));
        };
        let posted = if args.post_status { post(&client, &decision, &status).await } else { Ok(()) };
        Ok((decision, outcome, posted))
    })?;
    let found = format!("run {run} {}", outcome.words());
    let checks =
        [Check { name: "run_conclusion", held: false, detail: format!("expected success, found: {found}") }];
    say(args, &decision, run, &checks)?;
    posted?;
    match decision.required.gate() {
        None => Ok(Exit::Passed),
        Some(gate) => Err(Error::new(Code::LaneUnproven, format!("{found}, so gate {gate} is not proved"))
            .hint(format!("assay-gates dispatch --gates {gate}"))),
    }
}

/// The branch that a proof starts from, as GitHub has it and never as whoever is checked names it, and its commit here.
async fn protected(args: &Args, client: &Client) -> Result<(Branch, String)> {
    let name = match &args.protected {
        Some(name) => name.clone(),
        None => client.default_branch().await?,
    };
    let branch = client.branch(&name).await?;
    let base = resolve(&args.repository, &branch.commit.sha)?;
    Ok((branch, base))
}

fn say(args: &Args, decision: &Decision, run: u64, checks: &[Check]) -> Result<()> {
    let proved = checks.iter().all(|check| check.held);
    report::data(&match args.format {
        Format::Human => screen(decision, run, checks),
        Format::Json => pretty_sorted(&Proof {
            schema: "assay.gates.lane_proof.v0",
            proved,
            required: &decision.required,
            head: &decision.head,
            run,
            checks,
        })?,
        Format::Github => format!("proved={proved}\n"),
    });
    Ok(())
}

/// The lane contract in a commit.
const LANES: &str = "gates/lanes.yaml";

/// How long a rate limit may hold the command up.
const PATIENCE: Duration = Duration::from_secs(120);

fn prove(args: &Args, head: String, pack: &Path, run: u64) -> Result<Exit> {
    let catalog = Catalog::load(&args.gates_dir.clone().unwrap_or_else(|| args.repository.join("gates")))?;
    let verified = verify(pack)?;
    let id_of =
        |name: &str| catalog.get(name).map_or_else(|_| name.to_owned(), |entry| entry.definition.id.clone());
    let facts = PackFacts::of(&verified, id_of);
    let mut trees = std::collections::BTreeMap::new();
    for path in facts.trees.keys() {
        trees.insert(path.clone(), object_of(&args.repository, &head, path)?);
    }
    let gates_of_head = yaml_digests_below(&args.repository, &head, "gates")?;
    let all: Vec<String> = catalog
        .entries()
        .iter()
        .filter(|entry| entry.definition.group == Group::All)
        .map(|entry| entry.definition.id.clone())
        .collect();
    let settings = args.github.settings(&RunTarget::default(), PATIENCE)?;
    let repository = settings.repository.clone();
    let workflow_path = format!(".github/workflows/{}", args.github.workflow);
    let (decision, checks, posted) = with_client(settings, async |client| {
        let (branch, base) = protected(args, &client).await?;
        let (contract, decision) = decision(args, base, head)?;
        let mut recorded = run_facts(&client, run).await?;
        recorded.logs = job_logs(&client, run, recorded.run_attempt.parse().unwrap_or(1)).await?;
        let claim = Claim {
            decision: &decision,
            repository: &repository,
            workflow_path: &workflow_path,
            trees_of_head: &trees,
            all: &all,
            base: (&branch.name, branch.protected),
            gates_of_head: &gates_of_head,
        };
        let checks = check(&claim, &facts, &recorded);
        let status = status(&contract.status, &decision, run, &checks);
        let posted = if args.post_status { status.post(&client, &decision.head).await } else { Ok(()) };
        Ok((decision, checks, posted))
    })?;
    let decision = &decision;
    let missing: Vec<&Check> = checks.iter().filter(|check| !check.held).collect();
    say(args, decision, run, &checks)?;
    posted?;
    match missing.first() {
        None => Ok(Exit::Passed),
        Some(first) => Err(Error::new(
            Code::LaneUnproven,
            format!(
                "{} of {} conditions don't hold, the first: {}: {}",
                missing.len(),
                checks.len(),
                first.name,
                first.detail
            ),
        )
        .hint(format!("assay-gates dispatch --gates {}", decision.required.gate().unwrap_or("all")))),
    }
}

fn verify(pack: &Path) -> Result<VerifiedPack> {
    let invalid = |finding: &crate::pack::Finding| {
        Error::new(Code::PackInvalid, format!("the pack does not verify: {finding}"))
            .at(pack.display())
            .hint(format!("assay-gates verify {}", pack.display()))
    };
    let refused = |findings: Vec<crate::pack::Finding>| match findings.first() {
        Some(finding) => invalid(finding),
        None => Error::new(Code::Internal, "a refusal without a finding"),
    };
    UnverifiedPack::open(pack).map_err(|finding| invalid(&finding))?.verify().map_err(refused)
}

fn status(context: &str, decision: &Decision, run: u64, checks: &[Check]) -> Status {
    let gate = decision.required.gate().unwrap_or("none");
    match checks.iter().find(|check| !check.held) {
        None => Status::proved(context, gate, run),
        Some(first) => {
            let what = format!("run {run} does not prove gate {gate}: {}", first.name);
            Status::new("failure", context, &what, None)
        }
    }
}

fn screen(decision: &Decision, run: u64, checks: &[Check]) -> String {
    let mut rows = Vec::new();
    for check in checks {
        rows.push(vec![
            if check.held { "ok" } else { "NO" }.to_owned(),
            check.name.to_owned(),
            crate::host::cleanup::shown(Path::new(&check.detail)).replace("##[", "#\\u{23}["),
        ]);
    }
    format!(
        "head {} needs gate {}; run {run}:\n{}",
        decision.head,
        decision.required.gate().unwrap_or("none"),
        report::columns(&rows)
    )
}
