//! The cleanup plan: what, why, how large, in which order. Pure: from what was found to what would be done.

use crate::host::hostfile::{HostFile, Retention};
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// When the cleanup happens; decides what may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// In a job without `uses:`, before the measuring job: also `_actions`, which the runner itself must be able to delete.
    BeforeDownload,
    /// First in the measuring job: workspaces, proof roots and scratch folders; never `_actions` or `_temp`.
    BeforeRun,
    /// Last in the measuring job: as before-run, but the proof roots stay for whoever looks into them.
    AfterRun,
}

/// Something below a root that could go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The root that the host file names.
    pub root: PathBuf,
    /// Where below it.
    pub below: PathBuf,
    /// Files, folders and links in it.
    pub entries: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// An entry of a proof-root folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRoot {
    /// What it is.
    pub found: Found,
    /// When its invocation began, seconds since 1970; when the entry was made, where it does not say.
    pub began: i64,
    /// Its invocation did not come to its end.
    pub unfinished: bool,
}

/// A user and the user's own group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

/// A control group that bears our prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCgroup {
    /// Its folder.
    pub path: PathBuf,
    /// Processes in it and below.
    pub processes: u64,
    /// It is of the version 1 hierarchy.
    pub version_1: bool,
}

/// What was found on the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// A measured run that holds the lock of this host, described.
    pub measuring: Option<String>,
    /// A job of this runner is running.
    pub job_is_live: bool,
    /// Control groups of ours.
    pub cgroups: Vec<FoundCgroup>,
    /// Named network namespaces of ours.
    pub namespaces: Vec<PathBuf>,
    /// Pinned BPF objects of ours: folder, name.
    pub pins: Vec<Found>,
    /// Folders `_work/<repository>/<repository>` that are not empty.
    pub workspaces: Vec<Found>,
    /// Other things in the work folder that are not the runner's own.
    pub strays: Vec<Found>,
    /// `_work/_actions`.
    pub actions: Vec<Found>,
    /// Entries of `_work/_temp` and `_work/_tool` that the runner's user could not remove itself.
    pub foreign: Vec<Found>,
    /// Folders of the runner that its user can't use, and whom they are for.
    pub closed: Vec<(Found, Account)>,
    /// Entries of the proof-root folders.
    pub proof_roots: Vec<FoundRoot>,
    /// Seconds since 1970.
    pub now: i64,
    /// Entries of shared folders that bear our prefix.
    pub scratch: Vec<Found>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Kill every process of a control group and remove it with those below.
    KillCgroup {
        /// Its folder.
        #[serde(serialize_with = "as_shown")]
        path: PathBuf,
        /// Processes in it when the plan was made.
        processes: u64,
        /// It is of the version 1 hierarchy.
        version_1: bool,
    },
    /// Unmount and remove a named network namespace.
    DeleteNamespace {
        /// Its file.
        #[serde(serialize_with = "as_shown")]
        path: PathBuf,
    },
    /// Remove an entry below a root, with everything in it.
    Remove {
        /// The root.
        #[serde(serialize_with = "as_shown")]
        root: PathBuf,
        /// The entry.
        #[serde(serialize_with = "as_shown")]
        below: PathBuf,
    },
    /// Remove everything in a folder below a root, and keep the folder.
    Empty {
        /// The root.
        #[serde(serialize_with = "as_shown")]
        root: PathBuf,
        /// The folder.
        #[serde(serialize_with = "as_shown")]
        below: PathBuf,
    },
    /// Give a folder below a root to the runner's user, with every right of an owner.
    Give {
        /// The root.
        #[serde(serialize_with = "as_shown")]
        root: PathBuf,
        /// The folder; empty for the root itself.
        #[serde(serialize_with = "as_shown")]
        below: PathBuf,
        /// The user's id.
        uid: u32,
        /// The id of the user's group.
        gid: u32,
    },
    /// `docker system prune --all --volumes --force`.
    DockerPrune,
}

impl Action {
    /// What it acts on, for a person.
    #[must_use]
    pub fn target(&self) -> String {
        match self {
            Action::KillCgroup { path, .. } | Action::DeleteNamespace { path } => shown(path),
            Action::Remove { root, below }
            | Action::Empty { root, below }
            | Action::Give { root, below, .. } => shown(&root.join(below)),
            Action::DockerPrune => "docker".to_owned(),
        }
    }

