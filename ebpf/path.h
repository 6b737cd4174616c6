// Strings into records: walked from the kernel's own dentries and mounts, or copied from the program.
#pragma once

#include "state.h"

#define NAME_BYTES 255
#define MAX_COMPONENTS 2048
// MNT_NS_INTERNAL: mounts that only the kernel has (pipefs, sockfs, shm_mnt).
#define MNT_NS_INTERNAL ((u64)-22)

struct walk_buffer {
    u8 bytes[PATH_BYTES + NAME_BYTES + 1];
};

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, u32);
    __type(value, struct walk_buffer);
} walks SEC(".maps");

struct walk {
    struct walk_buffer *buffer;
    struct dentry *dentry;
    struct dentry *mount_root;
    struct mount *mount;
    u32 offset; // where the path begins; it is written from the end of the buffer backwards
    u32 state;
};

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
    return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

// One component, or one mount boundary; 1 ends the walk.
static long walk_step(u32 index, struct walk *walk)
{
    struct dentry *dentry = walk->dentry;
    if (dentry == walk->mount_root) {
        struct mount *mount = walk->mount;
        struct mount *parent = BPF_CORE_READ(mount, mnt_parent);
        if (parent == mount)
            return 1;
        walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
        walk->mount = parent;
        walk->mount_root = BPF_CORE_READ(parent, mnt.mnt_root);
        return 0;
    }
    struct dentry *parent = 0;
    struct qstr name = {};
    if (bpf_core_read(&parent, sizeof(parent), &dentry->d_parent) ||
        bpf_core_read(&name.hash_len, sizeof(name.hash_len), &dentry->d_name.hash_len) ||
        bpf_core_read(&name.name, sizeof(name.name), &dentry->d_name.name)) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    if (parent == dentry) { // the root of a tree that is mounted nowhere
        walk->state |= STATE_ANONYMOUS;
        return 1;
    }
    u32 length = name.hash_len >> 32;
    if (length > NAME_BYTES) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    u32 offset = walk->offset;
    if (offset > PATH_BYTES || offset < length + 1) {
        walk->state |= STATE_TRUNCATED;
        return 1;
    }
    offset -= length + 1;
    if (offset >= PATH_BYTES)
        return 1;
    walk->buffer->bytes[offset] = '/';
    if (bpf_probe_read_kernel(&walk->buffer->bytes[offset + 1], length, name.name)) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    walk->offset = offset;
    walk->dentry = parent;
    return 0;
}

static __always_inline struct segment *segment_at(struct out *out, u32 at, u8 kind)
{
    struct segment *segment = (void *)&out->bytes[at];
    segment->kind = kind;
    segment->state = 0;
    segment->length = 0;
    return segment;
}

static __always_inline void grow(struct counters *counters, struct out *out, u32 at, struct segment *segment, u32 length)
{
    segment->length = length;
    out->record.size = at + sizeof(struct segment) + length;
    if (segment->state & STATE_TRUNCATED)
        counters->truncated++;
    if (segment->state & (STATE_DETACHED | STATE_FOREIGN | STATE_FAULT))
        counters->unknown_state++;
}

// `fstype:name` for what has no path.
static __always_inline u32 anonymous_name(struct out *out, u32 at, struct dentry *dentry)
{
    u32 start = at + sizeof(struct segment);
    long type = bpf_probe_read_kernel_str(&out->bytes[start], 64, BPF_CORE_READ(dentry, d_sb, s_type, name));
    if (type < 1 || type > 64)
        return 0;
    u32 length = type;
    out->bytes[start + length - 1] = ':';
    long name = bpf_probe_read_kernel_str(&out->bytes[start + length], NAME_BYTES + 1, BPF_CORE_READ(dentry, d_name.name));
    return name < 1 || name > NAME_BYTES + 1 ? length : length + name - 1;
}

