/*
 * The sockets of the gateway, listened on by init itself: each connection becomes a stream of frames.
 *
 * It is for an engine that shares no folder with the gateway. Whoever dials, init or a shim, does not notice.
 */
#include "frames.h"
#include "init.h"

enum {
    STREAMS = 512,
    NAMES = 18,            /* calls, log, and those of --listen */
    WINDOW_STEP = FIRST_WINDOW / 2,  /* bytes after which a window is renewed: small calls cost no frame more */
};

struct stream {
    struct watch watch;
    u32 id;                /* 0: it is free */
    u32 name;
    u32 credit;            /* bytes that the gateway takes */
    u32 owed;              /* bytes that were passed on, so that the gateway may send as many again */
    char *held;            /* bytes that the socket does not take yet: a ring of FIRST_WINDOW */
    u32 start, size;
    bool readable;         /* more may wait in the socket */
    bool read_ended;
    bool write_ended;
    bool told_end;         /* the gateway has sent its last byte */
};

static struct stream streams[STREAMS];
static u32 top;            /* no stream lies behind it */
static u32 youngest;       /* never reset: frames of an earlier epoch name no stream of this one */
static struct watch listeners[NAMES];
static const char *names[NAMES];
static u32 listener_count, log_name;
static bool accepting, starved;

static struct stream *find(u32 id)
{
    struct stream *stream = &streams[id % STREAMS];
    return id && stream->id == id ? stream : NULL;
}

/* ---- the end of a stream ---- */

static void forget(struct stream *stream)
{
    loop_close(&stream->watch);
    pages_drop(stream->held, FIRST_WINDOW);
    stream->held = NULL;
    stream->id = 0;
    if (starved)
        for (u32 i = 0; i < listener_count; i++)
            loop_again(&listeners[i]);
    starved = false;
}

static void reset(struct stream *stream)
{
    frames_send(CLOSE, stream->id, NULL, 0);
    forget(stream);
}

/* Forget a stream that both sides have ended. */
static void settle(struct stream *stream)
{
    if (!stream->read_ended || !stream->write_ended)
        return;
    if (stream->told_end)
        forget(stream);
    else
        reset(stream); /* Nobody reads what the gateway would still send. */
}

static void end_writing(struct stream *stream)
{
    SYS(NR_SHUTDOWN, stream->watch.fd, SHUT_WR);
    stream->write_ended = true;
    settle(stream);
}

/* ---- from the gateway to a socket ---- */

static void passed_on(struct stream *stream, u32 size)
{
    char payload[4];
    stream->owed += size;
    if (stream->owed < WINDOW_STEP)
        return;
    frames_put_number(payload, stream->owed);
    frames_send(WINDOW, stream->id, payload, sizeof payload);
    stream->owed = 0;
}

/* Write what the socket takes, and return how much. What it will never take is dropped. */
static u32 write_some(struct stream *stream, const char *data, u32 size)
{
    u32 done = 0;
    while (done < size && !stream->write_ended) {
        long count = sys_write(stream->watch.fd, data + done, size - done);
        if (count == -EAGAIN)
            break;
        if (count >= 0)
            done += (u32)count;
        else if (count != -EINTR)
            stream->write_ended = true; /* It is read to its end all the same. */
    }
    if (stream->write_ended)
        done = size;
    passed_on(stream, done);
    return done;
}

static void write_held(struct stream *stream)
{
    u32 part, done = 1;
    while (stream->size && done) {
        part = FIRST_WINDOW - stream->start;
        part = part < stream->size ? part : stream->size;
        done = write_some(stream, stream->held + stream->start, part);
        stream->start = (stream->start + done) % FIRST_WINDOW;
        stream->size -= done;
    }
    loop_want_room(&stream->watch, stream->size > 0);
    if (stream->size)
        return;
    pages_drop(stream->held, FIRST_WINDOW);
    stream->held = NULL;
    if (stream->told_end && !stream->write_ended)
        end_writing(stream);
    else
        settle(stream);
}

/* Return false if the gateway sends more than it may. */
static bool hold(struct stream *stream, const char *data, u32 size)
{
    if (stream->size + size > FIRST_WINDOW)
        return false;
    if (!stream->held)
        stream->held = pages_get(FIRST_WINDOW);
    if (!stream->held) {
        reset(stream);
        return true;
    }
    while (size) {
        u32 end = (stream->start + stream->size) % FIRST_WINDOW, part = FIRST_WINDOW - end;
        part = part < size ? part : size;
        memcpy(stream->held + end, data, part);
        stream->size += part;
        data += part;
        size -= part;
    }
    loop_want_room(&stream->watch, true);
    return true;
}

static bool deliver(struct stream *stream, const char *data, u32 size)
{
    if (stream->told_end)
        return false;
    u32 done = stream->size ? 0 : write_some(stream, data, size);
    if (done < size)
        return hold(stream, data + done, size - done);
    settle(stream);
    return true;
}

/* ---- from a socket to the gateway ---- */

