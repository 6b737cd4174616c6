// Maps, the session filter, per-task state, and how a record leaves the kernel.
#pragma once

#include "kernel.h"
#include "record.h"

#define SESSION_UNKNOWN (-1)
// Room before the last segment that still fits: a header and four whole paths.
#define OUT_LAST (sizeof(struct record) + 4 * (sizeof(struct segment) + PATH_BYTES + 1))
#define OUT_BYTES (OUT_LAST + sizeof(struct segment) + PATH_BYTES + 8)
#define PREFIX_BYTES 256

const volatile u64 wake_bytes = 0;  // fill of the ring past which the consumer is woken

// `level` is learned from the first task that enters the session's cgroup, so that a cgroup namespace in between does not matter.
// The id is written before the first program is attached: verifying is slow, so it is done before the cgroup is there.
struct {
    s32 level;
    u32 serial;
    u64 session_id; // id of the session's cgroup
} shared = { SESSION_UNKNOWN, 0, 0 };

enum task_flag {
    TASK_IN_SYSCALL = 1 << 0,
    TASK_BORN = 1 << 1,   // its birth was seen
    TASK_JOINED = 1 << 2, // it was moved in, perhaps from inside a syscall
};

struct task_state {
    u32 serial;
    u32 seq;
    u64 enters;
    u64 exits;
    s32 nr;
    u32 flags;
    u64 args[8]; // six used; eight so that an index can be masked
    s32 prefix_length[2];
    u8 prefix[2][PREFIX_BYTES];
};

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 64 * 1024 * 1024);
} ring SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct task_state);
} tasks SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct counters);
} counts SEC(".maps");

// Which processes serve tools: those that a verified proxy started, and all that these started. The driver enters the proxies, births and
// deaths keep the rest, so that no process can leave by whatever it does to its parents, groups or sessions.
#define SERVERS 257 // numbered from 1
#define SERVER_PROCESSES 8192
#define SERVER_PROXY (1U << 31) // the proxy itself: its children are the server, it is not

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, SERVER_PROCESSES);
    __type(key, u32);   // process id
    __type(value, u32); // number of its server
} servers SEC(".maps");

// The call that each server is working on; the driver writes it before the server sees the call and after it has answered.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, SERVERS);
    __type(key, u32);
    __type(value, u64);
} calls SEC(".maps");

struct out {
    union {
        struct record record;
        u8 bytes[OUT_BYTES];
    };
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct out);
} outs SEC(".maps");

static __always_inline struct counters *counters(void)
{
    u32 zero = 0;
    return bpf_map_lookup_elem(&counts, &zero);
}

// The current task is in the session's cgroup or below it.
static __always_inline bool in_session(void)
{
    return bpf_get_current_ancestor_cgroup_id(shared.level) == shared.session_id;
}

static __always_inline u64 cgroup_id_of(struct cgroup *cgroup)
{
    return BPF_CORE_READ(cgroup, kn, id);
}

// `cgroup` is the session's cgroup or below it. The first one met teaches the level.
static __always_inline bool under_session(struct cgroup *trusted)
{
    // The same pointer as a plain number, which the verifier lets us index from.
    struct cgroup *cgroup = BPF_CORE_READ(trusted, self.cgroup);
    int level = BPF_CORE_READ(cgroup, level);
    if (cgroup_id_of(cgroup) == shared.session_id) {
        shared.level = level;
        return true;
    }
    if (shared.level == SESSION_UNKNOWN || level <= shared.level)
        return false;
    struct cgroup *ancestor = 0;
    struct cgroup **ancestors = (void *)cgroup + bpf_core_field_offset(struct cgroup, ancestors);
    if (bpf_probe_read_kernel(&ancestor, sizeof(ancestor), ancestors + shared.level))
        return false;
    return cgroup_id_of(ancestor) == shared.session_id;
}

// Number of the call that the process is working on.
static __always_inline u64 call_of(u32 pid)
{
    u32 *server = bpf_map_lookup_elem(&servers, &pid);
    if (!server || *server & SERVER_PROXY)
        return 0;
    u32 number = *server;
    u64 *call = bpf_map_lookup_elem(&calls, &number);
    return call ? *call : 0;
}

static __always_inline struct task_state *known_task(struct task_struct *task)
{
    return bpf_task_storage_get(&tasks, task, 0, 0);
}

static __always_inline struct task_state *task_of(struct task_struct *task, struct counters *counters)
{
    struct task_state *state = bpf_task_storage_get(&tasks, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
    if (!state) {
        counters->storage_fail++;
        return 0;
    }
    if (!state->serial)
        state->serial = __sync_fetch_and_add(&shared.serial, 1) + 1;
    return state;
}

// Scratch for one record, its header filled in. Every user runs with preemption off, so that the CPU's scratch is its own.
static __always_inline struct out *begin(struct counters *counters, struct task_state *state, u16 kind, u16 hook)
{
    u32 zero = 0;
    struct out *out = bpf_map_lookup_elem(&outs, &zero);
    if (!out) {
        counters->map_fail++;
        return 0;
    }
    u64 ids = bpf_get_current_pid_tgid();
    struct record *record = &out->record;
    record->size = sizeof(struct record);
    record->kind = kind;
    record->hook = hook;
    record->time_ns = bpf_ktime_get_ns();
    record->cgroup_id = bpf_get_current_cgroup_id();
    record->call = call_of(ids >> 32);
    record->pid = ids >> 32;
    record->tid = ids;
    record->nr = -1;
    record->marks = 0;
    record->ret = 0;
    record->a = record->b = record->c = 0;
    if (state) {
        record->serial = state->serial;
        record->seq = ++state->seq;
    } else {
        record->serial = record->seq = 0;
        record->marks = MARK_NO_STORAGE;
    }
    return out;
}

static __always_inline u64 wakeup(void)
{
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

// Sends the record. A refused one is counted, and leaves a gap in its task's sequence.
static __always_inline void commit(struct counters *counters, struct out *out)
{
    u32 size = out->record.size;
    u16 hook = out->record.hook;
    if (hook >= HOOKS)
        return;
    if (size > OUT_BYTES)
        size = OUT_BYTES;
    if (bpf_ringbuf_output(&ring, out, size, wakeup())) {
        counters->dropped[hook]++;
    } else {
        counters->emitted[hook]++;
        counters->bytes += size;
    }
}
