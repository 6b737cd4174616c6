//! Names and meanings of the syscalls (x86_64) and `io_uring` operations that the kernel programs record.

use super::Operation;

/// What one recorded syscall is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syscall {
    /// Number on x86_64.
    pub nr: i32,
    /// Name.
    pub name: &'static str,
    /// What it does.
    pub operation: Operation,
}

const fn row(nr: i32, name: &'static str, operation: Operation) -> Syscall {
    Syscall { nr, name, operation }
}

/// Every syscall in the table of `ebpf/syscalls.h`.
pub const RECORDED: &[Syscall] = &[
    row(2, "open", Operation::Open),
    row(42, "connect", Operation::Connect),
    row(44, "sendto", Operation::Sendto),
    row(46, "sendmsg", Operation::Sendmsg),
    row(49, "bind", Operation::Bind),
    row(59, "execve", Operation::Exec),
    row(76, "truncate", Operation::Truncate),
    row(77, "ftruncate", Operation::Truncate),
    row(82, "rename", Operation::Rename),
    row(83, "mkdir", Operation::Mkdir),
    row(84, "rmdir", Operation::Rmdir),
    row(85, "creat", Operation::Open),
    row(86, "link", Operation::Link),
    row(87, "unlink", Operation::Unlink),
    row(88, "symlink", Operation::Symlink),
    row(90, "chmod", Operation::Chmod),
    row(91, "fchmod", Operation::Chmod),
    row(92, "chown", Operation::Chown),
    row(93, "fchown", Operation::Chown),
    row(94, "lchown", Operation::Chown),
    row(101, "ptrace", Operation::Escape),
    row(133, "mknod", Operation::Mknod),
    row(155, "pivot_root", Operation::Escape),
    row(161, "chroot", Operation::Escape),
    row(165, "mount", Operation::Escape),
    row(166, "umount2", Operation::Escape),
    row(175, "init_module", Operation::Escape),
    row(246, "kexec_load", Operation::Escape),
    row(257, "openat", Operation::Open),
    row(258, "mkdirat", Operation::Mkdir),
    row(259, "mknodat", Operation::Mknod),
    row(260, "fchownat", Operation::Chown),
    row(263, "unlinkat", Operation::Unlink),
    row(264, "renameat", Operation::Rename),
    row(265, "linkat", Operation::Link),
    row(266, "symlinkat", Operation::Symlink),
    row(268, "fchmodat", Operation::Chmod),
    row(272, "unshare", Operation::Escape),
    row(298, "perf_event_open", Operation::Escape),
    row(304, "open_by_handle_at", Operation::Open),
    row(307, "sendmmsg", Operation::Sendmsg),
    row(308, "setns", Operation::Escape),
    row(310, "process_vm_readv", Operation::Escape),
    row(311, "process_vm_writev", Operation::Escape),
    row(313, "finit_module", Operation::Escape),
    row(316, "renameat2", Operation::Rename),
    row(320, "kexec_file_load", Operation::Escape),
    row(321, "bpf", Operation::Escape),
    row(322, "execveat", Operation::Exec),
    row(425, "io_uring_setup", Operation::Escape),
    row(428, "open_tree", Operation::Escape),
    row(429, "move_mount", Operation::Escape),
    row(430, "fsopen", Operation::Escape),
    row(432, "fsmount", Operation::Escape),
    row(437, "openat2", Operation::Open),
    row(438, "pidfd_getfd", Operation::Escape),
    row(442, "mount_setattr", Operation::Escape),
    row(452, "fchmodat2", Operation::Chmod),
    row(467, "open_tree_attr", Operation::Escape),
];

/// The recorded syscall of that number.
#[must_use]
pub fn syscall(nr: i32) -> Option<&'static Syscall> {
    RECORDED.binary_search_by_key(&nr, |row| row.nr).ok().map(|at| &RECORDED[at])
}

/// Calls that the sandbox's fence can refuse, in order of their numbers on x86_64. They end without having begun.
pub const FENCED: &[(i32, &str)] = &[
    (41, "socket"),
    (53, "socketpair"),
    (56, "clone"),
    (155, "pivot_root"),
    (161, "chroot"),
    (165, "mount"),
    (166, "umount2"),
    (175, "init_module"),
    (176, "delete_module"),
    (246, "kexec_load"),
    (248, "add_key"),
    (249, "request_key"),
    (250, "keyctl"),
    (272, "unshare"),
    (298, "perf_event_open"),
    (308, "setns"),
    (313, "finit_module"),
    (320, "kexec_file_load"),
    (321, "bpf"),
    (323, "userfaultfd"),
    (425, "io_uring_setup"),
    (426, "io_uring_enter"),
    (427, "io_uring_register"),
    (428, "open_tree"),
    (429, "move_mount"),
    (430, "fsopen"),
    (431, "fsconfig"),
    (432, "fsmount"),
    (433, "fspick"),
    (442, "mount_setattr"),
    (467, "open_tree_attr"),
];

