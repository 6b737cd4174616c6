#include "say.h"
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdatomic.h>

static struct io_uring_params parameters;
static char *ring;
static struct io_uring_sqe *entries;
static int fd;

static int submit(struct io_uring_sqe request)
{
    unsigned *tail = (unsigned *)(ring + parameters.sq_off.tail);
    unsigned *done = (unsigned *)(ring + parameters.cq_off.head);
    unsigned mask = *(unsigned *)(ring + parameters.sq_off.ring_mask);
    unsigned slot = *tail & mask;
    entries[slot] = request;
    ((unsigned *)(ring + parameters.sq_off.array))[slot] = slot;
    atomic_store((_Atomic unsigned *)tail, *tail + 1);
#ifdef SQPOLL
    for (int waited = 0; atomic_load((_Atomic unsigned *)(ring + parameters.cq_off.tail)) == *done;) {
        if (atomic_load((_Atomic unsigned *)(ring + parameters.sq_off.flags)) & IORING_SQ_NEED_WAKEUP)
            syscall(SYS_io_uring_enter, fd, 0, 0, IORING_ENTER_SQ_WAKEUP, 0, 0);
        if (waited++ > 10000 || usleep(1000)) /* ten seconds */
            exit(9);
    }
#else
    if (syscall(SYS_io_uring_enter, fd, 1, 1, IORING_ENTER_GETEVENTS, 0, 0) != 1)
        exit(9);
#endif
    struct io_uring_cqe *cqe = (struct io_uring_cqe *)(ring + parameters.cq_off.cqes) + (*done & *(unsigned *)(ring + parameters.cq_off.ring_mask));
    atomic_store((_Atomic unsigned *)done, *done + 1);
    return cqe->res;
}

#define REQUEST(words, ...) SAY("%s = %d\n", words, submit((struct io_uring_sqe){ __VA_ARGS__ }))

int main(void)
{
#ifdef SQPOLL
    /* A kernel thread takes the requests: the program itself makes no call for them. */
    parameters.flags = IORING_SETUP_SQPOLL;
    parameters.sq_thread_idle = 10000;
#endif
    fd = syscall(SYS_io_uring_setup, 8, &parameters);
    if (fd < 0)
        return 8;
    /* To its end and no further: some kernels refuse to map more than there is. */
    unsigned requests = parameters.sq_off.array + 4 * parameters.sq_entries;
    unsigned results = parameters.cq_off.cqes + sizeof(struct io_uring_cqe) * parameters.cq_entries;
    ring = mmap(0, requests > results ? requests : results, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
    entries = mmap(0, 64 * parameters.sq_entries, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
    struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int tcp = socket(AF_INET, SOCK_STREAM, 0);
    REQUEST("NOP", .opcode = IORING_OP_NOP);
    REQUEST("MKDIRAT W/d (requested)", .opcode = IORING_OP_MKDIRAT, .fd = AT_FDCWD, .addr = (long)"d", .len = 0700);
    REQUEST("OPENAT W/d/a (requested)", .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (long)"d/a", .open_flags = O_CREAT | O_RDWR, .len = 0600);
    REQUEST("OPENAT W/none (requested)", .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (long)"none", .flags = IOSQE_ASYNC);
    REQUEST("RENAMEAT W/d/a (requested) -> W/b", .opcode = IORING_OP_RENAMEAT, .fd = AT_FDCWD, .addr = (long)"d/a", .len = AT_FDCWD, .addr2 = (long)"b");
    REQUEST("LINKAT W/b (requested) -> W/c", .opcode = IORING_OP_LINKAT, .fd = AT_FDCWD, .addr = (long)"b", .len = AT_FDCWD, .addr2 = (long)"c");
    REQUEST("SYMLINKAT W/s (requested) -> b", .opcode = IORING_OP_SYMLINKAT, .fd = AT_FDCWD, .addr = (long)"b", .addr2 = (long)"s");
    REQUEST("UNLINKAT W/b (requested)", .opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (long)"b");
    int refused = submit((struct io_uring_sqe){ .opcode = IORING_OP_CONNECT, .fd = tcp, .addr = (long)&v4, .off = sizeof(v4), .flags = IOSQE_ASYNC });
    SAY("cgroup/connect4 127.0.0.1:9\nCONNECT = %d\n", refused);
    return 0;
}
