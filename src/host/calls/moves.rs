//! Moving everything that is in one cgroup to another.

use nix::errno::Errno;
use std::io;
use std::path::Path;

/// Rounds after which a cgroup that keeps filling up is given up.
const MOST_ROUNDS: u32 = 256;

/// Moves one process, all its threads with it.
pub(super) fn move_process(pid: i32, to: &Path) -> io::Result<()> {
    std::fs::write(to.join("cgroup.procs"), pid.to_string())
}

/// Moves every process until none is left: a child that is born meanwhile is born where its parent is at that
/// moment, so it is either found in the next round or was born on the other side already.
///
/// # Errors
/// Why some process stayed.
pub(super) fn move_all(from: &Path, to: &Path) -> Result<(), String> {
    for _ in 0..MOST_ROUNDS {
        let members =
            std::fs::read_to_string(from.join("cgroup.procs")).map_err(|error| error.to_string())?;
        if members.is_empty() {
            return Ok(());
        }
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            match move_process(pid, to) {
                Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => {}
                Err(error) => return Err(format!("process {pid} can't be moved: {error}")),
                Ok(()) => {}
            }
        }
    }
    Err(format!("processes are born faster than they can be moved, for {MOST_ROUNDS} rounds"))
}
