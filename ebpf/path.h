// Strings into records: walked from the kernel's own dentries and mounts, or copied from the program.
//
// What has no `static` here is verified by the kernel once and by itself, not again at each of its calls: that is what
// most of the time of loading would go to. Such a function takes kernel pointers as plain numbers.
#pragma once

#include "state.h"

#define MAX_COMPONENTS 2048
// MNT_NS_INTERNAL: mounts that only the kernel has (pipefs, sockfs, shm_mnt).
#define MNT_NS_INTERNAL ((u64)-22)

struct walk {
    struct out *out;
    struct dentry *dentry;
    struct mount *mount;
    struct dentry *mount_root;
    struct dentry *mountpoint;
    struct mount *parent;
    u32 offset; // where the path begins; it is written from the end of the buffer backwards
    u32 state;
};

// Reading the kernel is what a walk costs, so neighbours are read together where they are neighbours; load-time constants decide.
struct dentry_facts {
    void *hashed; // NULL when no directory lists it any more
    struct dentry *parent;
    u64 hash_length;
    const unsigned char *name;
};

static __always_inline bool read_dentry(struct dentry_facts *facts, struct dentry *dentry)
{
    u64 hashed = bpf_core_field_offset(struct dentry, d_hash) + bpf_core_field_offset(struct hlist_bl_node, pprev);
    u64 parent = bpf_core_field_offset(struct dentry, d_parent);
    u64 name = bpf_core_field_offset(struct dentry, d_name);
    if (parent == hashed + 8 && name == hashed + 16)
        return !bpf_probe_read_kernel(facts, sizeof(*facts), (void *)dentry + hashed);
    return !bpf_probe_read_kernel(&facts->hashed, 8, (void *)dentry + hashed) &&
           !bpf_probe_read_kernel(&facts->parent, 8, (void *)dentry + parent) &&
           !bpf_probe_read_kernel(&facts->hash_length, 16, (void *)dentry + name);
}

struct mount_facts {
    struct mount *parent;
    struct dentry *mountpoint;
    struct dentry *root;
};

static __always_inline struct mount *mount_of(struct vfsmount *mnt)
{
    return (void *)mnt - bpf_core_field_offset(struct mount, mnt);
}

static __always_inline bool read_mount(struct walk *walk, struct mount *mount)
{
    u64 parent = bpf_core_field_offset(struct mount, mnt_parent);
    u64 mountpoint = bpf_core_field_offset(struct mount, mnt_mountpoint);
    u64 root = bpf_core_field_offset(struct mount, mnt) + bpf_core_field_offset(struct vfsmount, mnt_root);
    struct mount_facts facts = {};
    bool fault;
    if (mountpoint == parent + 8 && root == parent + 16)
        fault = bpf_probe_read_kernel(&facts, sizeof(facts), (void *)mount + parent);
    else
        fault = bpf_probe_read_kernel(&facts.parent, 8, (void *)mount + parent) ||
                bpf_probe_read_kernel(&facts.mountpoint, 8, (void *)mount + mountpoint) ||
                bpf_probe_read_kernel(&facts.root, 8, (void *)mount + root);
    walk->mount = mount;
    walk->parent = facts.parent;
    walk->mountpoint = facts.mountpoint;
    walk->mount_root = facts.root;
    if (fault)
        walk->state |= STATE_FAULT;
    return !fault;
}

// One component, or one mount boundary; 1 ends the walk.
static long walk_step(u32 index, struct walk *walk)
{
    struct dentry *dentry = walk->dentry;
    if (dentry == walk->mount_root) {
        struct mount *parent = walk->parent;
        if (parent == walk->mount)
            return 1;
        walk->dentry = walk->mountpoint;
        return !read_mount(walk, parent);
    }
    struct dentry_facts facts = {};
    if (!read_dentry(&facts, dentry)) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    if (facts.parent == dentry) { // the root of a tree that is mounted nowhere
        walk->state |= STATE_ANONYMOUS;
        return 1;
    }
    u32 length = facts.hash_length >> 32;
    if (length > NAME_BYTES) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    u32 offset = walk->offset;
    if (offset > PATH_BYTES || offset < length + 1) {
        walk->state |= STATE_TRUNCATED;
        return 1;
    }
    if (offset == PATH_BYTES && !facts.hashed)
        walk->state |= STATE_DELETED;
    offset = bounded(offset - length - 1, PATH_BYTES - 1);
    walk->out->walk[offset] = '/';
    if (bpf_probe_read_kernel(&walk->out->walk[offset + 1], bounded(length, NAME_BYTES), facts.name)) {
        walk->state |= STATE_FAULT;
        return 1;
    }
    walk->offset = offset;
    walk->dentry = facts.parent;
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
    u32 length = bounded(type, 64);
    out->bytes[start + length - 1] = ':';
    long name = bpf_probe_read_kernel_str(&out->bytes[start + length], NAME_BYTES + 1, BPF_CORE_READ(dentry, d_name.name));
    return name < 1 || name > NAME_BYTES + 1 ? length : length + name - 1;
}