    /// What it does, in a word or two.
    #[must_use]
    pub fn verb(&self) -> &'static str {
        match self {
            Action::KillCgroup { .. } => "kill",
            Action::DeleteNamespace { .. } => "unmount",
            Action::Remove { .. } => "remove",
            Action::Empty { .. } => "empty",
            Action::Give { .. } => "give",
            Action::DockerPrune => "prune",
        }
    }
}

/// An action, why, and how large.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// From 1; steps are carried out in this order.
    pub order: usize,
    /// What.
    #[serde(flatten)]
    pub action: Action,
    /// Why.
    pub why: &'static str,
    /// Files, folders and links that go.
    pub entries: u64,
    /// Bytes on disk that go.
    pub bytes: u64,
}

/// The ordered plan of a phase (`assay.gates.cleanup_plan.v0`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// `assay.gates.cleanup_plan.v0`.
    pub schema: &'static str,
    /// The phase.
    pub phase: Phase,
    /// The host file that grants the roots.
    #[serde(serialize_with = "as_shown")]
    pub host_file: PathBuf,
    /// Why nothing may be carried out, if so.
    pub refused: Option<String>,
    /// What would be done, in order.
    pub steps: Vec<Step>,
}

impl Plan {
    /// The plan of `phase` for what was found. Processes go first, then kernel objects, then files: nothing that still
    /// runs can fill again what was emptied.
    #[must_use]
    pub fn new(phase: Phase, host_file: &Path, host: &HostFile, found: &Inventory) -> Self {
        let mut steps = Steps::default();
        for cgroup in &found.cgroups {
            let action = Action::KillCgroup {
                path: cgroup.path.clone(),
                processes: cgroup.processes,
                version_1: cgroup.version_1,
            };
            steps.push(action, "left over from a measured run", 0, 0);
        }
        for path in &found.namespaces {
            steps.push(
                Action::DeleteNamespace { path: path.clone() },
                "a network namespace left over from a measured run",
                1,
                0,
            );
        }
        steps.remove(&found.pins, "a pinned BPF object left over from a measured run");
        steps.empty(&found.workspaces, "a workspace starts and ends empty");
        steps.remove(&found.strays, "not one of the runner's own folders");
        if phase == Phase::BeforeDownload {
            steps.remove(&found.actions, "the runner deletes it itself, and fails on what it may not delete");
            if !found.job_is_live {
                steps.remove(&found.foreign, "the runner's user could not remove it itself");
            }
        }
        for (Found { root, below, .. }, Account { uid, gid }) in &found.closed {
            let action = Action::Give { root: root.clone(), below: below.clone(), uid: *uid, gid: *gid };
            steps.push(action, "the runner's user can't use its own folder", 0, 0);
        }
        if phase == Phase::BeforeRun {
            for (root, why) in outlived(&found.proof_roots, host.retention, found.now) {
                steps.remove(std::slice::from_ref(&root.found), why);
            }
        }
        steps.remove(&found.scratch, "a temporary file of ours");
        if host.docker_prune {
            steps.push(Action::DockerPrune, "the host file asks for it", 0, 0);
        }
        let refused = match (host.dedicated, &found.measuring) {
            (false, _) => Some("the host file does not say `dedicated: true`".to_owned()),
            (true, Some(run)) => Some(format!("a measured run is in progress: {run}")),
            (true, None) => None,
        };
        Self {
            schema: "assay.gates.cleanup_plan.v0",
            phase,
            host_file: host_file.to_path_buf(),
            refused,
            steps: steps.0,
        }
    }

    /// Entries and bytes of all steps.
    #[must_use]
    pub fn size(&self) -> (u64, u64) {
        self.steps.iter().fold((0, 0), |(entries, bytes), step| (entries + step.entries, bytes + step.bytes))
    }
}

