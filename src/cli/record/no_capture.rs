//! `record --no-capture`: the command line of a contract-only run.

use super::Args;
use crate::contract_only::{ContractOnly, run as run_command};
use crate::error::{Code, Error, Exit, Result};
use crate::evidence::{Outputs, RedactionKey};
use crate::files::RootPath;
use crate::host::environment;
use crate::host::rights::Rights;
use crate::host::variables::called_with;
use crate::report;
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) fn run(args: &Args) -> Result<Exit> {
    if !Rights::of_caller()?.is_own() {
        return Err(Error::new(Code::Usage, "nothing is measured here, so nothing needs root")
            .hint("the same command without sudo"));
    }
    let run_id = args.run_id()?;
    let key = RedactionKey::of_caller()?;
    let here = std::env::current_dir()
        .map_err(|error| Error::new(Code::Io, format!("cannot tell the current folder: {error}")))?;
    let absolute = |path: &PathBuf| here.join(path);
    let (mut variables, withheld) = environment::inherited(called_with());
    if !withheld.is_empty() {
        report::diagnostic(&format!("withheld from the command: {}", withheld.join(", ")));
    }
    variables
        .extend(args.variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
    let archive = args.archive(&run_id);
    let details = args.effects.as_ref().map(|path| RootPath::create(&absolute(path), Rights::own()));
    let wanted = ContractOnly {
        run_id: run_id.clone(),
        agent_shim: args.agent_shim.name(),
        argv: args.command.clone(),
        environment: variables,
        added: args.variables.iter().map(|(name, _)| name.clone()).collect(),
        timeout: args.timeout,
        sdk_log: args.sdk_event_log.as_ref().map(absolute),
        decision_log: args.policy_decision_log.as_ref().map(absolute),
        outputs: Outputs {
            archive: RootPath::of(&absolute(&archive), Rights::own())?,
            details: details.transpose()?,
            extract: None,
        },
    };
    let ran = run_command(&wanted, &key)?;
    report::diagnostic(
        "nothing was captured: the archive shows what the command's logs say, and can pass no gate",
    );
    if ran.timed_out {
        report::diagnostic("killed: the time limit was reached");
    }
    ran.written?;
    let status = match (ran.exit_code, ran.signal) {
        (Some(code), _) => format!("exit_code:{code}"),
        (None, signal) => format!("signal:{}", signal.unwrap_or_default()),
    };
    report::data(&format!(
        "wrote runner-spike bundle: {} (run_id={run_id}, status={status})\n",
        archive.display()
    ));
    if ran.timed_out {
        return Ok(Exit::Infrastructure);
    }
    if args.propagate_exit {
        // The status of somebody else's program is none of our exit codes.
        std::process::exit(ran.exit_code.unwrap_or_else(|| 128 + ran.signal.unwrap_or_default()));
    }
    Ok(Exit::Passed)
}
