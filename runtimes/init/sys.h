/*
 * The kernel without a libc: the calls that init makes, and the shapes that go with them.
 *
 * Every call returns what the kernel returns: a negative errno if it failed. No header of the system is needed, so
 * that a compiler alone can build init.
 */
#ifndef INIT_SYS_H
#define INIT_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#if defined(__x86_64__)
#define NUMBER(x86_64, aarch64) x86_64
#elif defined(__aarch64__)
#define NUMBER(x86_64, aarch64) aarch64
#else
#error "init knows x86_64 and aarch64"
#endif

enum {
    NR_READ = NUMBER(0, 63),
    NR_WRITE = NUMBER(1, 64),
    NR_CLOSE = NUMBER(3, 57),
    NR_MMAP = NUMBER(9, 222),
    NR_MUNMAP = NUMBER(11, 215),
    NR_RT_SIGPROCMASK = NUMBER(14, 135),
    NR_IOCTL = NUMBER(16, 29),
    NR_MADVISE = NUMBER(28, 233),
    NR_GETPID = NUMBER(39, 172),
    NR_SOCKET = NUMBER(41, 198),
    NR_CONNECT = NUMBER(42, 203),
    NR_SHUTDOWN = NUMBER(48, 210),
    NR_BIND = NUMBER(49, 200),
    NR_LISTEN = NUMBER(50, 201),
    NR_SETSOCKOPT = NUMBER(54, 208),
    NR_GETSOCKOPT = NUMBER(55, 209),
    NR_CLONE = NUMBER(56, 220),
    NR_EXECVE = NUMBER(59, 221),
    NR_WAIT4 = NUMBER(61, 260),
    NR_KILL = NUMBER(62, 129),
    NR_FCNTL = NUMBER(72, 25),
    NR_FTRUNCATE = NUMBER(77, 46),
    NR_CHDIR = NUMBER(80, 49),
    NR_FCHMOD = NUMBER(91, 52),
    NR_FCHOWN = NUMBER(93, 55),
    NR_SETSID = NUMBER(112, 157),
    NR_PRCTL = NUMBER(157, 167),
    NR_GETDENTS64 = NUMBER(217, 61),
    NR_CLOCK_GETTIME = NUMBER(228, 113),
    NR_EXIT_GROUP = NUMBER(231, 94),
    NR_EPOLL_CTL = NUMBER(233, 21),
    NR_OPENAT = NUMBER(257, 56),
    NR_MKDIRAT = NUMBER(258, 34),
    NR_MKNODAT = NUMBER(259, 33),
    NR_FCHOWNAT = NUMBER(260, 54),
    NR_UNLINKAT = NUMBER(263, 35),
    NR_RENAMEAT = NUMBER(264, 38),
    NR_SYMLINKAT = NUMBER(266, 36),
    NR_READLINKAT = NUMBER(267, 78),
    NR_FCHMODAT = NUMBER(268, 53),
    NR_UTIMENSAT = NUMBER(280, 88),
    NR_EPOLL_PWAIT = NUMBER(281, 22),
    NR_ACCEPT4 = NUMBER(288, 242),
    NR_SIGNALFD4 = NUMBER(289, 74),
    NR_EPOLL_CREATE1 = NUMBER(291, 20),
    NR_DUP3 = NUMBER(292, 24),
    NR_PIPE2 = NUMBER(293, 59),
    NR_STATX = NUMBER(332, 291),
    NR_CLOSE_RANGE = 436,
};

enum {
    EPERM = 1,
    ENOENT = 2,
    EINTR = 4,
    ENXIO = 6,
    E2BIG = 7,
    ENOEXEC = 8,
    ECHILD = 10,
    EAGAIN = 11,
    ENOMEM = 12,
    EACCES = 13,
    EEXIST = 17,
    ENOTDIR = 20,
    EISDIR = 21,
    EINVAL = 22,
    ENOSPC = 28,
    EROFS = 30,
    ENAMETOOLONG = 36,
    ENOTEMPTY = 39,
    ELOOP = 40,
    ECONNREFUSED = 111,
    EINPROGRESS = 115,
};

enum {
    O_RDONLY = 0,
    O_WRONLY = 01,
    O_RDWR = 02,
    O_CREAT = 0100,
    O_EXCL = 0200,
    O_TRUNC = 01000,
    O_NONBLOCK = 04000,
    O_CLOEXEC = 02000000,
    /* These two differ between the machines. */
    O_DIRECTORY = NUMBER(0200000, 040000),
    O_NOFOLLOW = NUMBER(0400000, 0100000),
};
#define AT_FDCWD (-100)
#define AT_SYMLINK_NOFOLLOW 0x100
#define AT_REMOVEDIR 0x200

