//! Whoever started this process, and whether they are still there to learn how it ended.
//!
//! A service that is stopped with `KillMode=process` signals its main process alone, and the user of a runner can't
//! signal what runs as root: in both cases nobody tells a driver behind sudo that nobody waits for it any more. What it
//! can see is that the processes above it are gone, and that systemd took back the unit's invocation.
//!
//! * **Processes.** Behind sudo, or in a service: every ancestor up to the head of the session that the driver was started
//!   in (a service's main process, a login's shell, the shell of a cron job), across the session that sudo makes. Not
//!   where root started it elsewhere, who can signal it; not where there is a
//!   terminal, whose hang-up is a signal, and not where SIGHUP was ignored from the start (`nohup`) or the driver's
//!   side made a session of its own (`setsid`): that asks to go on alone.
//! * **Units.** systemd keeps `/run/systemd/units/invocation:UNIT` while a unit is active, and takes it away when the
//!   unit is not, whatever stays alive in its cgroup.

use super::mounts;
use super::owner::Owner;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// Where systemd says which invocation of a unit is running.
const UNITS: &str = "/run/systemd/units";
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(250);

/// Whoever started this process.
#[derive(Debug)]
pub struct Starter {
    processes: Vec<(u32, String, OwnedFd)>,
    units: BTreeMap<PathBuf, OsString>,
    /// Who was gone before this process could look.
    gone: Option<String>,
}

impl Starter {
    /// Looks who it is. `alone`: the processes above may go.
    #[must_use]
    pub fn find(alone: bool) -> Self {
        let mut found = Self { processes: Vec::new(), units: BTreeMap::new(), gone: None };
        let own = std::process::id();
        found.watch_unit(own);
        let Some(mut below) = Process::read(own) else { return found };
        let watch = !alone && !below.has_terminal;
        let mut out_of_reach = unit_of(&cgroups(own)).is_some_and(|unit| unit.ends_with(".service"));
        while let Some(above) = below.above().filter(|above| above.id > 1) {
            found.watch_unit(above.id);
            out_of_reach |= above.name == "sudo";
            if watch {
                let Some(fd) = above.open() else { break };
                found.processes.push((above.id, above.name.clone(), fd));
            }
            below = above;
        }
        if !out_of_reach {
            found.processes.clear();
        } else if watch && Owner::of(below.session).is_none() && below.session != 0 {
            let why = format!("process {}, the head of the session, is gone", below.session);
            found.gone.get_or_insert(why);
        }
        found
    }

    fn watch_unit(&mut self, process: u32) {
        let Some(name) = unit_of(&cgroups(process)) else { return };
        let link = PathBuf::from(UNITS).join(format!("invocation:{name}"));
        match std::fs::read_link(&link) {
            Ok(invocation) => drop(self.units.entry(link).or_insert_with(|| invocation.into_os_string())),
            // Scopes outlive whoever made them.
            Err(_) if name.ends_with(".service") && says_invocations() => {
                self.gone.get_or_insert(format!("{name} was stopped"));
            }
            Err(_) => {}
        }
    }

    /// Waits until somebody of them is gone, in words; `None` when `until` became readable before that.
    #[must_use]
    pub fn wait(&self, until: BorrowedFd<'_>) -> Option<String> {
        if let Some(why) = &self.gone {
            return Some(why.clone());
        }
        loop {
            let mut fds = vec![PollFd::new(until, PollFlags::POLLIN)];
            fds.extend(self.processes.iter().map(|(_, _, fd)| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
            let timeout = if self.units.is_empty() {
                PollTimeout::NONE
            } else {
                PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::NONE)
            };
            let _woken_or_timed_out = poll(&mut fds, timeout);
            let readable = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            if readable(&fds[0]) {
                return None;
            }
            if let Some((at, _)) = fds.iter().enumerate().skip(1).find(|(_, fd)| readable(fd)) {
                let (id, name, _) = &self.processes[at - 1];
                return Some(format!("{name} (process {id}), which it was started from, is gone"));
            }
            if let Some((link, _)) = self.units.iter().find(|(link, invocation)| {
                std::fs::read_link(link).map_or(true, |now| now.as_os_str() != invocation.as_os_str())
            }) {
                let name = link.file_name().unwrap_or_default().to_string_lossy();
                return Some(format!("{} was stopped", name.trim_start_matches("invocation:")));
            }
        }
    }
}

fn cgroups(process: u32) -> String {
    std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default()
}

/// Whether systemd says of any unit which invocation is running: before 235 it did not.
fn says_invocations() -> bool {
    let mut names = std::fs::read_dir(UNITS).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.any(|name| name.to_string_lossy().starts_with("invocation:"))
}

/// The system's unit that a process belongs to, by its `/proc/PID/cgroup`: the first part of the path that names one.
fn unit_of(table: &str) -> Option<String> {
    let named = |path: PathBuf| {
        let mut parts = path.iter().map(|part| part.to_string_lossy().into_owned());
        parts.find(|part| [".service", ".scope"].iter().any(|kind| part.ends_with(kind)))
    };
    ["", "name=systemd"].iter().find_map(|hierarchy| named(mounts::membership(table, hierarchy)?))
}

/// A process, as `/proc/PID/stat` has it.
struct Process {
    id: u32,
    name: String,
    parent: u32,
    session: u32,
    has_terminal: bool,
    owner: Option<Owner>,
}

impl Process {
    fn read(id: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let mut fields = tail.split_whitespace().skip(1);
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let has_terminal = fields.next()? != "0";
        Some(Self { id, name, parent, session, has_terminal, owner: Owner::of(id) })
    }

    /// Its parent, when that is of the same session, or sudo, which makes one for what it starts.
    fn above(&self) -> Option<Self> {
        let above = Self::read(self.parent)?;
        (above.session == self.session || above.name == "sudo").then_some(above)
    }

    /// Holds on to it, whatever becomes of its id.
    fn open(&self) -> Option<OwnedFd> {
        // SAFETY: takes two numbers; gives back a new descriptor or less than 0.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.id, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the kernel just made this descriptor, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // The id may have gone to another process in between.
        self.owner.filter(Owner::is_alive).map(|_| fd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_first_part_of_the_path_that_names_one() {
        for (table, unit) in [
            ("0::/system.slice/actions.runner.o-r.bpf.service\n", Some("actions.runner.o-r.bpf.service")),
            ("0::/user.slice/user-0.slice/user@0.service/app.slice/run-1.service\n", Some("user@0.service")),
            ("0::/user.slice/user-0.slice/session-1.scope\n", Some("session-1.scope")),
            ("0::/system.slice/x.service/child\n", Some("x.service")),
            ("4:memory:/y.service\n1:name=systemd:/system.slice/x.service\n", Some("x.service")),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_of(table).as_deref(), unit, "{table}");
        }
    }

    #[test]
    fn a_parent_of_another_session_is_not_above() {
        let mut own = Process::read(std::process::id()).unwrap();
        assert_eq!(own.above().map(|above| above.id).is_some(), {
            let above = Process::read(own.parent).unwrap();
            above.session == own.session || above.name == "sudo"
        });
        own.session = u32::MAX;
        assert!(own.above().is_none_or(|above| above.name == "sudo"));
    }
}
