//! One measured run, from an empty cgroup to an archive: joins host, capture and evidence.
//!
//! Both `record` and `run` go through [`prepare`], so that there is one way in which anything is ever measured.

use crate::capture::{ArmOptions, Loaded, Recorder, Recording, Summary};
use crate::error::{Code, Error, Exit, Result};
use crate::evidence::contract::schema;
use crate::evidence::origins::origins;
use crate::evidence::{KernelVersion, Logs, Outputs, RedactionKey, RunFacts, Written, assemble};
use crate::files::RootPath;
use crate::gate::{Allowance, Limits};
use crate::host::calls::{CallConfig, CallReport, CallServer, ControlSocket, Policies};
use crate::host::cgroup::SessionCgroup;
use crate::host::environment::Environment;
use crate::host::folder::{open_untrusted, put_over_untrusted};
use crate::host::hostfile::{DEFAULT_HOST_FILE, HostFile};
use crate::host::interrupt::{Interrupt, unless_told};
use crate::host::launch::Network;
use crate::host::program::{Who, can_enter};
use crate::host::rights::Rights;
use crate::host::session::{CapturedStream, Ended, Host, Launching, Place, Session, Spec};
use crate::host::state;
use crate::host::user::MeasuredUser;
use crate::policy::control::{CONTROL, CONTROL_VARIABLE};
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// The decider's socket in the run's spool.
const SOCKET: &str = "control.sock";
/// Bytes of each output stream that are kept.
const OUTPUT_BYTES: u64 = 1024 * 1024;
/// Bytes of a log of the program's that are taken over; evidence reads no more either.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

/// What to measure, and where the results go.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// The run; letters, digits, `_`, `-`.
    pub run_id: String,
    /// `none`, `openai-agents`, `gemini-google-genai`.
    pub agent_shim: String,
    /// argv.
    pub argv: Vec<OsString>,
    /// Variables of the program. Those of the driver are added here.
    pub environment: Environment,
    /// Names among them that the driver's user added on purpose; they stand in evidence, values never do.
    pub added: Vec<String>,
    /// As whom.
    pub user: MeasuredUser,
    /// Network.
    pub network: Network,
    /// Where the program stands.
    pub place: Place,
    /// Further files and folders that must not be seen; the outputs below are hidden anyway.
    pub hide: Vec<PathBuf>,
    /// What the fence around system calls lets through.
    pub allow: Vec<Allowance>,
    /// How much the tree may use before it is killed.
    pub limits: Limits,
    /// The tree is killed after this long.
    pub timeout: Option<Duration>,
    /// What the time limit was multiplied by.
    pub slow: u32,
    /// Bytes of the ring between kernel and reader; [`RING_BYTES`](crate::capture::RING_BYTES) but on small hosts.
    pub ring_bytes: u32,
    /// What kernel events are written as.
    pub kernel_event: KernelVersion,
    /// SDK events are expected, and where the program writes them.
    pub sdk_log: Option<LogPlace>,
    /// Policy decisions are expected, and where they are written.
    pub decision_log: Option<LogPlace>,
    /// What tool calls are decided by.
    pub policies: Policies,
    /// The archive.
    pub archive: RootPath,
    /// Folder for effects.ndjson and its siblings.
    pub details: Option<RootPath>,
    /// Folder for the archive's members.
    pub extract: Option<RootPath>,
    /// Folder for stdout.log and stderr.log.
    pub output: RootPath,
    /// This tool's binary: becomes the launcher, and stands inside at a path of its own. See
    /// [`own_binary`](crate::host::session::own_binary).
    pub binary: PathBuf,
}

/// Where a log of the measured program stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogPlace {
    /// In the private log folder, under a name of the driver's choice.
    Sandbox,
    /// At a path of the host's.
    At(PathBuf),
}