/* Read a socket once. Return whether to read on. */
static bool read_some(struct stream *stream)
{
    u32 most = stream->credit < FRAME_LIMIT ? stream->credit : FRAME_LIMIT;
    char *place = most && !stream->read_ended ? frames_place() : NULL;
    if (!place)
        return false;
    long count = sys_read(stream->watch.fd, place, most);
    if (count > 0) {
        frames_send_place(stream->id, (u32)count);
        stream->credit -= (u32)count;
        return true;
    }
    if (count == -EINTR)
        return true;
    stream->readable = false;
    if (count == -EAGAIN)
        return false;
    stream->read_ended = true;
    if (count == 0)
        frames_send(END, stream->id, NULL, 0);
    if (count < 0)
        reset(stream);
    else
        settle(stream);
    return false;
}

/* Send all that was printed: it belongs to the call whose answer is sent next. */
static void read_logs(void)
{
    for (u32 i = 0; i < top; i++)
        while (streams[i].id && streams[i].name == log_name && read_some(&streams[i]))
            ;
}

static void stream_ready(struct watch *watch, u32 events)
{
    struct stream *stream = OWNER(watch, struct stream, watch);
    u32 id = stream->id;
    if (stream->size)
        write_held(stream);
    if (stream->id == id && (stream->readable || events & ~(u32)EPOLLOUT)) {
        stream->readable = true;
        if (stream->name != log_name)
            read_logs();
        if (read_some(stream) && stream->id == id)
            loop_again(watch); /* Others first. */
    }
    frames_flush();
}

/* ---- connections ---- */

static void accept_ready(struct watch *watch, u32 events)
{
    (void)events;
    u32 id = youngest, tries = 0;
    struct stream *stream;
    if (!accepting)
        return;
    if (!frames_room()) {
        starved = true;
        return;
    }
    do {
        id = id + 1 ? id + 1 : 1;
        stream = &streams[id % STREAMS];
    } while (stream->id && ++tries < STREAMS);
    long fd = stream->id ? -EINVAL : SYS(NR_ACCEPT4, watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd == -EAGAIN)
        return;
    if (fd < 0) {
        starved = true; /* Too many are open, here or on the machine: wait until one is closed. */
        return;
    }
    *stream = (struct stream){.id = youngest = id, .name = (u32)(watch - listeners), .credit = FIRST_WINDOW};
    if (top <= id % STREAMS)
        top = id % STREAMS + 1;
    frames_send(OPEN, id, names[stream->name], (u32)length(names[stream->name]));
    loop_add(&stream->watch, (int)fd, stream_ready);
    loop_again(watch);
    frames_flush();
}

void relay_listen(const char *name)
{
    struct address address = {.family = AF_UNIX};
    struct line path = {0};
    put(&path, flags.folder);
    put(&path, "/");
    put(&path, name);
    put(&path, ".sock");
    long fd = SYS(NR_SOCKET, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (path.size >= sizeof address.path || listener_count == NAMES || fd < 0)
        misused(name, "cannot be listened for: its path is too long, or there are too many");
    memcpy(address.path, path.data, path.size);
    SYS(NR_UNLINKAT, AT_FDCWD, address.path, 0); /* Left by an earlier run of a restarted container. */
    long fault = SYS(NR_BIND, fd, &address, sizeof address);
    if (fault == 0)
        fault = SYS(NR_LISTEN, fd, 64);
    if (fault < 0)
        misused(name, error_text(fault));
    names[listener_count] = name;
    loop_add(&listeners[listener_count++], (int)fd, accept_ready);
}

/* ---- what frames.c asks for ---- */

void relay_forget(void)
{
    for (u32 i = 0; i < top; i++)
        if (streams[i].id)
            forget(&streams[i]);
}

void relay_accept(void)
{
    accepting = true;
    for (u32 i = 0; i < listener_count; i++)
        loop_again(&listeners[i]);
}

static bool more_credit(struct stream *stream, u32 more)
{
    if (stream->credit + more < more)
        return false;
    stream->credit += more;
    if (stream->readable)
        loop_again(&stream->watch);
    return true;
}

bool relay_take(u32 type, u32 id, const char *payload, u32 size)
{
    struct stream *stream = find(id);
    if (type < DATA || type > CLOSE || (type == WINDOW && size != 4))
        return false;
    if (type == WINDOW && !id)
        frames_send(WINDOW, 0, payload, 4); /* The gateway asks whether we are there. */
    if (!stream)
        return true; /* It ended before the gateway knew. */
    if (type == DATA)
        return deliver(stream, payload, size);
    if (type == WINDOW)
        return more_credit(stream, frames_number(payload));
    if (type == CLOSE) {
        forget(stream);
    } else {
        stream->told_end = true;
        if (!stream->size && !stream->write_ended)
            end_writing(stream);
    }
    return true;
}

void relay_go_on(void)
{
    if (!frames_room())
        return;
    for (u32 i = 0; i < top; i++)
        if (streams[i].id && streams[i].readable)
            loop_again(&streams[i].watch);
    if (starved)
        for (u32 i = 0; i < listener_count; i++)
            loop_again(&listeners[i]);
    starved = false;
}

void relay_ended(void) { init_end(0); }

u32 relay_state(char *text, u32 size)
{
    struct line line = {0};
    put(&line, main_pid > 0 ? "main=running runs=" : "main=none runs=");
    put_number(&line, runs_now);
    u32 count = line.size < size ? line.size : size;
    memcpy(text, line.data, count);
    return count;
}

bool relay_settled(void) { return frames_settled(); }

void relay_open(void)
{
    log_name = NAMES;
    relay_listen("calls");
    log_name = listener_count;
    relay_listen("log");
    frames_open();
}