/// The results that the host file keeps no longer, oldest first, and which of its bounds says so. Never the newest: what was
/// just measured may still have to be uploaded.
fn outlived(roots: &[FoundRoot], keep: Retention, now: i64) -> Vec<(&FoundRoot, &'static str)> {
    let mut roots: Vec<&FoundRoot> = roots.iter().collect();
    roots.sort_by(|a, b| (a.began, &a.found.below).cmp(&(b.began, &b.found.below)));
    let _the_newest = roots.pop();
    let count = roots.len() + 1;
    let outlived = |(at, root): (usize, &'_ FoundRoot)| {
        let old = now - root.began > i64::from(keep.days) * 86_400;
        let behind = count - at > keep.newest as usize;
        match (old, behind, root.unfinished) {
            (true, _, false) => Some("results older than retention: days of the host file"),
            (true, _, true) => Some("UNFINISHED results, older than retention: days of the host file"),
            (false, true, false) => Some("results behind retention: newest of the host file"),
            (false, true, true) => Some("UNFINISHED results, behind retention: newest of the host file"),
            (false, false, _) => None,
        }
    };
    let with_place = roots.iter().enumerate().map(|(at, root)| (*root, outlived((at, root))));
    with_place.filter_map(|(root, why)| Some((root, why?))).collect()
}

#[derive(Default)]
struct Steps(Vec<Step>);

impl Steps {
    fn push(&mut self, action: Action, why: &'static str, entries: u64, bytes: u64) {
        self.0.push(Step { order: self.0.len() + 1, action, why, entries, bytes });
    }

    fn remove(&mut self, found: &[Found], why: &'static str) {
        for Found { root, below, entries, bytes } in found {
            self.push(Action::Remove { root: root.clone(), below: below.clone() }, why, *entries, *bytes);
        }
    }

    fn empty(&mut self, found: &[Found], why: &'static str) {
        for Found { root, below, entries, bytes } in found {
            self.push(Action::Empty { root: root.clone(), below: below.clone() }, why, *entries, *bytes);
        }
    }
}

