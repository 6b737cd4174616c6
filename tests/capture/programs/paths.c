#include "say.h"

int main(void)
{
    char name[256], path[4096 + 16], self[64];
    memset(name, 'n', 255);
    name[255] = 0;
    /* 4000 bytes deep: fifteen directories of 255 bytes and one file. */
    for (int i = 0; i < 15; i++) {
        if (mkdir(name, 0700) || chdir(name))
            return 1;
    }
    int fd = syscall(SYS_openat, AT_FDCWD, "deep", O_CREAT | O_RDWR, 0600);
    SAY("deep = %d\n", fd);
    /* As long as a string may be, and longer. */
    memset(path, '/', sizeof(path));
    path[4095] = 0;
    SAY("slashes = %ld\n", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY));
    path[4095] = '/';
    path[4096] = 0;
    SAY("too long = %d\n", syscall(SYS_openat, AT_FDCWD, path, O_RDONLY) < 0 ? -errno : 0);
    /* Deeper than a path can say: only relative steps lead there. */
    for (int i = 0; i < 3; i++) {
        if (mkdir(name, 0700) || chdir(name))
            return 1;
    }
    SAY("beyond = %ld\n", syscall(SYS_openat, AT_FDCWD, "x", O_CREAT | O_RDWR, 0600));
    if (chdir("/proc/self/fd/9"))
        return 1;
    SAY("bytes = %ld\n", syscall(SYS_openat, AT_FDCWD, "\xff\xfe\\n\n\xc3\xa9", O_CREAT | O_RDWR, 0600));
    fd = syscall(SYS_openat, AT_FDCWD, "gone", O_CREAT | O_RDWR, 0600);
    SAY("made = %d\n", fd);
    unlink("gone");
    snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
    SAY("gone = %ld\n", syscall(SYS_openat, AT_FDCWD, self, O_RDONLY));
    SAY("unnamed = %ld\n", syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_RDWR, 0600));
    int memory = syscall(SYS_memfd_create, "hidden", 0);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", memory);
    SAY("memory = %ld\n", syscall(SYS_openat, AT_FDCWD, self, O_RDONLY));
    int ends[2];
    if (pipe(ends))
        return 1;
    snprintf(self, sizeof(self), "/proc/self/fd/%d", ends[0]);
    SAY("pipe = %ld\n", syscall(SYS_openat, AT_FDCWD, self, O_RDONLY));
    SAY("root = %ld\n", syscall(SYS_openat, AT_FDCWD, "/", O_RDONLY));
    return 0;
}