/// A run that was measured.
#[derive(Debug)]
pub struct Measured {
    /// Outcome, accounting and proof.
    pub summary: Summary,
    /// What was written; or why no archive was.
    pub written: Result<Written>,
    /// The file that was executed.
    pub program: PathBuf,
    /// What a person should know, one line each.
    pub notes: Vec<String>,
    /// Fences that were in force.
    pub fences: Vec<String>,
    /// Captured standard output.
    pub stdout: CapturedStream,
    /// Captured standard error.
    pub stderr: CapturedStream,
}

impl Measured {
    /// The exit code that this run alone asks for, whatever the program's own status was.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let outcome = &self.summary.outcome;
        if outcome.interrupted {
            // What it lacks follows from its end.
            return Exit::Infrastructure;
        }
        let stopped = outcome.timed_out;
        let lost = self.stdout.failure.is_some() || self.stderr.failure.is_some();
        Exit::worst([
            self.summary.exit(),
            if stopped || lost { Exit::Infrastructure } else { Exit::Passed },
            self.written.as_ref().map_or_else(Error::exit, |_| Exit::Passed),
        ])
    }
}

/// Measures one run on a host that was entered. `programs` are taken when they are loaded already, and are there for the
/// next run when this one's proof is complete.
///
/// # Errors
/// Whatever kept it from being measured at all. A run that was measured but is incomplete, was stopped, or gave no
/// archive is a [`Measured`] that says so.
pub fn measure(
    host: &Host,
    wanted: Measurement,
    key: &RedactionKey,
    programs: &mut Option<Loaded>,
) -> Result<Measured> {
    prepare(host, wanted)?.capture(programs)?.assemble(key)
}

/// A run made ready: its launcher builds the sandbox, outside of its cgroup, and waits. Dropping it clears all away.
#[derive(Debug)]
pub struct Prepared<'host> {
    wanted: Measurement,
    logs: WantedLogs,
    driver: Vec<(&'static str, PathBuf)>,
    control: Option<ControlSocket>,
    cgroup: Arc<SessionCgroup>,
    launching: Launching<'host>,
    spool: TempDir,
    host: &'host Host,
}

/// A run that is over and captured: nothing of its tree is left, and its records wait in the spool.
#[derive(Debug)]
pub struct Captured<'host> {
    wanted: Measurement,
    logs: WantedLogs,
    driver: Vec<(&'static str, PathBuf)>,
    report: Option<CallReport>,
    recording: Recording,
    ended: Ended,
    spool: TempDir,
    host: &'host Host,
}

/// The logs of the measured program that become evidence.
#[derive(Debug)]
struct WantedLogs {
    sdk: Option<Log>,
    decisions: Option<Log>,
}

/// Makes everything ready that can be made ready before the capture is armed. No measured tree may be alive: the
/// launcher has the measured user's uid before it has a cgroup.
///
/// # Errors
/// Whatever kept it from being made ready; all is cleared away then.
pub fn prepare(host: &Host, wanted: Measurement) -> Result<Prepared<'_>> {
    ready(host, wanted).map_err(|error| full_or(host.state(), error))
}

fn ready(host: &Host, wanted: Measurement) -> Result<Prepared<'_>> {
    let spool = spool(host)?;
    let log = |place: &Option<LogPlace>, name| {
        place.as_ref().map(|place| Log::prepare(place, name, &wanted)).transpose()
    };
    let logs = WantedLogs {
        sdk: log(&wanted.sdk_log, "sdk-events.ndjson")?,
        decisions: log(&wanted.decision_log, "policy-decisions.ndjson")?,
    };
    let driver = driver_variables(&wanted, &logs);
    let mut environment = wanted.environment.clone();
    environment
        .extend(driver.iter().map(|(name, value)| (OsString::from(name), value.clone().into_os_string())));

    let session = Session::prepare(host, spec(host, &wanted, environment, spool.path())?)?;
    let cgroup = Arc::clone(session.cgroup());
    // Before the launcher shows it inside.
    let control = logs.decisions.as_ref().map(|_| {
        ControlSocket::open(CallConfig {
            socket: spool.path().join(SOCKET),
            log: spool.path().join("decisions.ndjson"),
            policies: wanted.policies.clone(),
        })
    });
    let control = control.transpose()?;
    let launching = session.launch()?;
    Ok(Prepared { wanted, logs, driver, control, cgroup, launching, spool, host })
}