// Appends the absolute path of (mnt, dentry) as the kernel has it.
int put_path(struct counters *counters, struct out *out, u64 mnt_address, u64 dentry_address, u32 kind)
{
    if (!counters || !out)
        return 0;
    struct vfsmount *mnt = (void *)mnt_address;
    struct dentry *dentry = (void *)dentry_address;
    u32 at = out->record.size;
    if (at > OUT_LAST)
        return 0;
    struct segment *segment = segment_at(out, at, kind);
    struct walk walk = { .out = out, .dentry = dentry, .offset = PATH_BYTES };
    if (!mnt || !dentry || !read_mount(&walk, mount_of(mnt))) {
        segment->state = STATE_FAULT;
        grow(counters, out, at, segment, 0);
        return 0;
    }
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
    else if (space != (u64)task->nsproxy->mnt_ns)
        walk.state |= STATE_FOREIGN;
    segment->state = walk.state;
    u32 offset = bounded(walk.offset, PATH_BYTES);
    u32 length = bounded(PATH_BYTES - offset, PATH_BYTES);
    if (length && bpf_probe_read_kernel(&out->bytes[at + sizeof(struct segment)], length, &out->walk[offset])) {
        counters->map_fail++;
        length = 0;
    }
    grow(counters, out, at, segment, length);
    return 0;
}

static __always_inline struct file *file_of(struct task_struct *task, s32 fd)
{
    struct fdtable *table = task->files->fdt;
    struct file *file = 0;
    if (fd < 0 || (u32)fd >= table->max_fds)
        return 0;
    struct file **slots = table->fd;
    bpf_probe_read_kernel(&file, sizeof(file), slots + fd);
    return file;
}

static __always_inline void put_file(struct counters *counters, struct out *out, struct file *file, u8 kind)
{
    struct path path = {};
    if (file)
        bpf_probe_read_kernel(&path, sizeof(path), (void *)file + bpf_core_field_offset(struct file, f_path));
    put_path(counters, out, (u64)path.mnt, (u64)path.dentry, kind);
}

// Directories that have no descriptor.
#define AT_CWD (-100)  // AT_FDCWD
#define AT_ROOT (-101) // ours: where an absolute string starts

// Where a string starts: the task's root for an absolute one (so a chroot shows), else its cwd or the directory of `dfd`.
int put_base(struct counters *counters, struct out *out, s32 dfd, u32 kind)
{
    if (!counters || !out)
        return 0;
    struct task_struct *task = bpf_get_current_task_btf();
    if (dfd != AT_ROOT && dfd != AT_CWD) {
        put_file(counters, out, file_of(task, dfd), kind);
        return 0;
    }
    struct path path = {};
    bpf_probe_read_kernel(&path, sizeof(path), dfd == AT_ROOT ? &task->fs->root : &task->fs->pwd);
    put_path(counters, out, (u64)path.mnt, (u64)path.dentry, kind);
    return 0;
}

// Copies a program's string; its length with the ending NUL, or a negative error. Old kernels say 0 of an empty string.
static __always_inline long user_string(void *to, u32 size, const void *text)
{
    long length = bpf_probe_read_user_str(to, size, text);
    return length ? length : 1;
}

// Appends a NUL-ended string; true when it begins with a slash.
int put_string(struct counters *counters, struct out *out, u64 text_address, u32 kind, u32 user)
{
    if (!counters || !out)
        return false;
    const void *text = (void *)text_address;
    u32 at = out->record.size;
    if (at > OUT_LAST)
        return false;
    struct segment *segment = segment_at(out, at, kind);
    u8 *start = &out->bytes[at + sizeof(struct segment)];
    long length = user ? user_string(start, PATH_BYTES + 1, text) : bpf_probe_read_kernel_str(start, PATH_BYTES + 1, text);
    if (length < 1 || length > PATH_BYTES + 1) {
        segment->state = STATE_FAULT;
        out->record.marks |= MARK_READ_FAULT;
        grow(counters, out, at, segment, 0);
        return true;
    }
    if (length == PATH_BYTES + 1)
        segment->state = STATE_TRUNCATED;
    grow(counters, out, at, segment, length - 1);
    return length > 1 && start[0] == '/';
}
