/* One odd thing, by name. */
#include "say.h"
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

static char shared[64] = "fifo";

static void *changes(void *unused)
{
    /* The other thread is inside openat: it waits for a writer, whose coming is what ends it. */
    usleep(20000);
    strcpy(shared, "other");
    syscall(SYS_openat, AT_FDCWD, "fifo", O_WRONLY);
    return 0;
}

static void *executes(void *image)
{
    execl(image, image, "again", (char *)0);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    if (!strcmp(argv[1], "seccomp")) {
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mkdirat, 0, 1),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        };
        struct sock_fprog program = { 4, filter };
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
            return 1;
        CALL("mkdirat", SYS_mkdirat, AT_FDCWD, "denied", 0700);
        CALL("unlinkat W/none (requested)", SYS_unlinkat, AT_FDCWD, "none", AT_REMOVEDIR);
    } else if (!strcmp(argv[1], "foreign")) { /* creat("by-foreign") by the 32-bit ABI */
#ifdef __x86_64__
        long result;
        char *low = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
        strcpy(low, "by-foreign");
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(8), "b"(low), "c"(0600) : "memory");
        SAY("creat = %d\n", (int)result);
#else
        /* An ELF of 32-bit arm: creat, exit. A processor or kernel that runs none refuses to execute it. */
        static const unsigned image[] = {
            0x464c457f, 0x00010101, 0, 0, 0x00280002, 1, 0x10054, 52, 0, 0x05000200, 0x00200034, 0x00280001, 0, /* header */
            1, 0, 0x10000, 0x10000, 0x80, 0x80, 5, 0x10000,                                                  /* segment */
            0xe28f0018, 0xe3a01d06, 0xe3a07008, 0xef000000, /* r0 = name, r1 = 0600, creat */
            0xe3a00000, 0xe3a07001, 0xef000000, 0,          /* exit(0) */
            0x662d7962, 0x6965726f, 0x00006e67,             /* by-foreign */
        };
        int file = syscall(SYS_openat, AT_FDCWD, "image", O_CREAT | O_WRONLY, 0700);
        if (write(file, image, sizeof(image)) != sizeof(image) || close(file))
            return 1;
        execl("./image", "image", (char *)0);
        return 1;
#endif
    } else if (!strcmp(argv[1], "core")) {
        struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
        setrlimit(RLIMIT_CORE, &unlimited);
        abort();
    } else if (!strcmp(argv[1], "detached")) {
        int dir = syscall(SYS_openat, AT_FDCWD, "mounted", O_PATH | O_DIRECTORY);
        if (umount2("mounted", MNT_DETACH))
            return 1;
        SAY("openat = %ld\n", syscall(SYS_openat, dir, "f", O_CREAT | O_RDWR, 0600));
    } else if (!strcmp(argv[1], "toctou")) {
        pthread_t thread;
        if (mkfifo("fifo", 0600) || pthread_create(&thread, 0, changes, 0))
            return 1;
        SAY("openat = %ld\n", syscall(SYS_openat, AT_FDCWD, shared, O_RDONLY));
        pthread_join(thread, 0);
    } else if (!strcmp(argv[1], "out")) { /* CLONE_INTO_CGROUP */
        struct { unsigned long long a[11]; } arguments = { { 0x200000000ULL, 0, 0, 0, SIGCHLD } };
        arguments.a[10] = open(argv[2], O_RDONLY | O_DIRECTORY);
        long pid = syscall(SYS_clone3, &arguments, sizeof(arguments));
        if (pid == 0) {
            syscall(SYS_openat, AT_FDCWD, "unseen", O_CREAT | O_RDWR, 0600);
            _exit(0);
        }
        SAY("clone3 = %d\n", pid > 0);
        wait(0);
    } else if (!strcmp(argv[1], "wait")) { /* until its standard input ends */
        char byte;
        SAY("ready\n");
        while (read(0, &byte, 1) > 0)
            ;
        syscall(SYS_openat, AT_FDCWD, "after", O_CREAT | O_RDWR, 0600);
    } else if (!strcmp(argv[1], "trace")) { /* a process outside */
        SAY("ptrace = %ld\n", ptrace(PTRACE_SEIZE, atoi(argv[2]), 0, 0));
    } else if (!strcmp(argv[1], "exec-from-thread")) {
        pthread_t thread;
        pthread_create(&thread, 0, executes, argv[0]);
        pause();
    } else if (!strcmp(argv[1], "again")) {
        syscall(SYS_openat, AT_FDCWD, "again", O_CREAT | O_RDWR, 0600);
    } else if (!strcmp(argv[1], "bpf")) { /* an array map of one u32 */
        unsigned attributes[32] = { 2, 4, 4, 1 };
        SAY("bpf = %d\n", syscall(SYS_bpf, 0, attributes, sizeof(attributes)) >= 0);
    } else if (!strcmp(argv[1], "chroot")) {
        if (mkdir("jail", 0700) || chroot("jail") || chdir("/"))
            return 1;
        SAY("openat W/jail/f = %ld\n", syscall(SYS_openat, AT_FDCWD, "/f", O_CREAT | O_RDWR, 0600));
        CALL("unlinkat W/jail/f (requested)", SYS_unlinkat, AT_FDCWD, "/f", 0);
    }
    return 0;
}
