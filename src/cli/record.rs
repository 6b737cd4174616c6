//! `record`: one measured run of any command, to one archive.

mod no_capture;

use crate::error::{Code, Error, Exit, Result};
use crate::gate::Limits;
use clap::ValueEnum;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Measure one run of a command, to one archive.
///
/// The command runs unprivileged in a fresh cgroup, by default without a network, and everything that its process
/// tree does is captured. The caller's environment is passed on, minus loader variables and secrets. Needs root.
#[derive(clap::Args)]
#[command(after_help = "\
Exit code: 0 when the capture is complete, whatever the command's own status was (see --propagate-exit);
12 capture incomplete · 13 stopped, timed out, output lost · 14 evidence invalid · 40 this host can't measure

--no-capture runs the command as it is, on any platform and without root, for the logs that it writes: the archive says
that the kernel layer is absent. It is for developing what an agent reports, and can pass no gate.

Examples:
  sudo assay-gates record -- python3 agent.py
  sudo assay-gates record --run-id run_1 --output run_1.tar.gz --effects run_1/ -- ./agent --once
  sudo assay-gates record --policy policy.yaml --policy-decision-log /tmp/decisions.ndjson -- ./agent-with-mcp-wrap
  sudo assay-gates record --timeout 30s --network host --user ci -- npm test
  assay-gates record --no-capture --agent-shim openai-agents --sdk-event-log sdk.ndjson -- node agent.mjs
  assay-gates verify run_1.tar.gz")]
pub(super) struct Args {
    /// Id of the run: letters, digits, `_`, `-`. By default `run_` and 32 hexadecimal digits.
    #[arg(long, value_name = "ID")]
    run_id: Option<String>,
    /// The archive. By default assay-runner-spike-<run id>.tar.gz in the current folder.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// What the agent is built on.
    #[arg(long, value_enum, default_value_t = Shim::None)]
    agent_shim: Shim,
    /// The command writes SDK events to this file; it must not exist yet.
    #[arg(long, value_name = "FILE")]
    sdk_event_log: Option<PathBuf>,
    /// Decisions on tool calls are expected, and this file gets their full lines: those of the driver, or else those that
    /// the command writes to it itself, which count as its word. It must not exist yet.
    #[arg(long, value_name = "FILE")]
    policy_decision_log: Option<PathBuf>,
    /// What the driver decides by on the calls of every MCP server behind mcp-wrap. Without it the command names
    /// its own policy, and decisions count as its word.
    #[arg(long, value_name = "FILE", requires = "policy_decision_log")]
    policy: Option<PathBuf>,
    /// User that the command runs as: by default the one who called sudo, else one of its own.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Network of the command.
    #[arg(long, value_enum, default_value_t = Reach::None)]
    network: Reach,
    /// A variable for the command, in addition to the caller's; repeatable. Its name stands in evidence.
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = variable)]
    variables: Vec<(String, String)>,
    /// Kill the command after this long: 90, 90s, 500ms, 5m, 1h.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Bytes of the ring between kernel and reader; rounded up to a power of two. Too few, and records are lost.
    #[arg(long, value_name = "BYTES", default_value_t = crate::capture::RING_BYTES, value_parser = super::ring_bytes())]
    ring_bytes: u32,
    /// What the fence around system calls lets the command do; repeatable.
    #[arg(long, value_enum, value_name = "WHAT")]
    allow: Vec<Allow>,
    /// Memory of the command's processes in MiB; more ends them.
    #[arg(long, value_name = "MIB", default_value_t = Limits::default().memory_mib, value_parser = clap::value_parser!(u64).range(16..=1 << 20))]
    memory_mib: u64,
    /// What kernel events are written as: v1 labels O_EXCL as exclusive, v0 O_NOCTTY as its readers expect.
    #[arg(long, value_enum, value_name = "VERSION", default_value_t)]
    kernel_event: super::KernelEventForm,
    /// Measure nothing: run the command as the caller, and archive what its logs say.
    #[arg(long, conflicts_with_all = ["policy", "user", "network", "ring_bytes", "allow", "memory_mib", "kernel_event"])]
    no_capture: bool,
    /// Folder for everything beyond the archive: every effect, the proof of completeness, the output.
    #[arg(long, value_name = "DIR")]
    effects: Option<PathBuf>,
    /// End with the command's own status (128 + signal) when the capture is complete.
    #[arg(long)]
    propagate_exit: bool,
    /// The command and its arguments.
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shim {
    /// No SDK.
    None,
    /// npm `@openai/agents`.
    OpenaiAgents,
    /// PyPI `google-genai`.
    GeminiGoogleGenai,
}

