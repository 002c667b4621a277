/* The interpreter lock (GIL): who waits for it, how long and where in the program; who holds it meanwhile.
 *
 * Waiting is exact. A thread that wants the lock sleeps in a futex inside of the lock, which is seen when it is switched
 * out. It wakes up again and again (every 5 ms, to ask the holder to let go; or because somebody else was faster): all
 * these sleeps are one wait, which ends when the thread comes back for the last time.
 *
 * Holding is exact for a holder that is off the CPU (it blocks with the lock in hand, or was preempted). Of one that runs
 * only its own clock samples can tell: each stands for one period of the clock.
 *
 * (Some things go through memory for no other reason than that the kernel's verifier forgets their values there, and
 * then has fewer cases to check.)
 *
 * Whom it blocks: whoever waits while a sample of the holder is taken, or while the holder is off the CPU.
 */
#include <linux/types.h>
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>
#pragma parameter PERIOD_NS /* of the clock */
#define MAX_WAITERS 256
#include "python.h"
#define PYTHON_TARGETS_ONLY
#include "sched.h"
#include "gil_lock.h"

enum { LOST_THREAD, LOST_WAIT, LOST_HOLD, LOST_BLOCKED, LOST_WAITER, HIDDEN_SWITCH, LOST_REASONS };
#include "ending.h"
#include "losses.h"
#include "windows.h"
#include "times.h"
#include "tracked.h"

struct thread {
    struct tracked track;
    u64 since_ns;   /* it waits for the GIL since then; 0: it does not */
    u64 back_ns;    /* while it waits: it has the CPU again since then, and perhaps the GIL; 0: it is off */
    u64 switches;   /* then: how often the GIL had changed hands so far, or fewer */
    u64 hold_ns;    /* it is off the CPU with the GIL since then; 0: it is not */
    u64 handover_ns; /* it waits for another thread to take the GIL that it dropped, since then; 0: it does not */
    u64 gil;
    u64 stack;      /* where it began to wait, or went off the CPU with the GIL */
    u64 wait_count;
    u64 wait_total_ns;
    u64 wait_max_ns;
    u64 handover_total_ns;
    u64 held_off_ns; /* exact */
    u64 held_on_ns;  /* from samples */
    u64 on_cpu_ns;   /* from samples */
    u64 thread_state;
    u32 place; /* in `waiters`, plus one; 0: none */
    u32 goes; /* as it was switched out last */
};

#include "switches.h"

/* Those who wait right now, to be gone through by the holder. */
struct waiter {
    u64 since_ns; /* 0: nobody */
    u64 back_ns;
    u64 gil;
    u64 stack;
    u32 tid;
    u32 tgid;
};

struct at {
    u64 stack;
    u32 tid;
    u32 window;
};

struct held {
    u64 on_ns;
    u64 off_ns;
};

struct blocked {
    u64 holder_stack;
    u64 waiter_stack;
    u32 holder;
    u32 waiter;
    u32 window;
    u32 unused;
};

BPF_TABLE("hash", struct at, struct times, waits, 65536);
BPF_TABLE("hash", struct at, struct held, holds, 65536);
BPF_TABLE("hash", struct blocked, u64, blocks, 131072);
BPF_TABLE("hash", u32, u32, place_owners, MAX_WAITERS);
BPF_ARRAY(waiters, struct waiter, MAX_WAITERS);
BPF_ARRAY(places_used, u32, 1);

/* -- those who wait ------------------------------------------------------------------------------------------------ */

/* A place in the list, until it has the lock. */
static inline void take_place(struct thread *thread, u32 tid)
{
    int zero = 0;
    u32 *used = places_used.lookup(&zero);
    if (!used)
        return;
    LOOP_BELOW(i, MAX_WAITERS) {
        u32 place = i;
        if (place_owners.insert(&place, &tid))
            continue;
        thread->place = i + 1;
        if (*used <= i)
            *used = i + 1;
        return;
    }
    count_lost(LOST_WAITER);
}

static inline struct waiter *waiter_of(struct thread *thread)
{
    u32 place = thread->place - 1;
    return waiters.lookup(&place);
}

