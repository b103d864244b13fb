/* Lets the n-th call of write, sync, rename or truncate on a file below a folder fail, be cut short, or be the last
   thing that the process does. Loaded by LD_PRELOAD; armed by the test through `arm`, which counts from there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAIL, SHORT, KILL };
static char below[4096];
static int armed, at, mode, error, seen;

int arm(const char *folder, int number, int how, int with) {
    int before = seen;
    strncpy(below, folder, sizeof below - 1);
    at = number, mode = how, error = with, seen = 0, armed = folder[0] != 0;
    return before;
}

static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

/* Whether this call is the one, and with which mode: -1 where it goes on as usual. A full disk stays full. */
static int due(int relevant) {
    if (!armed || !relevant) return -1;
    seen++;
    if (seen != at && !(error == ENOSPC && mode == FAIL && seen > at && at > 0)) return -1;
    if (mode == KILL) kill(getpid(), SIGKILL);
    return mode;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAILS(fd) int it = due(armed && ours(fd)); if (it >= 0 && it != SHORT) { errno = error; return -1; }

ssize_t write(int fd, const void *data, size_t length) {
    REAL(write);
    FAILS(fd)
    return real(fd, data, it == SHORT && length > 1 ? length / 2 : length);
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    REAL(pwrite64);
    FAILS(fd)
    return real(fd, data, it == SHORT && length > 1 ? length / 2 : length, offset);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) {
    REAL(pwrite);
    FAILS(fd)
    return real(fd, data, it == SHORT && length > 1 ? length / 2 : length, offset);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    FAILS(fd)
    return real(fd, parts, it == SHORT && count > 1 ? count / 2 : count);
}
int fsync(int fd) { REAL(fsync); FAILS(fd) return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); FAILS(fd) return real(fd); }
int ftruncate(int fd, off_t length) { REAL(ftruncate); FAILS(fd) return real(fd, length); }
int ftruncate64(int fd, off64_t length) { REAL(ftruncate64); FAILS(fd) return real(fd, length); }

static int named(const char *path) { return strncmp(path, below, strlen(below)) == 0; }

int rename(const char *from, const char *to) {
    REAL(rename);
    if (due(armed && named(to)) >= 0) { errno = error; return -1; }
    return real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    if (due(armed && named(to)) >= 0) { errno = error; return -1; }
    return real(a, from, b, to);
}
