/* Functions that burn time until a moment, each with another kind of stack frame. Compiled by the tests, without frame
 * pointers; see native.py. */
#include <alloca.h>
#include <string.h>
#include <time.h>

#define KEPT __attribute__((noinline, noclone))

static inline double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

KEPT double plain(double until)
{
    double found;
    while ((found = now()) < until)
        ;
    return found;
}

KEPT double callee(double until)
{
    double found;
    while ((found = now()) < until)
        ;
    return found;
}

KEPT double caller(double until)
{
    return callee(until) + 1;
}

KEPT double recursive(double until, int depth)
{
    return depth ? recursive(until, depth - 1) + 1 : plain(until);
}

/* Its frame is as large as it is told to make it: it is known by rbp. */
KEPT double growing(double until, int size)
{
    char *room = alloca(size);
    memset(room, size, size);
    double found = plain(until);
    return found + room[size / 2];
}

/* The stack pointer is rounded: where its frame lies is written down as an expression. */
KEPT double aligned(double until, int size)
{
    char buffer[64] __attribute__((aligned(128)));
    char *room = alloca(size);
    memset(buffer, size, sizeof(buffer));
    memset(room, size, size);
    double found = plain(until);
    return found + room[size / 2] + buffer[size & 63];
}

/* More than fits into one record. */
KEPT double large(double until, int value)
{
    char room[70000];
    memset(room, value, sizeof(room));
    double found = plain(until);
    return found + room[value & 255];
}

/* More than what is copied of a stack. */
KEPT double huge(double until, int value)
{
    char room[300000];
    memset(room, value, sizeof(room));
    double found = plain(until);
    return found + room[value & 255];
}
