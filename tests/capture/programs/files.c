#include "say.h"
#include <linux/openat2.h>

int main(void)
{
    int dir, fd;
    struct open_how how = { .flags = O_RDONLY, .resolve = RESOLVE_NO_SYMLINKS };
    CALL("mkdirat W/d (requested)", SYS_mkdirat, AT_FDCWD, "d", 0750);
    dir = CALL("openat W/d", SYS_openat, AT_FDCWD, "./d", O_RDONLY | O_DIRECTORY);
    fd = CALL("openat W/a", SYS_openat, AT_FDCWD, "a", O_CREAT | O_WRONLY | O_EXCL, 0640);
    CALL("ftruncate W/a", SYS_ftruncate, fd, 7);
    CALL("fchmod W/a", SYS_fchmod, fd, 0600);
    CALL("fchown W/a", SYS_fchown, fd, -1, 0);
    CALL("openat W/d/c", SYS_openat, AT_FDCWD, "d/../d//c", O_CREAT | O_WRONLY | O_TRUNC, 0600);
    CALL("openat W/d/c", SYS_openat, dir, "c", O_RDWR | O_APPEND);
    CALL("openat2 W/d/c", SYS_openat2, dir, "c", &how, sizeof(how));
    CALL("openat W/d/none (requested)", SYS_openat, dir, "none", O_RDONLY);
    CALL("openat2 W/none/x (requested)", SYS_openat2, AT_FDCWD, "none/x", &how, sizeof(how));
    CALL("openat W/../none (requested)", SYS_openat, AT_FDCWD, "../none", O_RDONLY);
    CALL("openat  (unreadable)", SYS_openat, 99, "none", O_RDONLY);
    CALL("truncate W/a (requested)", SYS_truncate, "a", 3);
    CALL("fchmodat W/d/c (requested)", SYS_fchmodat, dir, "c", 0644);
    CALL("fchownat W/d/c (requested)", SYS_fchownat, dir, "c", -1, -1, 0);
    CALL("fchownat W/d", SYS_fchownat, dir, "", -1, -1, AT_EMPTY_PATH);
    CALL("mknodat W/d/fifo (requested)", SYS_mknodat, dir, "fifo", S_IFIFO | 0600, 0);
    CALL("mkdirat W/d/e (requested)", SYS_mkdirat, dir, "e", 0700);
    CALL("linkat W/a (requested) -> W/b", SYS_linkat, AT_FDCWD, "a", AT_FDCWD, "b", 0);
    CALL("linkat W/a (requested) -> W/d/b", SYS_linkat, AT_FDCWD, "a", dir, "b", 0);
    CALL("symlinkat W/d/s (requested) -> ../a", SYS_symlinkat, "../a", dir, "s");
    CALL("openat W/a", SYS_openat, dir, "s", O_RDONLY);
    CALL("renameat W/d/b (requested) -> W/b3", SYS_renameat, dir, "b", AT_FDCWD, "b3");
    CALL("renameat2 W/b (requested) -> W/b3", SYS_renameat2, AT_FDCWD, "b", AT_FDCWD, "b3", 1);
    CALL("unlinkat W/d/s (requested)", SYS_unlinkat, dir, "s", 0);
    CALL("unlinkat W/d/e (requested)", SYS_unlinkat, dir, "e", AT_REMOVEDIR);
    CALL("unlinkat W/nothing (requested)", SYS_unlinkat, AT_FDCWD, "nothing", 0);
#ifdef SYS_open /* what came before those: only x86_64 still has it */
    CALL("mkdir W/e (requested)", SYS_mkdir, "e", 0750);
    CALL("open W/l", SYS_open, "l", O_CREAT | O_WRONLY | O_EXCL, 0640);
    CALL("creat W/e/c", SYS_creat, "e/../e//c", 0600);
    CALL("open W/../none (requested)", SYS_open, "../none", O_RDONLY);
    CALL("chmod W/l (requested)", SYS_chmod, "l", 0644);
    CALL("chown W/l (requested)", SYS_chown, "l", -1, -1);
    CALL("lchown W/l (requested)", SYS_lchown, "l", -1, -1);
    CALL("mknod W/fifo (requested)", SYS_mknod, "fifo", S_IFIFO | 0600, 0);
    CALL("link W/l (requested) -> W/l1", SYS_link, "l", "l1");
    CALL("symlink W/s (requested) -> l", SYS_symlink, "l", "s");
    CALL("open W/l", SYS_open, "s", O_RDONLY);
    CALL("rename W/l1 (requested) -> W/l2", SYS_rename, "l1", "l2");
    CALL("unlink W/l2 (requested)", SYS_unlink, "l2");
    CALL("rmdir W/e (requested)", SYS_rmdir, "e");
    CALL("unlink W/nothing (requested)", SYS_unlink, "nothing");
#endif
    return 0;
}
