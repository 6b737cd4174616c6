//! Measures a run of a gate in earnest.

use super::{Failure, Measure, Measured, Run};
use crate::capture::Loaded;
use crate::error::{Code, Error, Result};
use crate::evidence::{KernelVersion, RedactionKey};
use crate::files::RootPath;
use crate::gate::dependencies::{self, Inspector, Interpreter};
use crate::gate::{Definition, Entry, Presence, Selection, ServerPolicySource};
use crate::host::calls::{Policies, ServerPolicy};
use crate::host::doctor::{Options, Report, preflight};
use crate::host::environment::{Environment, FIXED, GATE_PATH};
use crate::host::interrupt::told;
use crate::host::launch::Network;
use crate::host::session::{Host, Place};
use crate::host::user::MeasuredUser;
use crate::host::{BINARY, FIXTURE, SERVER_TIMEOUT_VARIABLE, WORK};
use crate::measure::{LogPlace, Measurement, Prepared, prepare};
use crate::policy::Policy;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// The host, taken for one invocation and found fit.
#[derive(Debug)]
pub struct Fit {
    host: Host,
    key: RedactionKey,
    user: MeasuredUser,
    inspector: Inspector,
    hide: Vec<PathBuf>,
    ring_bytes: u32,
    slow: u32,
    kernel_event: KernelVersion,
    /// One set for all runs: the kernel's check of the programs takes longer than most fixtures.
    programs: Option<Loaded>,
    doctor: Report,
}

/// Measures runs on a host that is fit.
#[derive(Debug)]
pub struct KernelMeasure<'host> {
    fit: &'host Fit,
    programs: Option<Loaded>,
    /// Interpreters of the gates whose packages were found in place.
    ready: BTreeMap<String, BTreeMap<String, Interpreter>>,
    /// Made ready while the evidence of the run before it was written.
    ahead: Option<Prepared<'host>>,
}

/// How an invocation measures.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The measured user, when one is named.
    pub user: Option<&'a str>,
    /// Put in place what the fixtures need.
    pub install: bool,
    /// Folders that no measured program may see.
    pub hide: Vec<PathBuf>,
    /// Bytes of the ring between kernel and reader.
    pub ring_bytes: u32,
    /// What time limits are multiplied by.
    pub slow: u32,
    /// What kernel events are written as.
    pub kernel_event: KernelVersion,
}

impl Fit {
    /// Finds out all that can be found out before the first run: the redaction key, the user, the host's lock; and
    /// puts in place what the fixtures need, when that is wanted.
    ///
    /// # Errors
    /// `NotRoot`, `HostBusy`; what the key, the user or an installation fails with.
    pub fn prepare(selection: &Selection, wanted: &Wanted) -> Result<Self> {
        Host::need_root()?;
        let key = RedactionKey::of_caller()?;
        let user = MeasuredUser::alone(wanted.user)?;
        let inspector = Inspector::new(Some((user.uid, user.gid)));
        if wanted.install {
            inspector.install(&selection.gates, crate::report::diagnostic)?;
        }
        let names: Vec<&str> = selection.gates.iter().map(|entry| entry.definition.id.as_str()).collect();
        let host = Host::enter(&names.join(","))?;
        let mut programs = Some(Loaded::start(wanted.ring_bytes));
        // Nothing is measured on a host that isn't fit. Packages are looked at gate by gate, where it is known which.
        let doctor = preflight(
            Options {
                user: wanted.user,
                online: false,
                building: false,
                slow: wanted.slow,
                ..Options::default()
            },
            &host,
            &mut programs,
        )?;
        let Wanted { hide, ring_bytes, slow, kernel_event, .. } = wanted.clone();
        Ok(Self { host, key, user, inspector, hide, ring_bytes, slow, kernel_event, programs, doctor })
    }

    /// What was found of the host before the first run.
    #[must_use]
    pub fn doctor(&self) -> &Report {
        &self.doctor
    }

    /// Measures on it.
    pub fn measure(&mut self) -> KernelMeasure<'_> {
        let programs = self.programs.take();
        KernelMeasure { fit: self, programs, ready: BTreeMap::new(), ahead: None }
    }

    /// What a gate's definition asks for, as one measurement.
    fn measurement(
        &self,
        gate: &Entry,
        interpreters: &BTreeMap<String, Interpreter>,
        out: &RootPath,
    ) -> Result<Measurement> {
        let definition = &gate.definition;
        let argv = dependencies::expand(&definition.command, interpreters, Path::new(FIXTURE))?;
        let (environment, added) = environment(definition, self.slow);
        let log = |presence| (presence == Presence::Required).then_some(LogPlace::Sandbox);
        Ok(Measurement {
            run_id: definition.run_id.clone(),
            agent_shim: definition.agent_shim.name().to_owned(),
            argv: argv.into_iter().map(OsString::from).collect(),
            environment,
            added,
            user: self.user.clone(),
            network: Network::None,
            place: Place::Gate {
                fixture: gate.fixture(),
                seed: definition
                    .seed
                    .iter()
                    .map(|(name, text)| (PathBuf::from(name), text.clone().into_bytes()))
                    .collect(),
            },
            hide: self.hide.clone(),
            allow: definition.allow.clone(),
            limits: definition.limits.clone(),
            timeout: Some(Duration::from_secs(definition.timeout_seconds) * self.slow),
            slow: self.slow,
            ring_bytes: self.ring_bytes,
            kernel_event: self.kernel_event,
            sdk_log: log(definition.layers.sdk),
            decision_log: log(definition.layers.policy),
            policies: policies(gate, interpreters)?,
            archive: out.join(&definition.archive),
            details: Some(out.clone()),
            extract: Some(out.join("extract")),
            output: out.clone(),
            binary: crate::host::session::own_binary(),
        })
    }
}

