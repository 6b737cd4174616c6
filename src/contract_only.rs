//! A command run without any capture, to an archive that says so: the contracts of its logs on any platform.
//!
//! Nothing of it is evidence of what the command did. The kernel layer is absent, decisions and SDK events are the
//! command's own word, and the proof of completeness gives the one reason why there is none.

use crate::capture::{Outcome, Summary};
use crate::error::{Code, Error, Result};
use crate::evidence::contract::schema;
use crate::evidence::{KernelVersion, Logs, Outputs, RedactionKey, RunFacts, Written, assemble};
use crate::files::RootPath;
use crate::host::environment::Environment;
use crate::host::rights::Rights;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How often a command with a time limit is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What to run, and where the results go.
#[derive(Clone, Debug)]
pub struct ContractOnly {
    /// The run; letters, digits, `_`, `-`.
    pub run_id: String,
    /// `none`, `openai-agents`, `gemini-google-genai`.
    pub agent_shim: &'static str,
    /// argv.
    pub argv: Vec<OsString>,
    /// Variables of the command. Those that name the logs are added here.
    pub environment: Environment,
    /// Names among them that the caller added on purpose.
    pub added: Vec<String>,
    /// The command is ended after this long.
    pub timeout: Option<Duration>,
    /// The command writes SDK events to this new file.
    pub sdk_log: Option<PathBuf>,
    /// The command writes decisions to this new file.
    pub decision_log: Option<PathBuf>,
    /// Where the results go.
    pub outputs: Outputs,
}

/// A command that ran.
#[derive(Debug)]
pub struct Ran {
    /// What was written; or why no archive was.
    pub written: Result<Written>,
    /// Exit status, when it exited.
    pub exit_code: Option<i32>,
    /// Signal number, when it was killed.
    pub signal: Option<i32>,
    /// It was ended at its time limit.
    pub timed_out: bool,
}

/// Runs the command to its end and archives its logs.
///
/// # Errors
/// `LogUnusable` when a log exists already; `Usage` when the command can't be started; `Io`.
pub fn run(wanted: &ContractOnly, key: &RedactionKey) -> Result<Ran> {
    let mut driver = vec![("ASSAY_RUNNER_RUN_ID", OsString::from(&wanted.run_id))];
    if let Some(log) = &wanted.sdk_log {
        fresh(log)?;
        driver.push(("ASSAY_RUNNER_SDK_EVENT_LOG", log.into()));
        driver.push(("ASSAY_RUNNER_SDK_EVENT_SCHEMA", schema::SDK_EVENT.into()));
    }
    if let Some(log) = &wanted.decision_log {
        fresh(log)?;
        driver.push(("ASSAY_RUNNER_POLICY_DECISION_LOG", log.into()));
    }
    let outcome = carry_out(wanted, &driver)?;
    let (exit_code, signal, timed_out) = (outcome.exit_code, outcome.signal, outcome.timed_out);
    let summary = Summary::contract_only(
        &wanted.run_id,
        outcome,
        wanted.decision_log.is_some(),
        wanted.sdk_log.is_some(),
    );
    let written = archived(wanted, &summary, &driver, key);
    Ok(Ran { written, exit_code, signal, timed_out })
}

fn archived(
    wanted: &ContractOnly,
    summary: &Summary,
    driver: &[(&'static str, OsString)],
    key: &RedactionKey,
) -> Result<Written> {
    let log = |path: &Option<PathBuf>| -> Result<Option<RootPath>> {
        path.as_ref().map(|path| RootPath::of(path, Rights::own())).transpose()
    };
    let (sdk, decisions) = (log(&wanted.sdk_log)?, log(&wanted.decision_log)?);
    let logs = Logs::ingest(&wanted.run_id, sdk.as_ref(), decisions.as_ref())?;
    if let Some(folder) = &wanted.outputs.details {
        for (log, name) in [(&sdk, "sdk-events.ndjson"), (&decisions, "policy-decisions.ndjson")] {
            if let Some(log) = log {
                folder.join(name).write(&log.expect()?)?;
            }
        }
    }
    let command: Vec<String> =
        wanted.argv.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    let mut env_keys: Vec<String> = driver.iter().map(|(name, _)| (*name).to_owned()).collect();
    env_keys.extend(wanted.added.iter().cloned());
    let facts = RunFacts {
        run_id: &wanted.run_id,
        agent_shim: wanted.agent_shim,
        command: &command,
        env_keys: &env_keys,
        work: None,
        kernel_event: KernelVersion::default(),
    };
    assemble(&facts, summary, std::iter::empty(), &logs, key, &wanted.outputs)
}

/// Makes the log, so that nothing of an earlier run can be taken for this one's.
fn fresh(log: &Path) -> Result<()> {
    std::fs::OpenOptions::new().write(true).create_new(true).open(log).map(drop).map_err(|error| {
        Error::new(Code::LogUnusable, format!("expected a new file: {error}"))
            .at(log.display())
            .hint(format!("rm {}", log.display()))
            .because(error)
    })
}

fn carry_out(wanted: &ContractOnly, driver: &[(&'static str, OsString)]) -> Result<Outcome> {
    let (program, arguments) =
        wanted.argv.split_first().ok_or_else(|| Error::new(Code::Usage, "expected a command after --"))?;
    let mut command = Rights::own().command(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&wanted.environment)
        .envs(driver.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        // Standard output carries our own line.
        .stdout(Stdio::from(std::io::stderr()));
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let began = Instant::now();
    let mut child = command.spawn().map_err(|error| {
        Error::new(Code::Usage, format!("the command can't be started: {error}"))
            .at(program.display())
            .because(error)
    })?;
    let failed = |error| Error::new(Code::Io, format!("cannot wait for the command: {error}"));
    let mut timed_out = false;
    let status = loop {
        let Some(limit) = wanted.timeout else { break child.wait().map_err(failed)? };
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if began.elapsed() >= limit {
            timed_out = true;
            end(&mut child);
            break child.wait().map_err(failed)?;
        }
        std::thread::sleep(LOOK);
    };
    Ok(Outcome {
        exit_code: status.code(),
        signal: signal_of(status),
        elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        timed_out,
        interrupted: false,
        exceeded: None,
        stragglers: 0,
    })
}

/// Ends the command, and on Unix its whole process group.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Ok(group) = i32::try_from(child.id()) {
        let _it_may_have_ended =
            nix::sys::signal::killpg(nix::unistd::Pid::from_raw(group), nix::sys::signal::Signal::SIGKILL);
    }
    let _it_may_have_ended = child.kill();
}

#[cfg(unix)]
fn signal_of(status: ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

#[cfg(not(unix))]
fn signal_of(_: ExitStatus) -> Option<i32> {
    None
}