/// The fence answers this one as a kernel without it does, and libc calls `clone` instead: no effect.
pub const CLONE3: i32 = 435;

/// The name of a call that the fence can refuse.
#[must_use]
pub fn fenced(nr: i32) -> Option<&'static str> {
    FENCED.iter().find(|(fenced, _)| *fenced == nr).map(|(_, name)| *name)
}

/// Name of any syscall for a record that carries only its number.
#[must_use]
pub fn syscall_name(nr: i32) -> String {
    let name = syscall(nr).map(|row| row.name).or_else(|| fenced(nr));
    name.map_or_else(|| format!("syscall_{nr}"), str::to_owned)
}

/// Names of the `io_uring` operations, by opcode, as of Linux 6.18.
const URING: [&str; 63] = [
    "NOP",
    "READV",
    "WRITEV",
    "FSYNC",
    "READ_FIXED",
    "WRITE_FIXED",
    "POLL_ADD",
    "POLL_REMOVE",
    "SYNC_FILE_RANGE",
    "SENDMSG",
    "RECVMSG",
    "TIMEOUT",
    "TIMEOUT_REMOVE",
    "ACCEPT",
    "ASYNC_CANCEL",
    "LINK_TIMEOUT",
    "CONNECT",
    "FALLOCATE",
    "OPENAT",
    "CLOSE",
    "FILES_UPDATE",
    "STATX",
    "READ",
    "WRITE",
    "FADVISE",
    "MADVISE",
    "SEND",
    "RECV",
    "OPENAT2",
    "EPOLL_CTL",
    "SPLICE",
    "PROVIDE_BUFFERS",
    "REMOVE_BUFFERS",
    "TEE",
    "SHUTDOWN",
    "RENAMEAT",
    "UNLINKAT",
    "MKDIRAT",
    "SYMLINKAT",
    "LINKAT",
    "MSG_RING",
    "FSETXATTR",
    "SETXATTR",
    "FGETXATTR",
    "GETXATTR",
    "SOCKET",
    "URING_CMD",
    "SEND_ZC",
    "SENDMSG_ZC",
    "READ_MULTISHOT",
    "WAITID",
    "FUTEX_WAIT",
    "FUTEX_WAKE",
    "FUTEX_WAITV",
    "FIXED_FD_INSTALL",
    "FTRUNCATE",
    "BIND",
    "LISTEN",
    "RECV_ZC",
    "EPOLL_WAIT",
    "READV_FIXED",
    "WRITEV_FIXED",
    "PIPE",
];

/// Name of an `io_uring` opcode, and whether its whole effect is recorded. `URING_CMD` hands bytes to a driver, and an opcode newer than
/// this table may do anything: neither is.
#[must_use]
pub fn uring(opcode: i32) -> (String, bool) {
    match usize::try_from(opcode).ok().and_then(|at| URING.get(at)) {
        Some(&name) => (name.to_owned(), name != "URING_CMD"),
        None => (format!("opcode_{opcode}"), false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_that_the_search_needs() {
        assert!(RECORDED.windows(2).all(|pair| pair[0].nr < pair[1].nr));
        assert_eq!(syscall(316).unwrap().name, "renameat2");
        assert_eq!(syscall(0), None);
        assert_eq!(syscall_name(39), "syscall_39");
    }

    #[test]
    fn the_kernel_programs_record_exactly_these_syscalls() {
        let table = include_str!("../../ebpf/syscalls.h");
        let body = &table[table.find("descriptors[SYSCALLS] = {").unwrap()..];
        let found: Vec<(i32, &str)> = body
            .lines()
            .skip(1)
            .take_while(|line| *line != "};")
            .map(|line| {
                let (nr, rest) = line.trim_start().strip_prefix('[').unwrap().split_once(']').unwrap();
                (nr.parse().unwrap(), rest.rsplit_once("// ").unwrap().1)
            })
            .collect();
        let ours: Vec<(i32, &str)> = RECORDED.iter().map(|row| (row.nr, row.name)).collect();
        assert_eq!(found, ours);
    }

    #[test]
    fn an_unknown_opcode_is_never_called_decoded() {
        assert_eq!(uring(18), ("OPENAT".into(), true));
        assert!(!uring(46).1);
        assert_eq!(uring(200), ("opcode_200".into(), false));
    }
}
