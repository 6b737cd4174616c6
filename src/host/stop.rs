//! The end of a driver that was told to stop: by itself within a moment, else by force, and never with anything left.
//!
//! Every result is on disk before the next step begins, so the driver may end anywhere. Told to stop, it closes what it
//! is doing as always. What takes longer than [`GRACE`] (a large pack, an installation, a kernel that is slow) is cut:
//! all that it started is killed, its cgroups are removed, and the process ends with 13.

use super::cgroup;
use super::interrupt::{Interrupt, told};
use super::starter::Starter;
use crate::error::{Code, Exit, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long the driver may take to close what it is doing.
pub const GRACE: Duration = Duration::from_millis(1_800);

type Last = Box<dyn FnOnce(&str) + Send>;
static LAST: Mutex<Option<Last>> = Mutex::new(None);

/// Takes signals over, watches whoever started this process, and sees to it that it ends when it is told to.
///
/// # Errors
/// `Internal` when the kernel refuses.
pub fn watch() -> Result<()> {
    let interrupt = Interrupt::install()?;
    let starter = Starter::find(interrupt.survives_its_starter());
    let watcher = move || {
        if let Some(fd) = interrupt.fd()
            && let Some(why) = starter.wait(fd)
        {
            interrupt.tell(why);
        }
        std::thread::sleep(GRACE);
        end();
    };
    std::thread::Builder::new().name("stop".to_owned()).spawn(watcher).map(drop).map_err(|error| {
        crate::error::Error::new(Code::Internal, format!("cannot start a thread: {error}")).because(error)
    })
}

/// What is done last when the process is cut, with who told it to stop.
pub fn last(act: impl FnOnce(&str) + Send + 'static) {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(act));
}

/// Nothing is left to be done at the end.
pub fn forget_last() {
    *LAST.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn end() -> ! {
    let why = told().unwrap_or_default();
    kill_descendants();
    let _reaped_by_the_next_run = cgroup::remove_own();
    let last = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(last) = last {
        last(&why);
    }
    let code = Exit::Infrastructure.code();
    // SAFETY: ends the process at once; no other thread is waited for, and no destructor is needed: what was made
    // outside of this process is gone, and the kernel takes back the rest.
    unsafe { nix::libc::_exit(code.into()) }
}

/// Kills what this process started, and what that started. An init of a session takes its whole namespace with it.
fn kill_descendants() {
    for pid in descendants(std::process::id(), &parents()) {
        if let Ok(pid) = i32::try_from(pid) {
            let _gone_already = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Every process and its parent.
fn parents() -> BTreeMap<u32, u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        Some((id, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
    })
    .collect()
}

fn descendants(of: u32, parents: &BTreeMap<u32, u32>) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![of];
    while let Some(id) = next.pop() {
        let children = parents.iter().filter(|(child, parent)| **parent == id && **child != id);
        let children: Vec<u32> = children.map(|(child, _)| *child).collect();
        found.extend(&children);
        next.extend(children);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_children_and_their_children_and_nobody_else() {
        let parents = BTreeMap::from([(1, 0), (2, 1), (3, 2), (4, 3), (5, 1), (6, 5)]);
        assert_eq!(descendants(2, &parents), [3, 4]);
        assert_eq!(descendants(6, &parents), Vec::<u32>::new());
    }
}
