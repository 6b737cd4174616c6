//! What the kernel and its session are, as evidence states it.

use crate::error::{Code, Error, Result};
use crate::files::sha256_file;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

const CGROUP2: i64 = 0x6367_7270;
const FLOOR: (u32, u32) = (6, 1);

/// The session's cgroup, open.
pub(super) struct SessionCgroup {
    path: PathBuf,
    /// Its folder.
    pub folder: OwnedFd,
    /// Its `cgroup.threads`, for writing. A thread that moves itself by it needs no lock on all processes, for which
    /// `cgroup.procs` waits until every CPU has passed a quiet state.
    pub threads: OwnedFd,
    /// Its id, which is the number of its inode.
    pub id: u64,
    /// What stood in `cgroup.procs` when it was opened; empty when it is fresh.
    pub tasks_before: String,
}

impl SessionCgroup {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let unusable = |why: String| {
            Error::new(Code::CaptureCgroup, why)
                .at(path.display())
                .hint("give the folder of an empty cgroup of a cgroup v2 hierarchy")
        };
        let folder = File::open(path)
            .map_err(|error| unusable(format!("cannot open the session's cgroup: {error}")))?;
        let kind = nix::sys::statfs::fstatfs(&folder)
            .map_err(|errno| unusable(format!("cannot ask for its filesystem: {errno}")))?;
        if kind.filesystem_type().0 as i64 != CGROUP2 {
            return Err(unusable("expected a folder of cgroup v2, found another filesystem".into()));
        }
        let id =
            folder.metadata().map_err(|error| unusable(format!("cannot ask for its id: {error}")))?.ino();
        let tasks_before = std::fs::read_to_string(path.join("cgroup.procs"))
            .map_err(|error| unusable(format!("cannot read cgroup.procs: {error}")))?;
        let threads = File::options()
            .write(true)
            .open(path.join("cgroup.threads"))
            .map_err(|error| unusable(format!("cannot write cgroup.threads: {error}")))?;
        Ok(Self { path: path.to_owned(), folder: folder.into(), threads: threads.into(), id, tasks_before })
    }

    /// `populated` of `cgroup.events`: a task is in it or below it. `None` when it can't be read.
    pub(super) fn populated(&self) -> Option<bool> {
        let events = std::fs::read_to_string(self.path.join("cgroup.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("populated ")).map(|value| value != "0")
    }

    pub(super) fn folder(&self) -> std::os::fd::BorrowedFd<'_> {
        self.folder.as_fd()
    }
}

/// Refuses hosts on which the programs can't say "complete".
pub(super) fn check_host() -> Result<()> {
    if !cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) {
        return Err(Error::new(
            Code::CaptureUnavailable,
            format!(
                "expected x86_64 or aarch64, found {}: its syscall numbers are not known here",
                std::env::consts::ARCH
            ),
        ));
    }
    let release = release();
    if version() < FLOOR {
        return Err(Error::new(
            Code::CaptureUnavailable,
            format!("expected Linux {}.{} or newer, found {release}", FLOOR.0, FLOOR.1),
        ));
    }
    Ok(())
}

/// The machine's load over the last minute.
pub(super) fn load() -> Option<String> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    Some(text.split(' ').next()?.to_owned())
}

/// First and second number of the kernel's release.
pub(super) fn version() -> (u32, u32) {
    let release = release();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// The running kernel, as `uname -r` says it.
pub(super) fn release() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| String::new(), |name| name.release().to_string_lossy().into_owned())
}

/// Kernel release and digest of its BTF; read once, since neither changes while we run.
pub(super) fn kernel() -> BTreeMap<String, String> {
    static FACTS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    FACTS
        .get_or_init(|| {
            let mut facts = BTreeMap::new();
            facts.insert("kernel_release".into(), release());
            facts.insert("architecture".into(), std::env::consts::ARCH.into());
            // Kernel times count from a boot: those of two boots say nothing of each other.
            if let Ok(boot) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
                facts.insert("boot_id".into(), boot.trim().to_owned());
            }
            if let Ok((digest, _)) = sha256_file(Path::new("/sys/kernel/btf/vmlinux")) {
                facts.insert("kernel_btf".into(), digest.to_string());
            }
            facts
        })
        .clone()
}
