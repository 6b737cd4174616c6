//! A process of our own that does known things in the session's cgroup, before the measured tree and after it.
//!
//! When the record of each step is found, exactly once and in order, every hook worked at that moment. The script is raw system calls after
//! `clone3`, so that nothing but its own steps is recorded; the nonce in its paths makes it impossible to prepare the records.
//!
//! The child shares the driver's memory until it executes, as after `vfork`: a copy of the page tables, with the whole ring in them, would
//! take longer than the script.

use crate::error::{Code, Error, Result};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Discard: nobody listens, and nothing that is sent there means anything.
const PORT: u16 = 9;
const MEMORY_NAME: &str = "assay-gates-canary";

/// x86_64 code: exit(0).
const EXIT: [u8; 9] = [0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05];

/// One canary that ran.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    /// Its process id.
    pub pid: u32,
    /// The records that it must have left, in the words of the ledger.
    pub expected: Vec<String>,
}

/// Runs the script in the session's cgroup (`cgroup` is its folder, `threads` its `cgroup.threads` opened for writing) and waits for its end.
/// Its files live in `folder` for an instant.
pub(super) fn run(cgroup: BorrowedFd<'_>, threads: BorrowedFd<'_>, folder: &Path) -> Result<Canary> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(|error| failed("no random nonce", &error.to_string()))?;
    let folder = folder.canonicalize().map_err(|error| Error::io("cannot resolve", folder, error))?;
    let stem = folder.join(format!("canary-{}", hex::encode(nonce)));
    let text = |suffix: &str| {
        let mut bytes = stem.as_os_str().as_bytes().to_vec();
        bytes.extend(suffix.as_bytes());
        CString::new(bytes).map_err(|_| failed("the spool's path", "it contains a NUL"))
    };
    let script = Script {
        file: text("")?,
        made: text(".made")?,
        moved: text(".moved")?,
        image: image()?,
        threads: threads.as_raw_fd(),
        uring: uring_works(),
    };
    let pid = spawn(cgroup, &script)?;
    loop {
        match waitpid(Pid::from_raw(pid), None::<WaitPidFlag>) {
            Ok(WaitStatus::Exited(_, 0)) => break,
            Ok(status) => return Err(failed("it did not end as written", &format!("{status:?}"))),
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(failed("it can't be waited for", &errno.to_string())),
        }
    }
    Ok(Canary { pid: pid.cast_unsigned(), expected: script.expected() })
}

struct Script {
    file: CString,
    made: CString,
    moved: CString,
    image: OwnedFd,
    threads: i32,
    uring: bool,
}

impl Script {
    fn expected(&self) -> Vec<String> {
        let text = |path: &CString| crate::capture::text::escape(path.as_bytes());
        let (file, made, moved) = (text(&self.file), text(&self.made), text(&self.moved));
        let mut lines = vec![
            "birth".to_owned(),
            format!("openat {file}"),
            format!("mkdirat {made}"),
            format!("renameat2 {made} {moved}"),
            format!("unlinkat {moved}"),
            format!("unlinkat {file}"),
            "address 2 0".into(),
            "bind 127.0.0.1:0".into(),
            format!("address 3 {PORT}"),
            format!("sendto 127.0.0.1:{PORT}"),
            format!("address 1 {PORT}"),
            format!("connect 127.0.0.1:{PORT}"),
            "attach".into(),
        ];
        if self.uring {
            lines.extend(["io_uring_setup", "submit 0", "complete 0"].map(String::from));
        }
        lines.push(format!("exec tmpfs:memfd:{MEMORY_NAME}"));
        lines.push("exit 0".into());
        lines
    }

    /// What the child does. Only system calls: after a raw clone of a process with threads, nothing of the C library may be relied on, and
    /// what it leaves in memory is left in the parent's.
    unsafe extern "C" fn play(&self) -> ! {
        let address = |port: u16| libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        };
        let (any, discard) = (address(0), address(PORT));
        let size = size_of::<libc::sockaddr_in>();
        let argv = [c"canary".as_ptr(), std::ptr::null()];
        let environment: [*const libc::c_char; 1] = [std::ptr::null()];
        // SAFETY: every pointer is to memory that lives until exec; failures leave a record missing, which is what the canary is for.
        unsafe {
            use libc::{AT_FDCWD, syscall};
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
            syscall(libc::SYS_openat, AT_FDCWD, self.file.as_ptr(), flags, 0o600);
            syscall(libc::SYS_mkdirat, AT_FDCWD, self.made.as_ptr(), 0o700);
            syscall(libc::SYS_renameat2, AT_FDCWD, self.made.as_ptr(), AT_FDCWD, self.moved.as_ptr(), 0);
            syscall(libc::SYS_unlinkat, AT_FDCWD, self.moved.as_ptr(), libc::AT_REMOVEDIR);
            syscall(libc::SYS_unlinkat, AT_FDCWD, self.file.as_ptr(), 0);
            let socket = syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            syscall(libc::SYS_bind, socket, &raw const any, size);
            syscall(libc::SYS_sendto, socket, argv.as_ptr(), 0, 0, &raw const discard, size);
            syscall(libc::SYS_connect, socket, &raw const discard, size);
            syscall(libc::SYS_write, self.threads, c"0".as_ptr(), 1);
            if self.uring {
                submit_nothing();
            }
            syscall(
                libc::SYS_execveat,
                self.image.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                environment.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            syscall(libc::SYS_exit_group, 1);
        }
        loop {
            std::hint::spin_loop();
        }
    }
}

