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

static __always_inline void put_name(struct counters *counters_, struct out *out, struct filename *name, s32 dfd, bool second)
{
    bool absolute = put_string(counters_, out, (u64)BPF_CORE_READ(name, name), second ? SEGMENT_REQUESTED2 : SEGMENT_REQUESTED, false);
    put_base(counters_, out, absolute ? AT_ROOT : dfd, second ? SEGMENT_BASE2 : SEGMENT_BASE);
}

static __always_inline int submit(struct io_kiocb *request)
{
    if (!in_session())
        return 0;
    struct counters *counters_ = counters();
    if (!counters_)
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    struct out *out = begin(counters_, task_of(task, counters_), RECORD_URING_SUBMIT, HOOK_URING);
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
        put_name(counters_, out, BPF_CORE_READ(open, filename), BPF_CORE_READ(open, dfd), false);
    } else if (opcode == OP_UNLINKAT) {
        struct io_unlink *unlink = command;
        record->b = BPF_CORE_READ(unlink, flags);
        put_name(counters_, out, BPF_CORE_READ(unlink, filename), BPF_CORE_READ(unlink, dfd), false);
    } else if (opcode == OP_MKDIRAT) {
        struct io_mkdir *mkdir = command;
        record->c = BPF_CORE_READ(mkdir, mode);
        put_name(counters_, out, BPF_CORE_READ(mkdir, filename), BPF_CORE_READ(mkdir, dfd), false);
    } else if (opcode == OP_RENAMEAT) {
        struct io_rename *rename = command;
        record->b = BPF_CORE_READ(rename, flags);
        put_name(counters_, out, BPF_CORE_READ(rename, oldpath), BPF_CORE_READ(rename, old_dfd), false);
        put_name(counters_, out, BPF_CORE_READ(rename, newpath), BPF_CORE_READ(rename, new_dfd), true);
    } else if (opcode == OP_LINKAT) {
        struct io_link *link = command;
        record->b = BPF_CORE_READ(link, flags);
        put_name(counters_, out, BPF_CORE_READ(link, oldpath), BPF_CORE_READ(link, old_dfd), false);
        put_name(counters_, out, BPF_CORE_READ(link, newpath), BPF_CORE_READ(link, new_dfd), true);
    } else if (opcode == OP_SYMLINKAT) {
        struct io_link *link = command;
        put_string(counters_, out, (u64)BPF_CORE_READ(link, oldpath, name), SEGMENT_REQUESTED2, false);
        put_name(counters_, out, BPF_CORE_READ(link, newpath), BPF_CORE_READ(link, new_dfd), false);
    }
    commit(counters_, out);
    return 0;
}

// Since 6.4 the tracepoint is io_uring_submit_req; before, io_uring_submit_sqe. The loader takes the one that the kernel has.
SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(on_submit, struct io_kiocb *request)
{
    return submit(request);
}

static __always_inline int complete(u64 request, s32 result)
{
    if (!request || !in_session())
        return 0;
    struct counters *counters_ = counters();
    if (!counters_)
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    struct out *out = begin(counters_, task_of(task, counters_), RECORD_URING_COMPLETE, HOOK_URING);
    if (!out)
        return 0;
    out->record.a = request;
    out->record.ret = result;
    commit(counters_, out);
    return 0;
}

// (context, request, cqe) on newer kernels; (context, request, user_data, result, ...) on older ones. The loader takes the one that fits.
SEC("tp_btf/io_uring_complete")
int BPF_PROG(on_complete, void *context, void *request, struct io_uring_cqe *cqe)
{
    return complete((u64)request, BPF_CORE_READ(cqe, res));
}

SEC("tp_btf/io_uring_complete")
int BPF_PROG(on_complete_scalars, void *context, void *request, u64 user_data, int result)
{
    return complete((u64)request, result);
}
