/* Addresses inside the container, and --listen: their connections are handed to the gateway. */
#include "init.h"

enum { LISTENERS = 16, BACKLOG = 128 };

struct listener {
    struct watch watch;
    const char *name;
};

static struct listener listeners[LISTENERS];
static u32 listener_count;

bool address_parse(struct text text, struct address *address)
{
    static const char host[] = "127.0.0.1:", unix[] = "unix:";
    u64 port = 0;
    *address = (struct address){0};
    if (text_starts(text, unix)) {
        struct text path = {text.at + sizeof unix - 1, text.size - (sizeof unix - 1)};
        if (path.size == 0 || path.size >= sizeof address->path || path.at[0] != '/')
            return false;
        address->family = AF_UNIX;
        memcpy(address->path, path.at, path.size);
        return true;
    }
    if (!text_starts(text, host))
        return false;
    struct text digits = {text.at + sizeof host - 1, text.size - (sizeof host - 1)};
    if (!text_number(digits, &port) || port == 0 || port > 65535)
        return false;
    address->family = AF_INET;
    address->inet.port = (u16)(port >> 8 | (port & 0xff) << 8);
    address->inet.host[0] = 127;
    address->inet.host[3] = 1;
    return true;
}

u32 address_size(const struct address *address) { return address->family == AF_INET ? 16 : sizeof *address; }

int listen_on(const struct address *address)
{
    int one = 1, fd = (int)SYS(NR_SOCKET, address->family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    SYS(NR_SETSOCKOPT, fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    long failed = SYS(NR_BIND, fd, address, address_size(address));
    if (failed >= 0)
        failed = SYS(NR_LISTEN, fd, BACKLOG);
    if (failed >= 0)
        return fd;
    sys_close(fd);
    return (int)failed;
}

static void listener_ready(struct watch *watch, u32 events)
{
    struct listener *listener = OWNER(watch, struct listener, watch);
    (void)events;
    for (;;) {
        int one = 1, fd = (int)SYS(NR_ACCEPT4, watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        SYS(NR_SETSOCKOPT, fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        tunnel_accepted(fd, listener->name);
    }
}

const char *listen_open(char *text)
{
    struct address address;
    u64 size = text_find((struct text){text, length(text)}, '=');
    if (size == 0 || size > NAME_LIMIT || !text[size])
        return "give it as NAME=127.0.0.1:PORT or NAME=unix:/PATH";
    text[size] = 0;
    if (!address_parse((struct text){text + size + 1, length(text + size + 1)}, &address))
        return "the address must be 127.0.0.1:PORT or unix:/PATH";
    if (listener_count == LISTENERS)
        return "there are too many";
    int fd = listen_on(&address);
    if (fd < 0)
        return error_text(fd);
    struct listener *listener = &listeners[listener_count++];
    listener->name = text;
    if (flags.relay)
        relay_listen(text);
    loop_add(&listener->watch, fd, listener_ready);
    return NULL;
}
