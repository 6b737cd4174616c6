#include "say.h"
#include <linux/openat2.h>

int main(void)
{
    int dir, fd;
    struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_NO_SYMLINKS };
    CALL("mkdir W/d (requested)", SYS_mkdir, "d", 0750);
    dir = CALL("openat W/d", SYS_openat, AT_FDCWD, "./d", O_RDONLY | O_DIRECTORY);
    fd = CALL("open W/a", SYS_open, "a", O_CREAT | O_WRONLY | O_EXCL, 0640);
    CALL("ftruncate W/a", SYS_ftruncate, fd, 7);
    CALL("fchmod W/a", SYS_fchmod, fd, 0600);
    CALL("fchown W/a", SYS_fchown, fd, -1, 0);
    CALL("creat W/d/c", SYS_creat, "d/../d//c", 0600);
    CALL("openat W/d/c", SYS_openat, dir, "c", O_RDWR | O_APPEND);
    CALL("openat2 W/d/c", SYS_openat2, dir, "c", &how, sizeof(how));
    CALL("openat W/d/none (requested)", SYS_openat, dir, "none", O_RDONLY);
    CALL("openat2 W/none/x (requested)", SYS_openat2, AT_FDCWD, "none/x", &how, sizeof(how));
    CALL("open W/../none (requested)", SYS_open, "../none", O_RDONLY);
    CALL("openat  (unreadable)", SYS_openat, 99, "none", O_RDONLY);
    CALL("truncate W/a (requested)", SYS_truncate, "a", 3);
    CALL("chmod W/a (requested)", SYS_chmod, "a", 0644);
    CALL("fchmodat W/d/c (requested)", SYS_fchmodat, dir, "c", 0644);
    CALL("chown W/a (requested)", SYS_chown, "a", -1, -1);
    CALL("lchown W/a (requested)", SYS_lchown, "a", -1, -1);
    CALL("fchownat W/d/c (requested)", SYS_fchownat, dir, "c", -1, -1, 0);
    CALL("fchownat W/d", SYS_fchownat, dir, "", -1, -1, AT_EMPTY_PATH);
    CALL("mknod W/fifo (requested)", SYS_mknod, "fifo", S_IFIFO | 0600, 0);
    CALL("mknodat W/d/fifo (requested)", SYS_mknodat, dir, "fifo", S_IFIFO | 0600, 0);
    CALL("mkdirat W/d/e (requested)", SYS_mkdirat, dir, "e", 0700);
    CALL("link W/a (requested) -> W/b", SYS_link, "a", "b");
    CALL("linkat W/a (requested) -> W/d/b", SYS_linkat, AT_FDCWD, "a", dir, "b", 0);
    CALL("symlink W/s (requested) -> a", SYS_symlink, "a", "s");
    CALL("symlinkat W/d/s (requested) -> ../a", SYS_symlinkat, "../a", dir, "s");
    CALL("open W/a", SYS_open, "s", O_RDONLY);
    CALL("openat W/a", SYS_openat, dir, "s", O_RDONLY);
    CALL("rename W/b (requested) -> W/b2", SYS_rename, "b", "b2");
    CALL("renameat W/d/b (requested) -> W/b3", SYS_renameat, dir, "b", AT_FDCWD, "b3");
    CALL("renameat2 W/b2 (requested) -> W/b3", SYS_renameat2, AT_FDCWD, "b2", AT_FDCWD, "b3", 1);
    CALL("unlink W/b2 (requested)", SYS_unlink, "b2");
    CALL("unlinkat W/d/s (requested)", SYS_unlinkat, dir, "s", 0);
    CALL("unlinkat W/d/e (requested)", SYS_unlinkat, dir, "e", AT_REMOVEDIR);
    CALL("rmdir W/d (requested)", SYS_rmdir, "d");
    CALL("unlink W/nothing (requested)", SYS_unlink, "nothing");
    return 0;
}
