// Addresses as the kernel itself copied them: what a syscall's own argument says can be changed under it, these can not. They also see
// what io_uring connects and sends to. These programs can be preempted, so they reserve in the ring instead of using the CPU's scratch.
#pragma once

#include "state.h"

enum address_kind {
    ADDRESS_CONNECT = 1,
    ADDRESS_BIND = 2,
    ADDRESS_SENDMSG = 3,
};

static __always_inline int address(struct bpf_sock_addr *context, u64 kind, u64 family)
{
    struct counters *counters_ = counters(PROGRAM_ADDRESS);
    if (!counters_)
        return 1;
    struct record *record = bpf_ringbuf_reserve(&ring, sizeof(struct record), 0);
    if (!record) {
        __sync_fetch_and_add(&counters_->dropped[HOOK_ADDRESS], 1);
        return 1;
    }
    u64 ids = bpf_get_current_pid_tgid();
    record->size = sizeof(struct record);
    record->kind = RECORD_ADDRESS;
    record->hook = HOOK_ADDRESS;
    record->time_ns = bpf_ktime_get_ns();
    record->cgroup_id = bpf_get_current_cgroup_id();
    record->call = call_of(ids >> 32);
    record->pid = ids >> 32;
    record->tid = ids;
    record->serial = record->seq = 0; // task storage is not to be had here; the thread id joins it to its task
    record->nr = kind;
    record->marks = 0;
    record->ret = bpf_ntohs((u16)context->user_port);
    record->a = family;
    record->b = record->c = 0;
    if (family == 4) {
        record->b = context->user_ip4;
    } else {
        u32 w0 = context->user_ip6[0], w1 = context->user_ip6[1], w2 = context->user_ip6[2], w3 = context->user_ip6[3];
        record->b = (u64)w1 << 32 | w0;
        record->c = (u64)w3 << 32 | w2;
    }
    bpf_ringbuf_submit(record, wakeup());
    __sync_fetch_and_add(&counters_->emitted[HOOK_ADDRESS], 1);
    __sync_fetch_and_add(&counters_->bytes, sizeof(struct record));
    return 1;
}

#define ADDRESS_PROGRAM(section, name, kind, family) \
    SEC(section)                                     \
    int name(struct bpf_sock_addr *context)          \
    {                                                \
        return address(context, kind, family);       \
    }

ADDRESS_PROGRAM("cgroup/connect4", on_connect4, ADDRESS_CONNECT, 4)
ADDRESS_PROGRAM("cgroup/connect6", on_connect6, ADDRESS_CONNECT, 6)
ADDRESS_PROGRAM("cgroup/bind4", on_bind4, ADDRESS_BIND, 4)
ADDRESS_PROGRAM("cgroup/bind6", on_bind6, ADDRESS_BIND, 6)
ADDRESS_PROGRAM("cgroup/sendmsg4", on_sendmsg4, ADDRESS_SENDMSG, 4)
ADDRESS_PROGRAM("cgroup/sendmsg6", on_sendmsg6, ADDRESS_SENDMSG, 6)
