/* Measured programs say on standard output what they do, in the words of the tests. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Says "<words> = <result>" and gives the result. */
#define CALL(words, ...)                                                   \
    ({                                                                     \
        long result_ = syscall(__VA_ARGS__);                               \
        dprintf(1, "%s = %ld\n", words, result_ < 0 ? (long)-errno : result_); \
        result_;                                                           \
    })
#define SAY(...) dprintf(1, __VA_ARGS__)
