/* GET, PUT and DELETE of /files/PATH: files of the container, with the rights of its user. */
#include "init.h"

enum {
    FILE_LIMIT = 64 << 20,         /* bytes of a file that is read or written */
    ENTRIES_LIMIT = 4096,          /* of a folder that is listed */
    PATH_LIMIT = 4096,
    SUFFIX = 16,                   /* room for what the name of an unfinished file ends with */
    ROUNDS = 16,                   /* pieces before others have their turn */
    AT_EMPTY_PATH = 0x1000,
};

struct transfer {
    int fd;
    u64 left, size;                /* bytes still to be sent; bytes that have come */
    bool sized;                    /* it is sent as long as it was said to be, else to its end */
    u32 mode, entries;
    char path[PATH_LIMIT], unfinished[PATH_LIMIT + SUFFIX];
};

static void drop(struct slot *slot)
{
    struct transfer *transfer = slot->work;
    if (transfer->fd >= 0)
        sys_close(transfer->fd);
    if (transfer->unfinished[0])
        SYS(NR_UNLINKAT, AT_FDCWD, transfer->unfinished, 0);
    pages_drop(transfer, sizeof *transfer);
}

static void lost(struct slot *slot)
{
    drop(slot);
    slot_redial(slot);
}

static void refuse(struct slot *slot, int status, const char *why)
{
    static struct line line;
    struct transfer *transfer = slot->work;
    line.size = 0;
    put(&line, transfer->path);
    put(&line, ": ");
    put(&line, why);
    line.data[line.size] = 0;
    drop(slot);
    slot_answer(slot, status, "file-refused", "FileRefused", line.data);
}

static void fail(struct slot *slot, long error)
{
    int status = 400;
    if (error == -ENOENT || error == -ENOTDIR)
        status = 404;
    else if (error == -EACCES || error == -EPERM || error == -EROFS)
        status = 403;
    else if (error == -ENOSPC)
        status = 413;
    refuse(slot, status, error_text(error));
}

static void finish(struct slot *slot)
{
    drop(slot);
    slot_done(slot);
}

/* ---- GET ---- */

/* Send what is left of a file of known size. Return false if it has become shorter. */
static bool send_sized(struct slot *slot, struct transfer *transfer)
{
    u64 wanted = transfer->left < PIECE ? transfer->left : PIECE;
    long size = sys_read(transfer->fd, piece, wanted);
    if (size <= 0)
        return false;
    transfer->left -= (u64)size;
    outbox_send(&slot->out, piece, (u32)size);
    return true;
}

/* Send a piece of a file up to its end: those of /proc say that they are empty. Return false if it is too long. */
static bool send_to_the_end(struct slot *slot, struct transfer *transfer)
{
    long size = sys_read(transfer->fd, piece + CHUNK_HEAD, PIECE);
    transfer->size += size > 0 ? (u64)size : 0;
    if (transfer->size > FILE_LIMIT)
        return false;
    if (size > 0) {
        send_piece(slot, (u32)size);
        return true;
    }
    transfer->left = 0;
    outbox_send(&slot->out, "0\r\n\r\n", 5);
    return true;
}

static void send_pump(struct slot *slot)
{
    struct transfer *transfer = slot->work;
    for (int round = 0; outbox_flush(&slot->out); round++) {
        if (transfer->left == 0) {
            finish(slot);
            return;
        }
        if (round == ROUNDS) {
            loop_again(&slot->watch);
            return;
        }
        if (!(transfer->sized ? send_sized(slot, transfer) : send_to_the_end(slot, transfer))) {
            lost(slot); /* An answer that breaks off says that it is not whole. */
            return;
        }
    }
}

static void put_entry(struct line *line, struct transfer *transfer, const struct entry *entry)
{
    struct statx facts;
    if (same(entry->name, ".") || same(entry->name, "..") || transfer->entries == ENTRIES_LIMIT)
        return;
    if (SYS(NR_STATX, transfer->fd, entry->name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &facts) < 0)
        return; /* It has just gone. */
    u32 kind = facts.mode & S_IFMT;
    put(line, transfer->entries++ ? ", {\"name\": \"" : "{\"name\": \"");
    put_json(line, (struct text){(char *)entry->name, length(entry->name)});
    put(line, "\", \"type\": ");
    put(line, kind == S_IFREG   ? "\"file\""
              : kind == S_IFDIR ? "\"folder\""
              : kind == S_IFLNK ? "\"link\""
                                : "\"other\"");
    put(line, ", \"size\": ");
    put_number(line, facts.size);
    put(line, "}");
}

