/* The parts of init, and how they meet. docs/init.md says what init does. */
#ifndef INIT_H
#define INIT_H

#include "loop.h"
#include "sys.h"
#include "text.h"

enum {
    PIECE = 65536,        /* bytes that are read and passed on at once */
    CHUNK_HEAD = 8,       /* room before a piece for its size as a chunk: five digits, CR and LF */
    HEAD_LIMIT = 524288,  /* bytes of a request's head: 64 KiB of a caller's fields, encoded as environment */
    NAME_LIMIT = 64,      /* bytes of a name of --listen */
};

/* ---- main.c ---- */

struct flags {
    bool serve, wait, once, relay;
    u32 calls;             /* connections to calls.sock */
    u64 log_limit;         /* bytes that one run may print */
    char **program;        /* its arguments, NULL at the end; none if its first is NULL */
    char **environment;    /* of init itself, without what is for init only */
    const char *folder;    /* where the sockets are */
};
extern struct flags flags;

int init_main(int count, char **arguments, char **environment);
/* End init in this way, as soon as everything that waits to be sent has been sent, or after a second. */
void init_end(int status);
/* Stop at a mistake of whoever started init. Only its stderr is there to say it. */
__attribute__((noreturn)) void misused(const char *flag, const char *why);
/* Say something in the log. `name` and `why` may be NULL. */
void init_say(const char *what, const char *name, const char *why);

/* ---- outbox.c: bytes on their way out ---- */

struct outbox {
    struct watch *watch;   /* where they go */
    char *held;            /* bytes that found no room, or wait for output */
    u32 start, end;
    bool corked;           /* nothing goes out now */
    bool broken;           /* nothing can go out any more */
};

/* Send bytes, at most PIECE, or hold them. Only an empty outbox takes so many. */
void outbox_send(struct outbox *outbox, const char *data, u32 size);
/* Send what is held. Return whether the outbox is empty now. */
bool outbox_flush(struct outbox *outbox);
/* Forget what is held. */
void outbox_clear(struct outbox *outbox);
/* Bytes that were read last: one reader at a time, so one place is enough for all. */
extern char piece[PIECE + 2 * CHUNK_HEAD];

/* ---- output.c: what programs print, on its way to log.sock ---- */

struct source {
    struct watch watch;    /* the pipe's reading end */
    u64 taken;             /* bytes that have been read of it */
    u64 left;              /* bytes that it may still print */
    struct source *next;
    bool full;             /* it may have more, but the queue had no room */
};

/* A place in the output: everything that a source has printed by now. */
struct mark {
    struct source *source;
    u64 need, position;
    bool placed, waits;
    void (*passed)(struct mark *);
    struct mark *next;
};

void output_open(void);
/* Dial log.sock at once if it is not connected. */
void output_dial(void);
/* Make a pipe whose bytes go to the log. Return its writing end, or a negative errno. */
int output_add(struct source *source, u64 limit);
void output_remove(struct source *source);
/* Return true if all that was printed by now is in the log's socket; else call `passed` when it is. */
bool output_mark(struct mark *mark, struct source *source, void (*passed)(struct mark *));
void output_forget(struct mark *mark);
/* Add a line of our own. */
void output_line(const char *data, u32 size);
/* Whether nothing waits to be sent. */
bool output_settled(void);

/* ---- program.c: processes ---- */

struct program {
    char **arguments, **environment;
    const char *folder;    /* NULL: where init is */
    int in, out, err;
};

struct launch {
    int pid;               /* negative errno if it could not be started */
    bool folder_failed;
};

/* Start a program in a session of its own. */
struct launch program_start(const struct program *program);
const char *error_text(long error);
/* Kill the process group of a program. */
void program_kill(int pid);
/* Kill every process of the container but init. Does nothing unless init is its first process. */
void kill_everything(void);
/* Reap all that has ended, and tell `program_ended`. Return whether children are left. */
bool program_reap(void);
/* Begin to receive signals. */
void signals_open(void);
/* A status as shells give it: 128 and the signal's number for a death. */
int exit_status(int status);

/* ---- serve.c: the main program ---- */

extern struct source main_output;
extern int main_pid;
void serve_start(void);
void serve_ended(int status);

/* ---- http.c: requests ---- */

enum body_state {
    BODY_LENGTH, BODY_SIZE, BODY_SIZE_END, BODY_DATA, BODY_DATA_END, BODY_TRAILER, BODY_DONE, BODY_BAD
};
struct body {
    enum body_state state;
    u64 left;
    u32 line;              /* bytes of the chunk's head or of the trailers so far */
    bool blank;            /* this line of the trailers has no byte so far */
};

struct head {
    struct text method, target, fields;
    struct body body;
    bool close;            /* the gateway will send no more requests on this connection */
};

