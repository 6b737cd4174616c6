/* One call of everything that is recorded beyond files.c, network.c and uring.c. */
#include "say.h"
#include <linux/fs.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <time.h>

#define AT(words, number, ...) CALL(words, number, __VA_ARGS__)

int main(void)
{
    struct timespec times[2] = { { 1, 0 }, { 1, 0 } };
    struct { unsigned long long value; unsigned int size, flags; } attribute = { (unsigned long)"1", 1, 0 };
    struct { unsigned long long flags; unsigned int extent, next, project, cow; } wanted = { 0 };
    struct rlimit limit;
    struct sockaddr_in any = { .sin_family = AF_INET };
    int none = 0, fd, tcp, id;
    pid_t child;

    fd = CALL("open openat W/f", SYS_openat, AT_FDCWD, "f", O_CREAT | O_RDWR, 0600);
    AT("setxattr setxattr W/f (requested) [name=user.a]", SYS_setxattr, "f", "user.a", "1", 1, 0);
    AT("setxattr lsetxattr W/f (requested) [name=user.b]", SYS_lsetxattr, "f", "user.b", "1", 1, 0);
    AT("setxattr fsetxattr W/f [name=user.c]", SYS_fsetxattr, fd, "user.c", "1", 1, 0);
    AT("setxattr setxattrat W/f (requested) [name=user.d]", 463, AT_FDCWD, "f", 0, "user.d", &attribute, sizeof(attribute));
    AT("removexattr removexattr W/f (requested) [name=user.a]", SYS_removexattr, "f", "user.a");
    AT("removexattr lremovexattr W/f (requested) [name=user.b]", SYS_lremovexattr, "f", "user.b");
    AT("removexattr fremovexattr W/f [name=user.c]", SYS_fremovexattr, fd, "user.c");
    AT("removexattr removexattrat W/f (requested) [name=user.d]", 466, AT_FDCWD, "f", 0, "user.d");
#ifdef SYS_utime /* only x86_64 still has them */
    struct timeval old[2] = { { 1, 0 }, { 1, 0 } };
    AT("utime utime W/f (requested)", SYS_utime, "f", 0);
    AT("utime utimes W/f (requested)", SYS_utimes, "f", old);
    AT("utime futimesat W/f (requested)", SYS_futimesat, AT_FDCWD, "f", old);
#endif
    AT("utime utimensat W/f (requested)", SYS_utimensat, AT_FDCWD, "f", times, 0);
    AT("utime utimensat W/f", SYS_utimensat, fd, 0, times, 0);
    AT("set_attributes ioctl W/f [command=0x40086602]", SYS_ioctl, fd, FS_IOC_SETFLAGS, &none);
    AT("set_attributes ioctl W/f [command=0x401c5820]", SYS_ioctl, fd, FS_IOC_FSSETXATTR, &wanted);
    AT("set_attributes file_setattr W/f (requested)", 469, AT_FDCWD, "f", &wanted, sizeof(wanted), 0);
    AT("device_control ioctl W/f [command=0x5412]", SYS_ioctl, fd, 0x5412, "x");

    tcp = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    AT("listen listen", SYS_listen, tcp, 1);
    AT("accept accept", SYS_accept, tcp, 0, 0);
    AT("accept accept4", SYS_accept4, tcp, 0, 0, 0);
    AT("socket socket [family=16 type=3 protocol=0]", SYS_socket, 16, SOCK_RAW, 0);
    AT("socket socket [family=40 type=1 protocol=0]", SYS_socket, 40, SOCK_STREAM, 0);
    if (bind(socket(AF_INET, SOCK_DGRAM, 0), (void *)&any, sizeof(any)))
        return 1;
    SAY("bind bind 0.0.0.0:0 = 0\n");

    child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    AT("signal kill [signal=10 to another process]", SYS_kill, 0x3fffff, SIGUSR1);
    AT("signal tkill [signal=28 to process 1]", SYS_tkill, child, SIGWINCH);
    AT("signal tgkill [signal=28 to process 1]", SYS_tgkill, child, child, SIGWINCH);
    AT("signal pidfd_send_signal [signal=10 to a process by its descriptor]", SYS_pidfd_send_signal, -1, SIGUSR1, 0, 0);
    AT("signal kill [signal=9 to process 1]", SYS_kill, child, SIGKILL);
    waitpid(child, 0, 0);

    AT("message_queue mq_open [name=assay-gates-test]", SYS_mq_open, "assay-gates-test", O_CREAT | O_RDWR, 0600, 0);
    AT("message_queue mq_unlink [name=assay-gates-test]", SYS_mq_unlink, "assay-gates-test");
    id = AT("ipc shmget [key=0x0 flags=0o1600]", SYS_shmget, IPC_PRIVATE, 4096, IPC_CREAT | 0600);
    AT("ipc shmctl [command=0]", SYS_shmctl, id, IPC_RMID, 0);
    id = AT("ipc msgget [key=0x0 flags=0o1600]", SYS_msgget, IPC_PRIVATE, IPC_CREAT | 0600);
    AT("ipc msgctl [command=0]", SYS_msgctl, id, IPC_RMID, 0);
    id = AT("ipc semget [key=0x0 flags=0o1600]", SYS_semget, IPC_PRIVATE, 1, IPC_CREAT | 0600);
    AT("ipc semctl [command=0]", SYS_semctl, id, 0, IPC_RMID, 0);
    AT("ipc shmat", SYS_shmat, -1, 0, 0);
    AT("ipc msgsnd", SYS_msgsnd, -1, 0, 0, 0);
    AT("ipc semop", SYS_semop, -1, 0, 0);
    AT("key add_key [name=assay-gates-test]", SYS_add_key, "nosuchtype", "assay-gates-test", "x", 1, -2);
    AT("key request_key [name=assay-gates-test]", SYS_request_key, "nosuchtype", "assay-gates-test", 0, -2);
    AT("key keyctl [command=99]", SYS_keyctl, 99, 0, 0, 0, 0);

    AT("mount mount W/nowhere (requested)", SYS_mount, "none", "nowhere", "tmpfs", 0, 0);
    AT("mount umount2 W/nowhere (requested)", SYS_umount2, "nowhere", 0);
    AT("mount chroot W/nowhere (requested)", SYS_chroot, "nowhere");
    AT("mount fsopen", SYS_fsopen, 0, 0);
    AT("namespace unshare [flags=0x0]", SYS_unshare, 0);
    AT("namespace setns [flags=0x0]", SYS_setns, -1, 0);
    AT("system sethostname", SYS_sethostname, "x", 70000);
    AT("system settimeofday", SYS_settimeofday, (void *)8, 0);
    AT("process_control setpriority", SYS_setpriority, PRIO_PROCESS, 0, 0);
    getrlimit(RLIMIT_NOFILE, &limit);
    AT("process_control prlimit64", SYS_prlimit64, 0, RLIMIT_NOFILE, &limit, 0);

    /* None of these does anything outside of this process. */
    ioctl(fd, FS_IOC_GETFLAGS, &none);
    ioctl(1, 0x5401, times);
    kill(getpid(), 0);
    syscall(SYS_tgkill, getpid(), getpid(), SIGWINCH);
    socketpair(AF_UNIX, SOCK_STREAM, 0, (int[2]){ 0 });
    return 0;
}