static void list_pump(struct slot *slot)
{
    static struct line line;
    struct transfer *transfer = slot->work;
    u64 space[128];                /* so few entries that a line holds them, each byte of a name as six */
    while (outbox_flush(&slot->out)) {
        long size = SYS(NR_GETDENTS64, transfer->fd, space, sizeof space);
        line.size = 0;
        for (char *at = (char *)space; at < (char *)space + size; at += ((struct entry *)at)->size)
            put_entry(&line, transfer, (struct entry *)at);
        if (size <= 0)
            put(&line, transfer->entries == ENTRIES_LIMIT ? "], \"complete\": false}" : "], \"complete\": true}");
        if (line.size > 0)
            send_chunk(slot, line.data, line.size);
        if (size <= 0) {
            outbox_send(&slot->out, "0\r\n\r\n", 5);
            finish(slot);
            return;
        }
    }
}

static void get_begin(struct slot *slot)
{
    static struct line line;
    struct transfer *transfer = slot->work;
    struct statx facts;
    transfer->fd = (int)sys_open(transfer->path, O_RDONLY | O_NONBLOCK, 0);
    long failed = transfer->fd;
    if (failed >= 0)
        failed = SYS(NR_STATX, transfer->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &facts);
    if (failed < 0) {
        fail(slot, failed);
        return;
    }
    u32 kind = facts.mode & S_IFMT;
    if (kind != S_IFREG && kind != S_IFDIR) {
        refuse(slot, 403, "is neither a file nor a folder");
        return;
    }
    if (kind == S_IFREG && facts.size > FILE_LIMIT) {
        refuse(slot, 413, "is over 64 MiB");
        return;
    }
    line.size = 0;
    put(&line, "HTTP/1.1 200 OK\r\nx-hearth-mode: ");
    for (int shift = 6; shift >= 0; shift -= 3)
        put_number(&line, facts.mode >> shift & 7);
    transfer->sized = kind == S_IFREG && facts.size > 0;
    put(&line, "\r\ncontent-type: application/");
    put(&line, kind == S_IFREG ? "octet-stream\r\n" : "json\r\n");
    put(&line, transfer->sized ? "content-length: " : "transfer-encoding: chunked");
    if (transfer->sized)
        put_number(&line, facts.size);
    put(&line, "\r\n\r\n");
    outbox_send(&slot->out, line.data, line.size);
    static const struct verb sending = {send_pump, lost}, listing = {list_pump, lost};
    transfer->left = transfer->sized ? facts.size : 1;
    slot->verb = kind == S_IFREG ? &sending : &listing;
    if (kind == S_IFDIR)
        send_chunk(slot, "{\"entries\": [", 13);
    slot->verb->pump(slot);
}

/* ---- PUT ---- */

static void receive_end(struct slot *slot)
{
    static struct line line;
    struct transfer *transfer = slot->work;
    long failed = SYS(NR_FCHMOD, transfer->fd, transfer->mode);
    if (failed >= 0)
        failed = SYS(NR_RENAMEAT, AT_FDCWD, transfer->unfinished, AT_FDCWD, transfer->path);
    if (failed < 0) {
        fail(slot, failed);
        return;
    }
    transfer->unfinished[0] = 0;
    line.size = 0;
    put(&line, "{\"size\": ");
    put_number(&line, transfer->size);
    put(&line, "}");
    slot_answer_json(slot, 200, NULL, line.data, line.size);
    finish(slot);
}

