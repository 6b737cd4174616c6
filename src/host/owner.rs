//! Who made a leftover: a process id is reused, a process id with its start time is not.

use std::fmt;
use std::str::FromStr;

/// A process by id and start time (clock ticks since boot, field 22 of `/proc/PID/stat`).
///
/// Reads and writes as `<pid>-<start time>`, which is also how names of cgroups carry it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Process id.
    pub pid: u32,
    /// Clock ticks since boot.
    pub start_time: u64,
}

impl Owner {
    /// This process.
    #[must_use]
    pub fn current() -> Self {
        let pid = std::process::id();
        Self { pid, start_time: start_time(pid).unwrap_or(0) }
    }

    /// The process with that id, if there is one.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Some(Self { pid, start_time: start_time(pid)? })
    }

    /// True while that very process exists; a zombie doesn't count, it can't own anything any more.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.start_time)
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (pid, start_time) = text.split_once('-').ok_or(())?;
        Ok(Self { pid: pid.parse().map_err(|_| ())?, start_time: start_time.parse().map_err(|_| ())? })
    }
}

fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so count from the last parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_alive_and_its_earlier_namesake_is_not() {
        let current = Owner::current();
        assert!(current.is_alive());
        assert!(!Owner { start_time: current.start_time + 1, ..current }.is_alive());
        assert_eq!(current.to_string().parse(), Ok(current));
    }
}
