/* --copy: what an image has in the folder of a volume, into the memory that is mounted there. */
#include "init.h"

enum { DEPTH_LIMIT = 128, COMPLAINTS = 8 };

static u32 complaints;

/* A folder of the image, and the one that it goes to. */
struct pair {
    int from, to;
};

static void complain(const char *name, long error)
{
    if (++complaints <= COMPLAINTS)
        init_say("cannot copy ", name, error_text(error));
}

/* Give a copy the owner, mode and times of what it was made from. Without the rights for it, it keeps its own. */
static void copy_facts(int to, const char *name, const struct statx *facts)
{
    bool owned = SYS(NR_FCHOWNAT, to, name, facts->uid, facts->gid, AT_SYMLINK_NOFOLLOW) >= 0;
    struct timespec times[2] = {
        {facts->accessed.seconds, facts->accessed.nanoseconds},
        {facts->modified.seconds, facts->modified.nanoseconds},
    };
    if ((facts->mode & S_IFMT) != S_IFLNK)
        SYS(NR_FCHMODAT, to, name, facts->mode & (owned ? 07777 : 0777));
    SYS(NR_UTIMENSAT, to, name, times, AT_SYMLINK_NOFOLLOW);
}

static long copy_content(int from, int to)
{
    for (;;) {
        long size = sys_read(from, piece, PIECE);
        if (size <= 0)
            return size;
        for (long done = 0; done < size;) {
            long count = sys_write(to, piece + done, (u64)(size - done));
            if (count < 0)
                return count;
            done += count;
        }
    }
}

static long copy_file(struct pair pair, const char *name)
{
    int from = (int)SYS(NR_OPENAT, pair.from, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (from < 0)
        return from;
    int to = (int)SYS(NR_OPENAT, pair.to, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
    long failed = to < 0 ? to : copy_content(from, to);
    sys_close(from);
    if (to >= 0)
        sys_close(to);
    return failed;
}

static long copy_link(struct pair pair, const char *name)
{
    static char target[4096];
    long size = SYS(NR_READLINKAT, pair.from, name, target, sizeof target - 1);
    if (size < 0)
        return size;
    target[size] = 0;
    SYS(NR_UNLINKAT, pair.to, name, 0);
    return SYS(NR_SYMLINKAT, target, pair.to, name);
}

static long copy_entries(struct pair pair, u32 depth);

static long copy_subfolder(struct pair pair, const char *name, u32 depth)
{
    if (depth == DEPTH_LIMIT)
        return -ELOOP;
    long failed = SYS(NR_MKDIRAT, pair.to, name, 0700);
    if (failed < 0 && failed != -EEXIST)
        return failed;
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct pair below = {(int)SYS(NR_OPENAT, pair.from, name, flags), (int)SYS(NR_OPENAT, pair.to, name, flags)};
    failed = below.from < 0 ? below.from : below.to < 0 ? below.to : copy_entries(below, depth + 1);
    if (below.from >= 0)
        sys_close(below.from);
    if (below.to >= 0)
        sys_close(below.to);
    return failed;
}

static void copy_entry(struct pair pair, const char *name, u32 depth)
{
    struct statx facts;
    long failed = SYS(NR_STATX, pair.from, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &facts);
    u32 kind = failed < 0 ? 0 : facts.mode & S_IFMT;
    if (kind == S_IFDIR)
        failed = copy_subfolder(pair, name, depth);
    else if (kind == S_IFREG)
        failed = copy_file(pair, name);
    else if (kind == S_IFLNK)
        failed = copy_link(pair, name);
    else if (kind == S_IFIFO)
        failed = SYS(NR_MKNODAT, pair.to, name, S_IFIFO | 0600, 0);
    else if (failed >= 0)
        return; /* A device or socket is of no use in a volume. */
    if (failed < 0)
        complain(name, failed);
    else
        copy_facts(pair.to, name, &facts);
}

/* Copy what is in an open folder. What fails is said for each entry. */
static long copy_entries(struct pair pair, u32 depth)
{
    u64 space[256];
    for (;;) {
        long size = SYS(NR_GETDENTS64, pair.from, space, sizeof space);
        if (size <= 0)
            return size;
        for (char *at = (char *)space; at < (char *)space + size; at += ((struct entry *)at)->size) {
            const char *name = ((struct entry *)at)->name;
            if (!same(name, ".") && !same(name, ".."))
                copy_entry(pair, name, depth);
        }
    }
}

void copy_folder(char *text)
{
    struct statx facts;
    u64 size = text_find((struct text){text, length(text)}, '=');
    if (size == 0 || !text[size] || !text[size + 1]) {
        init_say("--copy ", text, "give it as FROM=TO");
        return;
    }
    text[size] = 0;
    const char *to = text + size + 1;
    struct pair pair = {(int)sys_open(text, O_RDONLY | O_DIRECTORY, 0), (int)sys_open(to, O_RDONLY | O_DIRECTORY, 0)};
    if (pair.from < 0 || pair.to < 0)
        complain(pair.from < 0 ? text : to, pair.from < 0 ? pair.from : pair.to);
    else
        copy_entries(pair, 0);
    if (pair.from >= 0 && pair.to >= 0 && SYS(NR_STATX, pair.from, ".", 0, STATX_BASIC_STATS, &facts) >= 0)
        copy_facts(pair.to, ".", &facts);
    if (pair.from >= 0)
        sys_close(pair.from);
    if (pair.to >= 0)
        sys_close(pair.to);
}
