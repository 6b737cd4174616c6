//! A process of our own that does known things in the session's cgroup, before the measured tree and after it.
//!
//! When the record of each step is found, exactly once and in order, with the path, the arguments and the result that the child itself saw,
//! every hook worked at that moment and read what it should. Results are chosen so that a value read from elsewhere can't be taken for
//! them: descriptors, -2, -17, a length of the nonce's; through the ring as well. The script is raw system calls after `clone3`, so that
//! nothing but its own steps is recorded; the nonce in its paths, modes and addresses makes it impossible to prepare the records.
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
use std::sync::atomic::{AtomicI64, Ordering};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Discard: nobody listens, and nothing that is sent there means anything.
const PORT: u16 = 9;
const MEMORY_NAME: &str = "assay-gates-canary";

/// Code that does exit(0), and the number of its machine in an ELF header.
#[cfg(target_arch = "x86_64")]
const EXIT: (&[u8], u16) = (&[0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05], 62);
#[cfg(target_arch = "aarch64")]
const EXIT: (&[u8], u16) = (&[0xa8, 0x0b, 0x80, 0xd2, 0, 0, 0x80, 0xd2, 0x01, 0, 0, 0xd4], 183);

/// One canary that ran.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    /// Its process id.
    pub pid: u32,
    /// What makes it the canary of this run and of no other; hex.
    pub nonce: String,
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
        none: text(".none")?,
        nonce,
        image: image()?,
        threads: threads.as_raw_fd(),
        uring: uring_works(),
        results: [const { AtomicI64::new(NOT_DONE) }; STEPS],
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
    Ok(Canary { pid: pid.cast_unsigned(), nonce: hex::encode(nonce), expected: script.expected() })
}

/// Results that the child notes.
const STEPS: usize = 25;
/// What stands for the result of a step that the child never came to.
const NOT_DONE: i64 = i64::MIN;

struct Script {
    file: CString,
    made: CString,
    moved: CString,
    none: CString,
    nonce: [u8; 16],
    image: OwnedFd,
    threads: i32,
    uring: bool,
    /// The result of each step, as the child saw it: it runs in the driver's memory.
    results: [AtomicI64; STEPS],
}

const SOCKET_TYPE: i32 = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
const FLAGS: i32 = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR | libc::O_CLOEXEC;
const NOP: u8 = 0;
const OPENAT: u8 = 18;
const RENAMEAT: u8 = 35;
const UNLINKAT: u8 = 36;
const MKDIRAT: u8 = 37;
const LINKAT: u8 = 39;

/// One request of the ring.
#[derive(Clone, Copy)]
struct Request<'s> {
    opcode: u8,
    path: Option<&'s CString>,
    second: Option<&'s CString>,
    /// Mode of what is made.
    mode: u32,
    flags: i32,
}

impl Script {
    /// Modes and lengths that the nonce chose.
    fn mode(&self, at: usize) -> u32 {
        0o700 | u32::from(self.nonce[at] & 0o77)
    }

    fn length(&self) -> usize {
        1 + usize::from(self.nonce[5] & 0x0f)
    }

    /// An address of this host's own that nobody else uses.
    fn peer(&self) -> [u8; 4] {
        [127, self.nonce[6], self.nonce[7], self.nonce[8] | 2]
    }

    /// An address of nobody's: what is connected to it without a word sends nothing.
    fn peer6(&self) -> [u8; 16] {
        let mut address = self.nonce;
        address[0] = 0xfd;
        address
    }

    /// What goes through the ring, each with another result than the one before.
    fn requests(&self) -> [Request<'_>; 8] {
        let one = |opcode, path, mode, flags| Request { opcode, path: Some(path), second: None, mode, flags };
        [
            Request { opcode: NOP, path: None, second: None, mode: 0, flags: 0 },
            one(OPENAT, &self.none, 0, libc::O_RDONLY),
            one(OPENAT, &self.file, self.mode(3), FLAGS),
            one(MKDIRAT, &self.file, self.mode(4), 0),
            Request { second: Some(&self.made), ..one(RENAMEAT, &self.none, 0, 0) },
            Request { second: Some(&self.moved), ..one(LINKAT, &self.file, 0, 0) },
            one(UNLINKAT, &self.file, 0, 0),
            one(UNLINKAT, &self.moved, 0, 0),
        ]
    }