enum { SIGHUP = 1, SIGINT = 2, SIGKILL = 9, SIGUSR1 = 10, SIGUSR2 = 12, SIGTERM = 15, SIGCHLD = 17 };
enum { SIG_BLOCK = 0, SIG_SETMASK = 2 };
enum { WNOHANG = 1 };
enum { PR_SET_DUMPABLE = 4 };
enum { F_SETFL = 4 };
enum { CLOSE_RANGE_CLOEXEC = 4 };
#define FIONREAD 0x541b

enum { PROT_READ = 1, PROT_WRITE = 2 };
enum { MAP_PRIVATE = 2, MAP_ANONYMOUS = 0x20 };
enum { MADV_DONTNEED = 4 };

enum { AF_UNIX = 1, AF_INET = 2 };
enum { SOCK_STREAM = 1, SOCK_NONBLOCK = O_NONBLOCK, SOCK_CLOEXEC = O_CLOEXEC };
enum { SHUT_WR = 1 };
enum { SOL_SOCKET = 1, SO_REUSEADDR = 2, SO_ERROR = 4, IPPROTO_TCP = 6, TCP_NODELAY = 1 };

struct address {
    u16 family;
    union {
        char path[108];
        struct {
            u16 port;   /* big-endian */
            u8 host[4];
            u8 zero[8];
        } inet;
    };
};

enum { EPOLLIN = 1, EPOLLOUT = 4, EPOLLERR = 8, EPOLLHUP = 0x10, EPOLLRDHUP = 0x2000 };
#define EPOLLET 0x80000000u
enum { EPOLL_CTL_ADD = 1, EPOLL_CTL_DEL = 2, EPOLL_CTL_MOD = 3 };
struct epoll_event {
    u32 events;
    void *data;
}
#if defined(__x86_64__)
__attribute__((packed))
#endif
;

struct timespec {
    int64_t seconds, nanoseconds;
};

struct statx_time {
    int64_t seconds;
    u32 nanoseconds;
    int32_t unused;
};
struct statx {
    u32 mask, block_size;
    u64 attributes;
    u32 links, uid, gid;
    u16 mode, unused;
    u64 inode, size, blocks, attributes_mask;
    struct statx_time accessed, born, changed, modified;
    u32 rdev_major, rdev_minor, dev_major, dev_minor;
    u64 more[14];
};
enum { STATX_BASIC_STATS = 0x7ff };
enum { S_IFMT = 0170000, S_IFDIR = 0040000, S_IFREG = 0100000, S_IFLNK = 0120000, S_IFIFO = 0010000 };

/* An entry of a folder, as getdents64 writes it. */
struct entry {
    u64 inode;
    int64_t next;
    u16 size;
    u8 type;
    char name[];
};
enum { DT_DIR = 4, DT_REG = 8, DT_LNK = 10 };

static inline long sys6(long number, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
#else
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#endif
}

/* Make a call, with up to six arguments of any type. */
#define SYS_PICK(_1, _2, _3, _4, _5, _6, _7, name, ...) name
#define SYS_0(n) sys6(n, 0, 0, 0, 0, 0, 0)
#define SYS_1(n, a) sys6(n, (long)(a), 0, 0, 0, 0, 0)
#define SYS_2(n, a, b) sys6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define SYS_3(n, a, b, c) sys6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define SYS_4(n, a, b, c, d) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define SYS_5(n, a, b, c, d, e) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define SYS_6(n, a, b, c, d, e, f) sys6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define SYS(...) SYS_PICK(__VA_ARGS__, SYS_6, SYS_5, SYS_4, SYS_3, SYS_2, SYS_1, SYS_0, )(__VA_ARGS__)

static inline long sys_read(int fd, void *data, u64 size) { return SYS(NR_READ, fd, data, size); }
static inline long sys_write(int fd, const void *data, u64 size) { return SYS(NR_WRITE, fd, data, size); }
static inline void sys_close(int fd) { SYS(NR_CLOSE, fd); }
static inline int sys_getpid(void) { return (int)SYS(NR_GETPID); }

static inline long sys_open(const char *path, int flags, int mode)
{
    return SYS(NR_OPENAT, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

__attribute__((noreturn)) static inline void sys_exit(int status)
{
    for (;;)
        SYS(NR_EXIT_GROUP, status);
}

#endif
