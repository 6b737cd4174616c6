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
    u32 number = *server;
    if (bpf_map_update_elem(&servers, &child, &number, BPF_ANY))
        counters_->map_fail++;
}

static __always_inline int do_birth(u64 *arguments, u32 program)
{
    struct task_struct *child = (void *)arguments[0];
    u64 clone_flags = arguments[1];
    struct cgroup *cgroup = child->cgroups->dfl_cgrp;
    bool inside = under_session(cgroup);
    bool parent_inside = in_session();
    if (!inside && !parent_inside)
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_state *parent = parent_inside ? known_task(bpf_get_current_task_btf()) : 0;
    struct task_state *state = inside ? task_of(child, counters_) : parent;
    if (!state || !left_for(program, state))
        return 0;
    counters_->births++;
    u32 parent_serial = parent ? parent->serial : 0;
    struct out *out;
    if (inside) {
        state->flags |= TASK_BORN;
        if (!(clone_flags & CLONE_THREAD))
            inherit_server(counters_, bpf_get_current_pid_tgid() >> 32, child->tgid);
        out = begin(counters_, program, state, RECORD_BIRTH, HOOK_BIRTH);
    } else {
        out = blank(counters_, program, RECORD_BIRTH, HOOK_BIRTH); // a task that is none of ours gets no numbers
    }
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

PAIR("task_newtask", birth, PROGRAM_BIRTH)

static __always_inline int do_exec(u64 *arguments, u32 program)
{
    struct task_struct *task = (void *)arguments[0];
    u32 old_pid = arguments[1];
    struct linux_binprm *bprm = (void *)arguments[2];
    if (!in_session())
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_state *state = task_of(task, counters_);
    if (!state || !left_for(program, state))
        return 0;
    struct out *out = begin(counters_, program, state, RECORD_EXEC, HOOK_EXEC);
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
    out->record.a = old_pid;
    commit(counters_, out);
    return 0;
}

PAIR("sched_process_exec", exec, PROGRAM_EXEC)

static __always_inline int do_death(u64 *arguments, u32 program)
{
    struct task_struct *task = (void *)arguments[0];
    struct counters *counters_;
    struct task_state *state = known_task(task);
    if (!state && !in_session())
        return 0;
    counters_ = counters(program);
    if (!counters_)
        return 0;
    if (!state)
        state = task_of(task, counters_);
    if (!state || !left_for(program, state))
        return 0;
    counters_->deaths++;
    struct out *out = begin(counters_, program, state, RECORD_EXIT, HOOK_EXIT);
    if (!out)
        return 0;
    // With its last thread, before the number can be another process's.
    u32 pid = task->tgid;
    if (!task->signal->live.counter)
        bpf_map_delete_elem(&servers, &pid);
    struct record *record = &out->record;
    record->ret = task->exit_code;
    record->nr = state->nr;
    record->a = state->enters;
    record->b = state->exits;
    if (state->flags & TASK_IN_SYSCALL)
        record->marks |= MARK_IN_SYSCALL;
    commit(counters_, out);
    return 0;
}

PAIR("sched_process_exit", death, PROGRAM_DEATH)

static __always_inline int do_attach(u64 *arguments, u32 program)
{
    struct cgroup *destination = (void *)arguments[0];
    struct task_struct *task = (void *)arguments[2];
    bool threadgroup = arguments[3];
    struct task_state *state = known_task(task);
    // Groups of other hierarchies only limit, and their ids may be those of ours.
    if (BPF_CORE_READ(destination, root, hierarchy_id))
        return 0;
    bool inside = under_session(destination);
    if (!state && !inside)
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    bool joined = !state;
    if (joined)
        state = task_of(task, counters_);
    if (!state || !left_for(program, state))
        return 0;
    if (joined)
        state->flags |= TASK_JOINED;
    struct out *out = begin(counters_, program, state, RECORD_ATTACH, HOOK_ATTACH);
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

PAIR("cgroup_attach_task", attach, PROGRAM_ATTACH)