impl<'host> KernelMeasure<'host> {
    fn prepare(&mut self, gate: &Entry, out: &RootPath) -> Result<Prepared<'host>> {
        let id = &gate.definition.id;
        // Once a gate, not once a run: reading what a lockfile names takes as long as a small fixture.
        let interpreters = match self.ready.remove(id) {
            Some(ready) => ready,
            None => self.fit.inspector.inspect(gate)?.ready()?,
        };
        let wanted = self.fit.measurement(gate, &interpreters, out)?;
        self.ready.insert(id.clone(), interpreters);
        prepare(&self.fit.host, wanted)
    }
}

impl Measure for KernelMeasure<'_> {
    fn measure(&mut self, gate: &Entry, run: Run<'_>) -> Result<Measured> {
        let definition = &gate.definition;
        // One that was made ready for what didn't come to pass is cleared away before anything is measured.
        let prepared = match self.ahead.take().filter(|ahead| ahead.output().path() == run.out.path()) {
            Some(ahead) => ahead,
            None => self.prepare(gate, run.out)?,
        };
        let captured = prepared.capture(&mut self.programs)?;
        // What keeps it from being made ready now is told when its turn comes.
        let next = run.next.filter(|_| told().is_none());
        self.ahead = next.and_then(|(gate, out)| self.prepare(gate, out).ok());
        let measured = captured.assemble(&self.fit.key)?;
        let (effects, without_archive) = match &measured.written {
            Ok(written) => (written.effects, None),
            Err(error) if error.code() == Code::DiskFull => return Err(full(error)),
            Err(error) => (0, Some(Failure { text: reason(error), exit: error.exit() })),
        };
        for stream in [&measured.stdout, &measured.stderr] {
            if let Some(failure) = &stream.failure {
                crate::report::diagnostic(&format!("{}: output was lost: {failure}", definition.id));
            }
        }
        for note in &measured.notes {
            crate::report::diagnostic(&format!("{}: {note}", definition.id));
        }
        Ok(Measured { summary: measured.summary, effects, without_archive })
    }
}

/// The same error, which a run that was measured only refers to.
fn full(error: &Error) -> Error {
    let same = Error::new(error.code(), error.message());
    let same = error.place().map(str::to_owned).into_iter().fold(same, Error::at);
    error.advice().into_iter().fold(same, Error::hint)
}

fn reason(error: &Error) -> String {
    format!("{}: {error}", error.code().name())
}

/// The policies that a gate's definition names. What the agent says of policies counts for nothing.
fn policies(gate: &Entry, interpreters: &BTreeMap<String, Interpreter>) -> Result<Policies> {
    let Some(source) = &gate.definition.policy else { return Ok(Policies::default()) };
    let read = |file: &str| Policy::read(&gate.fixture().join(file)).map(Arc::new);
    let own = |own: &ServerPolicySource| -> Result<ServerPolicy> {
        let expand = |argv: &Vec<String>| dependencies::expand(argv, interpreters, Path::new(FIXTURE));
        let command = own.command.as_ref().map(expand).transpose()?;
        let command = command.map(|argv| argv.into_iter().map(String::into_bytes).collect());
        Ok(ServerPolicy { policy: read(&own.file)?, command })
    };
    let servers = source.servers.iter().map(|(name, source)| Ok((name.clone(), own(source)?)));
    Ok(Policies { default: Some(read(&source.file)?), servers: servers.collect::<Result<_>>()? })
}

/// A gate gets only what its definition lists, beside what every gate gets.
fn environment(definition: &Definition, slow: u32) -> (Environment, Vec<String>) {
    let server_timeout = (definition.server_timeout() * u64::from(slow)).to_string();
    let ours = [
        ("ASSAY_GATES_BIN", BINARY),
        ("ASSAY_GATES_WORK", WORK),
        ("ASSAY_GATES_FIXTURE", FIXTURE),
        (SERVER_TIMEOUT_VARIABLE, server_timeout.as_str()),
    ];
    let mut environment: Environment =
        FIXED.into_iter().chain([("PATH", GATE_PATH)]).chain(ours).map(pair).collect();
    environment.extend(definition.env.iter().map(|(name, value)| pair((name, value))));
    let added =
        ours.iter().map(|(name, _)| (*name).to_owned()).chain(definition.env.keys().cloned()).collect();
    (environment, added)
}

fn pair((name, value): (&str, &str)) -> (OsString, OsString) {
    (name.into(), value.into())
}
