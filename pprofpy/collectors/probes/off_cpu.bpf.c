/* Time off the CPU, by thread, stack, reason and waker: blocked (sleeping or uninterruptible), then waiting for a CPU.
 *
 * A thread is off from the switch that takes its CPU to the one that gives it one back. Until it is woken it is
 * blocked, from then on it waits in the run queue; preempted, it only waits. Its stack is the one that it blocks with:
 * at the switch it is still the thread that runs.
 *
 * Compile-time switches: TARGETS (else all processes), PYTHON (Python stacks, and kernel stacks only where there is
 * none), KERNEL_STACKS (kernel stacks everywhere), WAKERS (the Python stacks of those who wake). Parameters, put in when
 * it is loaded: TGID, MIN_NS and MAX_NS (of the whole time off).
 */
#include <linux/types.h>
#include <uapi/linux/ptrace.h>
#include "sched.h"
#ifdef PYTHON
#include "python.h"
#endif
#include "reasons.h"

#define NO_STACK -1

enum { SLEEPING, DISK, RUN_QUEUE };
enum { LOST_THREAD, LOST_TIME, LOST_STACK, LOST_PROCESS, HIDDEN_SWITCH, HIDDEN_WAKE_UP, LOST_REASONS };
#include "losses.h"
#include "turns.h"

struct thread {
    u64 off_ns; /* when it was last switched out; 0 if not seen */
    u64 wake_ns; /* when it was last woken; 0: not since it last ran */
    u64 stack; /* of Python; 0 if there is none */
    u64 waker_stack;
    s32 kernel_stack;
    u32 tgid;
    u32 waker_tid;
    u8 waker_context;
    u8 state;  /* SLEEPING, DISK, or RUN_QUEUE if it was switched out while it could run on */
    u8 reason; /* WAIT_* */
    u8 off;
    u8 dead;
    u8 unused[7];
    char comm[16];
};

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
    u8 turn;
};

struct times {
    u64 count;
    u64 total_ns;
    u64 max_ns;
};

/* The stack of a thread that had been off the CPU for a while when its Python could be read for the first time. */
struct late_stack {
    u64 off_ns; /* since when: it counts for that time only */
    u64 stack;
    u64 reason;
};

struct name {
    u32 tgid;
    char comm[16];
};

BPF_TABLE("hash", u32, struct thread, threads, MAX_THREADS);
BPF_TABLE("hash", struct place, struct times, places, MAX_PLACES);
BPF_TABLE("lru_hash", u32, struct name, names, 16384);
#ifdef PYTHON
BPF_TABLE("hash", u32, struct late_stack, late_stacks, 4096);
#endif
BPF_STACK_TRACE(kernel_stacks, 8192);

static inline struct thread *thread_entry(struct ids ids, u64 task)
{
    u32 tid = ids.tid;
    struct thread *known = threads.lookup(&tid);
    if (known)
        return known;
    struct thread fresh = {.kernel_stack = NO_STACK};
    fresh.tgid = ids.tgid;
    task_comm(task, fresh.comm);
    threads.insert(&tid, &fresh);
    known = threads.lookup(&tid);
    if (!known)
        count_lost(LOST_THREAD);
    return known;
}

/* A thread's places have one writer, the CPU that it is switched in on. */
static inline void add_time(struct place *place, u64 time_ns)
{
    struct times *times = places.lookup(place);
    if (times) {
        times->count += 1;
        times->total_ns += time_ns;
        if (time_ns > times->max_ns)
            times->max_ns = time_ns;
        return;
    }
    struct times first = {.count = 1, .total_ns = time_ns, .max_ns = time_ns};
    if (places.update(place, &first))
        count_lost(LOST_TIME);
}

