// The programs: everything that the tasks of one cgroup do to files, addresses, processes and io_uring, one record each.
//
// The kernel never returns early on what it does not expect: a syscall that ends without having begun, a string that cannot be read, a
// descriptor that is gone are records too, and whatever cannot become a record is counted.

#include "path.h"
#include "syscalls.h"
#include "registers.h"

#define FAULT (-14)
#define AF_INET 2
#define AF_INET6 10
#define MAX_ADDRESS 128
#define MAX_MESSAGES 1024

static __always_inline u64 argument(struct task_state *state, s8 index)
{
    return index < 0 ? 0 : state->args[index & 7];
}

// Keeps the beginning of a string as it was at entry, to compare with what stands there at exit.
static __always_inline void remember(struct task_state *state, u32 which, const void *text)
{
    state->prefix_length[which & 1] = user_string(state->prefix[which & 1], PREFIX_BYTES, text);
}

static __always_inline int do_enter(u64 *arguments, u32 program)
{
    struct pt_regs *regs = (void *)arguments[0];
    long nr = arguments[1];
    if (!in_session())
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    struct task_state *state = task_of(task, counters_);
    if (!state || !left_for(program, state))
        return 0;
    counters_->enters++;
    state->enters++;
    if (state->flags & TASK_IN_SYSCALL) {
        struct out *out = begin(counters_, program, state, RECORD_ENTER_TWICE, HOOK_ANOMALY);
        if (out) {
            out->record.nr = state->nr;
            out->record.a = nr;
            commit(counters_, out);
        }
    }
    state->flags |= TASK_IN_SYSCALL;
    state->nr = nr;
    u32 foreign = foreign_abi(task, regs, nr);
    if (foreign) {
        struct out *out = begin(counters_, program, state, RECORD_FOREIGN, HOOK_ANOMALY);
        if (out) {
            out->record.nr = nr;
            out->record.marks |= foreign;
            commit(counters_, out);
        }
        state->nr = -1;
        return 0;
    }
    if (nr < 0 || nr >= SYSCALLS)
        return 0;
    const struct descriptor *descriptor = &descriptors[nr];
    u8 class = descriptor->class;
    if (class == CLASS_NONE)
        return 0;
    read_arguments(state->args, regs);
    state->prefix_length[0] = state->prefix_length[1] = 0;
    if (class == CLASS_OPEN || class == CLASS_PATH) {
        if (descriptor->path >= 0)
            remember(state, 0, (void *)argument(state, descriptor->path));
        if (descriptor->path2 >= 0)
            remember(state, 1, (void *)argument(state, descriptor->path2));
    }
    return 0;
}

PAIR("sys_enter", enter, PROGRAM_ENTER)

// Whether the first `length` bytes differ; what follows a string's end is old.
static __always_inline bool differs(const u8 *before, const u8 *now, u32 length)
{
    u64 difference = 0;
    for (u32 i = 0; i < PREFIX_BYTES / 8; i++) {
        u32 offset = i * 8;
        if (offset >= length)
            break;
        u64 word = *(const u64 *)&before[offset] ^ *(const u64 *)&now[offset];
        u32 left = length - offset;
        difference |= left < 8 ? word << (64 - left * 8) : word;
    }
    return difference;
}

// Appends the program's string: as it is now (at exit), or as it was at entry when it cannot be read any more.
int put_argument(struct counters *counters_, struct out *out, struct task_state *state, u32 which, u64 text)
{
    if (!counters_ || !out || !state)
        return 0;
    which &= 1;
    u8 kind = which ? SEGMENT_REQUESTED2 : SEGMENT_REQUESTED;
    u32 at = out->record.size;
    u32 before_marks = out->record.marks;
    bool absolute = put_string(counters_, out, text, kind, true);
    s32 length = state->prefix_length[which];
    if (at > OUT_LAST)
        return absolute;
    struct segment *segment = (void *)&out->bytes[at];
    u8 *now = &out->bytes[at + sizeof(struct segment)];
    if (segment->state & STATE_FAULT) {
        if (length > 0 && length < PREFIX_BYTES) {
            out->record.marks = before_marks;
            segment->state = 0;
            bpf_probe_read_kernel(now, bounded(length, PREFIX_BYTES), state->prefix[which]);
            segment->length = length - 1;
            out->record.size = at + sizeof(struct segment) + length - 1;
            return length > 1 && now[0] == '/';
        }
        return absolute;
    }
    if (length < 1 || length > PREFIX_BYTES)
        return absolute;
    if (differs(state->prefix[which], now, length - 1) || (length < PREFIX_BYTES && segment->length != length - 1))
        out->record.marks |= MARK_TOCTOU;
    return absolute;
}

