/* Text and memory. */
#include "text.h"

u64 length(const char *string)
{
    u64 size = 0;
    while (string[size])
        size++;
    return size;
}

bool same(const char *left, const char *right)
{
    while (*left && *left == *right)
        left++, right++;
    return *left == *right;
}

bool starts(const char *string, const char *with)
{
    while (*with && *string == *with)
        string++, with++;
    return !*with;
}

static char lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }

bool text_starts(struct text text, const char *with)
{
    for (u64 i = 0; with[i]; i++)
        if (i >= text.size || lower(text.at[i]) != with[i])
            return false;
    return true;
}

bool text_is(struct text text, const char *with) { return text.size == length(with) && text_starts(text, with); }

bool text_number(struct text text, u64 *number)
{
    *number = 0;
    if (text.size == 0 || text.size > 18)
        return false;
    for (u64 i = 0; i < text.size; i++) {
        if (text.at[i] < '0' || text.at[i] > '9')
            return false;
        *number = *number * 10 + (u64)(text.at[i] - '0');
    }
    return true;
}

static int hex(char c)
{
    c = lower(c);
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool text_decode(struct text *text)
{
    u64 to = 0;
    for (u64 from = 0; from < text->size; from++) {
        char c = text->at[from];
        if (c == '%') {
            if (from + 2 >= text->size)
                return false;
            int high = hex(text->at[from + 1]), low = hex(text->at[from + 2]);
            if (high < 0 || low < 0)
                return false;
            c = (char)(high * 16 + low);
            from += 2;
        }
        if (c == 0)
            return false;
        text->at[to++] = c;
    }
    text->size = to;
    return true;
}

u64 text_find(struct text text, char byte)
{
    u64 i = 0;
    while (i < text.size && text.at[i] != byte)
        i++;
    return i;
}

void put_text(struct line *line, struct text text)
{
    u64 room = sizeof line->data - line->size;
    if (text.size > room)
        text.size = room;
    memcpy(line->data + line->size, text.at, text.size);
    line->size += (u32)text.size;
}

void put(struct line *line, const char *string)
{
    put_text(line, (struct text){(char *)string, length(string)});
}

void put_number(struct line *line, u64 number)
{
    char digits[20];
    u32 at = sizeof digits;
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number);
    put_text(line, (struct text){digits + at, sizeof digits - at});
}

/* Return the size of the UTF-8 character at `at`, 0 if it is none. */
static u32 character(const u8 *at, u64 size)
{
    u32 wanted = at[0] < 0x80 ? 1 : at[0] >= 0xc2 && at[0] < 0xe0 ? 2 : (at[0] & 0xf0) == 0xe0 ? 3 : 4;
    if (wanted == 4 && (at[0] < 0xf0 || at[0] > 0xf4))
        return 0;
    if (wanted > size)
        return 0;
    for (u32 i = 1; i < wanted; i++)
        if ((at[i] & 0xc0) != 0x80)
            return 0;
    /* Too long a form, surrogates, and what is beyond the last character. */
    if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f))
        return 0;
    if ((at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
        return 0;
    return wanted;
}

void put_json(struct line *line, struct text text)
{
    static const char digits[] = "0123456789abcdef";
    const u8 *at = (const u8 *)text.at;
    for (u64 i = 0; i < text.size;) {
        u32 size = character(at + i, text.size - i);
        if (size == 0) {
            put(line, "\\ufffd");
            i++;
        } else if (at[i] < 0x20 || at[i] == '"' || at[i] == '\\' || at[i] == 0x7f) {
            char escape[] = {'\\', 'u', '0', '0', digits[at[i] >> 4], digits[at[i] & 15], 0};
            put(line, escape);
            i++;
        } else {
            put_text(line, (struct text){text.at + i, size});
            i += size;
        }
    }
}

void *pages_get(u64 size)
{
    long at = SYS(NR_MMAP, NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return at < 0 && at > -4096 ? NULL : (void *)at;
}

void pages_drop(void *at, u64 size)
{
    if (at)
        SYS(NR_MUNMAP, at, size);
}
