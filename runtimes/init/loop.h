/*
 * The event loop. init has one thread, and all of its descriptors are non-blocking.
 *
 * Watches are edge-triggered: `ready` is called once when something has changed. It must read or write until the
 * kernel says EAGAIN, or call `loop_again`.
 */
#ifndef INIT_LOOP_H
#define INIT_LOOP_H

#include "sys.h"

struct watch {
    int fd;
    void (*ready)(struct watch *, u32 events);
    struct watch *next_again;
    bool again, wants_room;
};

struct timer {
    u64 at;                        /* milliseconds of `loop_now` */
    void (*due)(struct timer *);
    struct timer *next;
    bool set;
};

/* The object of type `type` whose member `member` `pointer` points to. */
#define OWNER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))

void loop_open(void);
/* Watch `fd` for input and for its end. */
void loop_add(struct watch *watch, int fd, void (*ready)(struct watch *, u32 events));
/* Say whether `ready` is also called when there is room to write. */
void loop_want_room(struct watch *watch, bool wanted);
/* Call `ready` with no events in the next turn. */
void loop_again(struct watch *watch);
/* Forget the watch. Its descriptor stays open. */
void loop_remove(struct watch *watch);
/* Forget the watch and close its descriptor, if it has one; `fd` is -1 then. */
void loop_close(struct watch *watch);

void loop_set_timer(struct timer *timer, u64 milliseconds, void (*due)(struct timer *));
void loop_clear_timer(struct timer *timer);
/* Milliseconds and microseconds of the monotonic clock. */
u64 loop_now(void);
u64 loop_microseconds(void);

/* Serve one turn: wait for events or the next timer, and call what is due. */
void loop_turn(void);

#endif
