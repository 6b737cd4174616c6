// Which argument of which syscall means what. src/capture/catalogue.yaml says which syscalls are recorded; a test compares both.
#pragma once

#include "numbers.h"
#include "record.h"

enum class {
    CLASS_NONE,
    CLASS_OPEN,    // returns a descriptor: its file is walked
    CLASS_PATH,    // one or two strings, resolved against a directory
    CLASS_FD,      // a descriptor: its file is walked
    CLASS_ADDRESS, // a socket address
    CLASS_MESSAGE, // one struct msghdr
    CLASS_MESSAGES, // a vector of struct mmsghdr
    CLASS_NOTE,    // recorded with its first three arguments
};

#define NO (-1)
#define CWD (-2)  // resolved against the working directory
#define TEXT (-3) // not a path: no directory

struct descriptor {
    u8 class;
    u8 hook;
    s8 dfd;
    s8 path;
    s8 dfd2;
    s8 path2;
    // Indexes of the arguments that the record keeps.
    s8 a;
    s8 b;
    s8 c;
};

#define OPEN(hook, dfd, path, flags, mode) { CLASS_OPEN, hook, dfd, path, NO, NO, flags, mode, NO }
#define ONE(dfd, path, a, b, c) { CLASS_PATH, HOOK_PATH, dfd, path, NO, NO, a, b, c }
#define TWO(dfd, path, dfd2, path2, a) { CLASS_PATH, HOOK_PATH, dfd, path, dfd2, path2, a, NO, NO }
#define FD(a, b) { CLASS_FD, HOOK_PATH, 0, NO, NO, NO, a, b, NO }
// A descriptor, and a string that is no path.
#define FD_NAMED(name) { CLASS_FD, HOOK_PATH, 0, NO, TEXT, name, NO, NO, NO }
#define NOTE { CLASS_NOTE, HOOK_CONTROL, NO, NO, NO, NO, 0, 1, 2 }
#define NOTE_PATH(path) { CLASS_PATH, HOOK_CONTROL, CWD, path, NO, NO, NO, NO, NO }

#define SYSCALLS 512

