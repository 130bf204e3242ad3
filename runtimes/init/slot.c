/* Connections to calls.sock: dialling, the requests that come over them, and short answers. */
#include "init.h"

enum {
    IN_SIZE = HEAD_LIMIT + PIECE,
    TIDY = 4 * 4096,       /* a request that used more of `in` gives its pages back */
    FIRST_PAUSE_MS = 20,
    LAST_PAUSE_MS = 1000,
    LINGER_MS = 1000,
    PARTS = 16,            /* parts of a body that are left out before its connection is given up */
};

static struct slot *slots;
static u32 slot_count;

static void slot_ready(struct watch *watch, u32 events);

int dial(const char *name)
{
    struct address address = {.family = AF_UNIX};
    u64 folder = length(flags.folder), size = length(name);
    if (folder + size + 7 > sizeof address.path)
        return -ENAMETOOLONG;
    memcpy(address.path, flags.folder, folder);
    address.path[folder] = '/';
    memcpy(address.path + folder + 1, name, size);
    memcpy(address.path + folder + 1 + size, ".sock", 6);
    int fd = (int)SYS(NR_SOCKET, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long failed = SYS(NR_CONNECT, fd, &address, sizeof address);
    if (failed < 0) {
        sys_close(fd);
        return (int)failed;
    }
    return fd;
}

static void dial_slot(struct timer *timer)
{
    struct slot *slot = OWNER(timer, struct slot, timer);
    output_dial(); /* A gateway that listens anew wants the log as well. */
    int fd = dial("calls");
    if (fd < 0) {
        slot->state = SLOT_WAITS;
        loop_set_timer(&slot->timer, slot->pause, dial_slot);
        slot->pause = slot->pause * 2 < LAST_PAUSE_MS ? slot->pause * 2 : LAST_PAUSE_MS;
        return;
    }
    slot->state = SLOT_READS;
    slot->served = false;
    slot->start = slot->end = 0;
    slot->out = (struct outbox){.watch = &slot->watch};
    loop_add(&slot->watch, fd, slot_ready);
    loop_again(&slot->watch);
}

void slots_open(u32 count)
{
    slots = pages_get(count * sizeof(struct slot));
    for (; slots && slot_count < count; slot_count++) {
        struct slot *slot = slots + slot_count;
        slot->watch.fd = -1;
        slot->pause = FIRST_PAUSE_MS;
        slot->in = pages_get(IN_SIZE);
        if (!slot->in)
            return;
        dial_slot(&slot->timer);
    }
}

static void tidy(struct slot *slot, u32 used)
{
    if (used > TIDY)
        SYS(NR_MADVISE, slot->in, IN_SIZE, MADV_DONTNEED);
}

static void dial_later(struct slot *slot)
{
    tidy(slot, slot->end);
    if (slot->served)
        slot->pause = FIRST_PAUSE_MS;
    /* At once if the connection was of use, yet from the loop: a verb may still be at work on this slot. */
    slot->state = SLOT_WAITS;
    loop_set_timer(&slot->timer, slot->served ? 0 : slot->pause, dial_slot);
    if (!slot->served)
        slot->pause = slot->pause * 2 < LAST_PAUSE_MS ? slot->pause * 2 : LAST_PAUSE_MS;
}

void slot_hang_up(struct slot *slot)
{
    loop_clear_timer(&slot->timer);
    loop_close(&slot->watch);
    outbox_clear(&slot->out);
    slot->state = SLOT_WAITS;
}

void slot_redial(struct slot *slot)
{
    slot_hang_up(slot);
    dial_later(slot);
}

int slot_give(struct slot *slot)
{
    int fd = slot->watch.fd;
    loop_remove(&slot->watch);
    slot->watch.fd = -1;
    dial_later(slot);
    return fd;
}

bool slot_read(struct slot *slot)
{
    if (slot->start == slot->end)
        slot->start = slot->end = 0;
    if (slot->end == IN_SIZE) {
        memmove(slot->in, slot->in + slot->start, slot->end - slot->start);
        slot->end -= slot->start;
        slot->start = 0;
    }
    u32 room = IN_SIZE - slot->end;
    long count = sys_read(slot->watch.fd, slot->in + slot->end, room < PIECE ? room : PIECE);
    if (count > 0)
        slot->end += (u32)count;
    return count > 0;
}

struct text slot_body(struct slot *slot)
{
    struct body *body = &slot->head.body;
    struct text part = {NULL, 0};
    while (part.size == 0 && body->state != BODY_DONE && body->state != BODY_BAD) {
        if (slot->start == slot->end && !slot_read(slot))
            break;
        u32 size = slot->end - slot->start;
        slot->start += body_take(body, slot->in + slot->start, size < PIECE ? size : PIECE, &part);
    }
    return part;
}

static void linger_over(struct timer *timer) { slot_redial(OWNER(timer, struct slot, timer)); }

/* The answer is out, or on its way: read on without use, so that a gateway that is still sending gets to read it. */
static void linger(struct slot *slot)
{
    if (slot->state != SLOT_LINGERS) {
        slot->state = SLOT_LINGERS;
        loop_set_timer(&slot->timer, LINGER_MS, linger_over);
        loop_again(&slot->watch);
        return;
    }
    if (!outbox_flush(&slot->out))
        return;
    SYS(NR_SHUTDOWN, slot->watch.fd, SHUT_WR);
    for (;;) {
        long count = sys_read(slot->watch.fd, piece, PIECE);
        if (count == -EAGAIN)
            return;
        if (count <= 0)
            break;
    }
    slot_redial(slot);
}

void slot_done(struct slot *slot)
{
    slot->verb = NULL;
    slot->work = NULL;
    slot->pause = FIRST_PAUSE_MS;
    /* What has come of the body by now is not wanted. */
    for (int part = 0; part < PARTS && slot_body(slot).size > 0; part++)
        continue;
    if (slot->head.body.state != BODY_DONE || slot->head.close || slot->out.broken) {
        linger(slot);
        return;
    }
    if (slot->start == slot->end)
        tidy(slot, slot->end);
    slot->state = SLOT_READS;
    loop_again(&slot->watch);
}

static void begin(struct slot *slot)
{
    struct head *head = &slot->head;
    slot->state = SLOT_WORKS;
    if (text_is(head->method, "connect"))
        connect_begin(slot);
    else if (text_is(head->method, "post") && text_is(head->target, "/run"))
        run_begin(slot);
    else if (text_is(head->method, "get") && text_is(head->target, "/hearth/status"))
        status_answer(slot);
    else if (text_starts(head->target, "/files/"))
        files_begin(slot);
    else
        slot_answer(slot, 404, "bad-request", "NoSuchVerb",
                    "init knows POST /run, CONNECT, /files/ and /hearth/status");
}

/* Look for a request in what has been read. */
static void read_request(struct slot *slot)
{
    for (;;) {
        u32 size = slot->end - slot->start;
        long used = head_parse(slot->in + slot->start, size, &slot->head);
        if (used > 0) {
            slot->start += (u32)used;
            slot->served = true;
            begin(slot);
            return;
        }
        if (used < 0 || size >= HEAD_LIMIT) {
            slot->state = SLOT_WORKS;
            slot->head.close = true;
            slot->head.body.state = BODY_DONE;
            slot_answer(slot, used < 0 ? 400 : 431, "bad-request", "BadRequest",
                        used < 0 ? "the request is malformed" : "the head of the request is over 512 KiB");
            return;
        }
        if (!slot_read(slot))
            return;
    }
}

static void slot_ready(struct watch *watch, u32 events)
{
    struct slot *slot = OWNER(watch, struct slot, watch);
    bool ended = events & (EPOLLHUP | EPOLLRDHUP | EPOLLERR);
    if (slot->state == SLOT_LINGERS) {
        linger(slot);
    } else if (ended) {
        if (slot->state == SLOT_WORKS)
            slot->verb->lost(slot);
        else
            slot_redial(slot);
    } else if (slot->state == SLOT_READS) {
        if (outbox_flush(&slot->out))
            read_request(slot);
    } else {
        slot->verb->pump(slot);
    }
}

bool slots_settled(void)
{
    for (u32 i = 0; i < slot_count; i++)
        if (slots[i].state == SLOT_LINGERS || (slots[i].watch.fd >= 0 && slots[i].out.start < slots[i].out.end))
            return false;
    return true;
}
