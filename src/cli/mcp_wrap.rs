//! `assay-gates mcp-wrap`: a stdio proxy in front of an MCP server.

use crate::error::{Code, Error, Exit, Result};
use crate::policy::control::{CONTROL_VARIABLE, LONGEST_POLICY, Opening};
use crate::policy::proxy::{Options, end_like, run as run_proxy};
use crate::policy::{Origin, Policy, pipe};
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
The proxy reads MCP messages line by line on standard input, as a server would, and passes them on unchanged. A tool
call is decided on by the policy; the decision is logged before the call is forwarded, and a refused call never
reaches the server. The server's standard error, exit status and signals pass through.

Inside a measured run (record, run) the driver decides, by the policy that the gate's definition or `record --policy`
names, and starts the server itself: this command is a pipe to it. --policy is then compared with that policy, and a
different one is refused; --decision-log is not needed.

Examples:
  assay-gates mcp-wrap --policy p.yaml --decision-log d.ndjson -- mcp-server-filesystem /data
  assay-gates mcp-wrap --policy p.yaml --decision-log d.ndjson --label fs -- ./server

A policy:
  schema: assay.gates.policy.v0
  default: deny
  tools:
    allow: [read_file, 'list_*']
  paths:
    read_file: {path: [/data]}
";

/// What the command takes.
#[derive(clap::Args)]
#[command(about = "Stand between an agent and an MCP server: allow or deny each tool call, log each decision", after_help = EXAMPLES)]
pub struct Args {
    /// Policy file (YAML, assay.gates.policy.v0)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Decisions are appended here, one CloudEvents line each
    #[arg(long, value_name = "FILE")]
    decision_log: Option<PathBuf>,
    /// `source` of every decision
    #[arg(long, value_name = "URI", default_value = "assay://mcp-wrap")]
    event_source: String,
    /// Name of the wrapped server in every decision, and in a gate with several policies the one that decides
    /// [default: the server's file name]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// The server's command
    #[arg(last = true, required = true, value_name = "SERVER")]
    server: Vec<OsString>,
}

/// Runs the proxy; returns only when it could not begin, since it ends as the server ends.
///
/// # Errors
/// `PolicyInvalid`, `PolicyRefused`, `DecisionLogUnavailable`, `ServerNotStarted`, `ProxyBroken`.
pub fn run(args: &Args) -> Result<Exit> {
    let source = named("--event-source", args.event_source.clone())?;
    let label = named("--label", args.label.clone().unwrap_or_else(|| file_name(&args.server)))?;
    let hint = std::env::var_os(CONTROL_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    match pipe::connect(hint) {
        Some(Ok(control)) => end_like(pipe::run(control, &opening(args, label, source)?)?),
        // Whoever counts on the driver's decisions must not get others in their place.
        Some(Err(error)) => {
            return Err(Error::new(
                Code::ProxyBroken,
                format!("no decider answers in this measured run: {error}"),
            )
            .hint("the run may be over; see its notes on the control socket")
            .because(error));
        }
        None => {}
    }
    let needed = |option: &str| {
        Error::new(Code::Usage, format!("{option}: expected a file, since no driver decides here"))
    };
    let policy = Policy::read(args.policy.as_deref().ok_or_else(|| needed("--policy"))?)?;
    let decision_log = args.decision_log.clone().ok_or_else(|| needed("--decision-log"))?;
    let origin = Origin { source, label, policy_digest: policy.digest(), connection: None };
    end_like(run_proxy(Options { policy, origin, decision_log, server: args.server.clone() })?)
}

fn opening(args: &Args, label: String, source: String) -> Result<Opening> {
    let cwd = std::env::current_dir()
        .map_err(|error| Error::new(Code::Io, format!("cannot tell the current folder: {error}")))?;
    let variable = |(name, value): (OsString, OsString)| [name.as_bytes(), b"=", value.as_bytes()].concat();
    Ok(Opening {
        argv: args.server.iter().map(|argument| argument.clone().into_vec()).collect(),
        environment: std::env::vars_os().map(variable).collect(),
        cwd,
        label,
        source,
        policy: args.policy.as_deref().map(policy_text).transpose()?,
    })
}

fn policy_text(path: &Path) -> Result<String> {
    let unreadable = |error| Error::io("cannot read", path, error);
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LONGEST_POLICY as u64 + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() > LONGEST_POLICY {
        let message = format!("expected a policy of at most {LONGEST_POLICY} bytes, found more");
        return Err(Error::new(Code::PolicyInvalid, message).at(path.display()));
    }
    Ok(text)
}

fn named(option: &str, text: String) -> Result<String> {
    if text.trim().is_empty() || text.len() > 1024 {
        return Err(Error::new(
            Code::Usage,
            format!("{option}: expected 1 to 1024 bytes, found {}", text.len()),
        ));
    }
    Ok(text)
}

fn file_name(server: &[OsString]) -> String {
    let name = server.first().and_then(|program| Path::new(program).file_name());
    name.map_or_else(|| "server".to_owned(), |name| name.to_string_lossy().into_owned())
}
