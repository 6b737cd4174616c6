//! What the measured program is not allowed, beyond what it sees.

use crate::error::{Code, Error, Result};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};

pub(super) fn failed(step: &str, error: Errno) -> Error {
    Error::new(Code::SandboxFailed, format!("cannot build the sandbox ({step}): {error}")).because(error)
}

/// No core file (the kernel would write it without any syscall of the program's), and killed first when memory runs
/// out. Before the view, whose /proc is read-only in a gate.
pub(super) fn limits() -> Result<()> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(|error| failed("RLIMIT_CORE", error))?;
    std::fs::write("/proc/self/oom_score_adj", "1000")
        .map_err(|error| Error::new(Code::SandboxFailed, format!("cannot set oom_score_adj: {error}")))
}

/// A bounded number of processes of the user, where no control group bounds them.
pub(super) fn limit_processes(nproc: Option<u64>) -> Result<()> {
    nproc.map_or(Ok(()), |nproc| {
        setrlimit(Resource::RLIMIT_NPROC, nproc, nproc).map_err(|error| failed("RLIMIT_NPROC", error))
    })
}

/// Brings the loopback device of the new network namespace up.
pub(super) fn loopback_up() -> Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use std::os::fd::AsRawFd;
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(|error| failed("socket", error))?;
    // SAFETY: ifreq is plain data for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which lives through the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) } < 0 {
        return Err(failed("loopback up", Errno::last()));
    }
    Ok(())
}

/// Rights that init keeps: to find out why a program can't be executed, and to become the measured user.
const INIT_CAPABILITIES: [u32; 3] = [2, 6, 7]; // CAP_DAC_READ_SEARCH, CAP_SETGID, CAP_SETUID
/// Landlock's version that has scopes (Linux 6.12).
const LANDLOCK_SCOPES: i64 = 6;

/// Gives up everything that init does not need, for itself and for whatever it starts.
pub(super) fn confine_init() -> Result<()> {
    setgroups(&[]).map_err(|error| failed("setgroups", error))?;
    for capability in 0..64 {
        // SAFETY: prctl with integer arguments only.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } < 0 {
            match Errno::last() {
                Errno::EINVAL => break,
                error => return Err(failed("PR_CAPBSET_DROP", error)),
            }
        }
    }
    // SAFETY: as above. Kernels before 4.3 have no ambient set to clear.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    set_capabilities(INIT_CAPABILITIES.iter().fold(0, |set, capability| set | 1 << capability))?;
    for (name, option, value) in
        [("PR_SET_NO_NEW_PRIVS", libc::PR_SET_NO_NEW_PRIVS, 1), ("PR_SET_DUMPABLE", libc::PR_SET_DUMPABLE, 0)]
    {
        // SAFETY: as above.
        if unsafe { libc::prctl(option, value, 0, 0, 0) } < 0 {
            return Err(failed(name, Errno::last()));
        }
    }
    Ok(())
}

/// Permitted and effective; inheritable is none.
fn set_capabilities(set: u32) -> Result<()> {
    let header = [0x2008_0522_u32, 0];
    let data = [set, set, 0, 0, 0, 0];
    // SAFETY: version 3 takes a header of two words and two times three words of data.
    if unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) } < 0 {
        return Err(failed("capset", Errno::last()));
    }
    Ok(())
}

/// Becomes the unprivileged user for good, from what [`confine_init`] left.
pub(super) fn become_user(uid: u32, gid: u32, landlock: &Landlock) -> Result<()> {
    // A session keyring of its own: root's would be inherited otherwise. Absent in some kernels, and then harmless.
    // SAFETY: KEYCTL_JOIN_SESSION_KEYRING (1) with a null name makes a new anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, 1, std::ptr::null::<u8>()) };
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setresgid(gid, gid, gid).map_err(|error| failed("setresgid", error))?;
    setresuid(uid, uid, uid).map_err(|error| failed("setresuid", error))?;
    set_capabilities(0)?;
    landlock.apply()
}

