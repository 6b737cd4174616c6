//! Where session cgroups are made, and how leftovers are found.

use crate::support::need_root;
use assay_gates::gate::Limits;
use assay_gates::host::cgroup::{self, Parent, SessionCgroup};
use assay_gates::host::mounts::{self, Mount};
use std::path::{Path, PathBuf};
use std::time::Duration;

fn mount() -> Mount {
    let table = mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap());
    mounts::cgroup2(&table).expect("cgroup2 is mounted").clone()
}

/// A cgroup of this test alone, removed at the end with what is below it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let folder = mount().point.join(format!("host-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    fn child(&self, name: &str) -> PathBuf {
        let folder = self.0.join(name);
        std::fs::create_dir(&folder).unwrap();
        folder
    }

    fn inside(&self, below: &str) -> PathBuf {
        Path::new("/").join(self.0.file_name().unwrap()).join(below)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _is_a_file = std::fs::remove_dir(entry.path());
        }
        std::fs::remove_dir(&self.0).unwrap();
    }
}

#[test]
fn threaded_cgroups_and_unit_leaves_are_passed_over() {
    if !need_root() {
        return;
    }
    let scratch = Scratch::new("threaded");
    let threaded = scratch.child("pool");
    std::fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    assert_eq!(std::fs::read_to_string(scratch.0.join("cgroup.type")).unwrap(), "domain threaded\n");
    let parent = Parent::nearest(&mount(), &scratch.inside("pool")).unwrap();
    assert_eq!(parent.folder.canonicalize().unwrap(), mount().point.canonicalize().unwrap());
    assert!(parent.passed_over[0].ends_with("type is threaded, not domain"), "{:?}", parent.passed_over);
    assert!(
        parent.passed_over[1].ends_with("type is domain threaded, not domain"),
        "{:?}",
        parent.passed_over
    );

    let units = Scratch::new("units.slice");
    units.child("runner.service");
    let parent = Parent::nearest(&mount(), &units.inside("runner.service")).unwrap();
    assert_eq!(parent.folder, units.0);
    assert!(parent.passed_over[0].contains("a unit's own leaf"), "{:?}", parent.passed_over);
}

#[test]
fn an_ancestor_that_takes_no_children_is_passed_over() {
    if !need_root() {
        return;
    }
    let scratch = Scratch::new("full");
    std::fs::write(scratch.0.join("cgroup.max.descendants"), "0").unwrap();
    let parent = Parent::nearest(&mount(), &scratch.inside("")).unwrap();
    assert_ne!(parent.folder, scratch.0);
    assert!(parent.passed_over[0].contains("cannot make a child"), "{:?}", parent.passed_over);
}

#[test]
fn a_session_is_fresh_takes_no_children_and_is_gone_when_dropped() {
    if !need_root() {
        return;
    }
    let cgroup = SessionCgroup::create(&Limits::default()).unwrap();
    assert!(!cgroup.is_populated().unwrap());
    assert!(cgroup.wait_empty(Duration::ZERO).unwrap());
    assert!(std::fs::create_dir(cgroup.path().join("foreign")).is_err());
    let folder = cgroup.path().to_owned();
    drop(cgroup);
    assert!(!folder.exists());
}

#[test]
fn a_cgroup_whose_owner_is_gone_is_reaped_with_its_processes_and_others_are_left_alone() {
    if !need_root() {
        return;
    }
    let alive = SessionCgroup::create(&Limits::default()).unwrap();
    // This process id never had that start time.
    let dead = alive.parent().folder.join(format!("assay-gates-{}-1-0", std::process::id()));
    let mut orphan = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    // Runs beside this one reap it as soon as they see it, so it is made until its process is in it.
    let filled = || -> std::io::Result<()> {
        std::fs::create_dir(&dead)?;
        std::fs::create_dir(dead.join("below"))?;
        std::fs::write(dead.join("below/cgroup.procs"), orphan.id().to_string())
    };
    assert!((0..1000).any(|_| filled().is_ok()));
    // Runs beside this one may be quicker to reap it; gone it must be either way.
    cgroup::reap().unwrap();
    assert!(!dead.exists() && alive.path().exists());
    assert!(!orphan.wait().unwrap().success());
}