// Appends the absolute path of (mnt, dentry) as the kernel has it.
static __noinline int put_path(struct counters *counters, struct out *out, struct vfsmount *mnt, struct dentry *dentry, u8 kind)
{
    u32 zero = 0;
    struct walk_buffer *buffer = bpf_map_lookup_elem(&walks, &zero);
    if (!buffer) {
        counters->map_fail++;
        return 0;
    }
    u32 at = out->record.size;
    if (at > OUT_LAST)
        return 0;
    struct segment *segment = segment_at(out, at, kind);
    if (!mnt || !dentry) {
        segment->state = STATE_FAULT;
        grow(counters, out, at, segment, 0);
        return 0;
    }
    struct walk walk = { .buffer = buffer, .dentry = dentry, .mount = mount_of(mnt), .offset = PATH_BYTES };
    walk.mount_root = BPF_CORE_READ(mnt, mnt_root);
    if (dentry != walk.mount_root && !BPF_CORE_READ(dentry, d_hash.pprev) && BPF_CORE_READ(dentry, d_parent) != dentry)
        walk.state = STATE_DELETED;
    if (bpf_loop(MAX_COMPONENTS * 2, walk_step, &walk, 0) >= MAX_COMPONENTS * 2)
        walk.state |= STATE_TRUNCATED;

    struct mount *top = walk.mount;
    u64 space = (u64)BPF_CORE_READ(top, mnt_ns);
    struct task_struct *task = bpf_get_current_task_btf();
    if (space == MNT_NS_INTERNAL || walk.state & STATE_ANONYMOUS) {
        segment->state = STATE_ANONYMOUS;
        grow(counters, out, at, segment, anonymous_name(out, at, dentry));
        return 0;
    }
    if (!space)
        walk.state |= STATE_DETACHED;
    else if (space != (u64)BPF_CORE_READ(task, nsproxy, mnt_ns))
        walk.state |= STATE_FOREIGN;
    segment->state = walk.state;
    u32 offset = walk.offset;
    if (offset > PATH_BYTES)
        return 0;
    u32 length = PATH_BYTES - offset;
    if (length > PATH_BYTES)
        return 0;
    if (length && bpf_probe_read_kernel(&out->bytes[at + sizeof(struct segment)], length, &buffer->bytes[offset])) {
        counters->map_fail++;
        length = 0;
    }
    grow(counters, out, at, segment, length);
    return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, s32 fd)
{
    struct fdtable *table = BPF_CORE_READ(task, files, fdt);
    struct file *file = 0;
    if (fd < 0 || (u32)fd >= BPF_CORE_READ(table, max_fds))
        return 0;
    bpf_probe_read_kernel(&file, sizeof(file), BPF_CORE_READ(table, fd) + fd);
    return file;
}

static __always_inline void put_file(struct counters *counters, struct out *out, struct file *file, u8 kind)
{
    struct vfsmount *mnt = 0;
    struct dentry *dentry = 0;
    if (file) {
        mnt = BPF_CORE_READ(file, f_path.mnt);
        dentry = BPF_CORE_READ(file, f_path.dentry);
    }
    put_path(counters, out, mnt, dentry, kind);
}

// Directories that have no descriptor.
#define AT_CWD (-100)  // AT_FDCWD
#define AT_ROOT (-101) // ours: where an absolute string starts

// Where a string starts: the task's root for an absolute one (so a chroot shows), else its cwd or the directory of `dfd`.
static __noinline int put_base(struct counters *counters, struct out *out, s32 dfd, u8 kind)
{
    struct task_struct *task = bpf_get_current_task_btf();
    if (dfd == AT_ROOT)
        put_path(counters, out, BPF_CORE_READ(task, fs, root.mnt), BPF_CORE_READ(task, fs, root.dentry), kind);
    else if (dfd == AT_CWD)
        put_path(counters, out, BPF_CORE_READ(task, fs, pwd.mnt), BPF_CORE_READ(task, fs, pwd.dentry), kind);
    else
        put_file(counters, out, file_of(task, dfd), kind);
    return 0;
}

// Appends a NUL-ended string; true when it begins with a slash.
static __noinline bool put_string(struct counters *counters, struct out *out, const void *text, u8 kind, bool user)
{
    u32 at = out->record.size;
    if (at > OUT_LAST)
        return false;
    struct segment *segment = segment_at(out, at, kind);
    u8 *start = &out->bytes[at + sizeof(struct segment)];
    long length = user ? bpf_probe_read_user_str(start, PATH_BYTES + 1, text) : bpf_probe_read_kernel_str(start, PATH_BYTES + 1, text);
    if (length < 1 || length > PATH_BYTES + 1) {
        segment->state = STATE_FAULT;
        out->record.marks |= MARK_READ_FAULT;
        grow(counters, out, at, segment, 0);
        return true;
    }
    if (length == PATH_BYTES + 1)
        segment->state = STATE_TRUNCATED;
    grow(counters, out, at, segment, length - 1);
    return start[0] == '/';
}
