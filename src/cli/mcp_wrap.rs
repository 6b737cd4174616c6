//! `assay-gates mcp-wrap`: a stdio proxy in front of an MCP server.

use crate::error::{Code, Error, Exit, Result};
use crate::policy::control::CONTROL_VARIABLE;
use crate::policy::proxy::{Options, end_like, run as run_proxy};
use crate::policy::{Origin, Policy};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
The proxy reads MCP messages line by line on standard input, as a server would, and passes them on unchanged. A tool
call is decided on by the policy; the decision is logged before the call is forwarded, and a refused call never
reaches the server. The server's standard error, exit status and signals pass through.

Examples:
  assay-gates mcp-wrap --policy policy.yaml --decision-log decisions.ndjson -- npx mcp-server-filesystem /data
  assay-gates mcp-wrap --policy policy.yaml --decision-log d.ndjson --label fs --event-source assay://ci/42 -- ./server

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
    policy: PathBuf,
    /// Decisions are appended here, one CloudEvents line each
    #[arg(long, value_name = "FILE")]
    decision_log: PathBuf,
    /// `source` of every decision
    #[arg(long, value_name = "URI", default_value = "assay://mcp-wrap")]
    event_source: String,
    /// Name of the wrapped server in every decision [default: the server's file name]
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,
    /// The server's command
    #[arg(last = true, required = true, value_name = "SERVER")]
    server: Vec<OsString>,
}

/// Runs the proxy; returns only when it could not begin, since it ends as the server ends.
///
/// # Errors
/// `PolicyInvalid`, `DecisionLogUnavailable`, `ServerNotStarted`, `ProxyBroken`.
pub fn run(args: &Args) -> Result<Exit> {
    let policy = Policy::read(&args.policy)?;
    let origin = Origin {
        source: named("--event-source", args.event_source.clone())?,
        label: named("--label", args.label.clone().unwrap_or_else(|| file_name(&args.server)))?,
        policy_digest: policy.digest(),
    };
    let control = std::env::var_os(CONTROL_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
    let options = Options {
        policy,
        origin,
        decision_log: args.decision_log.clone(),
        control,
        server: args.server.clone(),
    };
    end_like(run_proxy(options)?)
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
