//! `policy`: a tool policy tried and read without a run.

use crate::error::{Code, Error, Exit, Result};
use crate::policy::{Outcome, Policy, classify};
use crate::report;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Try a tool policy without a run, or read it in sentences.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Say what is decided on a call, and which rule decides; exit code 10 when it is refused
    #[command(after_help = "\
Examples:
  assay-gates policy check policy.yaml --call '{\"name\": \"read_file\", \"arguments\": {\"path\": \"/data/a\"}}'")]
    Check {
        /// The policy
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// `params` of the call: its tool's name and its arguments
        #[arg(long, value_name = "JSON")]
        call: String,
    },
    /// Print the policy in sentences
    #[command(after_help = "\
Examples:
  assay-gates policy explain gates/my-agent/policy.yaml")]
    Explain {
        /// The policy
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// Carries it out.
///
/// # Errors
/// `PolicyInvalid`; `Usage` when the call is none.
pub fn run(args: &Args) -> Result<Exit> {
    match &args.command {
        Command::Check { file, call } => check(&Policy::read(file)?, call),
        Command::Explain { file } => {
            report::data(&Policy::read(file)?.sentences());
            Ok(Exit::Passed)
        }
    }
}

fn check(policy: &Policy, call: &str) -> Result<Exit> {
    let wrong = |message: String| {
        Error::new(Code::Usage, format!("--call: {message}"))
            .hint("--call '{\"name\": \"read_file\", \"arguments\": {\"path\": \"/data/a\"}}'")
    };
    // As it would stand in a request, so that it is read as strictly; what was given stays as it was written.
    let line =
        format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{}}}", call.trim());
    let call = classify(line.replace('\n', " ").as_bytes()).map_err(wrong)?;
    let call = call.ok_or_else(|| wrong("expected the params of a tool call".to_owned()))?;
    let decision = policy.decide(&call);
    let shown: Value = json!({
        "decision": decision.outcome,
        "reason_code": decision.reason,
        "reason": decision.text,
        "match_basis": decision.basis,
        "matched_rule": decision.rule,
        "tool": call.tool,
    });
    report::data(&format!("{}\n", serde_json::to_string_pretty(&shown).unwrap_or_default()));
    Ok(if decision.outcome == Outcome::Allow { Exit::Passed } else { Exit::AcceptanceFailed })
}
