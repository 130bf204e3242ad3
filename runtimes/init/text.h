/* Text: pieces of a buffer, lines that are put together, and memory of whole pages. */
#ifndef INIT_TEXT_H
#define INIT_TEXT_H

#include "sys.h"

void *memcpy(void *to, const void *from, size_t size);
void *memmove(void *to, const void *from, size_t size);
void *memset(void *to, int byte, size_t size);
int memcmp(const void *left, const void *right, size_t size);

struct text {
    char *at;
    u64 size;
};

u64 length(const char *string);
bool same(const char *left, const char *right);
bool starts(const char *string, const char *with);
/* Compare without regard to case; `with` is in lower case. */
bool text_is(struct text text, const char *with);
bool text_starts(struct text text, const char *with);
/* Read a decimal number of at most 18 digits. Return whether it is one. */
bool text_number(struct text text, u64 *number);
/* Decode %XX in place. Return whether it is valid; NUL is not. */
bool text_decode(struct text *text);
/* Return where `byte` is first, or the size. */
u64 text_find(struct text text, char byte);

/* A text that is put together. What finds no room is left out. */
struct line {
    u32 size;
    char data[8192];
};

void put(struct line *line, const char *string);
void put_text(struct line *line, struct text text);
void put_number(struct line *line, u64 number);
/* Put `text` as the inside of a JSON string. What is no UTF-8 becomes U+FFFD. */
void put_json(struct line *line, struct text text);

/* Memory of whole pages, zero, or NULL. Untouched pages cost nothing. */
void *pages_get(u64 size);
void pages_drop(void *at, u64 size);

#endif
