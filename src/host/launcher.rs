//! Becomes the measured program: one thread, everything before the cgroup is joined.
//!
//! Order: session and keyring, namespaces, private view, loopback, limits, looking the program up, giving up every
//! privilege, closing descriptors, waiting for the word, joining the cgroup, execve. See [`super::launch`] for why in this order.

mod fences;
mod view;

use super::launch::{self, Launch, Network, Report};
use super::program::{self, Who};
use crate::error::{Code, Error, Exit, Result};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;

/// Runs the launcher with the [`Launch`] that comes over standard input. Comes back only when something failed.
#[must_use]
pub fn main() -> Exit {
    let Ok(driver) = take_standard_input() else { return Exit::Usage };
    let Ok((launch, passed)) = launch::receive(&driver) else { return Exit::Usage };
    let Err(error) = become_program(&launch, &passed, &driver);
    let report = Report::Failed {
        program: error.code() == Code::ProgramUnusable,
        message: error.to_string(),
        hint: error.advice().map(str::to_owned),
    };
    let _driver_gone = tell(&driver, &report);
    Exit::CannotMeasure
}

/// The driver's socket as a descriptor that closes with the execve; the program's own input is empty.
fn take_standard_input() -> std::io::Result<UnixStream> {
    let driver = std::io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(driver.into())
}

fn tell(mut driver: &UnixStream, report: &Report) -> Result<()> {
    let line = crate::files::compact(report)?;
    driver
        .write_all(format!("{line}\n").as_bytes())
        .map_err(|error| Error::new(Code::SandboxFailed, format!("cannot report: {error}")))
}

fn become_program(
    launch: &Launch,
    passed: &[OwnedFd],
    mut driver: &UnixStream,
) -> Result<std::convert::Infallible> {
    nix::unistd::setsid().map_err(|error| fences::failed("setsid", error))?;
    let mut namespaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWIPC;
    if launch.network == Network::None {
        namespaces |= CloneFlags::CLONE_NEWNET;
    }
    unshare(namespaces).map_err(|error| fences::failed("unshare", error))?;
    fences::limits(launch.nproc)?;
    view::build(&launch.view, passed)?;
    if launch.network == Network::None {
        fences::loopback_up()?;
    }
    if let Some(pids) = launch.pids {
        join(&passed[pids])?;
    }
    // While root can still see why something doesn't do; what it decides by is the modes, for the measured user.
    let who = Who { uid: launch.uid, gid: launch.gid, name: &launch.user };
    let first = launch.argv.first().map_or(&[][..], Vec::as_slice);
    let found = program::resolve(OsStr::from_bytes(first), path_of(&launch.environment), &launch.cwd, who)?;
    let scoped = fences::give_up_privileges(launch.uid, launch.gid)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    std::env::set_current_dir(&launch.cwd).map_err(|error| {
        Error::new(Code::ProgramUnusable, format!("{} can't enter the working folder: {error}", launch.user))
            .at(launch.cwd.display())
            .hint(format!("chmod o+x its parents, or cd to a folder that {} can enter", launch.user))
    })?;

    let path = c_string(found.path.as_os_str().as_bytes())?;
    let argv = launch.argv.iter().map(|argument| c_string(argument)).collect::<Result<Vec<_>>>()?;
    let environment = launch.environment.iter().map(|line| c_string(line)).collect::<Result<Vec<_>>>()?;

    let notes = found
        .passed_over
        .iter()
        .map(|reason| format!("{} was used: {reason}", found.path.display()))
        .collect();
    let mut fence_names = vec!["uid", "no_new_privs", "no capabilities", "private mounts", "private ipc"];
    fence_names.extend((launch.network == Network::None).then_some("private network"));
    fence_names.extend(launch.view.read_only.then_some("read-only file system"));
    fence_names.extend(scoped.then_some("landlock signal scope"));
    let fences = fence_names.into_iter().map(str::to_owned).collect();
    tell(driver, &Report::Ready { program: found.path.clone(), notes, fences })?;

    fences::default_signals()?;
    // Everything but stdio closes with the execve; until then the driver and cgroup.procs are needed.
    // SAFETY: close_range with CLOEXEC only sets a flag.
    if unsafe { libc::close_range(3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC as libc::c_int) } < 0 {
        return Err(fences::failed("close_range", nix::Error::last()));
    }
    // Nothing comes when the driver is gone or has given up: then there is nothing to become.
    driver
        .read_exact(&mut [0])
        .map_err(|_| Error::new(Code::SandboxFailed, "the driver gave up before the program was started"))?;
    join(&passed[launch.procs])?;
    let error = match nix::unistd::execve(&path, &argv, &environment) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    Err(Error::new(Code::ProgramUnusable, format!("cannot execute {}: {error}", found.path.display())))
}

/// `0` in `cgroup.procs` means the writer.
fn join(procs: &OwnedFd) -> Result<()> {
    match nix::unistd::write(procs, b"0") {
        Ok(1) => Ok(()),
        Ok(_) => Err(fences::failed("joining the cgroup", nix::Error::EIO)),
        Err(error) => Err(fences::failed("joining the cgroup", error)),
    }
}

fn path_of(environment: &[Vec<u8>]) -> &OsStr {
    let line = environment.iter().find_map(|line| line.strip_prefix(b"PATH="));
    OsStr::from_bytes(line.unwrap_or(super::environment::GATE_PATH.as_bytes()))
}

fn c_string(bytes: &[u8]) -> Result<CString> {
    CString::new(bytes).map_err(|_| Error::new(Code::Usage, "an argument or a variable holds a NUL byte"))
}