impl Shim {
    const fn name(self) -> &'static str {
        match self {
            Shim::None => "none",
            Shim::OpenaiAgents => "openai-agents",
            Shim::GeminiGoogleGenai => "gemini-google-genai",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reach {
    /// A loopback device and nothing else.
    None,
    /// The host's network; written into the evidence.
    Host,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Allow {
    /// io_uring.
    IoUring,
    /// Namespaces and mounts of its own.
    Namespaces,
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "expected a number, like 30s".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("expected ms, s, m or h, found {unit:?}")),
    };
    match number.checked_mul(millis) {
        None | Some(0) => Err("expected more than nothing and less than forever".to_owned()),
        Some(millis) => Ok(Duration::from_millis(millis)),
    }
}

pub(super) fn run(args: Args) -> Result<Exit> {
    if args.agent_shim == Shim::None && args.sdk_event_log.is_some() {
        return Err(Error::new(Code::Usage, "SDK events were asked for, but no SDK was named")
            .hint("--agent-shim openai-agents, or leave --sdk-event-log out"));
    }
    if args.no_capture { no_capture::run(&args) } else { imp::run(args) }
}

impl Args {
    /// The archive, as the caller names it.
    fn archive(&self, run_id: &str) -> PathBuf {
        self.output.clone().unwrap_or_else(|| format!("assay-runner-spike-{run_id}.tar.gz").into())
    }

    /// The run's id, given or fresh.
    fn run_id(&self) -> Result<String> {
        if let Some(run_id) = &self.run_id {
            return Ok(run_id.clone());
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::new(Code::Internal, format!("no randomness for a run id: {error}")))?;
        Ok(format!("run_{}", hex::encode(bytes)))
    }
}

#[cfg(not(all(feature = "capture", target_os = "linux")))]
mod imp {
    pub(super) fn run(_: super::Args) -> crate::error::Result<crate::error::Exit> {
        Err(crate::cli::built_without_capture())
    }
}

#[cfg(all(feature = "capture", target_os = "linux"))]
mod imp {
    use super::{Allow, Args, Reach};
    use crate::error::{Code, Error, Exit, Result};
    use crate::evidence::RedactionKey;
    use crate::files::RootPath;
    use crate::gate::{Allowance, Limits};
    use crate::host::calls::Policies;
    use crate::host::interrupt::unless_told;
    use crate::host::launch::Network;
    use crate::host::program::{Who, can_enter};
    use crate::host::rights::Rights;
    use crate::host::session::{CapturedStream, Host, Place};
    use crate::host::user::MeasuredUser;
    use crate::host::variables::called_with;
    use crate::host::{WORK, environment};
    use crate::measure::{LogPlace, Measured, Measurement, measure, missing_fences};
    use crate::policy::Policy;
    use crate::report;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    pub(super) fn run(args: Args) -> Result<Exit> {
        let run_id = args.run_id()?;
        crate::host::units::check()?;
        crate::host::stop::watch()?;
        Host::need_root()?;
        let key = RedactionKey::of_caller()?;
        let host = Host::enter(&run_id)?;
        let own_folder =
            tempfile::tempdir().map_err(|error| Error::io("cannot make", &std::env::temp_dir(), error))?;
        let wanted = measurement(&args, run_id, own_folder.path())?;
        let missing = missing_fences(&wanted);
        if !missing.is_empty() {
            report::diagnostic(&format!("not fenced as in a gate: without {}", missing.join(", ")));
        }
        let measured = measure(&host, wanted.clone(), &key, &mut None);
        let measured = if measured.is_err() { unless_told(measured)? } else { measured? };
        show(&measured, &wanted.output, wanted.user.name.as_str());
        let exit = measured.exit();
        if let Err(error) = &measured.written {
            report::error(error);
            return Ok(exit);
        }
        let outcome = &measured.summary.outcome;
        let status = match (outcome.exit_code, outcome.signal) {
            (Some(code), _) => format!("exit_code:{code}"),
            (None, signal) => format!("signal:{}", signal.unwrap_or_default()),
        };
        let capture = match (measured.summary.proof.complete, measured.summary.cgroup_clean) {
            (true, _) => "clean",
            (false, true) => "partial",
            (false, false) => "failed",
        };
        report::data(&format!(
            "wrote runner-spike bundle: {} (run_id={}, status={status}, kernel_capture={capture})\n",
            args.archive(&wanted.run_id).display(),
            wanted.run_id
        ));
        let status = outcome.exit_code.unwrap_or_else(|| 128 + outcome.signal.unwrap_or_default());
        if args.propagate_exit && exit == Exit::Passed && report::undelivered().is_none() {
            drop((measured, own_folder, host));
            // The status of somebody else's program is none of our exit codes.
            std::process::exit(status);
        }
        Ok(exit)
    }

