//! What the systemd unit around this process takes away that a measurement needs, by `units.yaml`.
//!
//! Asked before anything else is done: some of it would end this process without a word. What can only be found out by
//! trying is tried by a child, with arguments that do nothing.

use crate::error::{Code, Error, Result};
use crate::files::parse_yaml;
use crate::host::mounts;
use nix::libc;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// One row of the catalogue.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The property, with a value that a measurement can't live with.
    pub property: String,
    /// How it is seen from inside.
    pub seen: Seen,
    /// What to write instead.
    pub write: String,
}

/// How a property is seen; the first that is given counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Seen {
    /// One of these folders can't be written.
    pub read_only: Vec<PathBuf>,
    /// None of these files is there.
    pub missing: Vec<PathBuf>,
    /// One of these is not in the bounding set.
    pub capabilities: Vec<String>,
    /// One of these is refused.
    pub syscalls: Vec<String>,
    /// A namespace of one of these kinds is refused.
    pub namespaces: Vec<String>,
    /// A socket of one of these families is refused.
    pub families: Vec<String>,
    /// Memory that can be written and executed is refused.
    pub executable: bool,
    /// User ids are not the host's.
    pub own_users: bool,
    /// No cgroup version 2.
    pub no_cgroup2: bool,
}

/// `units.yaml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// What a measurement can't live with.
    pub refused: Vec<Row>,
    /// What it lives with.
    pub fits: Vec<String>,
}

/// The catalogue.
///
/// # Errors
/// `Internal` when it does not parse.
pub fn catalogue() -> Result<Catalogue> {
    parse_yaml(include_str!("units.yaml"), "units.yaml", Code::Internal)
}

/// Goes on only where no row of the catalogue is seen.
///
/// # Errors
/// `CannotMeasure`, naming each property that is in the way, what was found, and the lines that mend the unit.
pub fn check() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        // Whoever measures without root is told that first.
        return Ok(());
    }
    let rows = catalogue()?.refused;
    let found = rows.iter().filter_map(|row| Some((row, look(&row.seen, &rows)?)));
    let (found, lines): (Vec<String>, Vec<&str>) =
        found.map(|(row, what)| (format!("{} ({what})", row.property), row.write.as_str())).unzip();
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        Code::CannotMeasure,
        format!("what starts it takes away what it needs: {}", found.join("; ")),
    )
    .hint(format!("in the systemd unit: {}", lines.join(", "))))
}

/// What is missing, in words, when the row's property is seen.
fn look(seen: &Seen, rows: &[Row]) -> Option<String> {
    if let Some(path) = seen.read_only.iter().filter_map(|path| meant(path)).find(|path| is_read_only(path)) {
        return Some(format!("{} is read-only", path.display()));
    }
    if !seen.missing.is_empty()
        && Path::new("/proc/self").exists()
        && !seen.missing.iter().any(|file| file.exists())
    {
        return Some(format!("{} is not there", seen.missing[0].display()));
    }
    let bounding = status("CapBnd:").and_then(|text| u64::from_str_radix(&text, 16).ok()).unwrap_or(u64::MAX);
    let lacks = |name: &str| capability(name).is_some_and(|number| bounding & (1 << number) == 0);
    if !seen.capabilities.is_empty() {
        return words(seen.capabilities.iter().filter(|name| lacks(name)), "lacking");
    }
    // Without a filter there is nothing to try; and what a missing right refuses is said where that is.
    let filtered = status("Seccomp:").is_some_and(|mode| mode != "0");
    let entitled = !lacks("CAP_SYS_ADMIN");
    if !seen.syscalls.is_empty() {
        let others = |row: &Row| !row.seen.namespaces.is_empty() && look(&row.seen, &[]).is_some();
        let known = filtered && rows.iter().any(others);
        let explained = |name: &str| known && ["setns", "unshare"].contains(&name);
        let refused = |name: &&String| {
            filtered && !explained(name) && syscall(name).is_some_and(|number| is_refused(number, entitled))
        };
        return words(seen.syscalls.iter().filter(refused), "refused");
    }
    if !seen.namespaces.is_empty() {
        let refused =
            |name: &&String| filtered && entitled && namespace(name).is_some_and(namespace_is_refused);
        return words(seen.namespaces.iter().filter(refused), "refused");
    }
    if !seen.families.is_empty() {
        let refused = |name: &&String| family(name).is_some_and(family_is_refused);
        return words(seen.families.iter().filter(refused), "refused");
    }
    if seen.executable && executable_is_refused() {
        return Some(
            "no memory can be written and executed, which JIT compilers of measured programs need".to_owned(),
        );
    }
    if seen.own_users {
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let host = map.split_whitespace().eq(["0", "0", "4294967295"]);
        return (!host && !map.is_empty()).then(|| "root here is not the host's root".to_owned());
    }
    if seen.no_cgroup2 {
        let systems = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let groups = |kind: &str| systems.lines().any(|line| line.contains(&format!(" - {kind} ")));
        return (groups("cgroup") && !groups("cgroup2"))
            .then(|| "only version 1 hierarchies are mounted".to_owned());
    }
    None
}

