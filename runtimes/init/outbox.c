/* Bytes on their way out of init, to a socket or a pipe that may be slow. */
#include "init.h"

enum { HELD_LIMIT = PIECE + 16384 };

char piece[PIECE + 2 * CHUNK_HEAD];

static u32 write_some(struct outbox *outbox, const char *data, u32 size)
{
    u32 sent = 0;
    while (sent < size && !outbox->broken) {
        /* SIGPIPE is blocked, so that a plain write serves sockets and pipes. */
        long count = sys_write(outbox->watch->fd, data + sent, size - sent);
        if (count == -EAGAIN)
            break;
        if (count < 0)
            outbox->broken = true;
        else
            sent += (u32)count;
    }
    return outbox->broken ? size : sent;
}

void outbox_send(struct outbox *outbox, const char *data, u32 size)
{
    u32 sent = 0;
    if (outbox->broken)
        return;
    if (outbox->start == outbox->end && !outbox->corked)
        sent = write_some(outbox, data, size);
    if (sent == size)
        return;
    if (!outbox->held)
        outbox->held = pages_get(HELD_LIMIT);
    if (!outbox->held || outbox->end + size - sent > HELD_LIMIT) {
        outbox->broken = true; /* No memory, or a mistake of ours: better no answer than a wrong one. */
        return;
    }
    memcpy(outbox->held + outbox->end, data + sent, size - sent);
    outbox->end += size - sent;
    if (!outbox->corked)
        loop_want_room(outbox->watch, true);
}

bool outbox_flush(struct outbox *outbox)
{
    if (outbox->start == outbox->end)
        return true;
    if (outbox->corked)
        return false;
    outbox->start += write_some(outbox, outbox->held + outbox->start, outbox->end - outbox->start);
    bool empty = outbox->broken || outbox->start == outbox->end;
    loop_want_room(outbox->watch, !empty);
    if (empty)
        outbox_clear(outbox);
    return empty;
}

void outbox_clear(struct outbox *outbox)
{
    pages_drop(outbox->held, HELD_LIMIT);
    outbox->held = NULL;
    outbox->start = outbox->end = 0;
}
