/*
 * What programs print: from their pipes through one queue to log.sock.
 *
 * A program waits while the queue is full. If the gateway takes nothing for a second, what waits is dropped, and all
 * that is printed until it takes something again: printing never blocks for longer.
 */
#include "init.h"

enum {
    QUEUE = PIECE,
    DEAF_MS = 1000,
    FIRST_PAUSE_MS = 20,
    LAST_PAUSE_MS = 1000,
    ROUNDS = 16,           /* reads of one source before others have their turn */
};

static struct watch log_watch = {.fd = -1};
static struct timer redial, patience;
static u32 pause = FIRST_PAUSE_MS;
static bool deaf;
static char queue[QUEUE];
static u32 queue_start, queue_end;
static u64 queued, sent;   /* bytes that have ever come into the queue and left it */
static struct source *sources;
static struct mark *marks;

static void log_ready(struct watch *watch, u32 events);

static void drop_queue(void)
{
    sent = queued;
    queue_start = queue_end = 0;
    loop_again(&log_watch);
}

static void grow_deaf(struct timer *timer)
{
    (void)timer;
    deaf = true;
    drop_queue();
    if (log_watch.fd >= 0)
        loop_want_room(&log_watch, true);
}

static void dial_log(struct timer *timer)
{
    (void)timer;
    if (log_watch.fd >= 0)
        return;
    loop_clear_timer(&redial);
    int fd = dial("log");
    if (fd < 0) {
        loop_set_timer(&redial, pause, dial_log);
        pause = pause * 2 < LAST_PAUSE_MS ? pause * 2 : LAST_PAUSE_MS;
        return;
    }
    pause = FIRST_PAUSE_MS;
    deaf = false;
    loop_clear_timer(&patience);
    loop_add(&log_watch, fd, log_ready);
    loop_again(&log_watch);
}

static void lose_log(void)
{
    loop_close(&log_watch);
    loop_set_timer(&redial, pause, dial_log);
}

static void flush(void)
{
    while (log_watch.fd >= 0 && queue_start < queue_end) {
        long count = sys_write(log_watch.fd, queue + queue_start, queue_end - queue_start);
        if (count == -EAGAIN) {
            loop_want_room(&log_watch, true);
            break;
        }
        if (count < 0) {
            lose_log();
            break;
        }
        queue_start += (u32)count;
        sent += (u64)count;
        loop_clear_timer(&patience);
        loop_again(&log_watch);
    }
    if (queue_start == queue_end)
        queue_start = queue_end = 0;
    else if (!patience.set)
        loop_set_timer(&patience, DEAF_MS, grow_deaf);
}

/* Return how many bytes can be added at `queue_end`. */
static u32 queue_room(void)
{
    if (queue_end == QUEUE && queue_start > 0) {
        memmove(queue, queue + queue_start, queue_end - queue_start);
        queue_end -= queue_start;
        queue_start = 0;
    }
    return QUEUE - queue_end;
}

static void keep(u64 size)
{
    if (deaf)
        return;
    queue_end += (u32)size;
    queued += size;
}

/* Keep what was read of a source, as far as it may still print. */
static void keep_of(struct source *source, u64 size)
{
    if (size <= source->left) {
        source->left -= size;
        keep(size);
    } else if (source->left > 0) {
        keep(source->left);
        source->left = 0;
        output_line("\n[output truncated]\n", 20);
    }
}

static void take(struct source *source)
{
    source->full = false;
    for (int round = 0; round < ROUNDS; round++) {
        u32 room = queue_room();
        if (room == 0) {
            source->full = true;
            break;
        }
        long count = sys_read(source->watch.fd, queue + queue_end, room);
        if (count <= 0)
            break; /* nothing more now, or the last writer has gone */
        source->taken += (u64)count;
        keep_of(source, (u64)count);
        if (round == ROUNDS - 1)
            loop_again(&source->watch);
    }
    flush();
}

static void source_ready(struct watch *watch, u32 events)
{
    (void)events;
    take(OWNER(watch, struct source, watch));
}

static bool mark_passed(struct mark *mark)
{
    if (!mark->placed) {
        if (mark->source && mark->source->taken < mark->need)
            return false;
        mark->position = queued;
        mark->placed = true;
    }
    return sent >= mark->position;
}

bool output_mark(struct mark *mark, struct source *source, void (*passed)(struct mark *))
{
    int printed = 0;
    mark->source = source && source->watch.fd >= 0 ? source : NULL;
    mark->placed = false;
    if (mark->source) {
        SYS(NR_IOCTL, source->watch.fd, FIONREAD, &printed);
        mark->need = source->taken + (u64)(printed > 0 ? printed : 0);
        if (printed > 0)
            take(source);
    }
    if (mark_passed(mark))
        return true;
    mark->passed = passed;
    if (!mark->waits) {
        mark->waits = true;
        mark->next = marks;
        marks = mark;
    }
    return false;
}

void output_forget(struct mark *mark)
{
    struct mark **place = &marks;
    if (!mark->waits)
        return;
    while (*place != mark)
        place = &(*place)->next;
    *place = mark->next;
    mark->waits = false;
}

static void tell_marks(void)
{
    for (struct mark *mark = marks; mark;) {
        if (mark_passed(mark)) {
            output_forget(mark);
            mark->passed(mark);
            mark = marks; /* The list may have changed in any way. */
        } else {
            mark = mark->next;
        }
    }
}

static void log_ready(struct watch *watch, u32 events)
{
    if (events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR))
        lose_log();
    if (events & EPOLLOUT && watch->fd >= 0) {
        deaf = false;
        loop_want_room(watch, false);
    }
    flush();
    for (struct source *source = sources; source; source = source->next)
        if (source->full)
            take(source);
    tell_marks();
}

void output_open(void)
{
    log_watch.ready = log_ready;
    dial_log(NULL);
}

void output_dial(void) { dial_log(NULL); }

int output_add(struct source *source, u64 limit)
{
    int ends[2];
    long failed = SYS(NR_PIPE2, ends, O_CLOEXEC);
    if (failed < 0)
        return (int)failed;
    /* Only our end: a program may not expect EAGAIN. */
    SYS(NR_FCNTL, ends[0], F_SETFL, O_NONBLOCK);
    source->taken = 0;
    source->left = limit;
    source->full = false;
    loop_add(&source->watch, ends[0], source_ready);
    source->next = sources;
    sources = source;
    return ends[1];
}

void output_remove(struct source *source)
{
    struct source **place = &sources;
    while (*place && *place != source)
        place = &(*place)->next;
    if (*place)
        *place = source->next;
    loop_close(&source->watch);
}

void output_line(const char *data, u32 size)
{
    if (size > queue_room())
        return;
    memcpy(queue + queue_end, data, size);
    keep(size);
    flush();
}

bool output_settled(void)
{
    for (struct source *source = sources; source; source = source->next) {
        int printed = 0;
        SYS(NR_IOCTL, source->watch.fd, FIONREAD, &printed);
        if (printed > 0)
            return false;
    }
    return queue_start == queue_end;
}
