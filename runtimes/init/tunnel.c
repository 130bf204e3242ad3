/* Bytes both ways, between the gateway and a socket inside the container. */
#include "init.h"

enum {
    ROUNDS = 16,                   /* pieces of one direction before others have their turn */
    FIRST_PAUSE_MS = 20,
    LAST_PAUSE_MS = 1000,
};

/* One direction. */
struct flow {
    struct watch *from;
    struct outbox to;
    bool ending;                   /* the kernel has told of its end, which comes after its bytes */
    bool ended, closed;            /* no more comes; its end has been passed on */
};

struct tunnel {
    struct watch gateway, program;
    struct flow inward, outward;
    struct mark mark;
    struct timer redial;           /* for a gateway that does not listen now */
    u32 pause;
    struct address address;        /* of CONNECT */
    struct slot *slot;             /* which waits for the connection to be made */
    const char *name;              /* of the gateway's socket, for --listen */
    struct tunnel *next;
};

static struct tunnel *tunnels;

static void end_tunnel(struct tunnel *tunnel)
{
    struct tunnel **place = &tunnels;
    while (*place != tunnel)
        place = &(*place)->next;
    *place = tunnel->next;
    output_forget(&tunnel->mark);
    outbox_clear(&tunnel->inward.to);
    outbox_clear(&tunnel->outward.to);
    loop_close(&tunnel->gateway);
    loop_close(&tunnel->program);
    loop_clear_timer(&tunnel->redial);
    pages_drop(tunnel, sizeof *tunnel);
}

static void pump(struct tunnel *tunnel);

static void output_passed(struct mark *mark)
{
    struct tunnel *tunnel = OWNER(mark, struct tunnel, mark);
    tunnel->outward.to.corked = false;
    pump(tunnel);
}

/* Pass on one direction until it would block. */
static void flow(struct tunnel *tunnel, struct flow *flow)
{
    bool outward = flow == &tunnel->outward;
    for (int round = 0; outbox_flush(&flow->to) && !flow->closed; round++) {
        if (flow->ended) {
            SYS(NR_SHUTDOWN, flow->to.watch->fd, SHUT_WR);
            flow->closed = true;
            return;
        }
        if (round == ROUNDS) {
            loop_again(flow->from);
            return;
        }
        long count = sys_read(flow->from->fd, piece, PIECE);
        if (count == -EAGAIN)
            return;
        if (count <= 0) {
            flow->ended = true;
            continue;
        }
        /* What was printed before these bytes goes first. */
        flow->to.corked = outward && !output_mark(&tunnel->mark, &main_output, output_passed);
        outbox_send(&flow->to, piece, (u32)count);
        /* That was all, and more makes a new event. A unix socket of a program may stop early, at descriptors. */
        if (count < PIECE && !flow->ending && (!outward || tunnel->address.family == AF_INET))
            return;
    }
}

static void note_end(struct flow *flow, u32 events)
{
    if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))
        flow->ending = true;
}

static bool is_over(const struct tunnel *tunnel)
{
    if (tunnel->outward.to.broken)
        return true;
    return tunnel->inward.closed && tunnel->outward.closed;
}

static void pump(struct tunnel *tunnel)
{
    if (tunnel->gateway.fd < 0)
        return;
    flow(tunnel, &tunnel->inward);
    flow(tunnel, &tunnel->outward);
    if (is_over(tunnel))
        end_tunnel(tunnel);
}

static void gateway_ready(struct watch *watch, u32 events)
{
    struct tunnel *tunnel = OWNER(watch, struct tunnel, gateway);
    note_end(&tunnel->inward, events);
    if (events & (EPOLLHUP | EPOLLERR)) {
        /* It reads no more. What it has sent still arrives, as far as there is room. */
        flow(tunnel, &tunnel->inward);
        end_tunnel(tunnel);
        return;
    }
    pump(tunnel);
}

static void program_ready(struct watch *watch, u32 events)
{
    struct tunnel *tunnel = OWNER(watch, struct tunnel, program);
    note_end(&tunnel->outward, events);
    if (events & (EPOLLHUP | EPOLLERR) && tunnel->gateway.fd < 0)
        end_tunnel(tunnel);
    else
        pump(tunnel);
}

static struct tunnel *new_tunnel(void)
{
    struct tunnel *tunnel = pages_get(sizeof *tunnel);
    if (!tunnel)
        return NULL;
    tunnel->gateway.fd = tunnel->program.fd = -1;
    tunnel->inward = (struct flow){.from = &tunnel->gateway, .to = {.watch = &tunnel->program}};
    tunnel->outward = (struct flow){.from = &tunnel->program, .to = {.watch = &tunnel->gateway}};
    tunnel->pause = FIRST_PAUSE_MS;
    tunnel->next = tunnels;
    tunnels = tunnel;
    return tunnel;
}