static __always_inline void put_resolved(struct counters *counters_, struct out *out, struct task_state *state, s8 dfd, s8 path,
                                         u32 which)
{
    bool absolute = put_argument(counters_, out, state, which, argument(state, path));
    if (dfd == TEXT)
        return;
    put_base(counters_, out, absolute ? AT_ROOT : dfd == CWD ? AT_CWD : (s32)argument(state, dfd), which ? SEGMENT_BASE2 : SEGMENT_BASE);
}

static __noinline int path_record(struct counters *counters_, u32 program, struct task_state *state,
                                  const struct descriptor *descriptor, s64 ret)
{
    struct task_struct *task = bpf_get_current_task_btf();
    struct out *out = begin(counters_, program, state, RECORD_SYSCALL, descriptor->hook);
    if (!out)
        return 0;
    struct record *record = &out->record;
    record->nr = state->nr;
    record->ret = ret;
    record->a = argument(state, descriptor->a);
    record->b = argument(state, descriptor->b);
    record->c = argument(state, descriptor->c);
    u8 class = descriptor->class;
    if (class == CLASS_OPEN) {
        if (state->nr == NR_openat2) {
            struct open_how how = {};
            if (bpf_probe_read_user(&how, sizeof(how), (void *)state->args[2]))
                record->marks |= MARK_READ_FAULT;
            record->a = how.flags;
            record->b = how.mode;
            record->c = how.resolve;
        }
        if (task->files->count.counter > 1)
            record->marks |= MARK_SHARED_FDS;
        if (ret >= 0) {
            struct file *file = file_of(task, ret);
            if (!file)
                record->marks |= MARK_FD_GONE;
            put_file(counters_, out, file, SEGMENT_FILE);
        }
        if (descriptor->path >= 0) {
            if (ret >= 0)
                put_argument(counters_, out, state, 0, argument(state, descriptor->path));
            else
                put_resolved(counters_, out, state, descriptor->dfd, descriptor->path, 0);
        }
    } else if (class == CLASS_FD) {
        put_file(counters_, out, file_of(task, state->args[0]), SEGMENT_FILE);
        if (descriptor->path2 >= 0)
            put_argument(counters_, out, state, 1, argument(state, descriptor->path2));
    } else if (descriptor->dfd >= 0 && !argument(state, descriptor->path)) {
        // No string at all: the descriptor itself is meant (utimensat and those that take AT_EMPTY_PATH).
        put_file(counters_, out, file_of(task, argument(state, descriptor->dfd)), SEGMENT_FILE);
        if (descriptor->path2 >= 0 && descriptor->dfd2 == TEXT)
            put_argument(counters_, out, state, 1, argument(state, descriptor->path2));
    } else {
        put_resolved(counters_, out, state, descriptor->dfd, descriptor->path, 0);
        if (descriptor->path2 >= 0)
            put_resolved(counters_, out, state, descriptor->dfd2, descriptor->path2, 1);
    }
    // What the kernel itself could not read is no fault of the capture.
    if (record->marks & MARK_READ_FAULT && ret != FAULT)
        counters_->read_fault++;
    commit(counters_, out);
    return 0;
}

struct address_call {
    u64 address;
    s64 ret;
    u32 length;
    u32 hook;
};

static __noinline int address_record(struct counters *counters_, u32 program, struct task_state *state, const struct address_call *call)
{
    u32 hook = call->hook, length = call->length;
    u64 address = call->address;
    s64 ret = call->ret;
    bool sendto = hook == HOOK_SENDTO, sendmsg = hook == HOOK_SENDMSG;
    if (!address || !length) {
        if (sendto)
            counters_->sendto_no_peer++;
        else if (sendmsg)
            counters_->sendmsg_no_peer++;
        if (sendto || sendmsg)
            return 0;
    }
    u8 raw[MAX_ADDRESS] = {};
    length = bounded(length, MAX_ADDRESS);
    bool fault = bpf_probe_read_user(raw, length, (void *)address);
    u16 family = *(u16 *)raw;
    if (!fault && family != AF_INET && family != AF_INET6) {
        if (sendto)
            counters_->sendto_non_ip++;
        else if (sendmsg)
            counters_->sendmsg_non_ip++;
        hook = HOOK_OTHER_FAMILY;
    }
    struct out *out = begin(counters_, program, state, RECORD_SYSCALL, hook);
    if (!out)
        return 0;
    out->record.nr = state->nr;
    out->record.ret = ret;
    out->record.a = state->nr == NR_sendto ? state->args[3] : 0;
    if (fault) {
        out->record.marks |= MARK_READ_FAULT;
        if (ret != FAULT)
            counters_->read_fault++;
    }
    struct segment *segment = segment_at(out, sizeof(struct record), SEGMENT_ADDRESS);
    segment->state = fault ? STATE_FAULT : 0;
    __builtin_memcpy(&out->bytes[sizeof(struct record) + sizeof(struct segment)], raw, MAX_ADDRESS);
    segment->length = fault ? 0 : length;
    out->record.size = sizeof(struct record) + sizeof(struct segment) + segment->length;
    commit(counters_, out);
    return 0;
}

