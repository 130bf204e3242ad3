/* Requests of the gateway: HTTP/1.1, strictly. */
#include "init.h"

static bool is_token(struct text text)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    if (text.size == 0)
        return false;
    for (u64 i = 0; i < text.size; i++) {
        char c = text.at[i];
        bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        if (!letter && (!c || text_find((struct text){(char *)others, sizeof others - 1}, c) == sizeof others - 1))
            return false;
    }
    return true;
}

/* No control characters, and no space where `spaces` is false. */
static bool is_printable(struct text text, bool spaces)
{
    for (u64 i = 0; i < text.size; i++) {
        u8 c = (u8)text.at[i];
        if (c == 0x7f || (c < 0x20 && !(c == '\t' && spaces)) || (c == ' ' && !spaces))
            return false;
    }
    return true;
}

/* Take a line off `rest`, without its end. `at` is NULL if there is none. */
static struct text next_line(struct text *rest)
{
    u64 size = text_find(*rest, '\n');
    if (size == rest->size || size == 0 || rest->at[size - 1] != '\r')
        return (struct text){NULL, 0};
    struct text line = {rest->at, size - 1};
    rest->at += size + 1;
    rest->size -= size + 1;
    return line;
}

static bool parse_first_line(struct text line, struct head *head)
{
    u64 method = text_find(line, ' ');
    if (method == line.size)
        return false;
    struct text rest = {line.at + method + 1, line.size - method - 1};
    u64 target = text_find(rest, ' ');
    if (target == rest.size)
        return false;
    head->method = (struct text){line.at, method};
    head->target = (struct text){rest.at, target};
    struct text version = {rest.at + target + 1, rest.size - target - 1};
    return is_token(head->method) && target > 0 && is_printable(head->target, false) && text_is(version, "http/1.1");
}

bool next_field(struct text *fields, struct text *name, struct text *value)
{
    struct text line = next_line(fields);
    if (line.at == NULL || line.size == 0)
        return false;
    u64 colon = text_find(line, ':');
    *name = (struct text){line.at, colon};
    *value = (struct text){line.at + colon + 1, colon < line.size ? line.size - colon - 1 : 0};
    while (value->size && (value->at[0] == ' ' || value->at[0] == '\t'))
        value->at++, value->size--;
    while (value->size && (value->at[value->size - 1] == ' ' || value->at[value->size - 1] == '\t'))
        value->size--;
    return true;
}

struct text head_field(const struct head *head, const char *wanted)
{
    struct text fields = head->fields, name, value;
    while (next_field(&fields, &name, &value))
        if (text_is(name, wanted))
            return value;
    return (struct text){NULL, 0};
}

static bool parse_fields(struct head *head)
{
    struct text fields = head->fields, name, value;
    bool sized = false, chunked = false;
    u64 size = 0;
    while (next_field(&fields, &name, &value)) {
        if (!is_token(name) || !is_printable(value, true))
            return false;
        if (text_is(name, "content-length")) {
            if (sized || !text_number(value, &size))
                return false;
            sized = true;
        } else if (text_is(name, "transfer-encoding")) {
            if (chunked || !text_is(value, "chunked"))
                return false;
            chunked = true;
        } else if (text_is(name, "connection") && text_is(value, "close")) {
            head->close = true;
        }
    }
    if (sized && chunked)
        return false;
    head->body = (struct body){chunked ? BODY_SIZE : size ? BODY_LENGTH : BODY_DONE, size, 0, false};
    /* next_field stops at the empty line, which it takes off, or at a line without its CR. */
    return fields.size == 0;
}

/* Return the size of the head with its empty line, 0 if that has not come. */
static u32 head_size(const char *data, u32 size)
{
    for (u32 i = 0; i + 3 < size; i++)
        if (data[i + 3] == '\n' && data[i] == '\r' && data[i + 1] == '\n' && data[i + 2] == '\r')
            return i + 4;
    return 0;
}

long head_parse(char *data, u32 size, struct head *head)
{
    u32 used = head_size(data, size);
    if (used == 0)
        return 0;
    struct text rest = {data, used};
    struct text line = next_line(&rest);
    head->close = false;
    if (line.at == NULL || !parse_first_line(line, head))
        return -1;
    head->fields = rest;
    return parse_fields(head) ? (long)used : -1;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Take one byte of what frames a chunked body. */
static void body_frame(struct body *body, char c)
{
    enum { LINE_LIMIT = 8192, DIGITS = 15 };
    if (++body->line > LINE_LIMIT) {
        body->state = BODY_BAD;
    } else if (body->state == BODY_SIZE) {
        int value = digit(c);
        if (value >= 0 && body->line <= DIGITS) {
            body->left = body->left * 16 + (u64)value;
        } else if (c == '\r' && body->line > 1) {
            body->state = BODY_SIZE_END;
        } else {
            body->state = BODY_BAD;
        }
    } else if (body->state == BODY_SIZE_END) {
        body->state = c != '\n' ? BODY_BAD : body->left ? BODY_DATA : BODY_TRAILER;
        body->line = 0;
        body->blank = true;
    } else if (body->state == BODY_DATA_END) {
        if (c != (body->line == 1 ? '\r' : '\n'))
            body->state = BODY_BAD;
        else if (c == '\n')
            *body = (struct body){BODY_SIZE, 0, 0, false};
    } else {
        /* Trailers are read and left out; an empty line ends them. */
        if (c == '\n' && body->blank)
            body->state = BODY_DONE;
        else if (c != '\r')
            body->blank = c == '\n';
    }
}

u32 body_take(struct body *body, char *data, u32 size, struct text *part)
{
    u32 used = 0;
    *part = (struct text){NULL, 0};
    while (used < size && body->state != BODY_DONE && body->state != BODY_BAD) {
        if (body->state != BODY_LENGTH && body->state != BODY_DATA) {
            body_frame(body, data[used++]);
            continue;
        }
        u64 count = body->left < size - used ? body->left : size - used;
        *part = (struct text){data + used, count};
        body->left -= count;
        if (body->left == 0) {
            body->state = body->state == BODY_LENGTH ? BODY_DONE : BODY_DATA_END;
            body->line = 0;
        }
        return used + (u32)count;
    }
    return used;
}
