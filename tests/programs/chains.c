/* What chains.py calls, by the thread's CPU clock. Compiled by the tests, without frame pointers. */
#include <time.h>

#define KEPT __attribute__((noinline, noclone))

typedef void (*callback)(double);

KEPT double plain(double until)
{
    struct timespec time;
    double now;
    do {
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
        now = time.tv_sec + time.tv_nsec * 1e-9;
    } while (now < until);
    return now;
}

/* Calls back into Python from a frame of its own. */
KEPT double through(callback function, double until)
{
    volatile double kept = until;
    function(until);
    return kept;
}
