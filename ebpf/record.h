// What goes through the ring: one struct record, then segments (strings) up to `size`. src/capture/raw.rs states the same layout in Rust;
// a test compares both through this object's BTF.
#pragma once

#define PATH_BYTES 4096

enum record_kind {
    RECORD_SYSCALL = 1,        // a syscall of the table ended
    RECORD_BIRTH = 2,          // a task was born: pid, tid, serial are the child's
    RECORD_EXEC = 3,           // a new program image runs
    RECORD_EXIT = 4,           // a task ended: its final counts
    RECORD_ATTACH = 5,         // a task was moved to another cgroup
    RECORD_ADDRESS = 6,        // the address that the kernel itself copied (cgroup socket programs)
    RECORD_URING_SUBMIT = 7,   // an io_uring request
    RECORD_URING_COMPLETE = 8, // its result
    RECORD_EXIT_ONLY = 9,      // a syscall ended that never began (seccomp, ptrace)
    RECORD_ENTER_TWICE = 10,   // a syscall began inside another: something was missed
    RECORD_FOREIGN = 11,       // a syscall of the ia32, x32 or 32-bit arm ABI began
};

// Who counts a record as emitted or dropped. The first five are those that observation health names.
enum hook {
    HOOK_OPENAT,
    HOOK_OPENAT2,
    HOOK_CONNECT,
    HOOK_SENDTO,
    HOOK_SENDMSG,
    HOOK_PATH,
    HOOK_BIND,
    HOOK_OTHER_FAMILY,
    HOOK_EXEC,
    HOOK_BIRTH,
    HOOK_EXIT,
    HOOK_ATTACH,
    HOOK_ADDRESS,
    HOOK_URING,
    HOOK_CONTROL,
    HOOK_ANOMALY,
    HOOKS,
};

enum mark {
    MARK_TOCTOU = 1 << 0,        // the string at entry and the string at exit differ
    MARK_SHARED_FDS = 1 << 1,    // the descriptor table is shared: another thread could have replaced the descriptor
    MARK_FD_GONE = 1 << 2,       // no file at the returned descriptor any more
    MARK_IN_SYSCALL = 1 << 3,    // the task ended inside a syscall
    MARK_OUTSIDE = 1 << 4,       // the child or the destination is outside the session
    MARK_ROOT = 1 << 5,          // the parent is outside the session: a root of the measured tree
    MARK_IA32 = 1 << 6,
    MARK_X32 = 1 << 7,
    MARK_READ_FAULT = 1 << 8,    // a string or address could not be read although the kernel could
    MARK_NO_STORAGE = 1 << 9,    // no task storage: serial and seq are 0
    MARK_SCRIPT = 1 << 10,       // the file named is a script; the image is its interpreter
    MARK_NO_PEER = 1 << 11,
    MARK_AARCH32 = 1 << 12,
};

enum segment_kind {
    SEGMENT_FILE = 1,      // walked from a struct file
    SEGMENT_BASE = 2,      // cwd, root or dirfd against which SEGMENT_REQUESTED is resolved
    SEGMENT_REQUESTED = 3, // the program's string
    SEGMENT_BASE2 = 4,
    SEGMENT_REQUESTED2 = 5,
    SEGMENT_ADDRESS = 6, // struct sockaddr
    SEGMENT_INTERPRETER = 7,
};

enum segment_state {
    STATE_DELETED = 1 << 0,
    STATE_DETACHED = 1 << 1,  // the top mount belongs to no namespace
    STATE_FOREIGN = 1 << 2,   // the top mount belongs to another namespace than the task
    STATE_TRUNCATED = 1 << 3,
    STATE_ANONYMOUS = 1 << 4, // text is fstype:name
    STATE_FAULT = 1 << 5,
};

struct segment {
    u8 kind;
    u8 state;
    u16 length;
};

struct record {
    u32 size;
    u16 kind;
    u16 hook;
    u64 time_ns;
    u64 cgroup_id;
    u64 call; // number of the tool call that the task's server was working on at this moment; 0: none
    u32 pid;
    u32 tid;
    u32 serial; // of the task, from 1, never reused within a session
    u32 seq;    // of the record within its task, from 1
    s32 nr;     // syscall number or io_uring opcode
    u32 marks;
    s64 ret;
    u64 a;
    u64 b;
    u64 c;
};

// Everything that can fail, and everything that must add up; per CPU.
struct counters {
    u64 emitted[HOOKS];
    u64 dropped[HOOKS];
    u64 bytes;
    u64 enters;
    u64 exits;
    u64 births;
    u64 deaths;
    u64 storage_fail;
    u64 map_fail; // scratch or an entry of `servers` that could not be had
    u64 read_fault;
    u64 truncated;
    u64 unknown_state;
    u64 sendto_no_peer;
    u64 sendmsg_no_peer;
    u64 sendto_non_ip;
    u64 sendmsg_non_ip;
};
