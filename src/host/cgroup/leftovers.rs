//! Cgroups of runs that were killed: found by the owner in their names, and reaped.

use super::{processes_of, read, remove_tree, remove_v1};
use crate::error::Result;
use crate::host::PREFIX;
use crate::host::mounts;
use crate::host::owner::Owner;
use std::path::{Path, PathBuf};

/// A cgroup that a run left behind which is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Its folder.
    pub folder: PathBuf,
    /// Who made it, by its name.
    pub owner: Owner,
    /// Processes still in it.
    pub processes: Vec<u32>,
    version_1: bool,
}

/// Cgroups that bear our prefix and whose owner is gone, anywhere in the hierarchies of this host.
///
/// # Errors
/// `Io` when the mount table can't be read.
pub fn leftovers() -> Result<Vec<Leftover>> {
    let mounts = mounts::parse(&read(Path::new("/proc/self/mountinfo"))?);
    let mut found = Vec::new();
    for (mount, version_1) in mounts::hierarchies(&mounts) {
        search(&mount, version_1, &|owner| !owner.is_alive(), &mut found);
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

/// Kills and removes the cgroups of this very process's runs, whoever still holds them.
///
/// # Errors
/// As [`reap`].
pub fn remove_own() -> Result<()> {
    let mounts = mounts::parse(&read(Path::new("/proc/self/mountinfo"))?);
    let mut found = Vec::new();
    let own = Owner::current();
    for (mount, version_1) in mounts::hierarchies(&mounts) {
        search(&mount, version_1, &|owner| *owner == own, &mut found);
    }
    remove(&found)
}

fn search(folder: &Path, version_1: bool, wanted: &dyn Fn(&Owner) -> bool, found: &mut Vec<Leftover>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        match owner_in_name(&entry.file_name().to_string_lossy()) {
            Some(owner) if !wanted(&owner) => {}
            Some(owner) => {
                let mut processes = processes_of(&path);
                for child in std::fs::read_dir(&path).into_iter().flatten().flatten() {
                    processes.extend(processes_of(&child.path()));
                }
                found.push(Leftover { processes, folder: path, owner, version_1 });
            }
            None => search(&path, version_1, wanted, found),
        }
    }
}

/// Who made the cgroup of that name, `assay-gates-<pid>-<start time>-<n>`, when it is one of a measured run.
pub(in crate::host) fn owner_in_name(name: &str) -> Option<Owner> {
    let rest = name.strip_prefix(PREFIX)?.strip_prefix('-')?;
    rest.rsplit_once('-')?.0.parse().ok()
}

/// Kills and removes leftovers; gives back what was reaped.
///
/// # Errors
/// `CgroupUnusable`, naming the first that stayed.
pub fn reap() -> Result<Vec<Leftover>> {
    let found = leftovers()?;
    remove(&found)?;
    Ok(found)
}

fn remove(found: &[Leftover]) -> Result<()> {
    // Version 2 first: its kill empties the version 1 group of the same run.
    for leftover in found.iter().filter(|leftover| !leftover.version_1) {
        remove_tree(&leftover.folder)?;
    }
    for leftover in found.iter().filter(|leftover| leftover.version_1) {
        remove_v1(&leftover.folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_what_bears_our_prefix_and_has_no_living_owner() {
        let top = tempfile::tempdir().unwrap();
        let own = Owner::current();
        let dead = format!("{PREFIX}-{}-{}-0", own.pid, own.start_time + 1);
        for folder in [
            format!("a.slice/{dead}/call-1"),
            format!("{PREFIX}-{own}-0"),
            format!("{PREFIX}-mine"),
            "b".into(),
        ] {
            std::fs::create_dir_all(top.path().join(folder)).unwrap();
        }
        std::fs::write(top.path().join("a.slice").join(&dead).join("call-1/cgroup.procs"), "77\n78\n")
            .unwrap();
        let mut found = Vec::new();
        search(top.path(), false, &|owner| !owner.is_alive(), &mut found);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].folder, top.path().join("a.slice").join(dead));
        assert_eq!(found[0].processes, [77, 78]);
    }

    #[test]
    fn the_owner_is_read_from_the_name_of_a_cgroup() {
        assert_eq!(owner_in_name("assay-gates-12-345-0"), Some(Owner { pid: 12, start_time: 345 }));
        assert_eq!(owner_in_name("assay-gates-12-345-probe3"), Some(Owner { pid: 12, start_time: 345 }));
        for other in
            ["assay-gates", "assay-gates-x", "assay-gates-12-345", "system.slice", "assay-gatesx-1-2-3"]
        {
            assert_eq!(owner_in_name(other), None, "{other}");
        }
    }
}
