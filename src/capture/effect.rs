//! One effect of the measured tree on its machine, as the kernel saw it.

use serde::{Deserialize, Serialize};

/// What was done. Several syscalls may be one operation (`open`, `creat`, `openat2` are all [`Operation::Open`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// open, creat, openat, openat2, open_by_handle_at.
    Open,
    /// execve, execveat; the path is the file that was executed.
    Exec,
    /// A task was born (`pid` is the new process or thread).
    Fork,
    /// A task ended; `return_value` is its raw exit code.
    Exit,
    /// unlink, unlinkat without `AT_REMOVEDIR`.
    Unlink,
    /// rename, renameat, renameat2; `path` is the source, `target` the destination.
    Rename,
    /// link, linkat; `path` is the existing file, `target` the new name.
    Link,
    /// symlink, symlinkat; `path` is the new link, `target` its text.
    Symlink,
    /// mkdir, mkdirat.
    Mkdir,
    /// rmdir, unlinkat with `AT_REMOVEDIR`.
    Rmdir,
    /// truncate, ftruncate.
    Truncate,
    /// chmod family.
    Chmod,
    /// chown family.
    Chown,
    /// mknod, mknodat.
    Mknod,
    /// connect.
    Connect,
    /// bind.
    Bind,
    /// sendto with a peer.
    Sendto,
    /// sendmsg, sendmmsg with a peer.
    Sendmsg,
    /// An io_uring operation; `syscall` is its opcode name.
    IoUring,
    /// A task was moved to another cgroup.
    CgroupAttach,
    /// A syscall that could make the tree escape observation (bpf, module load, mount, setns, ...).
    Escape,
    /// A syscall of a foreign ABI (ia32, x32).
    ForeignAbi,
    /// A syscall that ended without having begun (seccomp, ptrace).
    ExitWithoutEnter,
}

/// How far `PathValue::value` can be trusted to be the whole absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathState {
    /// The kernel's own absolute path of the file that was opened.
    Resolved,
    /// The requested path, made absolute against the real cwd or dirfd: the call failed, or it is one that gives no file
    /// (unlink, rename, mkdir, ...), so symbolic links in its directories are not resolved.
    Requested,
    /// Resolved; the file had been unlinked already.
    Deleted,
    /// The walk ended outside the run's mount namespace.
    Detached,
    /// Longer than 4096 bytes; `value` is the part that was read.
    Truncated,
    /// Not a path at all: pipe, socket, memfd, namespace; `value` is `fstype:name`.
    Anonymous,
    /// Could not be read; `value` is empty.
    Unreadable,
}

/// A path and what is known of it. Bytes that are not UTF-8 stand as `\xNN`, a backslash as `\\`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathValue {
    /// Absolute path, up to 4096 bytes.
    pub value: String,
    /// How far it can be trusted.
    pub state: PathState,
    /// The string that the program passed, when it differs from `value`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
}

/// One line of `effects.ndjson` (`assay.gates.effect.v0`). Written by the kernel programs and decoded here;
/// the measured program controls no field but the names that it chose itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Position in the ring buffer, contiguous from 0: the order of the run.
    pub seq: u64,
    /// Kernel monotonic time, nanoseconds. Telemetry: never compared between runs.
    pub time_ns: u64,
    /// Process id (tgid) in the initial namespace. Telemetry.
    pub pid: u32,
    /// Thread id in the initial namespace. Telemetry.
    pub tid: u32,
    /// Stable ordinal of the process: 0 is the measured root, then by birth order.
    pub process: u32,
    /// Cgroup of the task. Telemetry.
    pub cgroup_id: u64,
    /// `tool_call_id` of the call that the task's server was working on; the first of them with the mark `calls_overlapped`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// What was done.
    pub operation: Operation,
    /// The syscall's (or io_uring opcode's) name, e.g. `openat`.
    pub syscall: String,
    /// The file it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathValue>,
    /// The second path of rename, link, symlink.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathValue>,
    /// `a.b.c.d:port`, `[v6]:port`, or `unix:<path>`; null when it could not be decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Raw flags argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u64>,
    /// Raw mode argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<u64>,
    /// openat2's resolve flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolve: Option<u64>,
    /// Raw return value; negative is -errno.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_value: Option<i64>,
    /// What no other field holds: `uid=0 gid=0`, `length=5`, `thread of 2`, `by=driver`, ...
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Named doubts: `toctou_suspect`, `fd_race`, `ia32`, ...
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
}