impl<'host> Prepared<'host> {
    /// Where its results go.
    #[must_use]
    pub fn output(&self) -> &RootPath {
        &self.wanted.output
    }

    /// Runs the program under the capture until nothing of its tree is left. `programs` as in [`measure`].
    ///
    /// # Errors
    /// As [`measure`].
    pub fn capture(self, programs: &mut Option<Loaded>) -> Result<Captured<'host>> {
        let Self { wanted, logs, driver, control, cgroup, launching, spool, host } = self;
        wanted.output.create_folder()?;
        let options = ArmOptions::new(&wanted.run_id, cgroup.path(), spool.path())
            .ring(wanted.ring_bytes)
            .keep(wanted.limits.effects_mib << 20)
            .joiners_of(launching.init());
        // Canaries write there too, and see another result on a full disk.
        let full = |error: Error| full_or(spool.path(), error);
        let mut recorder = Recorder::arm_with(&options, programs.take()).map_err(full)?;
        let calls = control
            .map(|control| control.serve(recorder.calls(), Box::new(launching.spawner())))
            .transpose()?;
        recorder.begin().map_err(full)?;
        unless_told(Interrupt::install().map(drop))?;
        let limit = || format!("effects: more than {} MiB of records", wanted.limits.effects_mib);
        let ended = launching.go()?.wait_watching(&|| recorder.is_over_budget().then(limit))?;
        recorder.started(ended.programs);
        let report = calls.map(CallServer::finish);
        if let Some(report) = report.as_ref().filter(|report| report.disk_full) {
            let full = std::io::ErrorKind::StorageFull.into();
            return Err(Error::io("cannot write the decision log", &report.log, full));
        }
        let windows = report.as_ref().map(|report| report.windows.clone()).unwrap_or_default();
        let (mut recording, loaded) = recorder.finish_with(ended.outcome.clone(), windows).map_err(full)?;
        *programs = loaded;
        ended.remove()?;
        ended.stdout.fits()?;
        ended.stderr.fits()?;
        if !recording.summary.proof.complete {
            fits(spool.path())?;
        }
        recording.summary.proof.policy_origin = report.as_ref().map(CallReport::origin);
        let decided = report.as_ref().map(CallReport::is_corroborated);
        recording.summary.proof.origins = origins(decided, wanted.sdk_log.is_some());
        note_environment(&mut recording.summary, &wanted, &ended, &cgroup);
        Ok(Captured { wanted, logs, driver, report, recording, ended, spool, host })
    }
}

impl Captured<'_> {
    /// Writes everything that is kept of it.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn assemble(self, key: &RedactionKey) -> Result<Measured> {
        let Self { wanted, logs, driver, report, recording, ended, spool, host } = self;
        let mut notes = host.notes();
        let logs = take_logs(&wanted, &ended, logs, report.as_ref(), &mut notes);
        let command: Vec<String> =
            wanted.argv.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
        let mut env_keys: Vec<String> = driver.into_iter().map(|(name, _)| name.to_owned()).collect();
        env_keys.extend(wanted.added.iter().cloned());
        let facts = RunFacts {
            run_id: &wanted.run_id,
            agent_shim: &wanted.agent_shim,
            command: &command,
            env_keys: &env_keys,
            work: wanted.place.work(),
            kernel_event: wanted.kernel_event,
        };
        let mut outputs = Outputs {
            archive: wanted.archive.clone(),
            details: wanted.details.clone(),
            extract: wanted.extract.clone(),
        };
        let written = match logs {
            Ok(logs) => assemble(&facts, &recording.summary, recording.effects()?, &logs, key, &outputs),
            // No archive without the logs that it must hold, but what the kernel saw is kept all the same.
            Err(error) => {
                outputs.archive = RootPath::of(&spool.path().join("without-logs.tar.gz"), Rights::own())?;
                outputs.extract = None;
                assemble(&facts, &recording.summary, recording.effects()?, &Logs::default(), key, &outputs)?;
                Err(error)
            }
        };
        notes.extend(ended.notes);
        Ok(Measured {
            summary: recording.summary,
            written,
            program: ended.program,
            notes,
            fences: ended.fences,
            stdout: ended.stdout,
            stderr: ended.stderr,
        })
    }
}

