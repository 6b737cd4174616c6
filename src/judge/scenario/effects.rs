//! One run: whether what was measured is what the scenario declared beforehand.

use super::join::Join;
use super::{Run, Stop};
use crate::capture::Operation;
use crate::error::Exit;
use crate::evidence::KernelEvent;
use crate::evidence::tool_effects::CountedEffect;
use crate::files::contains;
use crate::gate::{Definition, ExpectedEffect};
use std::path::Path;

const O_ACCMODE: u64 = 0o3;
const O_CREAT: u64 = 0o100;
const O_TRUNC: u64 = 0o1000;
const ENOENT: i64 = 2;

fn stop<T>(reason: String) -> Result<T, Stop> {
    Err(Stop { exit: Some(Exit::AcceptanceFailed), reason })
}

/// The kernel record and the attributed effect of what a scenario predeclared.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Found<'a> {
    pub event: &'a KernelEvent,
    /// JSON pointer into `tool_effects.json`.
    pub pointer: String,
}

/// The call did on the work folder what was declared of it, wrote nothing elsewhere, and nothing else wrote there.
pub(super) fn declared_alone(gate: &Definition, run: &Run, join: &Join, work: &str) -> Result<(), Stop> {
    let effects = &join.call().effects.effects;
    for effect in effects {
        writes_inside(effect, work)?;
    }
    let expected = gate.expect.tool_effects.get(&join.call().effects.tool_call_id);
    let mut expected: Vec<String> = expected.into_iter().flatten().map(in_words).collect();
    let mut found: Vec<String> = effects.iter().filter_map(|effect| on_work(effect, work)).collect();
    expected.sort();
    found.sort();
    if expected != found {
        return stop(format!(
            "expected the call to do [{}], found [{}]",
            expected.join(", "),
            found.join(", ")
        ));
    }
    let gap = declared_gap(gate, work).map(|(path, _)| path);
    let stray = run.effects.outside.iter().filter(|effect| writes(effect) && touches(effect, work));
    // The predeclared effect has a rule of its own, which says on which side of the window it belongs.
    match stray.into_iter().find(|effect| effect.path.is_none() || effect.path != gap) {
        Some(effect) => stop(format!("something outside of the call wrote {}", text(effect))),
        None => Ok(()),
    }
}

/// Everything that the call opened of the work folder was read, with success, and the kernel layer has each such read once.
pub(super) fn reads_only<'a>(run: &Run<'a>, join: &Join<'a>, work: &str) -> Result<Vec<Found<'a>>, Stop> {
    let mut found = Vec::new();
    for (at, effect) in join.call().effects.effects.iter().enumerate() {
        if !touches(effect, work) {
            continue;
        }
        let path = effect.path.as_deref().unwrap_or_default();
        if writes(effect)
            || effect.errno.is_some()
            || effect.operation != Operation::Open
            || effect.count != 1
        {
            return stop(format!("expected nothing but reads inside the call, found {}", text(effect)));
        }
        let event = the_record(run, path, "read", "success")?;
        found.push(Found { event, pointer: format!("#/calls/0/effects/{at}") });
    }
    if found.is_empty() {
        stop("nothing of the work folder was read inside the call".to_owned())
    } else {
        Ok(found)
    }
}

/// The predeclared effect, exactly once inside the call (`in_call`) or exactly once outside of every call.
pub(super) fn the_gap<'a>(
    gate: &Definition,
    run: &Run<'a>,
    join: &Join<'a>,
    work: &str,
    in_call: bool,
) -> Result<Found<'a>, Stop> {
    let Some((path, access)) = declared_gap(gate, work) else {
        return stop("the scenario declares no effect that would make it".to_owned());
    };
    if !contains(Path::new(work), Path::new(&path)) {
        return stop(format!("{path} is not inside {work}"));
    }
    let call = &join.call().effects.effects;
    let (here, there) = if in_call { (call, &run.effects.outside) } else { (&run.effects.outside, call) };
    if let Some(effect) = there.iter().find(|effect| effect.path.as_deref() == Some(&path)) {
        return stop(format!("found {} on the wrong side of the call's window", text(effect)));
    }
    let mut matching = here.iter().enumerate().filter(|(_, effect)| effect.path.as_deref() == Some(&path));
    let (Some((at, effect)), None) = (matching.next(), matching.next()) else {
        return stop(format!("expected exactly one effect on {path}, found none or several"));
    };
    let wrote = writes(effect);
    if effect.operation != Operation::Open || effect.count != 1 || wrote != (access == "write") {
        return stop(format!("expected one open of {path} for {access}, found {}", text(effect)));
    }
    let status = match effect.errno {
        None if effect.path_state.is_none() => "success",
        // Nothing was opened, so there is no file whose path could be resolved.
        Some(ENOENT) if !wrote => "error",
        _ => {
            return stop(format!(
                "expected the open of {path} to be resolved by the kernel, found {}",
                text(effect)
            ));
        }
    };
    if wrote && effect.flags.unwrap_or_default() & O_CREAT == 0 {
        return stop(format!("expected {path} to be created, found {}", text(effect)));
    }
    let event = the_record(run, &path, access, status)?;
    if wrote && !event.operation_flags.iter().any(|flag| flag == "create") {
        return stop(format!("the kernel record of {path} does not say create"));
    }
    let pointer = if in_call { format!("#/calls/0/effects/{at}") } else { format!("#/outside/{at}") };
    Ok(Found { event, pointer })
}

