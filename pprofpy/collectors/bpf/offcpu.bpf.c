/* Time off the CPU, by thread, kernel stack and waker: blocked (sleeping or uninterruptible), then waiting for a CPU.
 *
 * A thread is off from the switch that takes its CPU to the one that gives it one back. Until it is woken it is
 * blocked, from then on it waits in the run queue; preempted, it only waits.
 *
 * Compile-time switches: TGID or TARGETS (else all processes), MIN_NS and MAX_NS (of the whole time off).
 */
#include <linux/types.h>
#include "sched.h"

#define TASK_STATE_NOLOAD 0x400
#define NO_STACK -1

enum { SLEEPING, DISK, RUN_QUEUE };
enum { LOST_THREAD, LOST_TIME, LOST_STACK, LOST_PROCESS, HIDDEN_SWITCH, LOST_REASONS };

struct thread {
    u64 off_ns; /* when it was last switched out; 0 if not seen */
    u64 wake_ns;
    u64 user_stack;
    s32 kernel_stack;
    u32 tgid;
    u32 waker_tid;
    u8 waker_context;
    u8 state; /* SLEEPING, DISK, or RUN_QUEUE if it was switched out while it could run on */
    u8 off;
    u8 dead;
    char comm[16];
};

/* What times are summed up by. */
struct place {
    u64 user_stack;
    u32 tid;
    s32 kernel_stack;
    u32 waker_tid;
    u8 waker_context;
    u8 state;
    u16 unused;
};

struct times {
    u64 count;
    u64 total_ns;
    u64 max_ns;
};

struct name {
    u32 tgid;
    char comm[16];
};

BPF_TABLE("hash", u32, struct thread, threads, MAX_THREADS);
BPF_TABLE("hash", struct place, struct times, places, MAX_PLACES);
BPF_TABLE("lru_hash", u32, struct name, names, 16384);
BPF_STACK_TRACE(kernel_stacks, 8192);
BPF_PERCPU_ARRAY(lost, u64, LOST_REASONS);

static inline void count_lost(int reason)
{
    u64 *count = lost.lookup(&reason);
    if (count)
        *count += 1;
}

/* The stack of the program itself, as an id of whoever walks it; 0 where nobody does. The Python unwinder goes here. */
static inline u64 walk_user_stack(void) { return 0; }

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
    if (!thread || !thread->off || !thread->off_ns || now <= thread->off_ns) {
        if (thread)
            thread->off = 0;
        return;
    }
    thread->off = 0;
    u64 off_ns = now - thread->off_ns;
#ifdef MIN_NS
    if (off_ns < MIN_NS)
        return;
#endif
#ifdef MAX_NS
    if (off_ns > MAX_NS)
        return;
#endif
    struct place place = {.user_stack = thread->user_stack, .tid = ids.tid, .kernel_stack = thread->kernel_stack};
    u64 blocked_ns = 0;
    if (thread->state != RUN_QUEUE) {
        /* A wake-up that came just before the switch: it never really slept. */
        blocked_ns = thread->wake_ns > thread->off_ns ? thread->wake_ns - thread->off_ns : 0;
        place.waker_tid = thread->waker_tid;
        place.waker_context = thread->waker_context;
        place.state = thread->state;
        if (blocked_ns)
            add_time(&place, blocked_ns);
    }
    place.state = RUN_QUEUE;
    add_time(&place, off_ns - blocked_ns);
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    u64 previous = ctx->args[1], next = ctx->args[2];
    struct ids previous_ids = current_ids(), next_ids = task_ids(next);
    u64 now = bpf_ktime_get_ns();
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
    thread->user_stack = walk_user_stack();
    thread->kernel_stack = kernel_stacks.get_stackid(ctx, BPF_F_FAST_STACK_CMP);
    if (thread->kernel_stack < 0) {
        thread->kernel_stack = NO_STACK;
        count_lost(LOST_STACK);
    }
    bool uninterruptible = (state & TASK_STATE_UNINTERRUPTIBLE) && !(state & TASK_STATE_NOLOAD);
    thread->state = runnable ? RUN_QUEUE : uninterruptible ? DISK : SLEEPING;
    return 1;
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
    if (thread->waker_context != CONTEXT_INTERRUPT) {
        struct ids waker = current_ids();
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
