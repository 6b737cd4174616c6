//! Trials: what a gate does, done once for real.

use super::{Check, Context};
use crate::capture::{Loaded, RING_BYTES};
use crate::error::{Code, Error, Result};
use crate::evidence::RedactionKey;
use crate::files::RootPath;
use crate::gate::Limits;
use crate::host::calls::Policies;
use crate::host::environment;
use crate::host::launch::Network;
use crate::host::rights::Rights;
use crate::host::session::{Ended, Host, Place, Session, Spec, own_binary};
use crate::host::user::MeasuredUser;
use crate::measure::{Measurement, measure};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one `true` may take.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn user(context: &Context<'_>) -> Check {
    match &context.user {
        Ok(user) => Check::pass(format!("{} (uid {}, gid {})", user.name, user.uid, user.gid)),
        Err(error) => Check::error(error),
    }
}

/// One network namespace, one private view, one unprivileged uid, one cgroup with its limits; without the kernel
/// programs, so that it can be told apart what doesn't work.
pub(super) fn sandbox(context: &Context<'_>) -> Check {
    with_host(context, |host, user| {
        let (ended, limits) = run(host, user, context.options.slow)?;
        if !ended.outcome.success() {
            let why = format!("`true` ended with {:?} in the sandbox", ended.outcome.exit_code);
            return Err(Error::new(Code::SandboxFailed, why));
        }
        let limits = limits.join(", ");
        Ok(format!("{}; {limits}; {} ms", ended.fences.join(", "), ended.outcome.elapsed_ms))
    })
}

/// One measured `true`: every program loaded and attached, canaries found, every record accounted for.
pub(super) fn measurement(context: &Context<'_>) -> Check {
    with_host(context, |host, user| {
        let folder =
            tempfile::tempdir().map_err(|error| Error::io("cannot make", &std::env::temp_dir(), error))?;
        let mut programs = context.programs.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut wanted = of_true(user, &RootPath::open(folder.path(), Rights::own())?);
        wanted.timeout = Some(LIMIT * context.options.slow);
        wanted.ring_bytes = programs.as_ref().map_or(RING_BYTES, Loaded::ring_bytes);
        let measured = measure(host, wanted, &RedactionKey::ephemeral()?, &mut programs)?;
        let written = measured.written?;
        let proof = &measured.summary.proof;
        if !proof.complete {
            return Err(Error::new(Code::CannotMeasure, format!("incomplete: {}", proof.reasons.join("; "))));
        }
        let hooks = proof.environment.keys().filter(|name| name.starts_with("hook.")).count();
        Ok(format!(
            "{hooks} hooks, {} effects, {} lost, complete",
            written.effects, measured.summary.ringbuf_drops
        ))
    })
}

fn of_true(user: &MeasuredUser, folder: &RootPath) -> Measurement {
    Measurement {
        run_id: "run_doctor".to_owned(),
        agent_shim: "none".to_owned(),
        argv: vec!["true".into()],
        environment: environment::of_gate(&BTreeMap::new()),
        added: Vec::new(),
        user: user.clone(),
        network: Network::None,
        place: Place::Gate { fixture: folder.path(), seed: BTreeMap::new() },
        hide: Vec::new(),
        allow: Vec::new(),
        limits: Limits::default(),
        timeout: Some(LIMIT),
        slow: 1,
        ring_bytes: RING_BYTES,
        kernel_event: Default::default(),
        sdk_log: None,
        decision_log: None,
        policies: Policies::default(),
        archive: folder.join("doctor.tar.gz"),
        details: None,
        extract: None,
        output: folder.join("output"),
        binary: own_binary(),
    }
}

fn with_host(context: &Context<'_>, trial: impl Fn(&Host, &MeasuredUser) -> Result<String>) -> Check {
    let (host, user) = match (&context.host, &context.user) {
        (Some(Ok(host)), Ok(user)) => (*host, user),
        (Some(Err(error)), _) => return Check::error(error),
        (_, Err(error)) => return Check::error(error),
        (None, _) => return Check::warn("not tried", "assay-gates doctor"),
    };
    match trial(host, user) {
        Ok(found) => Check::pass(found),
        Err(error) => Check::error(&error),
    }
}

fn run(host: &Host, user: &MeasuredUser, slow: u32) -> Result<(Ended, Vec<String>)> {
    let folder =
        tempfile::tempdir().map_err(|error| Error::io("cannot make", &std::env::temp_dir(), error))?;
    let held = RootPath::open(folder.path(), Rights::own())?;
    let spec = Spec {
        argv: vec!["true".into()],
        environment: environment::of_gate(&BTreeMap::new()),
        user: user.clone(),
        network: Network::None,
        place: Place::Gate { fixture: folder.path().to_owned(), seed: BTreeMap::new() },
        control: None,
        hide: Vec::new(),
        timeout: Some(LIMIT * slow),
        allow: Vec::new(),
        limits: Limits::default(),
        launcher: own_binary(),
        stdout: held.join("stdout.log"),
        stderr: held.join("stderr.log"),
        output_bytes: 4096,
    };
    let session = Session::prepare(host, spec)?;
    let limits = session.cgroup().limits().to_vec();
    let ended = session.spawn()?.wait()?;
    ended.remove()?;
    Ok((ended, limits))
}