/* Parse a head. Return its size, 0 if it is not complete, -1 if it is malformed. */
long head_parse(char *data, u32 size, struct head *head);
/* Take the next field off `fields`. */
bool next_field(struct text *fields, struct text *name, struct text *value);
/* Return the value of the first field of this name; `at` is NULL if there is none. */
struct text head_field(const struct head *head, const char *name);
/* Take bytes of a body off `data`: return how many, and in `part` those that belong to the content. */
u32 body_take(struct body *body, char *data, u32 size, struct text *part);

/* ---- slot.c: connections to calls.sock ---- */

struct slot;
struct verb {
    void (*pump)(struct slot *);   /* go on: there may be input or room */
    void (*lost)(struct slot *);   /* the gateway has closed the connection */
};

enum slot_state { SLOT_WAITS, SLOT_READS, SLOT_WORKS, SLOT_LINGERS };
struct slot {
    struct watch watch;
    struct timer timer;            /* the next dial, or the end of lingering */
    enum slot_state state;
    u32 pause;                     /* milliseconds before the next dial */
    bool served;                   /* this connection has carried a request */
    char *in;                      /* bytes that were read and not used yet */
    u32 start, end;
    struct outbox out;
    struct head head;
    const struct verb *verb;
    void *work;                    /* the verb's own */
};

void slots_open(u32 count);
/* Read more of the request. Return false if nothing came; the connection may have ended. */
bool slot_read(struct slot *slot);
/* Take the next part of the request's body; its size is 0 if none is there now. */
struct text slot_body(struct slot *slot);
/* The request has been answered. */
void slot_done(struct slot *slot);
/* Close the connection. */
void slot_hang_up(struct slot *slot);
/* Close the connection, unless it is closed, and dial anew. */
void slot_redial(struct slot *slot);
/* Give the connection away, with what has been read of it, and dial anew. */
int slot_give(struct slot *slot);
/* Whether any slot still has something to send. */
bool slots_settled(void);
/* Connect to a socket of the gateway. Return a descriptor, or a negative errno. */
int dial(const char *name);

/* ---- answer.c: short answers ---- */

/* Answer with JSON, or with an error, after which the request is done. `outcome` may be NULL. */
void slot_answer_json(struct slot *slot, int status, const char *outcome, const char *json, u32 size);
void slot_answer(struct slot *slot, int status, const char *outcome, const char *type, const char *message);
void status_answer(struct slot *slot);
/* Send the bytes at `piece + CHUNK_HEAD` as a chunk of a chunked answer, not the last. */
void send_piece(struct slot *slot, u32 size);
/* The same for bytes anywhere. */
void send_chunk(struct slot *slot, const char *data, u32 size);

/* ---- order.c: what a run is ordered to be ---- */

/* Arguments and environment: they lie in the request, decoded in place. */
struct order {
    char **memory;
    u64 size, arguments, variables;
    struct program program;
};

/* Read it out of a request. Return NULL, or what is wrong with it. */
const char *order_read(struct order *order, const struct head *head);
void order_drop(struct order *order);

/* ---- run.c: POST /run ---- */

void run_begin(struct slot *slot);
/* A process has ended; return whether it was a run's. */
bool run_ended(int pid, int status);
/* Children have been reaped: a run may have waited for that. */
void runs_swept(void);
/* Send a signal to every run. Return how many there are. */
u32 runs_signal(int signal);
extern u32 runs_now, runs_ever;

/* ---- tunnel.c: bytes both ways ---- */

void connect_begin(struct slot *slot);
bool tunnels_settled(void);

/* Pass the bytes of an accepted connection to the gateway's socket `name`. */
void tunnel_accepted(int fd, const char *name);

/* ---- listen.c: addresses inside the container ---- */

/* Read 127.0.0.1:PORT or unix:/PATH. Return whether it is one. */
bool address_parse(struct text text, struct address *address);
u32 address_size(const struct address *address);
/* Listen for NAME=ADDRESS. Return NULL, or what is wrong. */
const char *listen_open(char *name_and_address);
/* Listen on an address. Return a descriptor, or a negative errno. */
int listen_on(const struct address *address);

/* ---- files.c ---- */

void files_begin(struct slot *slot);

/* ---- copy.c ---- */

/* Copy what is in a folder for FROM=TO. What cannot be copied is said in the log. */
void copy_folder(char *from_and_to);

/* ---- relay.c: the sockets of the gateway over stdin and stdout ---- */

/* Listen on the sockets of `flags.folder`, and begin to pass frames. Runs before anything is dialled. */
void relay_open(void);
/* Also listen for this name. */
void relay_listen(const char *name);
/* Whether nothing waits to be written to stdout. */
bool relay_settled(void);

#endif