fn words<'a>(names: impl Iterator<Item = &'a String>, what: &str) -> Option<String> {
    let names: Vec<&str> = names.map(String::as_str).collect();
    (!names.is_empty()).then(|| format!("{what}: {}", names.join(", ")))
}

/// Where version 2 of cgroups is mounted, for the folder where it usually is: beside version 1 that folder is read-only on
/// every host. Nothing for the redaction key's folder when no key has to be made there.
fn meant(path: &Path) -> Option<PathBuf> {
    if path == Path::new("/var/lib/assay") {
        let named = std::env::var_os("ASSAY_REDACTION_KEY_FILE").is_some_and(|file| !file.is_empty());
        return (!named && !path.join("redaction.key").exists()).then(|| path.to_owned());
    }
    if path != Path::new("/sys/fs/cgroup") {
        return Some(path.to_owned());
    }
    let mounts = mounts::parse(&std::fs::read_to_string("/proc/self/mountinfo").ok()?);
    mounts::cgroup2(&mounts).map(|mount| mount.point.clone())
}

/// Whether `path`, or the nearest folder above it that is there, stands on a mount that is read-only here.
fn is_read_only(path: &Path) -> bool {
    let there = path.ancestors().find(|path| path.exists());
    there
        .and_then(|path| nix::sys::statvfs::statvfs(path).ok())
        .is_some_and(|found| found.flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY))
}

fn status(key: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| Some(line.strip_prefix(key)?.trim().to_owned()))
}

