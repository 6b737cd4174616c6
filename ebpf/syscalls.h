// Which argument of which syscall means what (x86_64 numbers). src/capture/catalogue.yaml says which syscalls are recorded; a test compares both.
#pragma once

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
    [2] = OPEN(HOOK_OPENAT, CWD, 0, 1, 2),         // open
    [16] = FD(1, NO), // ioctl
    [29] = NOTE, // shmget
    [30] = NOTE, // shmat
    [31] = NOTE, // shmctl
    [41] = NOTE, // socket
    [42] = { CLASS_ADDRESS, HOOK_CONNECT, 0, 1, NO, 2, NO, NO, NO }, // connect
    [43] = NOTE, // accept
    [44] = { CLASS_ADDRESS, HOOK_SENDTO, 0, 4, NO, 5, 3, NO, NO }, // sendto
    [46] = { CLASS_MESSAGE, HOOK_SENDMSG, 0, 1, NO, NO, 2, NO, NO }, // sendmsg
    [49] = { CLASS_ADDRESS, HOOK_BIND, 0, 1, NO, 2, NO, NO, NO }, // bind
    [50] = NOTE, // listen
    [59] = { CLASS_PATH, HOOK_EXEC, CWD, 0, NO, NO, NO, NO, NO }, // execve
    [62] = NOTE, // kill
    [64] = NOTE, // semget
    [65] = NOTE, // semop
    [66] = NOTE, // semctl
    [68] = NOTE, // msgget
    [69] = NOTE, // msgsnd
    [71] = NOTE, // msgctl
    [76] = ONE(CWD, 0, 1, NO, NO),                 // truncate
    [77] = FD(1, NO),                              // ftruncate
    [82] = TWO(CWD, 0, CWD, 1, NO),                // rename
    [83] = ONE(CWD, 0, 1, NO, NO),                 // mkdir
    [84] = ONE(CWD, 0, NO, NO, NO),                // rmdir
    [85] = OPEN(HOOK_OPENAT, CWD, 0, NO, 1),       // creat
    [86] = TWO(CWD, 0, CWD, 1, NO),                // link
    [87] = ONE(CWD, 0, NO, NO, NO),                // unlink
    [88] = TWO(CWD, 1, TEXT, 0, NO),               // symlink
    [90] = ONE(CWD, 0, 1, NO, NO),                 // chmod
    [91] = FD(1, NO),                              // fchmod
    [92] = ONE(CWD, 0, 1, 2, NO),                  // chown
    [93] = FD(1, 2),                               // fchown
    [94] = ONE(CWD, 0, 1, 2, NO),                  // lchown
    [101] = NOTE,                                  // ptrace
    [103] = NOTE, // syslog
    [129] = NOTE, // rt_sigqueueinfo
    [132] = ONE(CWD, 0, NO, NO, NO), // utime
    [133] = ONE(CWD, 0, 1, 2, NO),                 // mknod
    [141] = NOTE, // setpriority
    [142] = NOTE, // sched_setparam
    [144] = NOTE, // sched_setscheduler
    [153] = NOTE, // vhangup
    [155] = { CLASS_PATH, HOOK_CONTROL, CWD, 0, CWD, 1, NO, NO, NO }, // pivot_root
    [159] = NOTE, // adjtimex
    [161] = NOTE_PATH(0),                          // chroot
    [163] = NOTE, // acct
    [164] = NOTE, // settimeofday
    [165] = { CLASS_PATH, HOOK_CONTROL, CWD, 1, NO, NO, 3, NO, NO }, // mount
    [166] = NOTE_PATH(0),                          // umount2
    [167] = NOTE, // swapon
    [168] = NOTE, // swapoff
    [169] = NOTE, // reboot
    [170] = NOTE, // sethostname
    [171] = NOTE, // setdomainname
    [172] = NOTE, // iopl
    [173] = NOTE, // ioperm
    [175] = NOTE,                                  // init_module
    [176] = NOTE, // delete_module
    [179] = NOTE, // quotactl
    [188] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO }, // setxattr
    [189] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO }, // lsetxattr
    [190] = FD_NAMED(1), // fsetxattr
    [197] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO }, // removexattr
    [198] = { CLASS_PATH, HOOK_PATH, CWD, 0, TEXT, 1, NO, NO, NO }, // lremovexattr
    [199] = FD_NAMED(1), // fremovexattr
    [200] = NOTE, // tkill
    [203] = NOTE, // sched_setaffinity
    [220] = NOTE, // semtimedop
    [227] = NOTE, // clock_settime
    [234] = NOTE, // tgkill
    [235] = ONE(CWD, 0, NO, NO, NO), // utimes
    [240] = { CLASS_PATH, HOOK_CONTROL, TEXT, 0, NO, NO, 1, 2, NO }, // mq_open
    [241] = { CLASS_PATH, HOOK_CONTROL, TEXT, 0, NO, NO, NO, NO, NO }, // mq_unlink
    [246] = NOTE,                                  // kexec_load
    [248] = { CLASS_PATH, HOOK_CONTROL, TEXT, 1, NO, NO, NO, NO, NO }, // add_key
    [249] = { CLASS_PATH, HOOK_CONTROL, TEXT, 1, NO, NO, NO, NO, NO }, // request_key
    [250] = NOTE, // keyctl
    [251] = NOTE, // ioprio_set
    [256] = NOTE, // migrate_pages
    [257] = OPEN(HOOK_OPENAT, 0, 1, 2, 3),         // openat
    [258] = ONE(0, 1, 2, NO, NO),                  // mkdirat
    [259] = ONE(0, 1, 2, 3, NO),                   // mknodat
    [260] = ONE(0, 1, 2, 3, 4),                    // fchownat
    [261] = ONE(0, 1, NO, NO, NO), // futimesat
    [263] = ONE(0, 1, 2, NO, NO),                  // unlinkat
    [264] = TWO(0, 1, 2, 3, NO),                   // renameat
    [265] = TWO(0, 1, 2, 3, 4),                    // linkat
    [266] = TWO(1, 2, TEXT, 0, NO),                // symlinkat
    [268] = ONE(0, 1, 2, NO, NO),                  // fchmodat
    [272] = NOTE,                                  // unshare
    [279] = NOTE, // move_pages
    [280] = ONE(0, 1, NO, NO, NO), // utimensat
    [288] = NOTE, // accept4
    [297] = NOTE, // rt_tgsigqueueinfo
    [298] = NOTE,                                  // perf_event_open
    [300] = NOTE, // fanotify_init
    [302] = NOTE, // prlimit64
    [304] = OPEN(HOOK_OPENAT, NO, NO, 2, NO),      // open_by_handle_at
    [305] = NOTE, // clock_adjtime
    [307] = { CLASS_MESSAGES, HOOK_SENDMSG, 0, 1, NO, NO, 3, NO, NO }, // sendmmsg
    [308] = NOTE,                                  // setns
    [310] = NOTE,                                  // process_vm_readv
    [311] = NOTE,                                  // process_vm_writev
    [313] = NOTE,                                  // finit_module
    [314] = NOTE, // sched_setattr
    [316] = TWO(0, 1, 2, 3, 4),                    // renameat2
    [320] = NOTE,                                  // kexec_file_load
    [321] = NOTE,                                  // bpf
    [322] = { CLASS_PATH, HOOK_EXEC, 0, 1, NO, NO, 4, NO, NO }, // execveat
    [323] = NOTE, // userfaultfd
    [424] = NOTE, // pidfd_send_signal
    [425] = NOTE,                                  // io_uring_setup
    [428] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO }, // open_tree
    [429] = { CLASS_PATH, HOOK_CONTROL, 0, 1, 2, 3, 4, NO, NO }, // move_mount
    [430] = NOTE,                                  // fsopen
    [431] = NOTE, // fsconfig
    [432] = NOTE,                                  // fsmount
    [433] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, NO, NO, NO }, // fspick
    [437] = OPEN(HOOK_OPENAT2, 0, 1, NO, NO),      // openat2
    [438] = NOTE,                                  // pidfd_getfd
    [440] = NOTE, // process_madvise
    [442] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO }, // mount_setattr
    [443] = NOTE, // quotactl_fd
    [448] = NOTE, // process_mrelease
    [452] = ONE(0, 1, 2, 3, NO),                   // fchmodat2
    [463] = { CLASS_PATH, HOOK_PATH, 0, 1, TEXT, 3, NO, NO, NO }, // setxattrat
    [466] = { CLASS_PATH, HOOK_PATH, 0, 1, TEXT, 3, NO, NO, NO }, // removexattrat
    [467] = { CLASS_PATH, HOOK_CONTROL, 0, 1, NO, NO, 2, NO, NO }, // open_tree_attr
    [469] = ONE(0, 1, NO, NO, NO), // file_setattr
};

#define NR_OPENAT2 437
#define NR_EXECVE 59
#define NR_EXECVEAT 322
#define NR_SENDTO 44