static inline void switched_in(u64 now, struct ids ids, u64 task)
{
    struct thread *thread = thread_entry(ids, task);
    if (!thread)
        return;
    bool was_off = thread->off && thread->off_ns && now > thread->off_ns;
    u64 off_ns = now - thread->off_ns, wake_ns = thread->wake_ns;
    thread->off = 0;
    thread->wake_ns = 0;
    if (!was_off)
        return;
#ifdef MIN_NS
    if (off_ns < MIN_NS)
        return;
#endif
#ifdef MAX_NS
    if (off_ns > MAX_NS)
        return;
#endif
    struct place place = {.stack = thread->stack, .tid = ids.tid, .kernel_stack = thread->kernel_stack};
    place.turn = this_turn();
    u8 reason = thread->reason;
#ifdef PYTHON
    struct late_stack *late = thread->stack ? NULL : late_stacks.lookup(&ids.tid);
    if (late && late->off_ns == thread->off_ns) {
        place.stack = late->stack;
        reason = late->reason;
    }
#endif
    u64 blocked_ns = 0;
    if (thread->state != RUN_QUEUE) {
        /* A wake-up that came just before the switch: it never really slept. */
        blocked_ns = wake_ns > thread->off_ns ? wake_ns - thread->off_ns : 0;
        if (wake_ns) {
            place.waker_tid = thread->waker_tid;
            place.waker_context = thread->waker_context;
            place.waker_stack = thread->waker_stack;
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

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    u64 previous = ctx->args[1], next = ctx->args[2];
    struct ids previous_ids = current_ids(), next_ids = task_ids(next);
    u64 now = bpf_ktime_get_ns(), stack = 0;
    struct interpreter in = {};
#ifdef PYTHON
    in.target = python_current();
    in.thread_state = in.target ? python_thread_state(in.target) : 0;
    if (in.thread_state)
        stack = python_stack_of(in.target, in.thread_state);
#endif
    if (next_ids.tid && is_target(next_ids.tgid))
        switched_in(now, next_ids, next);
    if (!previous_ids.tid || !is_target(previous_ids.tgid))
        return 1;
    struct thread *thread = thread_entry(previous_ids, previous);
    if (!thread)
        return 1;
    u32 state = previous_state(ctx);
    bool runnable = left_runnable(ctx, state);
    if (!runnable && (state & TASK_STATE_DEAD)) {
        task_comm(previous, thread->comm);
        thread->off = 0;
        thread->dead = 1;
        return 1;
    }
    if (thread->off)
        count_lost(HIDDEN_SWITCH);
    thread->off_ns = now;
    thread->off = 1;
    thread->stack = stack;
    thread->kernel_stack = NO_STACK;
#ifndef KERNEL_STACKS
    if (!thread->stack)
#endif
    {
        thread->kernel_stack = kernel_stacks.get_stackid(ctx, BPF_F_FAST_STACK_CMP);
        if (thread->kernel_stack < 0) {
            thread->kernel_stack = NO_STACK;
            count_lost(LOST_STACK);
        }
    }
    thread->state = runnable ? RUN_QUEUE : waits_uninterruptibly(state) ? DISK : SLEEPING;
    thread->reason = runnable ? WAIT_RUN_QUEUE : wait_reason(state, in);
    return 1;
}

/* Is it the current thread that wakes another? An interrupt only borrows its context, and so does a softirq, unless
 * that works off what the thread itself sends. */
static inline bool is_by_current(u8 context)
{
    return context == CONTEXT_TASK || (context == CONTEXT_SOFTIRQ && wait_of_call((struct interpreter){}) == WAIT_SOCKET);
}

int on_waking(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = ctx->args[0];
    struct ids ids = task_ids(task);
    if (!is_target(ids.tgid))
        return 1;
    struct thread *thread = thread_entry(ids, task);
    if (!thread)
        return 1;
    thread->waker_context = wakeup_context();
    thread->waker_tid = 0;
    /* Through memory, so that the kernel's verifier looks at what follows only once. */
    volatile u64 *waker_stack = &thread->waker_stack;
    *waker_stack = is_by_current(thread->waker_context);
    if (*waker_stack) {
        struct ids waker = current_ids();
        *waker_stack = 0;
#ifdef WAKERS
        *waker_stack = python_stack();
#endif
        thread->waker_tid = waker.tid;
        if (!names.lookup(&waker.tid)) {
            struct name name = {.tgid = waker.tgid};
            bpf_get_current_comm(name.comm, 16);
            names.update(&waker.tid, &name);
        }
    }
    thread->wake_ns = bpf_ktime_get_ns();
    return 1;
}

/* A thread takes another name, by exec or of its own will. */
int on_rename(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tid = task_ids(ctx->args[0]).tid;
    struct thread *thread = threads.lookup(&tid);
    if (thread)
        bpf_probe_read_kernel(thread->comm, 16, (void *)ctx->args[1]);
    names.delete(&tid);
    return 1;
}

#ifdef TARGETS
/* Attached if children are to be followed. */
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 child = task_ids(ctx->args[1]).tgid;
    u8 one = 1;
    if (is_target(task_ids(ctx->args[0]).tgid) && targets.update(&child, &one))
        count_lost(LOST_PROCESS);
    return 1;
}
#endif
