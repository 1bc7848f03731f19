/* A disk that fails, for failing.py: put before other libraries by LD_PRELOAD.

   Once FAILING_AFTER bytes were written to files below FAILING_UNDER, every write there, and every
   open for writing, fails with the number FAILING_ERRNO. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long written;

static int is_below(const char *path) {
    const char *under = getenv("FAILING_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

static int is_ours(int fd) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return is_below(path);
}

/* Whether the disk has failed, now that so many bytes more are written. */
static int fails(long more) {
    const char *after = getenv("FAILING_AFTER");
    if (!after || atomic_fetch_add(&written, more) + more <= atol(after)) return 0;
    errno = atoi(getenv("FAILING_ERRNO"));
    return 1;
}

#define NEXT(name) __typeof__(&name) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int fd, const void *from, size_t size) {
    NEXT(write);
    return is_ours(fd) && fails(size) ? -1 : next(fd, from, size);
}

ssize_t pwrite64(int fd, const void *from, size_t size, off64_t at) {
    NEXT(pwrite64);
    return is_ours(fd) && fails(size) ? -1 : next(fd, from, size, at);
}

ssize_t pwrite(int fd, const void *from, size_t size, off_t at) { return pwrite64(fd, from, size, at); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    long size = 0;
    for (int part = 0; part < count; part++) size += parts[part].iov_len;
    return is_ours(fd) && fails(size) ? -1 : next(fd, parts, count);
}

int fsync(int fd) {
    NEXT(fsync);
    return is_ours(fd) && fails(0) ? -1 : next(fd);
}

static int refuses(const char *path, int flags) {
    char whole[PATH_MAX];
    if (!(flags & (O_WRONLY | O_RDWR | O_CREAT))) return 0;
    if (path[0] == '/') return is_below(path) && fails(0);
    return getcwd(whole, sizeof whole) && is_below(whole) && fails(0);
}

#define MODE(flags) \
    va_list rest; \
    va_start(rest, flags); \
    int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
    va_end(rest)

int open(const char *path, int flags, ...) {
    NEXT(open);
    MODE(flags);
    return refuses(path, flags) ? -1 : next(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    NEXT(open64);
    MODE(flags);
    return refuses(path, flags) ? -1 : next(path, flags, mode);
}

int openat(int folder, const char *path, int flags, ...) {
    NEXT(openat);
    MODE(flags);
    return refuses(path, flags) ? -1 : next(folder, path, flags, mode);
}
