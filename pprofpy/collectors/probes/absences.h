/* What the threads of watched processes do between the looks of a clock: how long each one is off the CPU, by the stack
 * that it leaves it with, and how long on it.
 *
 * A thread is always in one state: the stack that it waits with, or one of those below. The event that ends a state
 * adds the time that it lasted. So the times of a thread are its life as we have seen it, to the nanosecond.
 *
 * Part of cpu.bpf.c; what it counts is read by absences.py.
 */

/* States that are no stacks: those are odd, or small. */
#define RUNS 0xfffffffffffffff0ULL
#define RUNS_OR_IS_READY 0xfffffffffffffff2ULL /* as far as could be seen from outside */
#define UNKNOWN 0xfffffffffffffff4ULL

#define BEFORE_WINDOW 0x80000000 /* in a window's number: what of a time lies before it */

/* Mirrored in absences.py. */
enum { HIDDEN_SWITCH, LOST_THREAD, LOST_TIME, LOST_STACK, LOST_REASONS };
#include "losses.h"

struct thread {
    u64 since_ns;
    u64 state;
    u32 tgid;
    s32 kernel_stack;
};

struct spells {
    u64 count;
    u64 total_ns;
};

BPF_TABLE("hash", u32, struct thread, threads, MAX_THREADS);
BPF_TABLE("hash", struct sample, struct spells, absences, MAX_SAMPLES);
BPF_ARRAY(window_begin_ns, u64, 1);

/* A thread has one writer at a time: its events come one after the other. */
static inline void add_spell(struct sample *place, u64 time_ns)
{
    struct spells *known = absences.lookup(place);
    if (known) {
        known->count += 1;
        known->total_ns += time_ns;
        return;
    }
    struct spells first = {.count = 1, .total_ns = time_ns};
    if (absences.update(place, &first))
        count_lost(LOST_TIME);
}

/* The state that a thread was in is over; it turns out to have been `was`. User space has counted what went on when the
 * window began, up to there: that part is marked. */
static inline void end_state(u32 tid, struct thread *thread, u64 was, struct thread *next, u32 window)
{
    int zero = 0;
    u64 since_ns = thread->since_ns, now_ns = next->since_ns, *begin_ns = window_begin_ns.lookup(&zero);
    struct sample place = {.stack = was, .tid = tid, .tgid = thread->tgid, .window = window, .kernel_stack = -1};
    if (was < RUNS)
        place.kernel_stack = thread->kernel_stack;
    *thread = *next;
    if (begin_ns && since_ns < *begin_ns) {
        place.window |= BEFORE_WINDOW;
        add_spell(&place, *begin_ns - since_ns);
        place.window = window;
        since_ns = *begin_ns;
    }
    add_spell(&place, now_ns > since_ns ? now_ns - since_ns : 0);
}

static inline void begin_thread(u32 tid, struct thread *first)
{
    if (threads.update(&tid, first))
        count_lost(LOST_THREAD);
}

/* We took it for something else than what it now turns out to do: a switch was hidden from us, and with it what the
 * thread did since the one before. */
static inline u64 hidden(void)
{
    count_lost(HIDDEN_SWITCH);
    return UNKNOWN;
}

/* A clock has struck while the current thread ran. What is known of it is added at once: a switch that is hidden later
 * casts no doubt on it. */
static inline void seen_running(struct sample *sample)
{
    struct thread *thread = threads.lookup(&sample->tid);
    struct thread runs = {.since_ns = bpf_ktime_get_ns(), .state = RUNS, .tgid = sample->tgid, .kernel_stack = -1};
    if (thread)
        end_state(sample->tid, thread, thread->state < RUNS ? hidden() : RUNS, &runs, sample->window);
    else
        begin_thread(sample->tid, &runs);
}

static inline void switched_in(u64 task, u64 now, u32 window)
{
    struct ids ids = task_ids(task);
    struct thread *thread = threads.lookup(&ids.tid);
    struct thread runs = {.since_ns = now, .state = RUNS, .tgid = ids.tgid, .kernel_stack = -1};
    if (!thread) {
        if (python_targets.lookup(&ids.tgid))
            begin_thread(ids.tid, &runs);
        return;
    }
    u64 was = thread->state == RUNS_OR_IS_READY ? UNKNOWN : thread->state == RUNS ? hidden() : thread->state;
    end_state(ids.tid, thread, was, &runs, window);
}

static inline void switched_out(u32 tid, struct thread *waits, bool is_dead, u32 window)
{
    struct thread *thread = threads.lookup(&tid);
    if (!thread) {
        if (!is_dead)
            begin_thread(tid, waits);
        return;
    }
    end_state(tid, thread, thread->state < RUNS ? hidden() : RUNS, waits, window);
    if (is_dead)
        threads.delete(&tid);
}

/* Raw tracepoint sched_switch: the one that leaves is still the current thread. */
int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    int zero = 0;
    u64 now = bpf_ktime_get_ns(), pid_tgid = bpf_get_current_pid_tgid();
    struct thread waits = {.since_ns = now, .tgid = pid_tgid >> 32, .kernel_stack = -1};
    u32 *current_window = window.lookup(&zero);
    if (!current_window || *current_window == CLOSED)
        return 1;
    struct python_target *target = python_current();
    u64 thread_state = target ? python_thread_state(target) : 0;
    if (thread_state)
        waits.state = python_stack_of(target, thread_state);
    switched_in(ctx->args[2], now, *current_window);
    if (!target)
        return 1;
    bool is_dead = previous_state(ctx) & TASK_STATE_DEAD;
#ifdef KERNEL_STACKS
    waits.kernel_stack = kernel_stacks.get_stackid(ctx, BPF_F_FAST_STACK_CMP);
    if (waits.kernel_stack < 0) {
        waits.kernel_stack = -1;
        count_lost(LOST_STACK);
    }
#endif
    switched_out(pid_tgid, &waits, is_dead, *current_window);
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
    struct thread waits = {.since_ns = bpf_ktime_get_ns(), .tgid = child.tgid, .kernel_stack = -1};
    begin_thread(child.tid, &waits);
    return 1;
}

/* Raw tracepoint sched_process_exec: the process is another program, of which we know nothing yet. A thread that is not
 * the first one takes that one's number. */
int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    int zero = 0;
    u32 tid = ctx->args[1], tgid = current_ids().tgid;
    u32 *current_window = window.lookup(&zero);
    struct thread *thread = threads.lookup(&tid);
    if (!current_window || !thread || thread->tgid != tgid)
        return 1;
    struct thread ends = {.since_ns = bpf_ktime_get_ns(), .tgid = tgid};
    end_state(tid, thread, RUNS, &ends, *current_window);
    threads.delete(&tid);
    return 1;
}