fn take_logs(
    wanted: &Measurement,
    ended: &Ended,
    logs: WantedLogs,
    report: Option<&CallReport>,
    notes: &mut Vec<String>,
) -> Result<Logs> {
    let sdk = logs.sdk.map(|log| log.take(ended, &wanted.output)).transpose()?;
    let decision_log = logs.decisions;
    let decisions = decision_log.as_ref().map(|log| log.take(ended, &wanted.output)).transpose()?;
    if let (Some(log), Some(copy), Some(report)) = (&decision_log, &decisions, report) {
        notes.extend(report.refused.iter().map(|why| format!("decider: refused: {why}")));
        notes.extend(report.notes.iter().map(|note| format!("decider: {note}")));
        if report.is_kept() {
            let own = copy.expect()?.len();
            if own > 0 {
                notes.push(format!(
                    "{own} bytes of decisions that the measured program wrote itself were left out"
                ));
            }
            // The driver decided and wrote this one itself.
            let kept =
                std::fs::read(&report.log).map_err(|error| Error::io("cannot read", &report.log, error))?;
            copy.write(&kept)?;
            log.give(&kept)?;
        }
    }
    Logs::ingest(&wanted.run_id, sdk.as_ref(), decisions.as_ref()).map_err(|error| {
        // The copy may be gone when this is read; the place that the caller named isn't.
        match (&error.place().map(str::to_owned), &wanted.sdk_log, &sdk) {
            (Some(place), Some(LogPlace::At(named)), Some(copy)) => {
                let place = place.replace(&copy.path().display().to_string(), &named.display().to_string());
                error.at(place)
            }
            _ => error,
        }
    })
}

fn spec(host: &Host, wanted: &Measurement, environment: Environment, spool: &Path) -> Result<Spec> {
    let mut hide = wanted.hide.clone();
    hide.extend([host.state().to_owned(), spool.to_owned(), wanted.output.path()]);
    hide.extend(wanted.details.iter().chain(&wanted.extract).map(RootPath::path));
    let host_file = Path::new(DEFAULT_HOST_FILE);
    if host_file.exists() {
        let in_gate = matches!(wanted.place, Place::Gate { .. });
        hide.extend(runners_own(&HostFile::load(host_file)?, in_gate));
    }
    if let Place::Host { cwd } = &wanted.place {
        // What the caller chose to work in can't be hidden from the work; the outputs are written when it is over.
        hide.retain(|path| !cwd.starts_with(path));
    }
    Ok(Spec {
        argv: wanted.argv.clone(),
        control: wanted.decision_log.as_ref().map(|_| spool.join(SOCKET)),
        environment,
        user: wanted.user.clone(),
        network: wanted.network,
        place: wanted.place.clone(),
        hide,
        timeout: wanted.timeout,
        allow: wanted.allow.clone(),
        limits: wanted.limits.clone(),
        launcher: wanted.binary.clone(),
        stdout: wanted.output.join("stdout.log"),
        stderr: wanted.output.join("stderr.log"),
        output_bytes: OUTPUT_BYTES,
    })
}