    fn expected(&self) -> Vec<String> {
        let text = |path: &CString| crate::capture::text::escape(path.as_bytes());
        let (file, made, moved, none) =
            (text(&self.file), text(&self.made), text(&self.moved), text(&self.none));
        let mut results = self.results.iter().map(|result| result.load(Ordering::Relaxed));
        let mut result = || results.next().unwrap_or(NOT_DONE);
        let [a, b, c, d] = self.peer();
        let peer = format!("{a}.{b}.{c}.{d}");
        let mut lines = vec![
            "birth".to_owned(),
            format!("openat {none} = {} [{:x} 0 0]", result(), libc::O_RDONLY),
            format!("openat {file} = {} [{FLAGS:x} {:x} 0]", result(), self.mode(0)),
            format!("mkdirat {made} = {} [{:x} 0 0]", result(), self.mode(1)),
            format!("mkdirat {made} = {} [{:x} 0 0]", result(), self.mode(2)),
            format!("renameat2 {made} {moved} = {} [0 0 0]", result()),
            format!("unlinkat {moved} = {} [{:x} 0 0]", result(), libc::AT_REMOVEDIR),
            format!("unlinkat {file} = {} [0 0 0]", result()),
            format!("socket = {} [{:x} {SOCKET_TYPE:x} 0]", result(), libc::AF_INET),
            "address 2 127.0.0.1:0".into(),
            format!("bind 127.0.0.1:0 = {} [0 0 0]", result()),
            format!("address 3 {peer}:{PORT}"),
            format!("sendto {peer}:{PORT} = {} [{:x} 0 0]", result(), libc::MSG_DONTWAIT),
            format!("address 1 {peer}:{PORT}"),
            format!("connect {peer}:{PORT} = {} [0 0 0]", result()),
        ];
        let (socket, bound, sent, connected) = (result(), result(), result(), result());
        lines.push(format!("socket = {socket} [{:x} {SOCKET_TYPE:x} 0]", libc::AF_INET6));
        if socket >= 0 {
            let peer = std::net::Ipv6Addr::from(self.peer6());
            lines.extend([
                "address 2 [::1]:0".into(),
                format!("bind [::1]:0 = {bound} [0 0 0]"),
                format!("address 3 [::1]:{PORT}"),
                format!("sendto [::1]:{PORT} = {sent} [{:x} 0 0]", libc::MSG_DONTWAIT),
                format!("address 1 [{peer}]:{PORT}"),
                format!("connect [{peer}]:{PORT} = {connected} [0 0 0]"),
            ]);
        }
        lines.push("attach".into());
        if self.uring {
            lines.push(format!("io_uring_setup = {} [{ENTRIES:x} 0 0]", result()));
            for request in self.requests() {
                let path =
                    |path: Option<&CString>| path.map_or(String::new(), |path| format!(" {}", text(path)));
                let (first, second) = (path(request.path), path(request.second));
                lines.push(format!("submit {}{first}{second} [{:x}]", request.opcode, request.mode));
                lines.push(format!("complete {}", result()));
            }
        }
        lines.push(format!("exec tmpfs:memfd:{MEMORY_NAME}"));
        lines.push("exit 0".into());
        lines
    }

