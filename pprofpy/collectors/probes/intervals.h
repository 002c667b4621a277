/* What the threads of watched processes do between two samples: how long each one is off the CPU, by the stack that it
 * leaves it with, and how long on it.
 *
 * A thread is always in one state: the stack that it waits with, or one of those below. The event that ends a state
 * adds the time that it lasted. So the times of a thread are its life as we have seen it, to the nanosecond.
 *
 * Part of cpu.bpf.c; what it counts is read by sampling/intervals.py.
 */
#include "times.h"
#include "tracked.h"

/* States that are no stacks: those are odd, or small. */
#define RUNS 0xfffffffffffffff0ULL
#define UNKNOWN 0xfffffffffffffff4ULL

/* In a window's number: the part of an interval before user space's window began; else the lowest bits of when that one
 * began, which tell its intervals from those of the window before. */
#define BEFORE_WINDOW 0x80000000
#define WINDOW_ID(begin_ns) ((u32)((begin_ns) & 3) << 29)

struct thread {
    struct tracked track;
    u64 stack; /* that it left the CPU with */
    u64 copy_due_ns;
    s32 kernel_stack;
    u32 is_copied; /* so was its native stack */
};

/* What intervals are summed up by. One whose native stack was copied is told by when it began. */
struct interval {
    struct sample at;
    u64 copied_ns; /* 0: no native stack was copied */
};

#include "switches.h"

BPF_TABLE("hash", struct interval, struct times, intervals, 65536);
BPF_ARRAY(window_begin_ns, u64, 1);

/* A thread has one writer at a time: its events come one after the other. */
static inline void add_interval(struct interval *key, u64 time_ns)
{
    struct times *known = intervals.lookup(key), first = {};
    if (known) {
        add_to_times(known, time_ns);
        return;
    }
    add_to_times(&first, time_ns);
    if (intervals.update(key, &first))
        count_lost(LOST_TIME);
}

/* The state that a thread was in since then is over; it turns out to have been `was`. User space tells beforehand when a
 * window of its own begins: what lies before it is counted apart, to the nanosecond. */
static inline void end_state(u32 tid, struct thread *thread, u64 was, u64 since_ns, u64 now, u32 window)
{
    int zero = 0;
    u64 *begin = window_begin_ns.lookup(&zero), begin_ns = begin ? *begin : 0;
    struct interval key = {};
    key.at.stack = was;
    key.at.tid = tid;
    key.at.tgid = thread->track.tgid;
    key.at.kernel_stack = NO_STACK;
    if (was < RUNS) {
        key.at.kernel_stack = thread->kernel_stack;
        key.copied_ns = thread->is_copied ? since_ns : 0;
    }
    if (since_ns < begin_ns) {
        key.at.window = window | (now > begin_ns ? BEFORE_WINDOW : WINDOW_ID(begin_ns - 1));
        add_interval(&key, (now > begin_ns ? begin_ns : now) - since_ns);
        if (now <= begin_ns)
            return;
        since_ns = begin_ns;
    }
    key.at.window = window | WINDOW_ID(begin_ns);
    add_interval(&key, now > since_ns ? now - since_ns : 0);
}

#ifdef NATIVE
#include "native_switch.h"
#endif

/* A sample was taken while the current thread ran. What is known of it is added at once: a switch that is hidden later
 * casts no doubt on it. */
static inline void end_running(struct sample *sample)
{
    struct ids ids = {.tid = sample->tid, .tgid = sample->tgid};
    struct thread *thread = thread_of(ids, bpf_get_current_task());
    if (!thread)
        return;
    u64 since_ns = thread->track.since_ns, now = bpf_ktime_get_ns();
    u8 was = thread->track.where;
    if (was == OFF_CPU)
        count_lost(HIDDEN_SWITCH);
    thread->track.where = ON_CPU;
    thread->track.since_ns = now;
    if (since_ns)
        end_state(sample->tid, thread, was == OFF_CPU ? UNKNOWN : RUNS, since_ns, now, sample->window);
}

/* As seen from outside, a thread may have run or been about to: then nobody knows what it did before it got its CPU. */
static inline void switched_in(struct switching *at, struct thread *thread, u32 window)
{
    u64 since_ns = thread->track.since_ns;
    u64 was = enter_cpu(at, thread) == OFF_CPU ? thread->stack : UNKNOWN;
    if (since_ns)
        end_state(at->in.tid, thread, was, since_ns, at->now, window);
}

static inline void switched_out(void *ctx, struct switching *at, struct thread *thread, u32 window)
{
    u64 since_ns = thread->track.since_ns;
    u64 was = leave_cpu(at, thread) == OFF_CPU ? UNKNOWN : RUNS;
    if (since_ns)
        end_state(at->out.tid, thread, was, since_ns, at->now, window);
    if (at->is_dead) {
        threads.delete(&at->out.tid);
        return;
    }
    thread->stack = at->stack;
    thread->kernel_stack = KERNEL_STACKS ? kernel_stack(ctx) : NO_STACK;
#ifdef NATIVE
    thread->is_copied = copy_native_stack(at, thread);
#endif
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    int zero = 0;
    struct switching at = read_switch(ctx);
    struct thread *in = thread_in(&at), *out = thread_out(&at);
    u32 *current_window = window.lookup(&zero);
    if (!current_window || *current_window == CLOSED)
        return 1;
    if (in)
        switched_in(&at, in, *current_window);
    if (out)
        switched_out(ctx, &at, out, *current_window);
    return 1;
}

/* Raw tracepoint sched_process_fork: a thread or process that is about to run for the first time. */
int on_birth(struct bpf_raw_tracepoint_args *ctx)
{
    struct python_target *target = python_current();
    struct ids child = task_ids(ctx->args[1]);
    bool is_thread = child.tgid == current_ids().tgid;
    if (!target || !(is_thread || target->flags & PYTHON_TARGET_FOLLOW))
        return 1;
    struct thread *thread = thread_of(child, ctx->args[1]);
    if (thread)
        move_thread(thread, OFF_CPU, bpf_ktime_get_ns());
    return 1;
}

/* Raw tracepoint sched_process_exec: the process is another program, of which we know nothing yet. A thread that is not
 * the first one takes that one's number. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    int zero = 0;
    u32 tid = tid_before_exec(ctx->args[1]), tgid = current_ids().tgid;
    u32 *current_window = window.lookup(&zero);
    struct thread *thread = threads.lookup(&tid);
    u64 now = bpf_ktime_get_ns();
    if (!current_window || !thread || thread->track.tgid != tgid || is_over(now))
        return 1;
    if (thread->track.since_ns)
        end_state(tid, thread, RUNS, thread->track.since_ns, now, *current_window);
    threads.delete(&tid);
    return 1;
}
