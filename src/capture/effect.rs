//! One effect of the measured tree on its machine, as the kernel saw it.

use serde::{Deserialize, Serialize};

/// What was done. Several syscalls may be one operation (`open`, `creat`, `openat2` are all [`Operation::Open`]).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
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
    /// An extended attribute was set; the detail names it.
    Setxattr,
    /// An extended attribute was removed; the detail names it.
    Removexattr,
    /// utimensat and its kin: times of a file.
    Utime,
    /// Flags, project or version of a file: FS_IOC_SETFLAGS and its kin, file_setattr.
    SetAttributes,
    /// An ioctl that is not known to change nothing.
    DeviceControl,
    /// listen.
    Listen,
    /// accept, accept4.
    Accept,
    /// A socket of a family other than unix, inet, inet6.
    Socket,
    /// A signal to another process.
    Signal,
    /// mq_open, mq_unlink; the detail names the queue.
    MessageQueue,
    /// System V shared memory, semaphores, messages.
    Ipc,
    /// add_key, request_key, keyctl.
    Key,
    /// mount, umount2, chroot, pivot_root, and the calls that build mounts.
    Mount,
    /// unshare, setns.
    Namespace,
    /// What changes the whole machine: names, clocks, swap, quotas, reboot.
    System,
    /// Scheduling, limits or memory of a process by its number.
    ProcessControl,
    /// A syscall that could make the tree escape observation (bpf, module load, ptrace, ...).
    Escape,
    /// A syscall of a foreign ABI (ia32, x32).
    ForeignAbi,
    /// A syscall that ended without having begun (seccomp, ptrace).
    ExitWithoutEnter,
}

impl Operation {
    /// Every operation.
    pub const ALL: &[Operation] = &[
        Operation::Open,
        Operation::Exec,
        Operation::Fork,
        Operation::Exit,
        Operation::Unlink,
        Operation::Rename,
        Operation::Link,
        Operation::Symlink,
        Operation::Mkdir,
        Operation::Rmdir,
        Operation::Truncate,
        Operation::Chmod,
        Operation::Chown,
        Operation::Mknod,
        Operation::Connect,
        Operation::Bind,
        Operation::Sendto,
        Operation::Sendmsg,
        Operation::IoUring,
        Operation::CgroupAttach,
        Operation::Setxattr,
        Operation::Removexattr,
        Operation::Utime,
        Operation::SetAttributes,
        Operation::DeviceControl,
        Operation::Listen,
        Operation::Accept,
        Operation::Socket,
        Operation::Signal,
        Operation::MessageQueue,
        Operation::Ipc,
        Operation::Key,
        Operation::Mount,
        Operation::Namespace,
        Operation::System,
        Operation::ProcessControl,
        Operation::Escape,
        Operation::ForeignAbi,
        Operation::ExitWithoutEnter,
    ];

    /// The name as it is serialised.
    #[must_use]
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
    }
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

/// A file as the kernel knows it, whatever its name. Telemetry: numbers differ between runs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileObject {
    /// `major:minor` of its file system.
    pub device: String,
    /// Number of its inode there.
    pub inode: u64,
    /// Generation of that number, where the file system has one.
    pub generation: u32,
    /// Number of the mount that it was reached through.
    pub mount: u32,
    /// Number of the mount namespace of that mount.
    pub mount_namespace: u32,
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
    /// Number of the server that did it, in a call or between calls; absent for the agent and what it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<u32>,
    /// What was done.
    pub operation: Operation,
    /// The syscall's (or io_uring opcode's) name, e.g. `openat`.
    pub syscall: String,
    /// The file it was done to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathValue>,
    /// Which file that is, as the kernel knows it; of opens, execs and what is done to a descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<FileObject>,
    /// argv of an exec, as the new image got it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
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