/// What of the Actions runner a program must not see, since it may run as the runner's own user: all of it in a gate,
/// whose fixture stands elsewhere; else what holds its credentials and those of the job.
fn runners_own(file: &HostFile, in_gate: bool) -> Vec<PathBuf> {
    if in_gate {
        return vec![file.runner.root.clone(), file.work()];
    }
    let names = [".credentials", ".credentials_rsaparams", ".env", ".path", ".runner", ".service", "_diag"];
    let mut hidden: Vec<PathBuf> = names.iter().map(|name| file.runner.root.join(name)).collect();
    hidden.extend(["_temp", "_actions"].map(|name| file.work().join(name)));
    hidden
}

/// What the driver adds to the program's variables: names stand in evidence.
fn driver_variables(wanted: &Measurement, logs: &WantedLogs) -> Vec<(&'static str, PathBuf)> {
    let mut variables = vec![("ASSAY_RUNNER_RUN_ID", PathBuf::from(&wanted.run_id))];
    if let Some(log) = &logs.sdk {
        variables.push(("ASSAY_RUNNER_SDK_EVENT_LOG", log.inside.clone()));
        variables.push(("ASSAY_RUNNER_SDK_EVENT_SCHEMA", PathBuf::from(schema::SDK_EVENT)));
    }
    if let Some(log) = &logs.decisions {
        variables.push(("ASSAY_RUNNER_POLICY_DECISION_LOG", log.inside.clone()));
        variables.push((CONTROL_VARIABLE, PathBuf::from(CONTROL)));
    }
    variables
}

/// What the proof says of the sandbox, beside what the capture says of the kernel.
fn note_environment(summary: &mut Summary, wanted: &Measurement, ended: &Ended, cgroup: &SessionCgroup) {
    let network = match wanted.network {
        Network::None => "none",
        Network::Host => "host",
    };
    let user = format!("{} (uid {}, gid {})", wanted.user.name, wanted.user.uid, wanted.user.gid);
    if wanted.slow != 1 {
        summary.proof.environment.insert("slow".into(), wanted.slow.to_string());
    }
    let missing = missing_fences(wanted);
    if !missing.is_empty() {
        summary.proof.environment.insert("fences_missing".into(), missing.join(", "));
    }
    for (name, value) in [
        ("network", network.to_owned()),
        ("measured_user", user),
        ("fences", ended.fences.join(", ")),
        ("limits", cgroup.limits().join(", ")),
        ("program", ended.program.display().to_string()),
    ] {
        summary.proof.environment.insert(name.to_owned(), value);
    }
}

/// Fences of a gate that this measurement does without, in words.
#[must_use]
pub fn missing_fences(wanted: &Measurement) -> Vec<&'static str> {
    let mut missing = Vec::new();
    missing.extend((!wanted.user.is_alone()).then_some("a uid of its own"));
    missing.extend((wanted.network == Network::Host).then_some("private network"));
    if matches!(wanted.place, Place::Host { .. }) {
        missing.extend([
            "read-only file system",
            "limits on what is written",
            "homes and temporary folders out of sight",
            "sockets of services that start meanwhile",
        ]);
    }
    missing.extend(wanted.allow.contains(&Allowance::IoUring).then_some("io_uring refused"));
    missing.extend(wanted.allow.contains(&Allowance::Namespaces).then_some("namespaces and mounts refused"));
    missing
}

/// The disk of a folder has room.
///
/// # Errors
/// `DiskFull`.
fn fits(folder: &Path) -> Result<()> {
    match nix::sys::statvfs::statvfs(folder) {
        Ok(found)
            if found.blocks() > 0 && found.blocks_available() == 0
                || found.files() > 0 && found.files_available() == 0 =>
        {
            Err(Error::io("cannot keep what was recorded", folder, std::io::ErrorKind::StorageFull.into()))
        }
        _ => Ok(()),
    }
}

/// What failed because the disk of `folder` is full is said so.
fn full_or(folder: &Path, error: Error) -> Error {
    fits(folder).err().unwrap_or(error)
}

