// The kernel types that the programs look into: only the members that are read. Offsets are relocated at load (CO-RE), so that one object
// runs on every kernel from 6.1 on; tests/capture checks that each member exists in the running kernel's BTF.
#pragma once

#include <linux/bpf.h>
#include <stdbool.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s8 s8;
typedef __s16 s16;
typedef __s32 s32;
typedef __s64 s64;

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
    unsigned long orig_ax, di, si, dx, r10, r8, r9;
};

struct thread_info {
    u32 status;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
    u64 regs[31];
    u64 pstate;
    u64 orig_x0;
    s32 syscallno;
};

struct thread_info {
    u64 flags;
};
#else
#error "x86_64 and aarch64 are known; give -D__TARGET_ARCH_x86 or -D__TARGET_ARCH_arm64"
#endif

struct kernfs_node {
    u64 id;
};

struct cgroup;

struct cgroup_subsys_state {
    struct cgroup *cgroup;
};

struct cgroup_root {
    int hierarchy_id; // 0: version 2
};
struct cgroup {
    struct cgroup_subsys_state self;
    struct kernfs_node *kn;
    struct cgroup_root *root;
    int level;
    struct cgroup *ancestors[0];
};

struct css_set {
    struct cgroup *dfl_cgrp;
};

struct qstr {
    u64 hash_len;
    const unsigned char *name;
};

struct file_system_type {
    const char *name;
};

struct super_block {
    struct file_system_type *s_type;
};

struct hlist_bl_node {
    void *pprev;
};

struct dentry {
    struct hlist_bl_node d_hash;
    struct dentry *d_parent;
    struct qstr d_name;
    struct super_block *d_sb;
};

struct vfsmount {
    struct dentry *mnt_root;
};

struct mnt_namespace;

struct mount {
    struct mount *mnt_parent;
    struct dentry *mnt_mountpoint;
    struct vfsmount mnt;
    struct mnt_namespace *mnt_ns;
};

struct path {
    struct vfsmount *mnt;
    struct dentry *dentry;
};

struct file {
    struct path f_path;
};

struct fdtable {
    unsigned int max_fds;
    struct file **fd;
};

typedef struct {
    int counter;
} atomic_t;

struct files_struct {
    atomic_t count;
    struct fdtable *fdt;
};

struct fs_struct {
    struct path root, pwd;
};

struct nsproxy {
    struct mnt_namespace *mnt_ns;
};

struct mm_struct {
    struct file *exe_file;
};

struct linux_binprm {
    const char *filename;
    const char *interp;
};

struct signal_struct {
    atomic_t live;
};

struct task_struct {
    struct thread_info thread_info;
    int exit_code;
    int pid, tgid;
    struct task_struct *real_parent;
    struct mm_struct *mm;
    struct fs_struct *fs;
    struct files_struct *files;
    struct nsproxy *nsproxy;
    struct css_set *cgroups;
    struct signal_struct *signal;
};

struct filename {
    const char *name;
};

struct io_kiocb {
    u8 opcode;
    struct file *file;
};

struct io_uring_cqe {
    s32 res;
};

struct open_how {
    u64 flags, mode, resolve;
};

// On the newest kernels the requests hold their names in one of these; else they hold the pointer itself.
struct delayed_filename {
    struct filename *__incomplete_filename;
};

struct io_open {
    int dfd;
    struct filename *filename;
    struct open_how how;
};

struct io_open___delayed {
    struct delayed_filename filename;
};

struct io_unlink {
    int dfd, flags;
    struct filename *filename;
};

struct io_unlink___delayed {
    struct delayed_filename filename;
};

struct io_rename {
    int old_dfd, new_dfd;
    struct filename *oldpath, *newpath;
    int flags;
};

struct io_rename___delayed {
    struct delayed_filename oldpath, newpath;
};

struct io_mkdir {
    int dfd;
    u16 mode;
    struct filename *filename;
};

struct io_mkdir___delayed {
    struct delayed_filename filename;
};

struct io_link {
    int old_dfd, new_dfd;
    struct filename *oldpath, *newpath;
    int flags;
};

struct io_link___delayed {
    struct delayed_filename oldpath, newpath;
};

#pragma clang attribute pop