    fn measurement(args: &Args, run_id: String, own_folder: &Path) -> Result<Measurement> {
        let sudo_uid = std::env::var("SUDO_UID").ok();
        let user = MeasuredUser::choose(args.user.as_deref(), sudo_uid.as_deref())?;
        let here = std::env::current_dir()
            .map_err(|error| Error::new(Code::Io, format!("cannot tell the current folder: {error}")))?;
        let who = Who { uid: user.uid, gid: user.gid, name: &user.name };
        let cwd = if can_enter(&here, who) {
            here.clone()
        } else {
            report::diagnostic(&format!(
                "note: {} can't enter {}; the command starts in {WORK}",
                user.name,
                here.display()
            ));
            PathBuf::from(WORK)
        };
        let (mut variables, withheld) = environment::inherited(called_with());
        if !withheld.is_empty() {
            report::diagnostic(&format!("withheld from the command: {}", withheld.join(", ")));
        }
        variables
            .extend(args.variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))));
        let absolute = |path: &PathBuf| here.join(path);
        let caller = Rights::of_caller()?;
        let effects = args
            .effects
            .as_ref()
            .map(|path| RootPath::create(&absolute(path), caller.clone()))
            .transpose()?;
        let archive = args.archive(&run_id);
        Ok(Measurement {
            run_id,
            agent_shim: args.agent_shim.name().to_owned(),
            argv: args.command.clone(),
            environment: variables,
            added: args.variables.iter().map(|(name, _)| name.clone()).collect(),
            user,
            network: match args.network {
                Reach::None => Network::None,
                Reach::Host => Network::Host,
            },
            place: Place::Host { cwd },
            hide: Vec::new(),
            allow: args
                .allow
                .iter()
                .map(|allow| match allow {
                    Allow::IoUring => Allowance::IoUring,
                    Allow::Namespaces => Allowance::Namespaces,
                })
                .collect(),
            limits: Limits { memory_mib: args.memory_mib, ..Limits::default() },
            timeout: args.timeout,
            slow: 1,
            ring_bytes: args.ring_bytes,
            kernel_event: args.kernel_event.into(),
            sdk_log: args.sdk_event_log.as_ref().map(|path| LogPlace::At(absolute(path))),
            decision_log: args.policy_decision_log.as_ref().map(|path| LogPlace::At(absolute(path))),
            policies: match &args.policy {
                Some(policy) => Policies::one(Policy::read(policy)?),
                None => Policies::default(),
            },
            archive: RootPath::of(&absolute(&archive), caller)?,
            output: match &effects {
                Some(folder) => folder.clone(),
                None => RootPath::open(own_folder, Rights::own())?,
            },
            binary: crate::host::session::own_binary(),
            details: effects,
            extract: None,
        })
    }

    fn show(measured: &Measured, output: &RootPath, user: &str) {
        let in_actions = std::env::var("GITHUB_ACTIONS").is_ok_and(|value| value == "true");
        for note in &measured.notes {
            report::diagnostic(&format!("note: {note}"));
        }
        stream("stdout", &measured.stdout, output, in_actions);
        stream("stderr", &measured.stderr, output, in_actions);
        let outcome = &measured.summary.outcome;
        if outcome.timed_out {
            report::diagnostic("killed: the time limit was reached");
        }
        if outcome.interrupted {
            report::diagnostic("killed: told to stop");
        }
        if outcome.stragglers > 0 {
            report::diagnostic(&format!(
                "killed: {} process(es) that outlived the command",
                outcome.stragglers
            ));
        }
        for reason in &measured.summary.proof.reasons {
            report::diagnostic(&format!("incomplete: {reason}"));
        }
        if let Ok(written) = &measured.written {
            report::diagnostic(&format!(
                "{} as {user}: {} effects, {} kept as evidence, {} lost",
                measured.program.display(),
                written.effects,
                written.kernel_events,
                measured.summary.ringbuf_drops
            ));
        }
    }

    fn stream(name: &str, captured: &CapturedStream, output: &RootPath, in_actions: bool) {
        if let Some(failure) = &captured.failure {
            report::diagnostic(&format!("{name} is not whole: {failure}"));
        }
        let kept = output.join(format!("{name}.log")).read();
        let bytes = kept.ok().flatten().unwrap_or_default();
        report::measured(name, &bytes, in_actions);
        if captured.truncated() {
            report::diagnostic(&format!(
                "{name}: {} bytes printed, the first {} kept",
                captured.bytes, captured.kept
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in
            [("90", 90_000), ("90s", 90_000), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for wrong in ["", "s", "5d", "0", "-1s", "1.5s", "99999999999999999999h", "18446744073709551615h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
