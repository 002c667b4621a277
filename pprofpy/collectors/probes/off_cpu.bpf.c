/* Time off the CPU, by thread, stack, reason and waker: blocked (sleeping or uninterruptible), then waiting for a CPU.
 *
 * A thread is off from the switch that takes its CPU to the one that gives it one back. Until it is woken it is
 * blocked, from then on it waits in the run queue; preempted, it only waits. Its stack is the one that it blocks with:
 * at the switch it is still the thread that runs.
 *
 * Compiled with PYTHON there are Python stacks, and kernel stacks only where there is none, unless KERNEL_STACKS asks for
 * them everywhere. With NATIVE, too, each switch comes with a copy of the thread's native stack. MIN_NS and MAX_NS are
 * bounds of the whole time off; 0: none.
 */
#pragma parameter MIN_NS MAX_NS
#include <linux/types.h>
#include <uapi/linux/ptrace.h>
#include "sched.h"
#ifdef PYTHON
#include "python.h"
#endif
#include "reasons.h"

enum { SLEEPING, DISK, RUN_QUEUE };
enum {
    LOST_THREAD, LOST_TIME, LOST_KERNEL_STACK, LOST_PROCESS, HIDDEN_SWITCH, HIDDEN_WAKE_UP, LOST_NATIVE_STACK,
    LOST_NATIVE_RATE, LOST_REASONS
};
#include "ending.h"
#include "losses.h"
#include "windows.h"
#include "times.h"
#define NAMES true
#include "names.h"
#include "kernel_stack.h"
#include "tracked.h"

struct thread {
    struct tracked track;
    struct wakeup wakeup;
    u64 stack; /* of Python, when it was last switched out; 0 if there is none */
    s32 kernel_stack;
    u8 state;  /* SLEEPING, DISK, or RUN_QUEUE if it was switched out while it could run on */
    u8 reason; /* WAIT_* */
    u8 is_copied; /* so was its native stack */
    u8 unused;
    u64 copy_due_ns;
};

#include "switches.h"
#ifdef NATIVE
#include "native.h"
#include "native_switch.h"
#endif
#define WAKERS true
#include "wakeups.h"

/* What times are summed up by. */
struct place {
    u64 stack;
    u64 waker_stack;
    u32 tid;
    s32 kernel_stack;
    u32 waker_tid;
    u8 waker_context;
    u8 state;
    u8 reason;
    u8 window;
#ifdef NATIVE
    u64 copied_ns; /* when the thread left its CPU, if its native stack was copied; else 0 */
#endif
};

/* The stack of a thread that had been off the CPU for a while when its Python could be read for the first time. */
struct late_stack {
    u64 off_ns; /* since when: it counts for that time only */
    u64 stack;
    u64 reason;
};

BPF_TABLE("hash", struct place, struct times, places, 131072);
#ifdef PYTHON
BPF_TABLE("hash", u32, struct late_stack, late_stacks, 4096);
#endif

/* A thread's places have one writer, the CPU that it is switched in on. */
static inline void add_time(struct place *place, u64 time_ns)
{
    struct times *known = places.lookup(place), first = {};
    if (known) {
        add_to_times(known, time_ns);
        return;
    }
    add_to_times(&first, time_ns);
    if (places.update(place, &first))
        count_lost(LOST_TIME);
}

static inline void switched_in(struct switching *at, struct thread *thread)
{
    u64 off_since_ns = thread->track.since_ns, off_ns = at->now - off_since_ns, wake_ns = thread->wakeup.at_ns;
    thread->wakeup.at_ns = 0;
    if (enter_cpu(at, thread) != OFF_CPU || at->now <= off_since_ns)
        return;
    if (off_ns < MIN_NS || (MAX_NS && off_ns > MAX_NS))
        return;
    struct place place = {.stack = thread->stack, .tid = at->in.tid, .kernel_stack = thread->kernel_stack};
    place.window = this_window();
#ifdef NATIVE
    place.copied_ns = thread->is_copied ? off_since_ns : 0;
#endif
    u8 reason = thread->reason;
#ifdef PYTHON
    struct late_stack *late = thread->stack ? NULL : late_stacks.lookup(&at->in.tid);
    if (late && late->off_ns == off_since_ns) {
        place.stack = late->stack;
        reason = late->reason;
    }
#endif
    u64 blocked_ns = 0;
    if (thread->state != RUN_QUEUE) {
        /* A wake-up that came just before the switch: it never really slept. */
        blocked_ns = wake_ns > off_since_ns ? wake_ns - off_since_ns : 0;
        if (wake_ns) {
            place.waker_tid = thread->wakeup.tid;
            place.waker_context = thread->wakeup.context;
            place.waker_stack = thread->wakeup.stack;
        } else {
            /* Nobody saw it woken. How much of the time it waited for a CPU is unknown: it all counts as blocked. */
            count_lost(HIDDEN_WAKE_UP);
            blocked_ns = off_ns;
        }
        place.state = thread->state;
        place.reason = reason;
        if (blocked_ns)
            add_time(&place, blocked_ns);
    }
    if (blocked_ns == off_ns)
        return;
    place.waker_stack = 0;
    place.state = RUN_QUEUE;
    place.reason = WAIT_RUN_QUEUE;
    add_time(&place, off_ns - blocked_ns);
}

static inline void switched_out(void *ctx, struct switching *at, struct thread *thread)
{
    leave_cpu(at, thread);
    if (at->is_dead)
        return;
    thread->stack = at->stack;
    thread->kernel_stack = KERNEL_STACKS || !thread->stack ? kernel_stack(ctx) : NO_STACK;
    thread->state = at->is_runnable ? RUN_QUEUE : waits_uninterruptibly(at->state) ? DISK : SLEEPING;
    thread->reason = at->is_runnable ? WAIT_RUN_QUEUE : wait_reason(at->state, at->python);
#ifdef NATIVE
    thread->is_copied = copy_native_stack(at, thread);
#endif
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    struct switching at = read_switch(ctx);
    struct thread *in = thread_in(&at), *out = thread_out(&at);
    if (in)
        switched_in(&at, in);
    if (out)
        switched_out(ctx, &at, out);
    return 1;
}

int on_waking(struct bpf_raw_tracepoint_args *ctx)
{
    note_wakeup(ctx->args[0]);
    return 1;
}
