/* A disk under the spool that is slow, full, read-only or broken, when a file says so.
 *
 * Preloaded into the agent. FAULTY_DISK names the file; its first word is the fault: "slow" (a sync
 * takes two seconds) or the number that errno gets. No file, no fault. Only the spool is concerned.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int is_spool(int fd)
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return strstr(path, "/spool.sqlite3") != NULL;
}

/* 0: none, -1: slow, else errno. */
static int fault(int fd)
{
    const char *name = getenv("FAULTY_DISK");
    char word[16] = "";
    if (!name || !is_spool(fd))
        return 0;
    FILE *file = fopen(name, "r");
    if (!file)
        return 0;
    if (fscanf(file, "%15s", word) != 1)
        word[0] = 0;
    fclose(file);
    return strcmp(word, "slow") ? atoi(word) : -1;
}

static int sync_faulty(int fd)
{
    int what = fault(fd);
    if (what == -1)
        sleep(2);
    if (what > 0) {
        errno = what;
        return -1;
    }
    return 0;
}

int fsync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return sync_faulty(fd) ? -1 : real(fd);
}

int fdatasync(int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return sync_faulty(fd) ? -1 : real(fd);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    int what = fault(fd);
    if (what > 0) {
        errno = what;
        return -1;
    }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    return pwrite64(fd, data, size, at);
}
