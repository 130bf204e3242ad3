/* Processes: how they start, how they end, and the signals that concern them. */
#include "init.h"

static const char DEFAULT_PATH[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const char *error_text(long error)
{
    switch (error < 0 ? -error : error) {
    case EPERM: return "operation not permitted";
    case ENOENT: return "no such file";
    case E2BIG: return "arguments and environment are too long";
    case ENOEXEC: return "not a program of this machine, and no script with a #! line";
    case EAGAIN: return "no more processes are allowed";
    case ENOMEM: return "not enough memory";
    case EACCES: return "permission denied";
    case EEXIST: return "exists";
    case ENOTDIR: return "a part of the path is not a folder";
    case EISDIR: return "is a folder";
    case EINVAL: return "invalid";
    case ENOSPC: return "no space is left";
    case EROFS: return "the file system is read-only";
    case ENAMETOOLONG: return "the name is too long";
    case ENOTEMPTY: return "the folder is not empty";
    case ELOOP: return "too many symbolic links";
    case ECONNREFUSED: return "connection refused";
    }
    static struct line other;
    other.size = 0;
    put(&other, "error ");
    put_number(&other, (u64)(error < 0 ? -error : error));
    other.data[other.size] = 0;
    return other.data;
}

static const char *path_of(char **environment)
{
    for (; *environment; environment++)
        if (starts(*environment, "PATH="))
            return *environment + 5;
    return DEFAULT_PATH;
}

/* Become the program. Return the error that says most about why not. */
static long become(const struct program *program)
{
    static char path[4096];
    const char *name = program->arguments[0];
    long error = -ENOENT;
    if (text_find((struct text){(char *)name, length(name)}, '/') < length(name))
        return SYS(NR_EXECVE, name, program->arguments, program->environment);
    const char *folders = path_of(program->environment);
    while (name[0]) {
        u64 size = text_find((struct text){(char *)folders, length(folders)}, ':');
        if (size + 1 + length(name) < sizeof path) {
            memcpy(path, folders, size);
            path[size] = '/';
            /* An empty entry is the current folder. */
            memcpy(path + (size ? size + 1 : 0), name, length(name) + 1);
            long failed = SYS(NR_EXECVE, path, program->arguments, program->environment);
            if (failed != -ENOENT && failed != -ENOTDIR)
                error = failed;
            if (failed != -ENOENT && failed != -ENOTDIR && failed != -EACCES)
                break;
        }
        if (!folders[size])
            break;
        folders += size + 1;
    }
    return error;
}

/* In the new process: never returns. What fails is written to `report`. */
static void child(const struct program *program, int report)
{
    struct launch failure = {0, false};
    u64 none = 0;
    SYS(NR_SETSID);
    SYS(NR_RT_SIGPROCMASK, SIG_SETMASK, &none, NULL, 8);
    SYS(NR_DUP3, program->in, 0, 0);
    SYS(NR_DUP3, program->out, 1, 0);
    SYS(NR_DUP3, program->err, 2, 0);
    if (program->folder)
        failure.pid = (int)SYS(NR_CHDIR, program->folder);
    failure.folder_failed = failure.pid < 0;
    if (!failure.folder_failed)
        failure.pid = (int)become(program);
    sys_write(report, &failure, sizeof failure);
    sys_exit(127);
}

struct launch program_start(const struct program *program)
{
    struct launch failure = {0, false};
    int report[2];
    failure.pid = (int)SYS(NR_PIPE2, report, O_CLOEXEC);
    if (failure.pid < 0)
        return failure;
    int pid = (int)SYS(NR_CLONE, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        child(program, report[1]);
    sys_close(report[1]);
    failure.pid = pid;
    if (pid > 0) {
        /* It closes when the program begins. */
        struct launch told;
        long size = sys_read(report[0], &told, sizeof told);
        if (size == sizeof told) {
            SYS(NR_WAIT4, pid, NULL, 0, NULL);
            failure = told;
        }
    }
    sys_close(report[0]);
    return failure;
}

void program_kill(int pid)
{
    /* 0 and 1 would mean others. The process alone may be reaped, and its number another's. */
    if (pid > 1)
        SYS(NR_KILL, -pid, SIGKILL);
}

void kill_everything(void)
{
    /* Anywhere else, this would be every process that the user has on the machine. */
    if (sys_getpid() == 1)
        SYS(NR_KILL, -1, SIGKILL);
}

bool program_reap(void)
{
    for (;;) {
        int status = 0;
        int pid = (int)SYS(NR_WAIT4, -1, &status, WNOHANG, NULL);
        if (pid <= 0)
            return pid == 0;
        if (pid == main_pid)
            serve_ended(status);
        else
            run_ended(pid, status);
    }
}

int exit_status(int status) { return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff; }

static struct watch signals = {.fd = -1};

struct signal_info {
    u32 number;
    u8 more[124];
};

static void pass_on(int signal)
{
    if (main_pid > 0) {
        SYS(NR_KILL, -main_pid, signal);
        return;
    }
    bool ends = signal == SIGTERM || signal == SIGINT;
    if (runs_signal(signal) == 0 && ends)
        init_end(0);
}

static void signals_ready(struct watch *watch, u32 events)
{
    struct signal_info info;
    (void)events;
    while (sys_read(watch->fd, &info, sizeof info) == sizeof info) {
        if (info.number == SIGCHLD) {
            program_reap();
            runs_swept();
        } else {
            pass_on((int)info.number);
        }
    }
}

void signals_open(void)
{
    /* All are blocked, SIGPIPE too, and some are read. Programs start with none blocked. */
    u64 all = ~(u64)0, some = 0;
    const int wanted[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    for (u32 i = 0; i < sizeof wanted / sizeof *wanted; i++)
        some |= (u64)1 << (wanted[i] - 1);
    SYS(NR_RT_SIGPROCMASK, SIG_SETMASK, &all, NULL, 8);
    int fd = (int)SYS(NR_SIGNALFD4, -1, &some, 8, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        loop_add(&signals, fd, signals_ready);
}