/// A folder that only root can enter, on a disk, gone at the end; a killed driver's is removed by the next one.
fn spool(host: &Host) -> Result<TempDir> {
    let parent = state::spool(host.state());
    state::prepare(&parent)?;
    tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&parent)
        .map_err(|error| Error::io("cannot make a folder for records", &parent, error))
}

/// A log that the measured program writes.
#[derive(Debug)]
struct Log {
    /// Its path as the program sees it.
    inside: PathBuf,
    /// Name of the copy in the output folder.
    name: &'static str,
    /// For a path of the host's: its folder, opened before the program could change what leads there.
    folder: Option<(File, PathBuf)>,
}

impl Log {
    fn prepare(place: &LogPlace, name: &'static str, wanted: &Measurement) -> Result<Self> {
        let path = match place {
            LogPlace::Sandbox => {
                return Ok(Self { inside: wanted.place.logs().join(name), name, folder: None });
            }
            LogPlace::At(path) => path,
        };
        let refused = |why: String| Error::new(Code::LogUnusable, why).at(path.display());
        let (Some(parent), Some(file_name)) = (path.parent(), path.file_name()) else {
            return Err(refused("expected the path of a file".to_owned()));
        };
        let who = Who { uid: wanted.user.uid, gid: wanted.user.gid, name: &wanted.user.name };
        if !can_enter(parent, who) {
            return Err(refused(format!("{} can't enter its folder", wanted.user.name))
                .hint("put it below /dev/shm or /tmp"));
        }
        let caller = Rights::of_caller()?;
        let folder = caller
            .open(parent)
            .map_err(|error| refused(format!("cannot open its folder: {}", error.message())))?;
        // Made here, so that the program needs no right to make files there, and so that nothing of an earlier run
        // can be taken for this one's.
        let make = || {
            std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o644)
                .custom_flags(nix::libc::O_NOFOLLOW)
                .open(path)
                .map_err(|error| {
                    refused(format!("expected a new file: {error}")).hint(format!("rm {}", path.display()))
                })
        };
        let made = caller.act(make)?;
        std::os::unix::fs::fchown(&made, Some(wanted.user.uid), Some(wanted.user.gid))
            .map_err(|error| refused(format!("cannot give it to {}: {error}", wanted.user.name)))?;
        Ok(Self { inside: path.clone(), name, folder: Some((folder, PathBuf::from(file_name))) })
    }

    /// Puts the driver's own lines where the caller wanted them.
    fn give(&self, bytes: &[u8]) -> Result<()> {
        let Some((folder, name)) = &self.folder else { return Ok(()) };
        put_over_untrusted(folder.as_fd(), name, bytes, &Rights::of_caller()?).map_err(|error| {
            Error::new(Code::LogUnusable, format!("the decisions cannot be put there: {}", error.message()))
                .at(self.inside.display())
                .because(error)
        })
    }

    /// Copies what the program wrote to the output folder. No link is followed and nothing but a file is read.
    fn take(&self, ended: &Ended, output: &RootPath) -> Result<RootPath> {
        let found = match &self.folder {
            None => ended.logs.open(Path::new(self.name))?,
            Some((folder, name)) => open_untrusted(folder.as_fd(), name)?,
        };
        let copy = output.join(self.name);
        let mut bytes = Vec::new();
        if let Some(file) = found {
            file.take(LOG_BYTES + 1)
                .read_to_end(&mut bytes)
                .map_err(|error| Error::io("cannot read a log", &self.inside, error))?;
        }
        copy.write(&bytes)?;
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runners_credentials_are_hidden_whatever_is_measured() {
        let file = HostFile::new("github-runner", "/opt/runner");
        assert_eq!(runners_own(&file, true), [PathBuf::from("/opt/runner"), "/opt/runner/_work".into()]);
        let hidden = runners_own(&file, false);
        for path in ["/opt/runner/.credentials", "/opt/runner/.env", "/opt/runner/_work/_temp"] {
            assert!(hidden.contains(&PathBuf::from(path)), "{path}");
        }
    }
}
