// Birth, new image, death and movement of tasks.
#pragma once

#include "path.h"

#define CLONE_THREAD 0x00010000

// A process is born where the one that made it serves.
static __always_inline void inherit_server(struct counters *counters_, u32 parent, u32 child)
{
    u32 *server = bpf_map_lookup_elem(&servers, &parent);
    if (!server)
        return;
    u32 number = *server & ~SERVER_PROXY;
    if (bpf_map_update_elem(&servers, &child, &number, BPF_ANY))
        counters_->map_fail++;
}

SEC("tp_btf/task_newtask")
int BPF_PROG(on_birth, struct task_struct *child, u64 clone_flags)
{
    struct cgroup *cgroup = child->cgroups->dfl_cgrp;
    bool inside = under_session(cgroup);
    bool parent_inside = in_session();
    if (!inside && !parent_inside)
        return 0;
    struct counters *counters_ = counters();
    if (!counters_)
        return 0;
    counters_->births++;
    struct task_state *state = 0;
    if (inside) {
        state = task_of(child, counters_);
        if (state)
            state->flags |= TASK_BORN;
        if (!(clone_flags & CLONE_THREAD))
            inherit_server(counters_, bpf_get_current_pid_tgid() >> 32, child->tgid);
    }
    struct task_state *parent = parent_inside ? known_task(bpf_get_current_task_btf()) : 0;
    u32 parent_serial = parent ? parent->serial : 0;
    struct out *out = begin(counters_, state, RECORD_BIRTH, HOOK_BIRTH);
    if (!out)
        return 0;
    struct record *record = &out->record;
    record->a = clone_flags;
    record->b = (u64)record->pid << 32 | record->tid;
    record->c = parent_serial;
    record->pid = child->tgid;
    record->tid = child->pid;
    record->cgroup_id = cgroup_id_of(cgroup);
    if (!inside)
        record->marks |= MARK_OUTSIDE;
    if (!parent_inside)
        record->marks |= MARK_ROOT;
    commit(counters_, out);
    return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
    if (!in_session())
        return 0;
    struct counters *counters_ = counters();
    if (!counters_)
        return 0;
    struct out *out = begin(counters_, task_of(task, counters_), RECORD_EXEC, HOOK_EXEC);
    if (!out)
        return 0;
    put_file(counters_, out, task->mm->exe_file, SEGMENT_FILE);
    const char *filename = BPF_CORE_READ(bprm, filename), *interp = BPF_CORE_READ(bprm, interp);
    bool absolute = put_string(counters_, out, (u64)filename, SEGMENT_REQUESTED, false);
    if (!absolute)
        put_base(counters_, out, AT_CWD, SEGMENT_BASE);
    if (interp != filename) {
        out->record.marks |= MARK_SCRIPT;
        put_string(counters_, out, (u64)interp, SEGMENT_INTERPRETER, false);
    }
    out->record.a = (u32)old_pid;
    commit(counters_, out);
    return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_death, struct task_struct *task)
{
    struct counters *counters_;
    struct task_state *state = known_task(task);
    if (!state && !in_session())
        return 0;
    counters_ = counters();
    if (!counters_)
        return 0;
    counters_->deaths++;
    if (!state)
        state = task_of(task, counters_);
    struct out *out = begin(counters_, state, RECORD_EXIT, HOOK_EXIT);
    if (!out)
        return 0;
    // With its last thread, before the number can be another process's.
    u32 pid = task->tgid;
    if (!task->signal->live.counter)
        bpf_map_delete_elem(&servers, &pid);
    struct record *record = &out->record;
    record->ret = task->exit_code;
    if (state) {
        record->nr = state->nr;
        record->a = state->enters;
        record->b = state->exits;
        if (state->flags & TASK_IN_SYSCALL)
            record->marks |= MARK_IN_SYSCALL;
    }
    commit(counters_, out);
    return 0;
}

SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_attach, struct cgroup *destination, const char *path, struct task_struct *task, bool threadgroup)
{
    struct task_state *state = known_task(task);
    bool inside = under_session(destination);
    if (!state && !inside)
        return 0;
    struct counters *counters_ = counters();
    if (!counters_)
        return 0;
    bool joined = !state;
    if (joined) {
        state = task_of(task, counters_);
        if (state)
            state->flags |= TASK_JOINED;
    }
    struct out *out = begin(counters_, state, RECORD_ATTACH, HOOK_ATTACH);
    if (!out)
        return 0;
    struct record *record = &out->record;
    struct task_struct *mover = bpf_get_current_task_btf();
    record->a = (u64)record->pid << 32 | record->tid;
    record->b = (u64)mover->real_parent->tgid << 32 | threadgroup;
    record->c = joined;
    record->pid = task->tgid;
    record->tid = task->pid;
    record->cgroup_id = cgroup_id_of(destination);
    if (!inside)
        record->marks |= MARK_OUTSIDE;
    commit(counters_, out);
    return 0;
}