static inline void begin_wait(struct thread *thread, u32 tid, u64 now)
{
    thread->since_ns = now;
    thread->back_ns = 0;
    volatile struct waiter *waiter = waiter_of(thread);
    if (!waiter)
        return;
    waiter->back_ns = 0;
    waiter->gil = thread->gil;
    waiter->stack = thread->stack;
    waiter->tid = tid;
    waiter->tgid = thread->track.tgid;
    waiter->since_ns = now; /* last: now it counts */
}

/* It was woken in vain. */
static inline void wait_again(struct thread *thread)
{
    struct waiter *waiter = waiter_of(thread);
    if (waiter)
        waiter->back_ns = 0;
    thread->back_ns = 0;
}

static inline void end_wait(struct thread *thread, u32 tid)
{
    u64 wait_ns = thread->back_ns - thread->since_ns;
    struct at at = {.stack = thread->stack, .tid = tid, .window = this_window()};
    struct waiter *waiter = waiter_of(thread);
    if (waiter) {
        u32 place = thread->place - 1;
        waiter->since_ns = 0;
        thread->place = 0;
        place_owners.delete(&place);
    }
    thread->since_ns = 0;
    thread->back_ns = 0;
    thread->wait_count += 1;
    thread->wait_total_ns += wait_ns;
    if (wait_ns > thread->wait_max_ns)
        thread->wait_max_ns = wait_ns;
    struct times *known = waits.lookup(&at), first = {};
    if (known) {
        add_to_times(known, wait_ns);
        return;
    }
    add_to_times(&first, wait_ns);
    if (waits.update(&at, &first))
        count_lost(LOST_WAIT);
}

/* Has a thread got the GIL since it came back? If it took and dropped it meanwhile, the lock has changed hands twice at
 * least: to it, and to another. */
static inline bool got_it(struct thread *thread, u64 thread_state, u64 gil, u64 switches)
{
    return python_read(gil + GIL_HOLDER) == thread_state || switches >= thread->switches + 2;
}

/* -- those who hold ------------------------------------------------------------------------------------------------ */

static inline void add_hold(u32 tid, u64 stack, u64 on_ns, u64 off_ns)
{
    struct at at = {.stack = stack, .tid = tid, .window = this_window()};
    struct held *held = holds.lookup(&at);
    if (held) {
        held->on_ns += on_ns;
        held->off_ns += off_ns;
        return;
    }
    struct held first = {.on_ns = on_ns, .off_ns = off_ns};
    if (holds.update(&at, &first))
        count_lost(LOST_HOLD);
}

/* All who wait for a lock are blocked by its holder: for as long as a sample stands for (`sample_ns`), or since the
 * holder went off the CPU. Who is back since before that and has not gone to sleep again does not wait any more. */
static inline void add_blocked_time(struct thread *holder, u32 tid, u64 stack, u64 now, u64 sample_ns, u64 off_since_ns)
{
    int zero = 0;
    u64 nothing = 0, gil = holder->gil;
    u32 *used = places_used.lookup(&zero), count = used ? *used : 0, tgid = holder->track.tgid;
    struct blocked key = {.holder_stack = stack, .holder = tid, .window = this_window()};
    LOOP_BELOW(i, MAX_WAITERS) {
        u32 place = i;
        volatile struct waiter *waiter = waiters.lookup(&place);
        if (i >= count || !waiter)
            break;
        u64 since_ns = waiter->since_ns, time_ns = sample_ns;
        if (off_since_ns)
            time_ns = now - (since_ns > off_since_ns ? since_ns : off_since_ns);
        bool waits = since_ns - 1 < now - 1 && waiter->back_ns - 1 >= off_since_ns - 1;
        if (!waits || waiter->gil != gil || waiter->tgid != tgid) /* a fork's lock has the same address */
            continue;
        key.waiter_stack = waiter->stack;
        key.waiter = waiter->tid;
        u64 *known = blocks.lookup(&key);
        if (!known) {
            blocks.insert(&key, &nothing);
            known = blocks.lookup(&key);
        }
        if (known)
            __sync_fetch_and_add(known, time_ns);
        else
            count_lost(LOST_BLOCKED);
    }
}

/* A thread that was off the CPU with the lock is back. */
static inline void end_hold(struct thread *thread, u32 tid, u64 now)
{
    u64 since_ns = thread->hold_ns;
    thread->hold_ns = 0;
    thread->held_off_ns += now - since_ns;
    add_hold(tid, thread->stack, 0, now - since_ns);
    add_blocked_time(thread, tid, thread->stack, now, 0, since_ns);
}

