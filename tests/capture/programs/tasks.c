#include "say.h"
#include <pthread.h>

static void *opens(void *name)
{
    syscall(SYS_openat, AT_FDCWD, name, O_CREAT | O_RDWR, 0600);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc > 1) { /* what was executed */
        syscall(SYS_openat, AT_FDCWD, argv[1], O_CREAT | O_RDWR, 0600);
        return 3;
    }
    pthread_t thread;
    pthread_create(&thread, 0, opens, "by-thread");
    pthread_join(thread, 0);
    if (!fork()) {
        opens("by-child");
        if (!fork()) {
            opens("by-grandchild");
            _exit(7);
        }
        wait(0);
        kill(getpid(), SIGKILL);
    }
    wait(0);
    if (!vfork()) {
        execl("none", "none", (char *)0);
        execl(argv[0], "again", "by-image", (char *)0);
        _exit(1);
    }
    wait(0);
    if (!fork()) {
        execl("script", "script", (char *)0);
        _exit(1);
    }
    wait(0);
    return 0;
}
