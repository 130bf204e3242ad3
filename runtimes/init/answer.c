/* Short answers, and chunks of longer ones. */
#include "init.h"

void send_piece(struct slot *slot, u32 size)
{
    static const char digits[] = "0123456789abcdef";
    char *end = piece + CHUNK_HEAD + size, *at = piece + CHUNK_HEAD;
    memcpy(end, "\r\n", 2);
    memcpy(at -= 2, "\r\n", 2);
    for (u32 rest = size; rest; rest >>= 4)
        *--at = digits[rest & 15];
    outbox_send(&slot->out, at, (u32)(end + 2 - at));
}

void send_chunk(struct slot *slot, const char *data, u32 size)
{
    memcpy(piece + CHUNK_HEAD, data, size);
    send_piece(slot, size);
}

void slot_answer_json(struct slot *slot, int status, const char *outcome, const char *json, u32 size)
{
    static struct line line;
    line.size = 0;
    put(&line, "HTTP/1.1 ");
    put_number(&line, (u64)status);
    put(&line, status < 300 ? " OK" : " Refused");
    if (outcome) {
        put(&line, "\r\nx-hearth-outcome: ");
        put(&line, outcome);
    }
    if (json)
        put(&line, "\r\ncontent-type: application/json");
    put(&line, "\r\ncontent-length: ");
    put_number(&line, size);
    put(&line, "\r\n\r\n");
    outbox_send(&slot->out, line.data, line.size);
    outbox_send(&slot->out, json, size);
}

void slot_answer(struct slot *slot, int status, const char *outcome, const char *type, const char *message)
{
    static struct line line;
    line.size = 0;
    put(&line, "{\"type\": \"");
    put(&line, type);
    put(&line, "\", \"message\": \"");
    put_json(&line, (struct text){(char *)message, length(message)});
    put(&line, "\"}");
    slot_answer_json(slot, status, outcome, line.data, line.size);
    slot_done(slot);
}

void status_answer(struct slot *slot)
{
    static struct line line;
    line.size = 0;
    put(&line, "{\"init\": 1, \"runs\": ");
    put_number(&line, runs_ever);
    put(&line, ", \"running\": ");
    put(&line, runs_now || main_pid > 0 ? "true" : "false");
    put(&line, "}");
    slot_answer_json(slot, 200, NULL, line.data, line.size);
    slot_done(slot);
}
