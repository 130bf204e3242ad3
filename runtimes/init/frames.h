/* Frames over stdin and stdout, between relay.c and a gateway that shares no folder with this machine. */
#ifndef INIT_FRAMES_H
#define INIT_FRAMES_H

#include "sys.h"

enum frame { HELLO = 1, OPEN, DATA, WINDOW, END, CLOSE, LOST };

enum {
    FRAME_LIMIT = 32768,   /* bytes of a frame's payload */
    FIRST_WINDOW = 65536,  /* bytes that may be sent on a new stream before the first WINDOW */
};

/* Begin to read frames from stdin. */
void frames_open(void);
/* Send a small frame: at most 256 bytes. Whoever does so for each of many first asks `frames_room`. */
void frames_send(enum frame type, u32 stream, const void *payload, u32 size);
/* Return the place for the payload of a DATA frame, FRAME_LIMIT bytes, or NULL if too much waits for stdout. */
char *frames_place(void);
/* Send what was written to the place. */
void frames_send_place(u32 stream, u32 size);
/* Whether there is room for the small frames of one turn. */
bool frames_room(void);
/* Write what waits. */
void frames_flush(void);
/* Whether nothing waits for stdout. */
bool frames_settled(void);

u32 frames_number(const void *at);
void frames_put_number(void *at, u32 number);

/* ---- done by relay.c ---- */

/* Forget every stream: a new epoch begins, or this one cannot go on. */
void relay_forget(void);
/* Begin to accept connections. */
void relay_accept(void);
/* Take a frame of the gateway. Return false if it breaks the rules. */
bool relay_take(u32 type, u32 stream, const char *payload, u32 size);
/* Go on: there is room for frames again. */
void relay_go_on(void);
/* The gateway will never come again. */
void relay_ended(void);
/* Write what init is doing to `text`, at most `size` bytes, and return how many. */
u32 relay_state(char *text, u32 size);

#endif
