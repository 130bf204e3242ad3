/* The event loop: epoll, and a short list of timers. */
#include "loop.h"

enum { EVENTS_A_TURN = 64 };
#define ALWAYS (EPOLLIN | EPOLLRDHUP | EPOLLET)

static int epoll = -1;
static struct epoll_event batch[EVENTS_A_TURN];
static int batch_size;
static struct watch *again_first, **again_end = &again_first;
static struct timer *timers;

void loop_open(void)
{
    epoll = (int)SYS(NR_EPOLL_CREATE1, O_CLOEXEC);
    if (epoll < 0)
        sys_exit(125);
}

static void control(int operation, struct watch *watch, u32 events)
{
    struct epoll_event event = {.events = events, .data = watch};
    SYS(NR_EPOLL_CTL, epoll, operation, watch->fd, &event);
}

void loop_add(struct watch *watch, int fd, void (*ready)(struct watch *, u32 events))
{
    watch->fd = fd;
    watch->ready = ready;
    watch->wants_room = false;
    control(EPOLL_CTL_ADD, watch, ALWAYS);
}

void loop_want_room(struct watch *watch, bool wanted)
{
    if (watch->wants_room == wanted)
        return;
    watch->wants_room = wanted;
    control(EPOLL_CTL_MOD, watch, ALWAYS | (wanted ? EPOLLOUT : 0));
}

void loop_again(struct watch *watch)
{
    if (watch->again)
        return;
    watch->again = true;
    watch->next_again = NULL;
    *again_end = watch;
    again_end = &watch->next_again;
}

static void drop_again(struct watch *watch)
{
    struct watch **place = &again_first;
    watch->again = false;
    while (*place && *place != watch)
        place = &(*place)->next_again;
    if (!*place)
        return;
    *place = watch->next_again;
    if (!*place)
        again_end = place;
}

void loop_remove(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    control(EPOLL_CTL_DEL, watch, 0);
    /* The rest of this turn's events may name it, and its memory may be used anew. */
    for (int i = 0; i < batch_size; i++)
        if (batch[i].data == watch)
            batch[i].data = NULL;
    if (watch->again)
        drop_again(watch);
}

void loop_close(struct watch *watch)
{
    if (watch->fd < 0)
        return;
    loop_remove(watch);
    sys_close(watch->fd);
    watch->fd = -1;
}

u64 loop_microseconds(void)
{
    struct timespec now = {0, 0};
    SYS(NR_CLOCK_GETTIME, 1, &now);
    return (u64)now.seconds * 1000000 + (u64)now.nanoseconds / 1000;
}

u64 loop_now(void) { return loop_microseconds() / 1000; }

void loop_set_timer(struct timer *timer, u64 milliseconds, void (*due)(struct timer *))
{
    timer->at = loop_now() + milliseconds;
    timer->due = due;
    if (timer->set)
        return;
    timer->set = true;
    timer->next = timers;
    timers = timer;
}

void loop_clear_timer(struct timer *timer)
{
    if (!timer->set)
        return;
    struct timer **place = &timers;
    while (*place != timer)
        place = &(*place)->next;
    *place = timer->next;
    timer->set = false;
}

/* Milliseconds until the next timer, -1 if there is none. */
static int patience(void)
{
    if (again_first)
        return 0;
    if (!timers)
        return -1;
    u64 now = loop_now(), next = timers->at;
    for (struct timer *timer = timers; timer; timer = timer->next)
        if (timer->at < next)
            next = timer->at;
    return next <= now ? 0 : (int)(next - now);
}

static void call_timers(void)
{
    u64 now = timers ? loop_now() : 0;
    for (struct timer *timer = timers; timer;) {
        if (timer->at <= now) {
            loop_clear_timer(timer);
            timer->due(timer);
            timer = timers; /* The list may have changed in any way. */
        } else {
            timer = timer->next;
        }
    }
}

static void call_again(void)
{
    /* Only as many as there are now: who asks once more waits for events of others first. */
    int count = 0;
    for (struct watch *watch = again_first; watch; watch = watch->next_again)
        count++;
    while (count-- > 0 && again_first) {
        struct watch *watch = again_first;
        drop_again(watch);
        watch->ready(watch, 0);
    }
}

void loop_turn(void)
{
    int count = (int)SYS(NR_EPOLL_PWAIT, epoll, batch, EVENTS_A_TURN, patience(), NULL, 8);
    batch_size = count < 0 ? 0 : count;
    for (int i = 0; i < batch_size; i++) {
        struct watch *watch = batch[i].data;
        if (watch)
            watch->ready(watch, batch[i].events);
    }
    batch_size = 0;
    call_again();
    call_timers();
}