// The user's struct msghdr; its name and namelen are all that is read.
struct user_message {
    u64 name;
    u32 name_length;
    u32 pad[11];
};

struct user_messages {
    struct user_message message;
    u64 length;
};

struct message_walk {
    struct counters *counters_;
    struct task_state *state;
    u32 program;
    u64 vector;
    s64 ret;
};

static long one_message(u32 index, struct message_walk *walk)
{
    struct user_message message = {};
    bpf_probe_read_user(&message, 16, (void *)walk->vector + (u64)index * sizeof(struct user_messages));
    struct address_call call = { message.name, walk->ret, message.name_length, HOOK_SENDMSG };
    address_record(walk->counters_, walk->program, walk->state, &call);
    return 0;
}

static __always_inline void message_records(struct counters *counters_, u32 program, struct task_state *state, u8 class, s64 ret)
{
    if (class == CLASS_MESSAGE) {
        struct user_message message = {};
        if (bpf_probe_read_user(&message, 16, (void *)state->args[1]) && ret != FAULT)
            counters_->read_fault++;
        struct address_call call = { message.name, ret, message.name_length, HOOK_SENDMSG };
        address_record(counters_, program, state, &call);
    } else {
        struct message_walk walk = { counters_, state, program, state->args[1], ret < 0 ? ret : 0 };
        u32 sent = ret < 0 ? 1 : ret > MAX_MESSAGES ? MAX_MESSAGES : ret;
        bpf_loop(sent, one_message, &walk, 0);
    }
}

static __always_inline int do_exit(u64 *arguments, u32 program)
{
    struct pt_regs *regs = (void *)arguments[0];
    s64 ret = arguments[1];
    if (!in_session())
        return 0;
    struct counters *counters_ = counters(program);
    if (!counters_)
        return 0;
    struct task_state *state = task_of(bpf_get_current_task_btf(), counters_);
    if (!state || !left_for(program, state))
        return 0;
    counters_->exits++;
    state->exits++;
    if (!(state->flags & TASK_IN_SYSCALL)) {
        // A task that was just born or moved in returns from the call that made it so.
        if (state->flags & (TASK_BORN | TASK_JOINED) && state->enters == 0 && state->exits == 1)
            return 0;
        struct out *out = begin(counters_, program, state, RECORD_EXIT_ONLY, HOOK_ANOMALY);
        if (out) {
            out->record.nr = number_at_exit(regs);
            out->record.ret = ret;
            out->record.a = first_at_exit(regs);
            out->record.b = second_argument(regs);
            out->record.c = third_argument(regs);
            commit(counters_, out);
        }
        return 0;
    }
    state->flags &= ~TASK_IN_SYSCALL;
    s32 nr = state->nr;
    if (nr < 0 || nr >= SYSCALLS)
        return 0;
    const struct descriptor *descriptor = &descriptors[nr];
    switch (descriptor->class) {
    case CLASS_NONE:
        break;
    case CLASS_OPEN:
    case CLASS_PATH:
    case CLASS_FD:
        // A successful exec has its record already: its strings are gone with the old image.
        if ((nr == NR_execve || nr == NR_execveat) && ret == 0)
            break;
        path_record(counters_, program, state, descriptor, ret);
        break;
    case CLASS_ADDRESS: {
        struct address_call call = { argument(state, descriptor->path), ret, argument(state, descriptor->path2), descriptor->hook };
        address_record(counters_, program, state, &call);
        break;
    }
    case CLASS_MESSAGE:
    case CLASS_MESSAGES:
        message_records(counters_, program, state, descriptor->class, ret);
        break;
    default: {
        struct out *out = begin(counters_, program, state, RECORD_SYSCALL, descriptor->hook);
        if (!out)
            break;
        out->record.nr = nr;
        out->record.ret = ret;
        out->record.a = state->args[0];
        out->record.b = state->args[1];
        out->record.c = state->args[2];
        commit(counters_, out);
    }
    }
    return 0;
}

PAIR("sys_exit", exit, PROGRAM_EXIT)

#include "tasks.h"
#include "uring.h"
#include "sockets.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";