/* -- events -------------------------------------------------------------------------------------------------------- */

static inline void switched_in(struct switching *at, struct thread *thread)
{
    enter_cpu(at, thread);
    if (thread->handover_ns) {
        thread->handover_total_ns += at->now - thread->handover_ns;
        thread->handover_ns = 0;
    }
    if (thread->since_ns && !thread->back_ns) {
        struct lock key = {.gil = thread->gil, .tgid = thread->track.tgid};
        u64 *number = switch_numbers.lookup(&key);
        thread->switches = number ? *number : 0;
        thread->back_ns = at->now;
        struct waiter *waiter = waiter_of(thread);
        if (waiter)
            waiter->back_ns = at->now;
    }
    if (thread->hold_ns)
        end_hold(thread, at->in.tid, at->now);
}

/* What the thread that loses the CPU does with the lock. Its stack is walked by another program, right after this one:
 * for the kernel's verifier both together would be too long. */
static inline void switched_out(struct switching *at, struct thread *thread)
{
    struct python_target *target = python_current();
    u32 tid = at->out.tid;
    thread->goes = ELSEWHERE;
    if (leave_cpu(at, thread) == OFF_CPU) {
        /* The kernel has not shown that it came back. That was not long ago, as a rule. */
        if (thread->since_ns && !thread->back_ns)
            thread->back_ns = at->now;
        if (thread->hold_ns)
            end_hold(thread, tid, at->now);
    }
    u64 thread_state = target && !at->is_dead ? python_thread_state(target) : 0;
    u64 gil = thread_state ? gil_of(target, thread_state) : 0;
    if (!gil) {
        if (thread->since_ns)
            end_wait(thread, tid);
        return;
    }
    thread->gil = gil;
    u64 switches = switch_number(gil, at->out.tgid);
    if (thread->since_ns) {
        if (!got_it(thread, thread_state, gil, switches)) {
            wait_again(thread);
            return;
        }
        end_wait(thread, tid);
    }
    if (python_holds_gil(target, thread_state))
        thread->goes = WITH_THE_GIL;
    else
        thread->goes = sleeps_for(gil);
    if (thread->goes == FOR_A_TAKER)
        thread->handover_ns = at->now;
    if (thread->goes == FOR_THE_GIL)
        take_place(thread, tid);
    thread->thread_state = thread_state;
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    struct switching at = read_switch(ctx);
    struct thread *in = thread_in(&at), *out = thread_out(&at);
    if (in)
        switched_in(&at, in);
    if (out)
        switched_out(&at, out);
    return 1;
}

int on_switch_walk(struct bpf_raw_tracepoint_args *ctx)
{
    u64 now = bpf_ktime_get_ns();
    struct python_target *target = python_current();
    u32 tid = current_ids().tid;
    struct thread *thread = target ? threads.lookup(&tid) : NULL;
    if (!thread || thread->goes < FOR_THE_GIL)
        return 1;
    u64 stack = python_stack_of(target, thread->thread_state);
    thread->stack = stack;
    if (thread->goes == WITH_THE_GIL)
        thread->hold_ns = now;
    else
        begin_wait(thread, tid, now);
    thread->goes = ELSEWHERE;
    return 1;
}

int on_clock(struct bpf_perf_event_data *ctx)
{
    u64 now = bpf_ktime_get_ns();
    struct python_target *target = python_current();
    if (!target || is_over(now))
        return 0;
    struct ids ids = current_ids();
    volatile struct thread *thread = thread_of(ids, bpf_get_current_task());
    if (!thread)
        return 0;
    thread->thread_state = python_thread_state(target);
    u64 thread_state = thread->thread_state;
    thread->on_cpu_ns += PERIOD_NS;
    if (!thread_state || !python_holds_gil(target, thread_state))
        return 0;
    thread->held_on_ns += PERIOD_NS;
    u64 stack = python_stack_of(target, thread_state);
    add_hold(ids.tid, stack, PERIOD_NS, 0);
    thread->gil = gil_of(target, thread_state);
    add_blocked_time((struct thread *)thread, ids.tid, stack, now, PERIOD_NS, 0);
    return 0;
}