static const struct descriptor descriptors[SYSCALLS] = {
#ifdef __TARGET_ARCH_x86
    [NR_open] = OPEN(HOOK_OPENAT, CWD, 0, 1, 2),
    [NR_rename] = TWO(CWD, 0, CWD, 1, NO),
    [NR_mkdir] = ONE(CWD, 0, 1, NO, NO),
    [NR_rmdir] = ONE(CWD, 0, NO, NO, NO),
    [NR_creat] = OPEN(HOOK_OPENAT, CWD, 0, NO, 1),
    [NR_link] = TWO(CWD, 0, CWD, 1, NO),
    [NR_unlink] = ONE(CWD, 0, NO, NO, NO),
    [NR_symlink] = TWO(CWD, 1, TEXT, 0, NO),
    [NR_chmod] = ONE(CWD, 0, 1, NO, NO),
    [NR_chown] = ONE(CWD, 0, 1, 2, NO),
    [NR_lchown] = ONE(CWD, 0, 1, 2, NO),
    [NR_utime] = ONE(CWD, 0, NO, NO, NO),
    [NR_mknod] = ONE(CWD, 0, 1, 2, NO),
    [NR_iopl] = NOTE,
    [NR_ioperm] = NOTE,
    [NR_utimes] = ONE(CWD, 0, NO, NO, NO),
    [NR_futimesat] = ONE(0, 1, NO, NO, NO),
#endif
    [NR_ioctl] = FD(1, NO),
    [NR_shmget] = NOTE,
    [NR_shmat] = NOTE,
    [NR_shmctl] = NOTE,
    [NR_socket] = NOTE,
    [NR_connect] = { CLASS_ADDRESS, HOOK_CONNECT, 0, 1, NO, 2, NO, NO, NO },
    [NR_accept] = NOTE,
    [NR_sendto] = { CLASS_ADDRESS, HOOK_SENDTO, 0, 4, NO, 5, 3, NO, NO },
    [NR_sendmsg] = { CLASS_MESSAGE, HOOK_SENDMSG, 0, 1, NO, NO, 2, NO, NO },
    [NR_bind] = { CLASS_ADDRESS, HOOK_BIND, 0, 1, NO, 2, NO, NO, NO },
    [NR_listen] = NOTE,
    [NR_execve] = { CLASS_PATH, HOOK_EXEC, CWD, 0, NO, NO, NO, NO, NO },
    [NR_kill] = NOTE,
    [NR_semget] = NOTE,
    [NR_semop] = NOTE,
    [NR_semctl] = NOTE,
    [NR_msgget] = NOTE,
    [NR_msgsnd] = NOTE,
    [NR_msgctl] = NOTE,
    [NR_truncate] = ONE(CWD, 0, 1, NO, NO),
    [NR_ftruncate] = FD(1, NO),
    [NR_fchmod] = FD(1, NO),
    [NR_fchown] = FD(1, 2),
    [NR_ptrace] = NOTE,
    [NR_syslog] = NOTE,
    [NR_rt_sigqueueinfo] = NOTE,
    [NR_setpriority] = NOTE,
    [NR_sched_setparam] = NOTE,
    [NR_sched_setscheduler] = NOTE,
    [NR_vhangup] = NOTE,
    [NR_pivot_root] = { CLASS_PATH, HOOK_CONTROL, CWD, 0, CWD, 1, NO, NO, NO },
    [NR_adjtimex] = NOTE,
    [NR_chroot] = NOTE_PATH(0),
    [NR_acct] = NOTE,
    [NR_settimeofday] = NOTE,
    [NR_mount] = { CLASS_PATH, HOOK_CONTROL, CWD, 1, NO, NO, 3, NO, NO },
    [NR_umount2] = NOTE_PATH(0),
    [NR_swapon] = NOTE,
    [NR_swapoff] = NOTE,
    [NR_reboot] = NOTE,
    [NR_sethostname] = NOTE,
    [NR_setdomainname] = NOTE,
    [NR_init_module] = NOTE,
    [NR_delete_module] = NOTE,
    [NR_quotactl] = NOTE,
    [NR_setxattr] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO },
    [NR_lsetxattr] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO },
    [NR_fsetxattr] = FD_NAMED(1),
    [NR_removexattr] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO },
    [NR_lremovexattr] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO },
    [NR_fremovexattr] = FD_NAMED(1),
    [NR_tkill] = NOTE,
    [NR_sched_setaffinity] = NOTE,
    [NR_semtimedop] = NOTE,
    [NR_clock_settime] = NOTE,
    [NR_tgkill] = NOTE,
    [NR_mq_open] = { CLASS_PATH, HOOK_CONTROL, TEXT, 0, NO, NO, 1, 2, NO },
    [NR_mq_unlink] = { CLASS_PATH, HOOK_CONTROL, TEXT, 0, NO, NO, NO, NO, NO },
    [NR_kexec_load] = NOTE,
    [NR_add_key] = { CLASS_PATH, HOOK_CONTROL, TEXT, 1, NO, NO, NO, NO, NO },
    [NR_request_key] = { CLASS_PATH, HOOK_CONTROL, TEXT, 1, NO, NO, NO, NO, NO },
    [NR_keyctl] = NOTE,
    [NR_ioprio_set] = NOTE,
    [NR_migrate_pages] = NOTE,
    [NR_openat] = OPEN(HOOK_OPENAT, 0, 1, 2, 3),
    [NR_mkdirat] = ONE(0, 1, 2, NO, NO),
    [NR_mknodat] = ONE(0, 1, 2, 3, NO),
    [NR_fchownat] = ONE(0, 1, 2, 3, 4),
    [NR_unlinkat] = ONE(0, 1, 2, NO, NO),
    [NR_renameat] = TWO(0, 1, 2, 3, NO),
    [NR_linkat] = TWO(0, 1, 2, 3, 4),
    [NR_symlinkat] = TWO(1, 2, TEXT, 0, NO),
    [NR_fchmodat] = ONE(0, 1, 2, NO, NO),
    [NR_unshare] = NOTE,
    [NR_move_pages] = NOTE,
    [NR_utimensat] = ONE(0, 1, NO, NO, NO),
    [NR_accept4] = NOTE,
    [NR_rt_tgsigqueueinfo] = NOTE,
    [NR_perf_event_open] = NOTE,
    [NR_fanotify_init] = NOTE,
    [NR_prlimit64] = NOTE,
    [NR_open_by_handle_at] = OPEN(HOOK_OPENAT, NO, NO, 2, NO),
    [NR_clock_adjtime] = NOTE,
    [NR_sendmmsg] = { CLASS_MESSAGES, HOOK_SENDMSG, 0, 1, NO, NO, 3, NO, NO },
    [NR_setns] = NOTE,
    [NR_process_vm_readv] = NOTE,
    [NR_process_vm_writev] = NOTE,
    [NR_finit_module] = NOTE,
    [NR_sched_setattr] = NOTE,
    [NR_renameat2] = TWO(0, 1, 2, 3, 4),
    [NR_kexec_file_load] = NOTE,
    [NR_bpf] = NOTE,
    [NR_execveat] = { CLASS_PATH, HOOK_EXEC, 0, 1, NO, NO, 4, NO, NO },
    [NR_userfaultfd] = NOTE,
    [NR_pidfd_send_signal] = NOTE,
    [NR_io_uring_setup] = NOTE,
    [NR_open_tree] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO },
    [NR_move_mount] = { CLASS_PATH, HOOK_CONTROL, 0, 1, 2, 3, 4, NO, NO },
    [NR_fsopen] = NOTE,
    [NR_fsconfig] = NOTE,
    [NR_fsmount] = NOTE,
    [NR_fspick] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, NO, NO, NO },
    [NR_openat2] = OPEN(HOOK_OPENAT2, 0, 1, NO, NO),
    [NR_pidfd_getfd] = NOTE,
    [NR_process_madvise] = NOTE,
    [NR_mount_setattr] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO },
    [NR_quotactl_fd] = NOTE,
    [NR_process_mrelease] = NOTE,
    [NR_fchmodat2] = ONE(0, 1, 2, 3, NO),
    [NR_setxattrat] = { CLASS_PATH, HOOK_PATH, 0, 1, TEXT, 3, NO, NO, NO },
    [NR_removexattrat] = { CLASS_PATH, HOOK_PATH, 0, 1, TEXT, 3, NO, NO, NO },
    [NR_open_tree_attr] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO },
    [NR_file_setattr] = ONE(0, 1, NO, NO, NO),
};