/// The baseline knows nothing of the gap: neither inside its call, nor outside, nor in its kernel layer.
pub(super) fn absent_from_baseline(gate: &Definition, baseline: &Run, work: &str) -> Result<(), Stop> {
    let Some((path, _)) = declared_gap(gate, work) else { return Ok(()) };
    let calls = baseline.effects.calls.iter().flat_map(|call| &call.effects);
    let known = calls.chain(&baseline.effects.outside).any(|effect| effect.path.as_deref() == Some(&path))
        || baseline.kernel.iter().any(|event| event.value.as_deref() == Some(&path));
    if known { stop(format!("the baseline shows {path} too")) } else { Ok(()) }
}

fn declared_gap<'a>(gate: &'a Definition, work: &str) -> Option<(String, &'a str)> {
    let scenario = gate.scenario.as_ref()?;
    let path = scenario.gap_path.as_ref()?;
    Some((format!("{work}/{path}"), scenario.gap_access.as_deref().unwrap_or("write")))
}

/// The one kernel record of an open.
fn the_record<'a>(run: &Run<'a>, path: &str, access: &str, status: &str) -> Result<&'a KernelEvent, Stop> {
    let mut all =
        run.kernel.iter().filter(|event| event.kind == "openat" && event.value.as_deref() == Some(path));
    match (all.next(), all.next()) {
        (Some(event), None)
            if event.access_mode.as_deref() == Some(access) && event.status.as_deref() == Some(status) =>
        {
            Ok(event)
        }
        _ => stop(format!("expected exactly one kernel record of {path}: {access}, {status}")),
    }
}

fn writes_inside(effect: &CountedEffect, work: &str) -> Result<(), Stop> {
    if !writes(effect) {
        return Ok(());
    }
    let inside =
        |path: &Option<String>| path.as_ref().is_none_or(|path| contains(Path::new(work), Path::new(path)));
    // A write whose path is not known to be inside is a write outside.
    if effect.path.is_some() && inside(&effect.path) && inside(&effect.target) {
        Ok(())
    } else {
        stop(format!("the call wrote outside of the work folder: {}", text(effect)))
    }
}

fn touches(effect: &CountedEffect, work: &str) -> bool {
    let inside =
        |path: &Option<String>| path.as_ref().is_some_and(|path| contains(Path::new(work), Path::new(path)));
    inside(&effect.path) || inside(&effect.target)
}

/// Whether an effect could change a file.
fn writes(effect: &CountedEffect) -> bool {
    match effect.operation {
        Operation::Open | Operation::IoUring => match effect.flags {
            Some(flags) => flags & O_ACCMODE != 0 || flags & (O_CREAT | O_TRUNC) != 0,
            None => effect.path.is_some(),
        },
        Operation::Unlink
        | Operation::Rename
        | Operation::Link
        | Operation::Symlink
        | Operation::Mkdir
        | Operation::Rmdir
        | Operation::Truncate
        | Operation::Chmod
        | Operation::Chown
        | Operation::Mknod => true,
        _ => false,
    }
}

fn on_work(effect: &CountedEffect, work: &str) -> Option<String> {
    if !touches(effect, work) {
        return None;
    }
    let path = effect.path.as_deref().unwrap_or_default();
    let path = path.strip_prefix(work).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    let access = match (effect.operation, effect.flags) {
        (Operation::Open, Some(flags)) => match flags & O_ACCMODE {
            0 => " read",
            1 => " write",
            2 => " read_write",
            _ => " unknown",
        },
        _ => "",
    };
    let count = if effect.count == 1 { String::new() } else { format!(" × {}", effect.count) };
    Some(format!("{} {path}{access}{count}", super::name(&effect.operation)))
}

fn in_words(expected: &ExpectedEffect) -> String {
    let access = expected.access.as_ref().map_or(String::new(), |access| format!(" {access}"));
    format!("{} {}{access}", expected.operation, expected.path)
}

fn text(effect: &CountedEffect) -> String {
    format!("{} {}", effect.syscall, effect.path.as_deref().unwrap_or("an unknown path"))
}
