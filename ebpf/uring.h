// io_uring: requests never pass sys_enter. The kernel's own copy of the path is read from the request.
#pragma once

#include "path.h"

enum {
    OP_OPENAT = 18,
    OP_OPENAT2 = 28,
    OP_RENAMEAT = 35,
    OP_UNLINKAT = 36,
    OP_MKDIRAT = 37,
    OP_SYMLINKAT = 38,
    OP_LINKAT = 39,
};

// The kernel's copy of the name that `command` holds in `member`, by either layout of it. Where a kernel has neither, the program is refused.
#define NAME(command, type, member)                                                                                         \
    name_at((void *)(command) + (bpf_core_field_exists(struct type##___delayed, member)                                     \
                                     ? bpf_core_field_offset(struct type##___delayed, member) +                             \
                                           bpf_core_field_offset(struct delayed_filename, __incomplete_filename)            \
                                     : bpf_core_field_offset(struct type, member)))

static __always_inline u64 name_at(void *member)
{
    struct filename *name = 0;
    bpf_probe_read_kernel(&name, sizeof(name), member);
    return (u64)BPF_CORE_READ(name, name);
}

static __always_inline void put_name(struct counters *counters_, struct out *out, u64 text, s32 dfd, bool second)
{
    bool absolute = put_string(counters_, out, text, second ? SEGMENT_REQUESTED2 : SEGMENT_REQUESTED, false);
    put_base(counters_, out, absolute ? AT_ROOT : dfd, second ? SEGMENT_BASE2 : SEGMENT_BASE);
}

static __always_inline int do_submit(u64 *arguments, u32 program)
{
    struct io_kiocb *request = (void *)arguments[0];
    if (!in_session())
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_state *state = task_of(bpf_get_current_task_btf(), counters_);
    if (!state || !left_for(program, state))
        return 0;
    struct out *out = begin(counters_, program, state, RECORD_URING_SUBMIT, HOOK_URING);
    if (!out)
        return 0;
    struct record *record = &out->record;
    u8 opcode = request->opcode;
    record->nr = opcode;
    record->a = (u64)request;
    // The request's command begins where its file pointer stands.
    void *command = (void *)request + bpf_core_field_offset(struct io_kiocb, file);
    if (opcode == OP_OPENAT || opcode == OP_OPENAT2) {
        struct io_open *open = command;
        record->b = BPF_CORE_READ(open, how.flags);
        record->c = BPF_CORE_READ(open, how.mode);
        put_name(counters_, out, NAME(open, io_open, filename), BPF_CORE_READ(open, dfd), false);
    } else if (opcode == OP_UNLINKAT) {
        struct io_unlink *unlink = command;
        record->b = BPF_CORE_READ(unlink, flags);
        put_name(counters_, out, NAME(unlink, io_unlink, filename), BPF_CORE_READ(unlink, dfd), false);
    } else if (opcode == OP_MKDIRAT) {
        struct io_mkdir *mkdir = command;
        record->c = BPF_CORE_READ(mkdir, mode);
        put_name(counters_, out, NAME(mkdir, io_mkdir, filename), BPF_CORE_READ(mkdir, dfd), false);
    } else if (opcode == OP_RENAMEAT) {
        struct io_rename *rename = command;
        record->b = BPF_CORE_READ(rename, flags);
        put_name(counters_, out, NAME(rename, io_rename, oldpath), BPF_CORE_READ(rename, old_dfd), false);
        put_name(counters_, out, NAME(rename, io_rename, newpath), BPF_CORE_READ(rename, new_dfd), true);
    } else if (opcode == OP_LINKAT) {
        struct io_link *link = command;
        record->b = BPF_CORE_READ(link, flags);
        put_name(counters_, out, NAME(link, io_link, oldpath), BPF_CORE_READ(link, old_dfd), false);
        put_name(counters_, out, NAME(link, io_link, newpath), BPF_CORE_READ(link, new_dfd), true);
    } else if (opcode == OP_SYMLINKAT) {
        struct io_link *link = command;
        put_string(counters_, out, NAME(link, io_link, oldpath), SEGMENT_REQUESTED2, false);
        put_name(counters_, out, NAME(link, io_link, newpath), BPF_CORE_READ(link, new_dfd), false);
    }
    commit(counters_, out);
    return 0;
}

// io_uring_submit_sqe before 6.4. The loader takes the tracepoint that the kernel has.
PAIR("io_uring_submit_req", submit, PROGRAM_SUBMIT)

static __always_inline int complete(u32 program, u64 request, s32 result)
{
    if (!request || !in_session())
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_state *state = task_of(bpf_get_current_task_btf(), counters_);
    if (!state || !left_for(program, state))
        return 0;
    struct out *out = begin(counters_, program, state, RECORD_URING_COMPLETE, HOOK_URING);
    if (!out)
        return 0;
    out->record.a = request;
    out->record.ret = result;
    commit(counters_, out);
    return 0;
}

// The tracepoint's arguments differ: (context, request, entry) on newer kernels, (context, request, user_data, result, …) on older ones.
// The loader chooses by the types in the kernel's BTF. `entry` is read as what its type says, so that a kernel refuses the wrong choice:
// where it gives user_data instead, that is a number that the measured program chose, never to be followed.
static __always_inline int do_complete(u64 *arguments, u32 program)
{
    struct io_uring_cqe *entry = (void *)arguments[2];
    return complete(program, arguments[1], entry->res);
}

PAIR("io_uring_complete", complete, PROGRAM_COMPLETE)

static __always_inline int do_complete_scalars(u64 *arguments, u32 program)
{
    return complete(program, arguments[1], arguments[3]);
}

PAIR("io_uring_complete", complete_scalars, PROGRAM_COMPLETE)
