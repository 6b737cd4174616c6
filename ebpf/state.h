// Maps, the session filter, per-task state, and how a record leaves the kernel.
#pragma once

#include "kernel.h"
#include "record.h"

#define SESSION_UNKNOWN (-1)
// Room before the last segment that still fits: a header and four whole paths.
#define OUT_LAST (sizeof(struct record) + 4 * (sizeof(struct segment) + PATH_BYTES + 1))
#define OUT_BYTES (OUT_LAST + sizeof(struct segment) + PATH_BYTES + 8)
#define PREFIX_BYTES 256
#define NAME_BYTES 255

const volatile u64 wake_bytes = 0;  // fill of the ring past which the consumer is woken

// `level` is learned from the first task that enters the session's cgroup, so that a cgroup namespace in between does not matter.
// The id is written before the first program is attached: verifying is slow, so it is done before the cgroup is there.
struct {
    s32 level;
    u32 serial;
    u64 session_id; // id of the session's cgroup
} shared = { SESSION_UNKNOWN, 0, 0 };

// The kernel runs a program once at a time on a CPU, does not move it to another meanwhile, and counts when it had to skip it. So what
// belongs to one program on one CPU belongs to nobody else, also where programs can be preempted by other tasks and thus by each other.
// A skipped program has a spare that stands behind it on the same tracepoint and takes what it left (see `handled`).
enum program {
    PROGRAM_ATTACH,
    PROGRAM_DEATH,
    PROGRAM_EXEC,
    PROGRAM_EXIT,
    PROGRAM_ENTER,
    PROGRAM_SUBMIT,
    PROGRAM_COMPLETE,
    PROGRAM_BIRTH,
    PROGRAM_SPARE, // the spare of each of these follows in the same order
    PROGRAM_ADDRESS = 2 * PROGRAM_SPARE,
    PROGRAMS,
};

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
    u16 flags;
    u16 handled; // bit of each program that did its work and whose spare was not there yet
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
    __uint(max_entries, PROGRAMS);
    __type(key, u32);
    __type(value, struct counters);
} counts SEC(".maps");

// Which processes serve tools: those that the driver started as servers, and all that these started. The driver enters a server before it
// has executed anything, births and deaths keep the rest, so that no process can leave by whatever it does to its parents, groups or
// sessions.
#define SERVERS 16385 // numbered from 1
#define SERVER_PROCESSES 32768

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

// Scratch: a record on its way out, and the path that is being walked for it.
struct out {
    union {
        struct record record;
        u8 bytes[OUT_BYTES];
    };
    u8 walk[PATH_BYTES + NAME_BYTES + 1];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, PROGRAMS);
    __type(key, u32);
    __type(value, struct out);
} outs SEC(".maps");

static __always_inline struct counters *counters(u32 program)
{
    return bpf_map_lookup_elem(&counts, &program);
}

// A length on its way to a helper or an index, at most `most`. The compiler may test one register and use another, or drop a test that
// an earlier one seems to make needless; only new verifiers follow that. Both barriers keep the test, and keep it about this register.
static __always_inline u64 bounded(u64 length, u64 most)
{
    asm volatile("" : "+r"(length));
    if (length > most)
        length = most;
    asm volatile("" : "+r"(length));
    return length;
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
    if (!server)
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

// Whether the work of this call is left for this copy of the program: always for the first, for its spare when the first was skipped.
static __always_inline bool left_for(u32 program, struct task_state *state)
{
    u16 bit = 1U << (program % PROGRAM_SPARE);
    if (program < PROGRAM_SPARE) {
        state->handled |= bit;
        return true;
    }
    if (state->handled & bit) {
        state->handled &= ~bit;
        return false;
    }
    return true;
}

// Scratch for one record, its header filled in but for the task's numbers.
static __always_inline struct out *blank(struct counters *counters, u32 program, u16 kind, u16 hook)
{
    struct out *out = bpf_map_lookup_elem(&outs, &program);
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
    record->marks = MARK_NO_STORAGE;
    record->serial = record->seq = 0;
    record->ret = 0;
    record->a = record->b = record->c = 0;
    return out;
}

// Scratch for the next record of a task.
static __always_inline struct out *begin(struct counters *counters, u32 program, struct task_state *state, u16 kind, u16 hook)
{
    struct out *out = blank(counters, program, kind, hook);
    if (!out)
        return 0;
    out->record.marks = 0;
    out->record.serial = state->serial;
    out->record.seq = ++state->seq;
    return out;
}

static __always_inline u64 wakeup(void)
{
    return bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > wake_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

// Sends the record. A refused one is counted, and leaves a gap in its task's sequence.
static __always_inline void commit(struct counters *counters, struct out *out)
{
    u64 size = bounded(out->record.size, OUT_BYTES);
    u16 hook = out->record.hook;
    if (hook >= HOOKS)
        return;
    if (bpf_ringbuf_output(&ring, out, size, wakeup())) {
        counters->dropped[hook]++;
    } else {
        counters->emitted[hook]++;
        counters->bytes += size;
    }
}

// A program and its spare: two copies of one body, which takes the tracepoint's arguments and the number of the copy.
#define PAIR(tracepoint, name, number)                       \
    SEC("tp_btf/" tracepoint)                                \
    int on_##name(u64 *arguments)                            \
    {                                                        \
        return do_##name(arguments, number);                 \
    }                                                        \
    SEC("tp_btf/" tracepoint)                                \
    int on_##name##_spare(u64 *arguments)                    \
    {                                                        \
        return do_##name(arguments, number + PROGRAM_SPARE); \
    }
