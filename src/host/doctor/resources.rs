//! Room, memory and time.

use super::{Check, Context};
use nix::libc;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use std::path::{Path, PathBuf};

const GIBIBYTE: u64 = 1 << 30;
/// Kernel memory that the programs' maps take.
const LOCKED: u64 = 256 << 20;

pub(super) fn memlock(_: &Context<'_>) -> Check {
    match getrlimit(Resource::RLIMIT_MEMLOCK) {
        // Since Linux 5.11 maps are accounted to the memory cgroup; the limit is told all the same.
        Ok((soft, _)) if soft == RLIM_INFINITY => Check::pass("unlimited"),
        Ok((soft, _)) => Check::pass(format!(
            "{} MiB; maps of {} MiB are accounted to the memory cgroup instead",
            soft >> 20,
            LOCKED >> 20
        )),
        Err(error) => Check::warn(format!("cannot read the limit: {error}"), "ulimit -l"),
    }
}

/// Where records and results go, or the nearest folder above that exists.
fn places(context: &Context<'_>) -> Vec<PathBuf> {
    let mut places = vec![crate::host::state::spool(&context.state)];
    if let Some(Ok(file)) = &context.host_file {
        places.extend(file.proof_roots.iter().cloned());
    }
    let mut places: Vec<PathBuf> = places
        .iter()
        .filter_map(|place| place.ancestors().find(|part| part.is_dir()).map(Path::to_path_buf))
        .collect();
    places.sort();
    places.dedup();
    places
}

pub(super) fn disk(context: &Context<'_>) -> Check {
    each(&places(context), |path| {
        let found = statvfs(path).map_err(|error| error.to_string())?;
        let free = found.blocks_available() * found.fragment_size();
        let text = format!("{:.1} GiB free in {}", free as f64 / GIBIBYTE as f64, path.display());
        Ok((text, free < GIBIBYTE, free < 5 * GIBIBYTE))
    })
}

pub(super) fn inodes(context: &Context<'_>) -> Check {
    each(&places(context), |path| {
        let found = statvfs(path).map_err(|error| error.to_string())?;
        // Some file systems (btrfs) make inodes as they go and say 0 of 0.
        if found.files() == 0 {
            return Ok((format!("no limit in {}", path.display()), false, false));
        }
        let free = found.files_available();
        Ok((format!("{free} free in {}", path.display()), free < 10_000, free < 100_000))
    })
}

/// One line over all places, as bad as the worst.
fn each(places: &[PathBuf], look: impl Fn(&Path) -> Result<(String, bool, bool), String>) -> Check {
    let (mut found, mut too_little, mut little) = (Vec::new(), false, false);
    for place in places {
        match look(place) {
            Ok((text, fails, warns)) => {
                found.push(text);
                too_little |= fails;
                little |= warns;
            }
            Err(error) => {
                found.push(format!("{}: {error}", place.display()));
                too_little = true;
            }
        }
    }
    let found = found.join("; ");
    let fix = "sudo assay-gates clean --phase before-run --apply";
    match (too_little, little) {
        (true, _) => Check::fail(found, fix),
        (false, true) => Check::warn(found, fix),
        (false, false) => Check::pass(found),
    }
}

/// Seconds by which a clock may be off before signatures and tokens are refused.
const SKEW: i64 = 30;

pub(super) fn clock(context: &Context<'_>) -> Check {
    let free = kept_by_nobody();
    let kept = match free {
        Some(true) => "not kept by a time service",
        Some(false) => "kept by a time service",
        None => "whether a time service keeps it is hidden by a filter of system calls",
    };
    let fix = "timedatectl set-ntp true";
    let answer = context.options.online.then(crate::github::clock_skew).flatten();
    if let Some((server, skew)) = answer {
        let found = format!("{skew:+} s against {server}; {kept}");
        return if skew.abs() > SKEW { Check::fail(found, fix) } else { Check::pass(found) };
    }
    match free {
        Some(false) => Check::pass(kept),
        _ => Check::warn(format!("{kept}, and no server to compare with was asked or reached"), fix),
    }
}

/// Whether the kernel says that no time service keeps the clock; nothing where a unit's filter would end whoever asks.
fn kept_by_nobody() -> Option<bool> {
    let number = libc::SYS_clock_adjtime;
    if crate::host::units::is_refused(number, false) {
        return None;
    }
    // SAFETY: all zeroes asks the call to change nothing; it fills the struct, which lives through the call.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::syscall(number, libc::CLOCK_REALTIME, &raw mut timex)
    };
    Some(state == libc::c_long::from(libc::TIME_ERROR))
}