    /// What the child does. Only system calls: after a raw clone of a process with threads, nothing of the C library may be relied on, and
    /// what it leaves in memory is left in the parent's.
    unsafe extern "C" fn play(&self) -> ! {
        let address = |port: u16, at: [u8; 4]| libc::sockaddr_in {
            sin_family: libc::AF_INET as u16,
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(at) },
            sin_zero: [0; 8],
        };
        let (any, discard) = (address(0, [127, 0, 0, 1]), address(PORT, self.peer()));
        let size = size_of::<libc::sockaddr_in>();
        let address6 = |port: u16, at: [u8; 16]| libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as u16,
            sin6_port: port.to_be(),
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: at },
            sin6_scope_id: 0,
        };
        let own = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
        let (any6, discard6, peer6) = (address6(0, own), address6(PORT, own), address6(PORT, self.peer6()));
        let size6 = size_of::<libc::sockaddr_in6>();
        let argv = [c"canary".as_ptr(), std::ptr::null()];
        let environment: [*const libc::c_char; 1] = [std::ptr::null()];
        let mut results = self.results.iter();
        let mut note = |result: i64| {
            if let Some(slot) = results.next() {
                slot.store(result, Ordering::Relaxed);
            }
        };
        // SAFETY: every pointer is to memory that lives until exec; failures leave a record missing, which is what the canary is for.
        unsafe {
            use libc::{AT_FDCWD, syscall};
            let raw = |result: libc::c_long| {
                if result < 0 { -i64::from(*libc::__errno_location()) } else { result }
            };
            let (file, made, moved, none) =
                (self.file.as_ptr(), self.made.as_ptr(), self.moved.as_ptr(), self.none.as_ptr());
            note(raw(syscall(libc::SYS_openat, AT_FDCWD, none, libc::O_RDONLY, 0)));
            note(raw(syscall(libc::SYS_openat, AT_FDCWD, file, FLAGS, self.mode(0))));
            note(raw(syscall(libc::SYS_mkdirat, AT_FDCWD, made, self.mode(1))));
            note(raw(syscall(libc::SYS_mkdirat, AT_FDCWD, made, self.mode(2))));
            note(raw(syscall(libc::SYS_renameat2, AT_FDCWD, made, AT_FDCWD, moved, 0)));
            note(raw(syscall(libc::SYS_unlinkat, AT_FDCWD, moved, libc::AT_REMOVEDIR)));
            note(raw(syscall(libc::SYS_unlinkat, AT_FDCWD, file, 0)));
            let socket = syscall(libc::SYS_socket, libc::AF_INET, SOCKET_TYPE, 0);
            note(raw(socket));
            note(raw(syscall(libc::SYS_bind, socket, &raw const any, size)));
            let (payload, length) = (self.nonce.as_ptr(), self.length());
            note(raw(syscall(
                libc::SYS_sendto,
                socket,
                payload,
                length,
                libc::MSG_DONTWAIT,
                &raw const discard,
                size,
            )));
            note(raw(syscall(libc::SYS_connect, socket, &raw const discard, size)));
            // Where the kernel has no IPv6 there is no socket, and nothing to read.
            let socket = raw(syscall(libc::SYS_socket, libc::AF_INET6, SOCKET_TYPE, 0));
            note(socket);
            if socket >= 0 {
                note(raw(syscall(libc::SYS_bind, socket, &raw const any6, size6)));
                let (to, flags) = (&raw const discard6, libc::MSG_DONTWAIT);
                note(raw(syscall(libc::SYS_sendto, socket, payload, length, flags, to, size6)));
                note(raw(syscall(libc::SYS_connect, socket, &raw const peer6, size6)));
            } else {
                (0..3).for_each(|_| note(0));
            }
            syscall(libc::SYS_write, self.threads, c"0".as_ptr(), 1);
            if self.uring {
                submit(&self.requests(), &mut note);
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
    #[cfg(target_arch = "x86_64")]
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
    // SAFETY: the same; the kernel keeps all registers but x0.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x0, x3",
            "blr x2",
            "brk #1",
            "2:",
            inlateout("x0") &raw const arguments => result,
            in("x1") size_of::<CloneArguments>(),
            in("x2") Script::play as unsafe extern "C" fn(&Script) -> !,
            in("x3") script,
            in("x8") libc::SYS_clone3,
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
    const LARGEST_PAGE: u64 = 0x1_0000;
    let (code, machine) = EXIT;
    let length = HEADERS + code.len() as u64;
    let mut out = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let mut put = |bytes: &[u8]| out.extend_from_slice(bytes);
    put(&2_u16.to_le_bytes()); // executable
    put(&machine.to_le_bytes());
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
    for value in [0, BASE, BASE, length, length, LARGEST_PAGE] {
        put(&value.to_le_bytes());
    }
    put(code);
    out
}

/// Of the ring; each request has an entry of its own.
const ENTRIES: u32 = 8;
const SETUP_BYTES: usize = 120;
/// Where `struct io_uring_params` has the offsets within the mapping of the ring.
const SQ_TAIL: usize = 40 + 4;
const SQ_ARRAY: usize = 40 + 24;
const CQ_HEAD: usize = 80;
const CQ_MASK: usize = 80 + 8;
const CQ_ENTRIES: usize = 80 + 20;
const ENTRY_BYTES: usize = 64;

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

/// Makes a ring and sends the requests through it, one after the other, with system calls only; tells `note` what each gave.
///
/// # Safety
/// For the canary's child, on which nobody else's mappings depend.
unsafe fn submit(requests: &[Request<'_>], note: &mut impl FnMut(i64)) {
    const SQES: libc::c_long = 0x1000_0000;
    let mut parameters = [0_u8; SETUP_BYTES];
    let offset = |parameters: &[u8; SETUP_BYTES], at: usize| {
        u32::from_le_bytes([parameters[at], parameters[at + 1], parameters[at + 2], parameters[at + 3]])
            as usize
    };
    // SAFETY: the mappings are those that the kernel offers for this ring, of which a page holds eight entries; the offsets come from its
    // parameter block; all that an entry points to lives until its result is there.
    unsafe {
        let fd = libc::syscall(libc::SYS_io_uring_setup, ENTRIES, parameters.as_mut_ptr());
        note(fd);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        let ring = libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, fd, 0);
        let entries = libc::syscall(libc::SYS_mmap, 0, 4096, protection, flags, fd, SQES);
        if fd >= 0 && ring >= 0 && entries >= 0 {
            let word = |at: usize| {
                let place = (ring as usize + offset(&parameters, at)) as *const std::sync::atomic::AtomicU32;
                &*place
            };
            for (slot, request) in requests.iter().enumerate().take(ENTRIES as usize) {
                let path = |path: Option<&CString>| path.map_or(0, |path| path.as_ptr() as u64);
                let two = request.second.is_some();
                let entry = entries as usize + slot * ENTRY_BYTES;
                *(entry as *mut u8) = request.opcode;
                *((entry + 4) as *mut i32) = libc::AT_FDCWD;
                *((entry + 8) as *mut u64) = path(request.second);
                *((entry + 16) as *mut u64) = path(request.path);
                *((entry + 24) as *mut u32) = if two { libc::AT_FDCWD as u32 } else { request.mode };
                *((entry + 28) as *mut i32) = request.flags;
                // Any number may stand here, and none of them is a result.
                *((entry + 32) as *mut u64) = entry as u64;
                let array = ring as usize + offset(&parameters, SQ_ARRAY);
                *((array + 4 * slot) as *mut u32) = slot as u32;
                word(SQ_TAIL).store(slot as u32 + 1, Ordering::Release);
                libc::syscall(libc::SYS_io_uring_enter, fd, 1, 1, 1, 0, 0);
                let head = word(CQ_HEAD).load(Ordering::Acquire);
                let at = (head & word(CQ_MASK).load(Ordering::Relaxed)) as usize;
                let done = ring as usize + offset(&parameters, CQ_ENTRIES) + at * 16;
                note(i64::from(*((done + 8) as *const i32)));
                word(CQ_HEAD).store(head + 1, Ordering::Release);
            }
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
