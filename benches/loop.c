/* The measured loop: opens and closes one file `argv[2]` times from each of `argv[3]` processes; prints nanoseconds per iteration and how
 * many opens succeeded, and (for one process) nanoseconds of CPU time per iteration. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    long count = atol(argv[2]);
    int processes = atoi(argv[3]);
    long *opened = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (int p = 0; p < processes; p++) {
        if (processes > 1 && fork())
            continue;
        for (long i = 0; i < count; i++) {
            int fd = open(argv[1], O_RDONLY);
            if (fd >= 0) {
                opened[p]++;
                close(fd);
            }
        }
        if (processes > 1)
            _exit(0);
    }
    while (wait(0) > 0)
        ;
    clock_gettime(CLOCK_MONOTONIC, &end);
    long total = 0;
    for (int p = 0; p < processes; p++)
        total += opened[p];
    double elapsed = (end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec);
    struct timespec cpu;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    printf("%.1f %ld %.1f\n", elapsed / count / processes, total, (cpu.tv_sec * 1e9 + cpu.tv_nsec) / count);
    return 0;
}
