//! What is on the machine that could be cleaned up.

use super::plan::{Account, Found, FoundCgroup, FoundRoot, Inventory, Phase};
use super::tree::{Person, Tree};
use crate::error::{Error, Result};
use crate::files::RootPath;
use crate::host::cgroup::owner_in_name;
use crate::host::hostfile::HostFile;
use crate::host::mounts;
use crate::host::rights::Rights;
use crate::host::state::{self, HostLock, LockState};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where the kernel keeps what a run may leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// Mounts of the cgroup hierarchies that runs use; true for version 1.
    pub cgroups: Vec<(PathBuf, bool)>,
    /// Named network namespaces.
    pub netns: PathBuf,
    /// The BPF file system.
    pub pins: PathBuf,
    /// Where the lock of measured runs is.
    pub state: PathBuf,
}

impl Places {
    /// The places of this machine.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let mounts = mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
        Self {
            cgroups: mounts::hierarchies(&mounts),
            netns: PathBuf::from("/run/netns"),
            pins: PathBuf::from("/sys/fs/bpf"),
            state: state::folder(),
        }
    }
}

/// Who measures now, if anybody does.
fn measuring(state: &Path) -> Option<String> {
    match HostLock::look(state) {
        LockState::Held(Some(holder)) => Some(format!("process {}, {}", holder.pid, holder.what)),
        LockState::Held(None) => Some("a process that did not say what".to_owned()),
        LockState::Free | LockState::Stale(_) => None,
    }
}

/// Looks at everything that the host file and the phase concern.
///
/// # Errors
/// `Io` for a root that exists and can't be listed, e.g. because a component of it is a symbolic link.
pub fn survey(phase: Phase, host: &HostFile, places: &Places) -> Result<Inventory> {
    let mut found = Inventory {
        measuring: measuring(&places.state),
        job_is_live: job_is_live(&host.runner.root),
        now: chrono::Utc::now().timestamp(),
        ..Inventory::default()
    };
    let own = own_cgroups();
    for (mount, version_1) in &places.cgroups {
        find_cgroups(mount, *version_1, host, &own, 0, &mut found.cgroups);
    }
    if let Some(netns) = open(&places.netns)? {
        let names = names(&netns, &places.netns)?;
        found.namespaces = names
            .iter()
            .filter(|name| host.is_ours(name.as_bytes()))
            .map(|name| places.netns.join(name))
            .collect();
    }
    found.pins = ours(&places.pins, host)?;
    for folder in &host.scratch {
        found.scratch.extend(ours(folder, host)?);
    }
    if phase == Phase::BeforeRun {
        for folder in &host.proof_roots {
            found.proof_roots.extend(entries(folder, |_, _| true)?.into_iter().map(dated));
        }
    }
    work_folder(&host.work(), host, &mut found)?;
    Ok(found)
}

/// When a result was begun, and whether it came to its end.
fn dated(found: Found) -> FoundRoot {
    let path = found.root.join(&found.below);
    let record = RootPath::open(&path, Rights::own()).and_then(|root| root.join("run.json").read());
    let record: Option<serde_json::Value> =
        record.ok().flatten().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let text = |key| record.as_ref().and_then(|record| record.get(key)?.as_str());
    let said = text("started_at").and_then(|text| chrono::DateTime::parse_from_rfc3339(text).ok());
    let made = || std::os::unix::fs::MetadataExt::mtime(&path.symlink_metadata().ok()?).into();
    let began = said.map(|time| time.timestamp()).or_else(made).unwrap_or_default();
    FoundRoot { unfinished: record.is_some() && text("finished_at").is_none(), found, began }
}

/// The work folder: `_`-names are the runner's own, the others hold one workspace each.
fn work_folder(work: &Path, host: &HostFile, found: &mut Inventory) -> Result<()> {
    let opened = open(work).map_err(|error| match error.message().contains(LINKED) {
        true => error.hint("name the folder that the link leads to, in the host file: runner: {work: /PATH}"),
        false => error,
    });
    let Some(tree) = opened? else { return Ok(()) };
    let person = Person::named(&host.runner.user);
    let mut closed = |folder: &Tree, below: &Path| {
        if let Some(person) = person.as_ref().filter(|person| !folder.is_usable_by(person)) {
            let place = Found { root: work.to_path_buf(), below: below.to_path_buf(), entries: 0, bytes: 0 };
            found.closed.push((place, Account { uid: person.uid, gid: person.gid }));
        }
    };
    closed(&tree, Path::new(""));
    let names = names(&tree, work)?;
    for name in &names {
        let below = PathBuf::from(name);
        let own = !name.as_bytes().starts_with(b"_");
        let Ok(folder) = tree.below(&below) else { continue };
        if own || name == "_temp" || name == "_tool" {
            closed(&folder, &below);
        }
        let workspaces = if own { folder.names().unwrap_or_default() } else { Vec::new() };
        for workspace in workspaces {
            if let Ok(inside) = folder.below(Path::new(&workspace)) {
                closed(&inside, &below.join(&workspace));
            }
        }
    }
    for name in names {
        let below = PathBuf::from(&name);
        if name == "_actions" {
            found.actions.push(measured(&tree, work, below, &name));
        } else if name == "_temp" || name == "_tool" {
            if let Some(person) = &person {
                foreign(&tree, work, &below, person, name == "_tool", &mut found.foreign);
            }
        } else if name.as_bytes().starts_with(b"_") {
            // _PipelineMapping, _update: records that the runner keeps between jobs.
        } else if tree.is_folder(&name) {
            workspaces_of(&tree, work, &name, found);
        } else {
            found.strays.push(measured(&tree, work, below, &name));
        }
    }
    Ok(())
}