/// The number of a capability.
#[must_use]
pub fn capability(name: &str) -> Option<u32> {
    const NAMES: [(&str, u32); 7] = [
        ("CAP_DAC_OVERRIDE", 1),
        ("CAP_DAC_READ_SEARCH", 2),
        ("CAP_SETGID", 6),
        ("CAP_SETUID", 7),
        ("CAP_SETPCAP", 8),
        ("CAP_NET_ADMIN", 12),
        ("CAP_SYS_ADMIN", 21),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The number of a system call.
#[must_use]
pub fn syscall(name: &str) -> Option<libc::c_long> {
    const NAMES: [(&str, libc::c_long); 22] = [
        ("bpf", libc::SYS_bpf),
        ("mount", libc::SYS_mount),
        ("umount2", libc::SYS_umount2),
        ("pivot_root", libc::SYS_pivot_root),
        ("setns", libc::SYS_setns),
        ("unshare", libc::SYS_unshare),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("fsopen", libc::SYS_fsopen),
        ("fsconfig", libc::SYS_fsconfig),
        ("fsmount", libc::SYS_fsmount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("sethostname", libc::SYS_sethostname),
        ("setgroups", libc::SYS_setgroups),
        ("capset", libc::SYS_capset),
        ("pidfd_open", libc::SYS_pidfd_open),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
        ("openat2", libc::SYS_openat2),
        ("seccomp", libc::SYS_seccomp),
        ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset),
        ("landlock_add_rule", libc::SYS_landlock_add_rule),
        ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// The flag of a kind of namespace.
#[must_use]
pub fn namespace(name: &str) -> Option<libc::c_int> {
    Some(match name {
        "cgroup" => libc::CLONE_NEWCGROUP,
        "ipc" => libc::CLONE_NEWIPC,
        "mnt" => libc::CLONE_NEWNS,
        "net" => libc::CLONE_NEWNET,
        "pid" => libc::CLONE_NEWPID,
        "uts" => libc::CLONE_NEWUTS,
        _ => return None,
    })
}

/// The number of an address family.
#[must_use]
pub fn family(name: &str) -> Option<libc::c_int> {
    Some(match name {
        "AF_UNIX" => libc::AF_UNIX,
        "AF_INET" => libc::AF_INET,
        "AF_NETLINK" => libc::AF_NETLINK,
        _ => return None,
    })
}

/// What a child that tries something says with its end.
const WORKS: i32 = 0;
const FAILS: i32 = 1;

/// Whether a child that does `attempt` fails or is ended. `attempt` may make system calls and nothing else.
fn fails(attempt: impl Fn() -> bool) -> (bool, bool) {
    // SAFETY: the child makes system calls alone, none of which allocates or takes a lock, and ends itself.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let end = if attempt() { WORKS } else { FAILS };
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(end) }
    }
    let mut status = 0;
    // SAFETY: waits for a child of this process; the kernel writes one number.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return (false, false);
    }
    (libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == FAILS, libc::WIFSIGNALED(status))
}

/// Whether a system call ends its process here or, for whoever would be `entitled` to it, is refused. Tried in a child.
pub(in crate::host) fn is_refused(number: libc::c_long, entitled: bool) -> bool {
    // Numbers that no call takes: a call that is let through says that they are wrong.
    // A kernel without Landlock is measured on; a filter that ends whoever asks for it is not.
    let landlock =
        [libc::SYS_landlock_create_ruleset, libc::SYS_landlock_add_rule, libc::SYS_landlock_restrict_self];
    let may_be_absent = landlock.contains(&number);
    let attempt = || {
        // SAFETY: no pointer and no descriptor among the arguments is valid, so nothing is read, written or changed.
        let result = unsafe { libc::syscall(number, -1_i64, 0_i64, -1_i64, 0_i64, 0_i64, 0_i64) };
        let error = nix::errno::Errno::last_raw();
        result >= 0 || error != libc::EPERM && (error != libc::ENOSYS || may_be_absent)
    };
    let (refused, ended) = fails(attempt);
    ended || refused && entitled
}

fn namespace_is_refused(flag: libc::c_int) -> bool {
    // SAFETY: the child alone is moved, and ends.
    fails(|| unsafe { libc::unshare(flag) } == 0).0
}

fn family_is_refused(family: libc::c_int) -> bool {
    // SAFETY: makes a descriptor that ends with the child.
    fails(|| unsafe { libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) } >= 0).0
}

fn executable_is_refused() -> bool {
    let attempt = || {
        let rights = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new page where the kernel likes, which ends with the child.
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, rights, kind, -1, 0) != libc::MAP_FAILED }
    };
    fails(attempt).0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_what_can_be_looked_at_and_a_line_to_write() {
        let rows = catalogue().unwrap().refused;
        assert!(rows.len() >= 10);
        for row in &rows {
            let seen = &row.seen;
            assert!(seen.capabilities.iter().all(|name| capability(name).is_some()), "{}", row.property);
            assert!(seen.syscalls.iter().all(|name| syscall(name).is_some()), "{}", row.property);
            assert!(seen.namespaces.iter().all(|name| namespace(name).is_some()), "{}", row.property);
            assert!(seen.families.iter().all(|name| family(name).is_some()), "{}", row.property);
            assert!(row.write.contains('='), "{}", row.property);
        }
    }
}