/// 0 where the kernel has none.
fn landlock_version() -> i64 {
    const VERSION: u32 = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: asks for a number; nothing is read.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, VERSION) }.max(0)
}

/// Landlock's version from which renames between folders can be allowed (Linux 5.19).
const LANDLOCK_REFER: i64 = 2;

/// What stands behind the other fences where the kernel has Landlock: signals, ptrace and abstract sockets end at the
/// program's own processes, and nothing is written but below the folders that are writable anyway. Reads are left
/// alone, and what is refused would be refused without: no result is another one.
pub(super) struct Landlock {
    ruleset: Option<OwnedFd>,
    /// In words.
    pub fences: Vec<&'static str>,
}

impl Landlock {
    /// `writable` is what stays writable, where everything else is read-only.
    pub(super) fn new(writable: Option<&[PathBuf]>) -> Result<Self> {
        let version = landlock_version();
        let writable = writable.filter(|_| version >= LANDLOCK_REFER);
        let scopes = if version >= LANDLOCK_SCOPES { 3_u64 } else { 0 };
        // Write a file, remove and make whatever there is, refer; and truncate, from version 3 on.
        let writes = (1 << 1) | (0x1ff << 4) | (1 << 13) | if version >= 3 { 1_u64 << 14 } else { 0 };
        let handled = if writable.is_some() { writes } else { 0 };
        if handled == 0 && scopes == 0 {
            return Ok(Self { ruleset: None, fences: Vec::new() });
        }
        let attributes = [handled, 0, scopes];
        // SAFETY: the attributes are 24 bytes of this frame, as large as they are said to be; zeroes are no demand.
        let ruleset = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size_of_val(&attributes), 0)
        };
        if ruleset < 0 {
            return Err(failed("landlock_create_ruleset", Errno::last()));
        }
        // SAFETY: the descriptor was just made and nobody else owns it.
        let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset as RawFd) };
        for folder in writable.unwrap_or_default() {
            allow_writes(&ruleset, folder, handled)?;
        }
        let fences = writable.map(|_| "landlock writes").into_iter();
        let fences = fences.chain((scopes != 0).then_some("landlock signal scope")).collect();
        Ok(Self { ruleset: Some(ruleset), fences })
    }

    /// Puts it around this process for good.
    fn apply(&self) -> Result<()> {
        let Some(ruleset) = &self.ruleset else { return Ok(()) };
        // SAFETY: integers only.
        if unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) } < 0 {
            return Err(failed("landlock_restrict_self", Errno::last()));
        }
        Ok(())
    }
}

fn allow_writes(ruleset: &OwnedFd, folder: &Path, writes: u64) -> Result<()> {
    const PATH_BENEATH: libc::c_int = 1;
    let open = nix::fcntl::open(folder, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| failed("landlock: opening a writable folder", error).at(folder.display()))?;
    let mut rule = [0_u8; 12];
    rule[..8].copy_from_slice(&writes.to_ne_bytes());
    rule[8..].copy_from_slice(&open.as_raw_fd().to_ne_bytes());
    // SAFETY: a packed rule: eight bytes of rights and a descriptor, both alive through the call.
    let added = unsafe {
        libc::syscall(libc::SYS_landlock_add_rule, ruleset.as_raw_fd(), PATH_BENEATH, rule.as_ptr(), 0)
    };
    if added < 0 { Err(failed("landlock_add_rule", Errno::last()).at(folder.display())) } else { Ok(()) }
}

/// Nothing ignored and nothing blocked: what the driver or its caller ignored is no part of the run.
pub(super) fn default_signals() -> Result<()> {
    // The system call itself, since libc keeps the two real-time signals that it uses from being reset.
    let default = [0_u64; 4];
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let none = std::ptr::null::<u64>();
        // SAFETY: the kernel's sigaction is 32 bytes, all zeroes mean SIG_DFL; its signal set has 8 bytes.
        if unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, 8) } < 0 {
            return Err(failed("sigaction", Errno::last()));
        }
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
        .map_err(|error| failed("sigprocmask", error))
}