/// Entries of `below` that `person` could not remove. Of a cache of tools that `person` can use only the versions go.
fn foreign(tree: &Tree, work: &Path, below: &Path, person: &Person, versions: bool, found: &mut Vec<Found>) {
    let Ok(folder) = tree.below(below) else { return };
    for name in folder.names().unwrap_or_default() {
        if folder.is_removable_by(&name, person) {
            continue;
        }
        let inside =
            folder.below(Path::new(&name)).ok().filter(|inside| versions && inside.is_usable_by(person));
        match inside {
            Some(_) => foreign(tree, work, &below.join(&name), person, false, found),
            None => found.push(measured(&folder, work, below.join(&name), &name)),
        }
    }
}

fn workspaces_of(tree: &Tree, work: &Path, name: &OsStr, found: &mut Inventory) {
    let below = PathBuf::from(name);
    // A folder that can't be entered (a mount) is planned as a whole; its removal then says why it stays.
    let Ok(repository) = tree.below(&below) else {
        found.strays.push(measured(tree, work, below, name));
        return;
    };
    for workspace in repository.names().unwrap_or_default() {
        let below = below.join(&workspace);
        let inside = repository.is_folder(&workspace).then(|| repository.below(Path::new(&workspace)));
        match inside {
            Some(Ok(folder)) => {
                let mut size = (0, 0);
                for entry in folder.names().unwrap_or_default() {
                    let measured = folder.measure(&entry);
                    size = (size.0 + measured.entries, size.1 + measured.bytes);
                }
                if size.0 > 0 {
                    let (entries, bytes) = size;
                    found.workspaces.push(Found { root: work.to_path_buf(), below, entries, bytes });
                }
            }
            Some(Err(_)) | None => found.strays.push(measured(&repository, work, below, &workspace)),
        }
    }
}

fn measured(tree: &Tree, root: &Path, below: PathBuf, name: &OsStr) -> Found {
    let size = tree.measure(name);
    Found { root: root.to_path_buf(), below, entries: size.entries, bytes: size.bytes }
}

fn ours(folder: &Path, host: &HostFile) -> Result<Vec<Found>> {
    entries(folder, |_, name| host.is_ours(name.as_bytes()))
}

fn entries(folder: &Path, wanted: impl Fn(&Tree, &OsStr) -> bool) -> Result<Vec<Found>> {
    let Some(tree) = open(folder)? else { return Ok(Vec::new()) };
    let names = names(&tree, folder)?;
    Ok(names
        .iter()
        .filter(|name| wanted(&tree, name))
        .map(|name| measured(&tree, folder, PathBuf::from(name), name))
        .collect())
}

fn names(tree: &Tree, path: &Path) -> Result<Vec<std::ffi::OsString>> {
    tree.names().map_err(|error| Error::io("cannot list", path, error))
}

const LINKED: &str = "a component of this root is a symbolic link, which is never followed";

/// Opens a root; `None` when there is none.
fn open(path: &Path) -> Result<Option<Tree>> {
    match Tree::open(path) {
        Ok(tree) => Ok(Some(tree)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => Err(Error::io(LINKED, path, error)),
        Err(error) => Err(Error::io("cannot open the root", path, error)),
    }
}

/// A worker process of this runner, by the file that it executes.
fn job_is_live(runner_root: &Path) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return true };
    processes.flatten().any(|process| {
        std::fs::read_link(process.path().join("exe")).is_ok_and(|exe| {
            exe.starts_with(runner_root) && exe.file_name() == Some(OsStr::new("Runner.Worker"))
        })
    })
}

/// Control groups of ours, outermost only. Units of the service manager, whatever holds this process and the groups
/// of a driver that lives are not leftovers.
fn find_cgroups(
    folder: &Path,
    version_1: bool,
    host: &HostFile,
    own: &[String],
    depth: usize,
    found: &mut Vec<FoundCgroup>,
) {
    const DEEPEST: usize = 8;
    let Ok(children) = std::fs::read_dir(folder) else { return };
    let mut children: Vec<PathBuf> = children
        .flatten()
        .filter(|c| c.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|c| c.path())
        .collect();
    children.sort();
    for child in children {
        let name = child.file_name().unwrap_or_default();
        let unit = [b".service".as_slice(), b".scope", b".slice"]
            .iter()
            .any(|suffix| name.as_bytes().ends_with(suffix));
        let holds_us = own.iter().any(|own| own.split('/').any(|part| OsStr::new(part) == name));
        let lives = owner_in_name(&name.to_string_lossy()).is_some_and(|owner| owner.is_alive());
        if host.is_ours(name.as_bytes()) && !unit && !holds_us && !lives {
            found.push(FoundCgroup { processes: processes_in(&child), path: child, version_1 });
        } else if depth < DEEPEST {
            find_cgroups(&child, version_1, host, own, depth + 1, found);
        }
    }
}

fn processes_in(cgroup: &Path) -> u64 {
    let here =
        std::fs::read_to_string(cgroup.join("cgroup.procs")).map_or(0, |text| text.lines().count() as u64);
    let below = std::fs::read_dir(cgroup).into_iter().flatten().flatten();
    here + below
        .filter(|c| c.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|c| processes_in(&c.path()))
        .sum::<u64>()
}

/// The groups that this process is in, one path a hierarchy.
fn own_cgroups() -> Vec<String> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    text.lines().filter_map(|line| Some(line.splitn(3, ':').nth(2)?.to_owned())).collect()
}
