/*
 * Frames: their heads, their order, and the epochs that a reconnecting gateway begins.
 *
 * The first bytes of stdin are an opening: a key, the number of the first epoch, and a seal, which follows from the
 * key. Whenever an opening comes, even in the middle of a frame or of another opening, a new connection of the
 * gateway has begun, and with it an epoch. Each frame of the gateway ends with the seal too: else half a frame could
 * be filled up with the beginning of the key, and pass as a whole one.
 */
#include "frames.h"

#include "init.h"

enum {
    FRAME_HEAD = 8,
    SEAL = 4,
    KEY = 32,
    EPOCH = 8,
    OPENING = KEY + EPOCH + SEAL,
    IN_SIZE = 98304,
    OUT_SIZE = 131072,
    SMALL = 8192,          /* room that DATA leaves for the small frames of one turn */
    VERSION = 1,
};

static struct watch in_watch, out_watch;
static char in[IN_SIZE], out[OUT_SIZE];
static u32 in_size, scanned;      /* no opening begins before `scanned` */
static u32 out_start, out_size;
static char key[KEY], seal[SEAL];
static bool keyed;
static bool lost;                 /* nothing counts before the next opening */
static bool waits;                /* frames were read, and wait until there is room for what they cause */

u32 frames_number(const void *at)
{
    const u8 *byte = at;
    return (u32)byte[0] << 24 | (u32)byte[1] << 16 | (u32)byte[2] << 8 | byte[3];
}

void frames_put_number(void *at, u32 number)
{
    u8 *byte = at;
    byte[0] = (u8)(number >> 24);
    byte[1] = (u8)(number >> 16);
    byte[2] = (u8)(number >> 8);
    byte[3] = (u8)number;
}

/* ---- to the gateway ---- */

static char *out_end(void)
{
    if (out_start && out_start + out_size + FRAME_HEAD + FRAME_LIMIT > OUT_SIZE) {
        memmove(out, out + out_start, out_size);
        out_start = 0;
    }
    return out + out_start + out_size;
}

static void put_head(char *at, enum frame type, u32 stream, u32 size)
{
    frames_put_number(at, (u32)type << 24 | size);
    frames_put_number(at + 4, stream);
}

void frames_send(enum frame type, u32 stream, const void *payload, u32 size)
{
    char *at = out_end();
    if (OUT_SIZE - out_size < FRAME_HEAD + size)
        return;
    put_head(at, type, stream, size);
    if (size)
        memcpy(at + FRAME_HEAD, payload, size);
    out_size += FRAME_HEAD + size;
}

char *frames_place(void)
{
    return OUT_SIZE - out_size < FRAME_HEAD + FRAME_LIMIT + SMALL ? NULL : out_end() + FRAME_HEAD;
}

void frames_send_place(u32 stream, u32 size)
{
    put_head(out_end(), DATA, stream, size);
    out_size += FRAME_HEAD + size;
}

bool frames_room(void) { return OUT_SIZE - out_size >= SMALL / 2; }

bool frames_settled(void) { return out_size == 0; }

void frames_flush(void)
{
    while (out_size) {
        long count = sys_write(1, out + out_start, out_size);
        if (count == -EINTR)
            continue;
        if (count == -EAGAIN)
            break;
        if (count < 0)
            count = out_size; /* Nobody reads it; the end of stdin will tell. */
        out_start += (u32)count;
        out_size -= (u32)count;
    }
    if (!out_size)
        out_start = 0;
    loop_want_room(&out_watch, out_size > 0);
}

static void out_ready(struct watch *watch, u32 events)
{
    (void)watch, (void)events;
    frames_flush();
    if (waits && frames_room())
        loop_again(&in_watch);
    relay_go_on();
}

/* ---- from the gateway ---- */

static void begin_epoch(const char *opening)
{
    char hello[256] = {VERSION};
    relay_forget();
    memcpy(out, opening, KEY);
    out_start = 0;
    out_size = KEY;
    memcpy(hello + 1, opening + KEY, EPOCH);
    u32 size = 1 + EPOCH;
    size += relay_state(hello + size, sizeof hello - size);
    frames_send(HELLO, 0, hello, size);
    lost = false;
    relay_accept();
}

/* Begin anew with the gateway, as what came is no frame: it may be the rest of an earlier connection. */
static void lose(void)
{
    relay_forget();
    frames_send(LOST, 0, NULL, 0);
    lost = true;
}

/* Take the key of the first opening. Only there the seal fits to what comes before it. */
static bool is_first(const char *opening)
{
    for (int i = 0; i < SEAL; i++)
        seal[i] = (char)~opening[i];
    memcpy(key, opening, KEY);
    return keyed = memcmp(opening + KEY + EPOCH, seal, SEAL) == 0;
}

/* Begin an epoch at the last opening that has come. Return how many bytes are dropped: with it, those before it. */
static u32 find_opening(void)
{
    u32 used = 0;
    while (scanned + OPENING <= in_size) {
        const char *at = in + scanned;
        bool opens = keyed ? *at == *key && memcmp(at, key, KEY) == 0 && memcmp(at + KEY + EPOCH, seal, SEAL) == 0
                           : is_first(at);
        if (!opens) {
            scanned++;
            continue;
        }
        begin_epoch(at);
        used = scanned += OPENING;
    }
    return used;
}

/* Take the frame at `at`, of which `size` bytes are here. Return its size, or 0 if it has to wait. */
static u32 take_frame(const char *at, u32 size)
{
    if (size < FRAME_HEAD || (size < OPENING && memcmp(at, key, FRAME_HEAD) == 0))
        return 0; /* The rest of a head, or of an opening, is to come. */
    u32 payload = frames_number(at) & 0xffffff, whole = FRAME_HEAD + payload + SEAL;
    if (payload <= FRAME_LIMIT && size < whole)
        return 0;
    if (payload > FRAME_LIMIT || memcmp(at + FRAME_HEAD + payload, seal, SEAL) != 0 ||
        !relay_take((u8)at[0], frames_number(at + 4), at + FRAME_HEAD, payload)) {
        lose();
        return 0;
    }
    return whole;
}

static void take_input(void)
{
    u32 used = find_opening(), size;
    bool deaf = lost || !keyed;
    do {
        waits = !deaf && !frames_room();
        size = deaf || waits ? 0 : take_frame(in + used, in_size - used);
        used += size;
        deaf |= lost;
    } while (size);
    if (deaf)
        used = scanned; /* Behind it the next opening may have begun to come. */
    in_size -= used;
    scanned -= scanned > used ? used : scanned;
    memmove(in, in + used, in_size);
}

static void in_ready(struct watch *watch, u32 events)
{
    (void)events;
    take_input();
    if (in_size < IN_SIZE && !waits) {
        long count = sys_read(0, in + in_size, IN_SIZE - in_size);
        if (count == 0 || (count < 0 && count != -EAGAIN && count != -EINTR)) {
            relay_ended();
            return;
        }
        if (count > 0) {
            in_size += (u32)count;
            take_input();
        }
        if (count != -EAGAIN)
            loop_again(watch); /* Others first: a gateway may send without end. */
    }
    frames_flush();
}

void frames_open(void)
{
    /* The other ends of both pipes are the engine's: no other program shares these descriptions. */
    SYS(NR_FCNTL, 0, F_SETFL, O_NONBLOCK);
    SYS(NR_FCNTL, 1, F_SETFL, O_NONBLOCK);
    loop_add(&out_watch, 1, out_ready);
    loop_add(&in_watch, 0, in_ready);
    loop_again(&in_watch);
}