bool tunnels_settled(void)
{
    for (struct tunnel *tunnel = tunnels; tunnel; tunnel = tunnel->next)
        if (tunnel->gateway.fd >= 0 && !tunnel->outward.closed)
            return false;
    return true;
}

/* ---- CONNECT ---- */

static void connect_pump(struct slot *slot) { (void)slot; }

static void connect_lost(struct slot *slot)
{
    end_tunnel(slot->work);
    slot_redial(slot);
}

static const struct verb connect_verb = {connect_pump, connect_lost};

static void refuse(struct tunnel *tunnel, long error)
{
    static struct line line;
    struct slot *slot = tunnel->slot;
    line.size = 0;
    put(&line, "cannot connect to ");
    put_text(&line, slot->head.target);
    put(&line, ": ");
    put(&line, error_text(error));
    line.data[line.size < sizeof line.data ? line.size : sizeof line.data - 1] = 0;
    end_tunnel(tunnel);
    slot_answer(slot, 502, "not-connected", "NotConnected", line.data);
}

static void succeed(struct tunnel *tunnel)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\n\r\n";
    struct slot *slot = tunnel->slot;
    int fd = slot_give(slot);
    tunnel->slot = NULL;
    loop_add(&tunnel->gateway, fd, gateway_ready);
    tunnel->program.ready = program_ready;
    loop_want_room(&tunnel->program, false);
    outbox_send(&tunnel->outward.to, answer, sizeof answer - 1);
    loop_again(&tunnel->gateway);
}

static void connected(struct watch *watch, u32 events)
{
    struct tunnel *tunnel = OWNER(watch, struct tunnel, program);
    int error = 0, size = sizeof error;
    note_end(&tunnel->outward, events);
    if (!(events & (EPOLLOUT | EPOLLHUP | EPOLLERR)))
        return;
    SYS(NR_GETSOCKOPT, watch->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error)
        refuse(tunnel, error);
    else
        succeed(tunnel);
}

static void try_connect(struct timer *timer)
{
    struct tunnel *tunnel = OWNER(timer, struct tunnel, redial);
    struct address *address = &tunnel->address;
    int one = 1, fd = (int)SYS(NR_SOCKET, address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    long failed = fd < 0 ? fd : SYS(NR_CONNECT, fd, address, address_size(address));
    if (failed == -EAGAIN) {
        /* The server's queue is full. */
        sys_close(fd);
        loop_set_timer(&tunnel->redial, tunnel->pause, try_connect);
        return;
    }
    if (failed < 0 && failed != -EINPROGRESS) {
        if (fd >= 0)
            sys_close(fd);
        refuse(tunnel, failed);
        return;
    }
    if (address->family == AF_INET)
        SYS(NR_SETSOCKOPT, fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    loop_add(&tunnel->program, fd, connected);
    if (failed < 0)
        loop_want_room(&tunnel->program, true);
    else
        succeed(tunnel);
}

void connect_begin(struct slot *slot)
{
    struct address address;
    if (slot->start < slot->end || !address_parse(slot->head.target, &address)) {
        slot_answer(slot, 400, "bad-request", "BadRequest",
                    "CONNECT takes 127.0.0.1:PORT or unix:/PATH, and nothing may follow it before the answer");
        return;
    }
    struct tunnel *tunnel = new_tunnel();
    if (!tunnel) {
        slot_answer(slot, 502, "not-connected", "NotConnected", error_text(ENOMEM));
        return;
    }
    tunnel->address = address;
    tunnel->slot = slot;
    slot->verb = &connect_verb;
    slot->work = tunnel;
    try_connect(&tunnel->redial);
}

/* ---- --listen ---- */

static void dial_gateway(struct timer *timer)
{
    struct tunnel *tunnel = OWNER(timer, struct tunnel, redial);
    int fd = dial(tunnel->name);
    if (fd < 0) {
        loop_set_timer(&tunnel->redial, tunnel->pause, dial_gateway);
        tunnel->pause = tunnel->pause * 2 < LAST_PAUSE_MS ? tunnel->pause * 2 : LAST_PAUSE_MS;
        return;
    }
    loop_add(&tunnel->gateway, fd, gateway_ready);
    loop_again(&tunnel->gateway);
}

void tunnel_accepted(int fd, const char *name)
{
    struct tunnel *tunnel = new_tunnel();
    if (!tunnel) {
        sys_close(fd);
        return;
    }
    tunnel->name = name;
    loop_add(&tunnel->program, fd, program_ready);
    dial_gateway(&tunnel->redial);
}
