/* Where the kernel starts init: no libc is there to do it. */
#include "init.h"

#ifndef WITH_LIBC

/* The stack at the start: count of arguments, arguments, NULL, environment, NULL. */
__attribute__((used)) static void begin(long *stack)
{
    int count = (int)stack[0];
    char **arguments = (char **)(stack + 1);
    sys_exit(init_main(count, arguments, arguments + count + 1));
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n mov %rsp, %rdi\n and $-16, %rsp\n call begin\n");
#else
__asm__(".globl _start\n_start:\n mov x29, #0\n mov x0, sp\n bl begin\n");
#endif

/* Compilers call these four by themselves. */

void *memcpy(void *to, const void *from, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((char *)to)[i] = ((const char *)from)[i];
    return to;
}

void *memmove(void *to, const void *from, size_t size)
{
    if (to <= from)
        return memcpy(to, from, size);
    while (size-- > 0)
        ((char *)to)[size] = ((const char *)from)[size];
    return to;
}

void *memset(void *to, int byte, size_t size)
{
    for (size_t i = 0; i < size; i++)
        ((char *)to)[i] = (char)byte;
    return to;
}

int memcmp(const void *left, const void *right, size_t size)
{
    const u8 *a = left, *b = right;
    for (size_t i = 0; i < size; i++)
        if (a[i] != b[i])
            return a[i] - b[i];
    return 0;
}

#else

/* The build for sanitizers, which need a libc. */
int main(int count, char **arguments, char **environment) { return init_main(count, arguments, environment); }

#endif
