//! What bounds a session: controllers of the version 2 hierarchy, of version 1 hierarchies, or the driver's own looking.

use super::{read, write};
use crate::error::Result;
use crate::gate::Limits;
use crate::host::mounts::{self, CONTROLLERS};
use std::path::{Path, PathBuf};

const MEBIBYTE: u64 = 1 << 20;

/// Limits in force, and where it can be read that one was met.
#[derive(Debug, Default)]
pub(super) struct Applied {
    words: Vec<String>,
    /// Groups of version 1, made for this session.
    groups: Vec<PathBuf>,
    meters: Vec<Meter>,
}

#[derive(Debug)]
enum Meter {
    /// A file of `key value` lines; the limit was met when the value is above 0.
    Events { file: PathBuf, key: &'static str, limit: String },
    /// Resident memory of all processes in bytes, where no controller counts it.
    Resident { limit: u64 },
    /// Processes and threads, a line each in `file`, where no controller counts them.
    Tasks { file: PathBuf, limit: u64 },
}

impl Applied {
    /// Applies what can be applied; what no controller bounds is left to the driver and to rlimits.
    pub(super) fn apply(&mut self, session: &Path, limits: &Limits) -> Result<()> {
        let (mounts, own) =
            (mounts::parse(&read(Path::new("/proc/self/mountinfo"))?), read(Path::new("/proc/self/cgroup"))?);
        for controller in CONTROLLERS {
            let file = match controller {
                "pids" => "pids.max",
                "memory" => "memory.max",
                _ => "cpu.weight",
            };
            if session.join(file).exists() {
                self.limit(controller, session, limits, false)?;
                continue;
            }
            let mount = mounts::cgroup1(&mounts, controller);
            let group = mount.zip(mounts::membership(&own, controller)).map(|(mount, own)| {
                let inside = own.strip_prefix(&mount.root).unwrap_or(Path::new(""));
                mount.point.join(inside).join(session.file_name().unwrap_or_default())
            });
            match group {
                // One hierarchy may hold several controllers.
                Some(group) if self.groups.contains(&group) || std::fs::create_dir(&group).is_ok() => {
                    if !self.groups.contains(&group) {
                        self.groups.push(group.clone());
                    }
                    self.limit(controller, &group, limits, true)?;
                }
                _ if controller == "memory" => {
                    self.words.push(format!("memory={} MiB (resident, polled)", limits.memory_mib));
                    self.meters.push(Meter::Resident { limit: limits.memory_mib * MEBIBYTE });
                }
                _ if controller == "pids" => {
                    self.words.push(format!("processes={} (counted, polled)", limits.processes));
                    let file = session.join("cgroup.threads");
                    self.meters.push(Meter::Tasks { file, limit: limits.processes });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn limit(&mut self, controller: &str, group: &Path, limits: &Limits, first: bool) -> Result<()> {
        let bytes = (limits.memory_mib * MEBIBYTE).to_string();
        let weight = (limits.cpu_weight * 1024 / 100).max(2).to_string();
        let (file, value) = match (controller, first) {
            ("pids", _) => ("pids.max", limits.processes.to_string()),
            ("memory", false) => ("memory.max", bytes.clone()),
            ("memory", true) => ("memory.limit_in_bytes", bytes.clone()),
            (_, false) => ("cpu.weight", limits.cpu_weight.to_string()),
            (_, true) => ("cpu.shares", weight),
        };
        write(&group.join(file), &value)?;
        self.words.push(format!("{file}={value} (cgroup v{})", if first { 1 } else { 2 }));
        let meter = |file: &str, key, limit| Meter::Events { file: group.join(file), key, limit };
        match (controller, first) {
            ("pids", _) => {
                let limit = format!("processes: more than {}", limits.processes);
                self.meters.push(meter("pids.events", "max", limit));
            }
            ("memory", _) => {
                let limit = format!("memory: more than {} MiB", limits.memory_mib);
                let events = if first { "memory.oom_control" } else { "memory.events" };
                self.meters.push(meter(events, "oom_kill", limit));
                // What is swapped out is held all the same; kernels without swap accounting have no such file.
                let swap = if first {
                    ("memory.memsw.limit_in_bytes", bytes)
                } else {
                    ("memory.swap.max", "0".into())
                };
                let file = group.join(swap.0);
                if file.exists() {
                    write(&file, &swap.1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    pub(super) fn groups(&self) -> &[PathBuf] {
        &self.groups
    }

    pub(super) fn bounds_processes(&self) -> bool {
        self.meters.iter().any(|meter| matches!(meter, Meter::Events { key: "max", .. }))
    }

    /// The first limit that was met, in words.
    pub(super) fn exceeded(&self, processes: impl Fn() -> Vec<u32>) -> Option<String> {
        self.meters.iter().find_map(|meter| match meter {
            Meter::Events { file, key, limit } => {
                let text = std::fs::read_to_string(file).ok()?;
                let count = text
                    .lines()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
                (count? > 0).then(|| limit.clone())
            }
            Meter::Resident { limit } => {
                let resident: u64 = processes().into_iter().filter_map(resident).sum();
                (resident > *limit).then(|| format!("memory: more than {} MiB resident", limit / MEBIBYTE))
            }
            Meter::Tasks { file, limit } => {
                let tasks = std::fs::read_to_string(file).ok()?.lines().count() as u64;
                (tasks > *limit).then(|| format!("processes: more than {limit}"))
            }
        })
    }
}

/// Bytes of a process that are in memory; what it shares is counted for each.
fn resident(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok()??;
    Some(text.split(' ').nth(1)?.parse::<u64>().ok()? * page.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_that_no_controller_counts_are_counted_line_by_line() {
        let threads = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(threads.path(), "7\n8\n9\n").unwrap();
        let met = |limit| {
            let file = threads.path().to_owned();
            let applied = Applied { meters: vec![Meter::Tasks { file, limit }], ..Applied::default() };
            applied.exceeded(Vec::new)
        };
        assert_eq!(met(2).as_deref(), Some("processes: more than 2"));
        assert_eq!(met(3), None);
    }

    #[test]
    fn what_no_controller_counts_is_added_up_from_the_processes() {
        let met = |limit| {
            let applied = Applied { meters: vec![Meter::Resident { limit }], ..Applied::default() };
            applied.exceeded(|| vec![std::process::id(), u32::MAX])
        };
        assert_eq!(met(MEBIBYTE).as_deref(), Some("memory: more than 1 MiB resident"));
        assert_eq!(met(1 << 40), None);
    }
}