const STACK_BYTES: usize = 64 * 1024;

/// A child in the session's cgroup from its first instruction on; comes back when it has executed or ended.
fn spawn(cgroup: BorrowedFd<'_>, script: &Script) -> Result<i32> {
    #[repr(C)]
    #[derive(Default)]
    struct CloneArguments {
        flags: u64,
        pidfd: u64,
        child_tid: u64,
        parent_tid: u64,
        exit_signal: u64,
        stack: u64,
        stack_size: u64,
        tls: u64,
        set_tid: u64,
        set_tid_size: u64,
        cgroup: u64,
    }
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let arguments = CloneArguments {
        flags: CLONE_INTO_CGROUP | libc::CLONE_VM as u64 | libc::CLONE_VFORK as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr() as u64,
        stack_size: STACK_BYTES as u64,
        cgroup: cgroup.as_raw_fd() as u64,
        ..CloneArguments::default()
    };
    // A handler of the driver's must not run in the child.
    let before = SigSet::all()
        .thread_swap_mask(SigmaskHow::SIG_SETMASK)
        .map_err(|errno| failed("blocking signals", &errno.to_string()))?;
    let result: i64;
    // SAFETY: the child goes straight into `play` on a stack of its own, makes only system calls, and never comes back; this thread stands
    // still until it has executed or ended, so all that it reads lives. The kernel keeps all registers but rax, rcx and r11.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "mov rdi, r8",
            "call rdx",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const arguments,
            in("rsi") size_of::<CloneArguments>(),
            in("rdx") Script::play as unsafe extern "C" fn(&Script) -> !,
            in("r8") script,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    before.thread_set_mask().map_err(|errno| failed("giving signals back", &errno.to_string()))?;
    if result < 0 {
        let why = std::io::Error::from_raw_os_error(-result as i32);
        return Err(failed("clone3 into the session's cgroup", &why.to_string()));
    }
    Ok(result as i32)
}

/// An executable in memory that does nothing but exit(0).
fn image() -> Result<OwnedFd> {
    let name = CString::new(MEMORY_NAME).unwrap_or_default();
    const MFD_EXEC: u32 = 0x10;
    let make = |flags: u32| {
        // SAFETY: the name is a NUL-ended string.
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | flags) }
    };
    let fd = match make(MFD_EXEC) {
        -1 => make(0), // before Linux 6.3 the flag is unknown
        fd => fd,
    };
    if fd < 0 {
        return Err(failed("memfd_create", &std::io::Error::last_os_error().to_string()));
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let written =
        nix::unistd::write(&fd, &elf()).map_err(|errno| failed("writing its image", &errno.to_string()))?;
    if written == elf().len() { Ok(fd) } else { Err(failed("writing its image", "cut short")) }
}

/// ELF header, one program header, code.
fn elf() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let length = HEADERS + EXIT.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // executable
    put(&62_u16.to_le_bytes()); // x86_64
    put(&1_u32.to_le_bytes());
    put(&(BASE + HEADERS).to_le_bytes()); // entry
    put(&64_u64.to_le_bytes()); // program headers
    put(&0_u64.to_le_bytes()); // no sections
    put(&0_u32.to_le_bytes());
    for value in [64_u16, 56, 1, 0, 0, 0] {
        put(&value.to_le_bytes());
    }
    put(&1_u32.to_le_bytes()); // load
    put(&5_u32.to_le_bytes()); // read, execute
    for value in [0, BASE, BASE, length, length, 0x1000] {
        put(&value.to_le_bytes());
    }
    put(&EXIT);
    out
}

const SETUP_BYTES: usize = 120;
/// Where `struct io_uring_params` has the offset of the tail.
const SQ_TAIL: usize = 40 + 4;

/// Whether this kernel lets us make a ring at all.
fn uring_works() -> bool {
    let mut parameters = [0_u8; SETUP_BYTES];
    // SAFETY: the kernel reads and writes the 120 bytes of its parameter block.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if fd >= 0 {
        // SAFETY: the descriptor was just made and belongs to nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(fd as i32) });
    }
    fd >= 0
}

/// One NOP through a ring, with system calls only.
///
/// # Safety
/// For the canary's child, on which nobody else's mappings depend.
unsafe fn submit_nothing() {
    const SQES: libc::c_long = 0x1000_0000;
    let mut parameters = [0_u8; SETUP_BYTES];
    let offset = |parameters: &[u8; SETUP_BYTES], at: usize| {
        u32::from_le_bytes([parameters[at], parameters[at + 1], parameters[at + 2], parameters[at + 3]])
            as usize
    };
    // SAFETY: the mappings are those that the kernel offers for this ring; the offsets come from its parameter block.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr());
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        let ring = libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, fd, 0);
        let entries = libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, fd, SQES);
        if fd >= 0 && ring >= 0 && entries >= 0 {
            // The entry is zero, which is a NOP; the index array is zero, which is that entry.
            let tail = (ring as usize + offset(&parameters, SQ_TAIL)) as *const std::sync::atomic::AtomicU32;
            (*tail).store(1, std::sync::atomic::Ordering::Release);
            libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, 1, 0, 0);
        }
        for mapping in [ring, entries] {
            if mapping >= 0 {
                libc::syscall(libc::SYS_munmap, mapping, 4096);
            }
        }
    }
}

fn failed(doing: &str, why: &str) -> Error {
    Error::new(Code::CaptureCanary, format!("the canary could not run: {doing}: {why}"))
}