static void receive_pump(struct slot *slot)
{
    struct transfer *transfer = slot->work;
    for (int round = 0;; round++) {
        if (round == ROUNDS) {
            loop_again(&slot->watch);
            return;
        }
        struct text part = slot_body(slot);
        transfer->size += part.size;
        if (transfer->size > FILE_LIMIT || slot->head.body.state == BODY_BAD) {
            refuse(slot, transfer->size > FILE_LIMIT ? 413 : 400,
                   transfer->size > FILE_LIMIT ? "would be over 64 MiB" : "the body is malformed");
            return;
        }
        for (u64 done = 0; done < part.size;) {
            long count = sys_write(transfer->fd, part.at + done, part.size - done);
            if (count < 0) {
                fail(slot, count);
                return;
            }
            done += (u64)count;
        }
        if (slot->head.body.state == BODY_DONE) {
            receive_end(slot);
            return;
        }
        if (part.size == 0)
            return;
    }
}

/* Make the folders above a path that are missing. What fails shows when the file is made. */
static void make_folders(char *path)
{
    for (u64 i = 1; path[i]; i++) {
        if (path[i] != '/')
            continue;
        path[i] = 0;
        SYS(NR_MKDIRAT, AT_FDCWD, path, 0755);
        path[i] = '/';
    }
}

/* Read a mode of three octal digits at most. */
static bool read_mode(struct text text, u32 *mode)
{
    *mode = 0;
    for (u64 i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '7' || i == 4)
            return false;
        *mode = *mode * 8 + (u32)(text.at[i] - '0');
    }
    return text.size > 0 && *mode <= 0777;
}

static void put_begin(struct slot *slot)
{
    static const struct verb receiving = {receive_pump, lost};
    static u64 number;
    static struct line suffix;
    struct transfer *transfer = slot->work;
    struct text mode = head_field(&slot->head, "x-hearth-mode");
    transfer->mode = 0644;
    if (mode.at && !read_mode(mode, &transfer->mode)) {
        refuse(slot, 400, "x-hearth-mode must be octal, at most 777");
        return;
    }
    if (slot->head.body.state == BODY_LENGTH && slot->head.body.left > FILE_LIMIT) {
        refuse(slot, 413, "would be over 64 MiB");
        return;
    }
    make_folders(transfer->path);
    /* Others see the old file or the new one, whole. */
    suffix.size = 0;
    put(&suffix, ".part-");
    put_number(&suffix, ++number % 1000000);
    u64 size = length(transfer->path);
    memcpy(transfer->unfinished, transfer->path, size);
    memcpy(transfer->unfinished + size, suffix.data, suffix.size);
    transfer->fd = (int)sys_open(transfer->unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (transfer->fd < 0) {
        transfer->unfinished[0] = 0;
        fail(slot, transfer->fd);
        return;
    }
    slot->verb = &receiving;
    receive_pump(slot);
}

/* ---- DELETE ---- */

static void delete_begin(struct slot *slot)
{
    struct transfer *transfer = slot->work;
    long failed = SYS(NR_UNLINKAT, AT_FDCWD, transfer->path, 0);
    if (failed == -EISDIR)
        failed = SYS(NR_UNLINKAT, AT_FDCWD, transfer->path, AT_REMOVEDIR);
    if (failed < 0) {
        fail(slot, failed);
        return;
    }
    slot_answer_json(slot, 200, NULL, "{}", 2);
    finish(slot);
}

void files_begin(struct slot *slot)
{
    enum { PREFIX = 6 };           /* the length of /files */
    struct text method = slot->head.method;
    struct text path = {slot->head.target.at + PREFIX, slot->head.target.size - PREFIX};
    bool valid = text_decode(&path) && path.size < PATH_LIMIT;
    struct transfer *transfer = valid ? pages_get(sizeof *transfer) : NULL;
    if (!transfer) {
        slot_answer(slot, 400, "bad-request", "BadRequest",
                    "the path must be text with %XX, of less than 4096 bytes");
        return;
    }
    memcpy(transfer->path, path.at, path.size);
    transfer->fd = -1;
    slot->work = transfer;
    if (text_is(method, "get"))
        get_begin(slot);
    else if (text_is(method, "put"))
        put_begin(slot);
    else if (text_is(method, "delete"))
        delete_begin(slot);
    else
        refuse(slot, 400, "files have GET, PUT and DELETE");
}