/// A path as one harmless line: control characters, backslashes and bytes that are no UTF-8 are escaped.
#[must_use]
pub fn shown(path: &Path) -> String {
    let bytes = path.as_os_str().as_encoded_bytes();
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            // Bidirectional overrides reorder what a reader sees; control characters drive the terminal.
            if c.is_control()
                || c == '\\'
                || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                text.extend(c.escape_default());
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn as_shown<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&shown(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &str, below: &str) -> Vec<Found> {
        vec![Found { root: root.into(), below: below.into(), entries: 2, bytes: 4096 }]
    }

    const DAY: i64 = 86_400;

    fn root(name: &str, began: i64, unfinished: bool) -> FoundRoot {
        FoundRoot { found: found("/var/lib/assay-gates/proof", name).remove(0), began, unfinished }
    }

    /// Whatever stands there and whatever is kept: the newest stays, an unfinished one never goes unnamed, what stays is
    /// within both bounds, and nothing within both bounds goes.
    #[test]
    fn a_retention_takes_what_is_beyond_one_of_its_bounds_and_never_the_newest() {
        use proptest::prelude::*;
        let roots = proptest::collection::vec((0i64..60, any::<bool>()), 0..12);
        proptest!(|(roots in roots, days in 1u32..40, newest in 1u32..8)| {
            let now = 60 * DAY;
            let made = |(at, (day, unfinished)): (usize, &(i64, bool))| {
                root(&format!("{at}-1"), day * DAY + 1, *unfinished)
            };
            let roots: Vec<FoundRoot> = roots.iter().enumerate().map(made).collect();
            let keep = Retention { days, newest };
            let gone = outlived(&roots, keep, now);
            let goes = |root: &FoundRoot| gone.iter().find(|(gone, _)| *gone == root).map(|(_, why)| *why);
            let newer = |root: &FoundRoot| {
                let place = |root: &FoundRoot| (root.began, root.found.below.clone());
                roots.iter().filter(|other| place(other) > place(root)).count()
            };
            for root in &roots {
                let beyond = now - root.began > i64::from(days) * DAY || newer(root) >= newest as usize;
                prop_assert_eq!(goes(root).is_some(), beyond && newer(root) > 0);
                prop_assert_eq!(goes(root).is_some_and(|why| why.starts_with("UNFINISHED")), goes(root).is_some() && root.unfinished);
            }
        });
    }

    fn everything() -> Inventory {
        Inventory {
            measuring: None,
            job_is_live: true,
            cgroups: vec![FoundCgroup {
                path: "/sys/fs/cgroup/assay-gates-1".into(),
                processes: 3,
                version_1: false,
            }],
            namespaces: vec!["/run/netns/assay-gates-1".into()],
            pins: found("/sys/fs/bpf", "assay-gates-1"),
            workspaces: found("/r/_work", "app/app"),
            strays: found("/r/_work", "notes.txt"),
            actions: found("/r/_work", "_actions"),
            foreign: found("/r/_work", "_temp/x"),
            closed: vec![(found("/r/_work", "app/app").remove(0), Account { uid: 7, gid: 8 })],
            proof_roots: vec![root("7-1", 1, false), root("8-1", 100, false)],
            now: 200,
            scratch: found("/tmp", "assay-gates-x"),
        }
    }

    fn targets(phase: Phase, inventory: &Inventory) -> Vec<String> {
        let plan = Plan::new(phase, Path::new("host.yaml"), &HostFile::new("r", "/r"), inventory);
        plan.steps.iter().map(|step| format!("{} {}", step.action.verb(), step.action.target())).collect()
    }

    #[test]
    fn each_phase_touches_what_it_may_and_kills_before_it_removes() {
        let common = [
            "kill /sys/fs/cgroup/assay-gates-1",
            "unmount /run/netns/assay-gates-1",
            "remove /sys/fs/bpf/assay-gates-1",
            "empty /r/_work/app/app",
            "remove /r/_work/notes.txt",
        ];
        let expected = |more: &[&str]| -> Vec<String> {
            common.iter().chain(more).chain(&["remove /tmp/assay-gates-x"]).map(|s| (*s).to_owned()).collect()
        };
        let found = everything();
        let give = "give /r/_work/app/app";
        assert_eq!(targets(Phase::BeforeDownload, &found), expected(&["remove /r/_work/_actions", give]));
        assert_eq!(
            targets(Phase::BeforeRun, &found),
            expected(&[give]),
            "both results are within the default bounds"
        );
        let old = Inventory { now: 40 * DAY, ..everything() };
        assert_eq!(
            targets(Phase::BeforeRun, &old),
            expected(&[give, "remove /var/lib/assay-gates/proof/7-1"])
        );
        assert_eq!(targets(Phase::AfterRun, &old), expected(&[give]), "a restart removes no results");
        assert_eq!(targets(Phase::AfterRun, &found), expected(&[give]));
    }

    #[test]
    fn temp_is_touched_only_when_no_job_is_live() {
        let mut found = everything();
        found.job_is_live = false;
        assert!(targets(Phase::BeforeDownload, &found).contains(&"remove /r/_work/_temp/x".to_owned()));
        assert!(!targets(Phase::BeforeRun, &found).iter().any(|target| target.contains("_temp")));
    }

    #[test]
    fn a_host_that_is_shared_or_measuring_is_refused_with_its_reason() {
        let mut host = HostFile::new("r", "/r");
        let mut found = everything();
        let refused = |host: &HostFile, found: &Inventory| {
            Plan::new(Phase::AfterRun, Path::new("h"), host, found).refused
        };
        assert_eq!(refused(&host, &found), None);
        found.measuring = Some("pid 7".to_owned());
        assert!(refused(&host, &found).unwrap().contains("pid 7"));
        host.dedicated = false;
        assert!(refused(&host, &found).unwrap().contains("dedicated"));
    }

    #[test]
    fn docker_is_pruned_only_when_the_file_asks() {
        let mut host = HostFile::new("r", "/r");
        let docker = |host: &HostFile| {
            let plan = Plan::new(Phase::AfterRun, Path::new("h"), host, &Inventory::default());
            plan.steps.iter().any(|step| step.action == Action::DockerPrune)
        };
        assert!(!docker(&host));
        host.docker_prune = true;
        assert!(docker(&host));
    }

    #[cfg(unix)]
    #[test]
    fn a_hostile_name_is_shown_on_one_line_without_escape_sequences() {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(b"a\n::error::x\x1b[31m\xff\\ \xe2\x80\xaeb");
        assert_eq!(shown(Path::new(name)), "a\\n::error::x\\u{1b}[31m\\xff\\\\ \\u{202e}b");
    }
}
