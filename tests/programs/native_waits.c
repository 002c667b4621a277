/* Functions that wait, each in its own way, and a thread that runs no Python. Compiled by the tests, without frame
 * pointers; see native_waits.py. */
#include <pthread.h>
#include <semaphore.h>
#include <time.h>

#define KEPT __attribute__((noinline, noclone))

static sem_t begun;
static double rest_s;

static inline void until_after(double seconds, struct timespec *when)
{
    clock_gettime(CLOCK_REALTIME, when);
    long long ns = when->tv_nsec + (long long)(seconds * 1e9);
    when->tv_sec += ns / 1000000000;
    when->tv_nsec = ns % 1000000000;
}

KEPT int sleeps(double seconds)
{
    struct timespec time = {(long)seconds, (long)((seconds - (long)seconds) * 1e9)};
    return nanosleep(&time, 0) + 1;
}

KEPT int on_lock(double seconds)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t never = PTHREAD_COND_INITIALIZER;
    struct timespec end;
    until_after(seconds, &end);
    pthread_mutex_lock(&lock);
    while (!pthread_cond_timedwait(&never, &lock, &end))
        ;
    return pthread_mutex_unlock(&lock) + 1;
}

KEPT int first(double seconds) { return sleeps(seconds) + 1; }
KEPT int second(double seconds) { return sleeps(seconds) + 2; }

KEPT int burns(double seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    double end = now.tv_sec + now.tv_nsec * 1e-9 + seconds;
    do
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    while (now.tv_sec + now.tv_nsec * 1e-9 < end);
    return 1;
}

KEPT void *rests(void *unused)
{
    sem_post(&begun);
    while (sleeps(rest_s))
        ;
    return unused;
}

/* Begin a thread that Python knows nothing of, and that naps again and again. */
void begin(double nap_s)
{
    rest_s = nap_s;
    pthread_t thread;
    sem_init(&begun, 0, 0);
    pthread_create(&thread, 0, rests, 0);
    sem_wait(&begun);
}
