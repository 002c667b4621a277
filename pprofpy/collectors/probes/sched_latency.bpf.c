/* Run-queue latency: the time from runnable to running, of every thread of the watched processes.
 *
 * A wait begins when a thread is woken (sched_waking, sched_wakeup_new) or switched out while it could run on, and
 * ends when it is switched in. All counting happens here; user space reads the maps when it wants to know.
 *
 * Compile-time switches: TARGETS (else all processes), TRACE, STACKS (waits also by the Python stack of the thread that
 * waits and of the one that woke it). Parameters, put in when it is loaded: TGID, THRESHOLD_NS.
 */
#include <linux/types.h>
#include "sched.h"
#ifdef STACKS
#include "python.h"
#endif

enum { EVENT_SWITCH, EVENT_WAKEUP, EVENT_NEW };
enum {
    LOST_THREAD, LOST_BUCKET, LOST_LONG_WAIT, LOST_EVENT, LOST_PROCESS, HIDDEN_SWITCH, HIDDEN_WAKE_UP, LOST_STACK,
    LOST_REASONS
};
#include "losses.h"
#include "turns.h"

/* The longest wait is kept by window (between two looks from user space), the current one's at [window & 1]: the
 * other is then at rest and can be read. */
struct waits {
    u64 count;
    u64 total_ns;
    u64 max_ns[2];
    u64 max_at_ns[2];
};

/* A thread's entry has one writer at a time, the scheduler's own order sees to that: it is switched out on one CPU
 * before it is switched in on another. Only wake_ns comes from elsewhere, but not between the wake-up that it tells of and
 * the switch that ends the wait. */
struct thread {
    u64 off_ns;  /* when it was last switched out */
    u64 wake_ns; /* when it was last woken; 0: not since it last ran */
    u64 stack;   /* of Python, when it was last switched out; 0 if there is none */
    u64 waker_stack;
    struct waits woken;
    struct waits preempted;
    u32 window[2]; /* which window the longest waits are of */
    u64 migrations;
    u32 tgid;
    u32 cpu; /* where it last ran, plus one */
    u32 waker_tid;
    u8 waker_context;
    u8 left_runnable;
    u8 running;
    u8 dead;
    char comm[16];
    char waker_comm[16];
};

struct bucket {
    u32 tid;
    u16 was_preempted;
    u16 index;
};

BPF_TABLE("hash", u32, struct thread, threads, MAX_THREADS);
BPF_TABLE("hash", struct bucket, u64, histogram, MAX_BUCKETS);
BPF_ARRAY(window, u32, 1);

static inline struct thread *thread_entry(struct ids ids, u64 task)
{
    u32 tid = ids.tid;
    struct thread *known = threads.lookup(&tid);
    if (known)
        return known;
    struct thread fresh = {};
    fresh.tgid = ids.tgid;
    task_comm(task, fresh.comm);
    threads.insert(&tid, &fresh);
    known = threads.lookup(&tid);
    if (!known)
        count_lost(LOST_THREAD);
    return known;
}

/* Log-linear buckets, 32 to each power of two: a bucket is at most 3.2 % wide. Mirrors pprofpy.model.latency.bucket_edges. */
static inline u16 bucket_index(u64 wait_ns)
{
    if (wait_ns < 32)
        return wait_ns;
    u32 log = bpf_log2l(wait_ns) - 1;
    return ((log - 4) << 5) | ((wait_ns >> (log - 5)) & 31);
}

static inline void count_bucket(u32 tid, u16 was_preempted, u64 wait_ns)
{
    struct bucket key = {.tid = tid, .was_preempted = was_preempted, .index = bucket_index(wait_ns)};
    u64 *count = histogram.lookup(&key);
    if (count) {
        *count += 1;
        return;
    }
    u64 one = 1;
    if (histogram.update(&key, &one))
        count_lost(LOST_BUCKET);
}

/* -- waits by Python stack (--stacks) ------------------------------------------------------------------------------- */

#ifdef STACKS
struct stack_key {
    u64 stack;
    u64 waker_stack;
    u32 tid;
    u16 was_preempted;
    u16 turn;
};

struct stack_waits {
    u64 count;
    u64 total_ns;
    u64 max_ns;
};

BPF_TABLE("hash", struct stack_key, struct stack_waits, stack_waits, MAX_STACKS);

/* A thread's entries have one writer, the CPU that it is switched in on. */
static inline void count_stack(u32 tid, struct thread *thread, u64 wait_ns)
{
    struct stack_key key = {.stack = thread->stack, .tid = tid, .was_preempted = thread->left_runnable};
    key.turn = this_turn();
    if (!thread->left_runnable)
        key.waker_stack = thread->waker_stack;
    struct stack_waits *known = stack_waits.lookup(&key);
    if (known) {
        known->count += 1;
        known->total_ns += wait_ns;
        if (wait_ns > known->max_ns)
            known->max_ns = wait_ns;
        return;
    }
    struct stack_waits first = {.count = 1, .total_ns = wait_ns, .max_ns = wait_ns};
    if (stack_waits.update(&key, &first))
        count_lost(LOST_STACK);
}
#endif

/* -- the events themselves, in order (--trace) ---------------------------------------------------------------------- */

#ifdef TRACE
struct event {
    u64 ts_ns;
    u64 wait_ns;    /* switch: how long the thread switched in had waited; 0 if unknown */
    u32 from_tid;   /* switch: the thread switched out; wake-up: the waker */
    u32 to_tid;     /* switch: the thread switched in; wake-up: the wakee */
    u16 cpu;
    u8 kind;
    u8 context;     /* wake-up: CONTEXT_*; switch: 1 if the thread switched in had been preempted */
    u32 state;      /* switch: what the thread switched out goes into; 0 is runnable */
};

struct name {
    u32 tgid;
    char comm[16];
};

BPF_RINGBUF_OUTPUT(events, EVENT_PAGES);
BPF_TABLE("lru_hash", u32, struct name, names, 16384);

/* Remember who a thread outside of the watched processes is. */
static inline void remember_name(struct ids ids, u64 task)
{
    u32 tid = ids.tid;
    if (names.lookup(&tid))
        return;
    struct name name = {};
    name.tgid = ids.tgid;
    task_comm(task, name.comm);
    names.update(&tid, &name);
}

static inline void send_event(struct event *event)
{
    event->cpu = bpf_get_smp_processor_id();
    if (events.ringbuf_output(event, sizeof(*event), BPF_RB_NO_WAKEUP))
        count_lost(LOST_EVENT);
}
#endif

/* -- who had the CPU during a long wait (--threshold) --------------------------------------------------------------- */

#ifdef THRESHOLD_NS
#define SLICES 128

struct slice {
    u64 start_ns;
    u32 tid;
    u32 tgid;
    char comm[16];
};

struct long_wait {
    u64 end_ns;
    u64 wait_ns;
    u64 stack;
    u64 waker_stack;
    u32 tid;
    u32 tgid;
    u32 cpu;
    u32 cpu_before;
    u32 waker_tid;
    u8 waker_context;
    u8 was_preempted;
    u16 next_slice; /* where the oldest slice is */
    char comm[16];
    char waker_comm[16];
    struct slice slices[SLICES];
};

BPF_RINGBUF_OUTPUT(long_waits, 512);
/* The running tail of what each CPU did; sent as it is when a wait on that CPU turns out long. */
BPF_PERCPU_ARRAY(cpu_history, struct long_wait, 1);

static inline void remember_slice(u64 now, struct ids ids, u64 task)
{
    int zero = 0;
    struct long_wait *history = cpu_history.lookup(&zero);
    if (!history)
        return;
    struct slice *slice = &history->slices[history->next_slice & (SLICES - 1)];
    slice->start_ns = now;
    slice->tid = ids.tid;
    slice->tgid = ids.tgid;
    task_comm(task, slice->comm);
    history->next_slice = (history->next_slice + 1) & (SLICES - 1);
}

static inline void send_long_wait(u64 now, u64 wait_ns, u32 tid, struct thread *thread)
{
    int zero = 0;
    struct long_wait *wait = cpu_history.lookup(&zero);
    if (!wait)
        return;
    wait->end_ns = now;
    wait->wait_ns = wait_ns;
    wait->stack = thread->stack;
    wait->waker_stack = thread->left_runnable ? 0 : thread->waker_stack;
    wait->tid = tid;
    wait->tgid = thread->tgid;
    wait->cpu = bpf_get_smp_processor_id();
    wait->cpu_before = thread->cpu;
    wait->waker_tid = thread->waker_tid;
    wait->waker_context = thread->waker_context;
    wait->was_preempted = thread->left_runnable;
    __builtin_memcpy(wait->comm, thread->comm, 16);
    __builtin_memcpy(wait->waker_comm, thread->waker_comm, 16);
    if (long_waits.ringbuf_output(wait, sizeof(*wait), BPF_RB_NO_WAKEUP))
        count_lost(LOST_LONG_WAIT);
}
#endif

/* -- the tracepoints ------------------------------------------------------------------------------------------------ */

static inline void count_wait(struct thread *thread, u64 now, u64 wait_ns)
{
    int zero = 0;
    u32 *current = window.lookup(&zero);
    if (!current)
        return;
    u32 slot = *current & 1;
    if (thread->window[slot] != *current) {
        thread->window[slot] = *current;
        thread->woken.max_ns[slot] = 0;
        thread->preempted.max_ns[slot] = 0;
    }
    struct waits *waits = thread->left_runnable ? &thread->preempted : &thread->woken;
    waits->count += 1;
    waits->total_ns += wait_ns;
    if (wait_ns > waits->max_ns[slot]) {
        waits->max_ns[slot] = wait_ns;
        waits->max_at_ns[slot] = now;
    }
}

/* When the wait began that ends now; 0 if nobody saw it. */
static inline u64 wait_began(struct thread *thread)
{
    u64 wake_ns = thread->wake_ns, off_ns = thread->off_ns;
    thread->wake_ns = 0;
    if (thread->running)
        return 0;
    if (!thread->left_runnable && off_ns && !wake_ns) {
        count_lost(HIDDEN_WAKE_UP); /* it slept, for all that we know, until just now */
        return 0;
    }
    return thread->left_runnable || wake_ns < off_ns ? off_ns : wake_ns;
}

/* A thread gets a CPU: its wait is over. Returns how long it was; 0 if nobody saw it begin. */
static inline u64 switched_in(u64 now, struct ids ids, u64 task)
{
    struct thread *thread = thread_entry(ids, task);
    if (!thread)
        return 0;
    u64 since = wait_began(thread), wait_ns = 0;
    if (since && now > since) {
        wait_ns = now - since;
        count_wait(thread, now, wait_ns);
        count_bucket(ids.tid, thread->left_runnable, wait_ns);
#ifdef STACKS
        count_stack(ids.tid, thread, wait_ns);
#endif
#ifdef THRESHOLD_NS
        if (wait_ns >= THRESHOLD_NS)
            send_long_wait(now, wait_ns, ids.tid, thread);
#endif
    }
    if (thread->running)
        count_lost(HIDDEN_SWITCH);
    u32 cpu = bpf_get_smp_processor_id() + 1;
    if (thread->cpu && thread->cpu != cpu)
        thread->migrations += 1;
    thread->cpu = cpu;
    thread->running = 1;
    return wait_ns;
}

static inline void switched_out(u64 now, struct ids ids, u64 task, u32 state, bool runnable, u64 stack)
{
    struct thread *thread = thread_entry(ids, task);
    if (!thread)
        return;
    if (thread->off_ns && !thread->running)
        count_lost(HIDDEN_SWITCH);
    thread->off_ns = now;
    thread->stack = stack;
    thread->left_runnable = runnable;
    thread->running = 0;
    thread->cpu = bpf_get_smp_processor_id() + 1;
    if (!runnable && (state & TASK_STATE_DEAD)) {
        task_comm(task, thread->comm);
        thread->dead = 1;
    }
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    u64 now = bpf_ktime_get_ns(), stack = 0;
#ifdef STACKS
    /* First of all: the kernel's verifier looks at the walk once for each way that leads there. */
    stack = python_stack();
#endif
    u64 previous = ctx->args[1], next = ctx->args[2];
    struct ids previous_ids = current_ids(), next_ids = task_ids(next);
    bool out = previous_ids.tid && is_target(previous_ids.tgid);
    bool in = next_ids.tid && is_target(next_ids.tgid);
    u32 state = previous_state(ctx);
    bool runnable = left_runnable(ctx, state);
    u64 wait_ns = 0;
    u8 was_preempted = 0;
    if (out)
        switched_out(now, previous_ids, previous, state, runnable, stack);
    if (in) {
#ifdef TRACE
        struct thread *waiting = threads.lookup(&next_ids.tid);
        was_preempted = waiting ? waiting->left_runnable : 0;
#endif
        wait_ns = switched_in(now, next_ids, next);
    }
#ifdef THRESHOLD_NS
    remember_slice(now, next_ids, next);
#endif
#ifdef TRACE
    if (out || in) {
        if (!out)
            remember_name(previous_ids, previous);
        if (!in)
            remember_name(next_ids, next);
        struct event event = {.ts_ns = now, .wait_ns = wait_ns, .from_tid = previous_ids.tid, .to_tid = next_ids.tid};
        event.kind = EVENT_SWITCH;
        event.state = runnable ? 0 : state;
        event.context = was_preempted;
        send_event(&event);
    }
#endif
    return 1;
}

static inline int woken(u64 task, u8 kind)
{
    struct ids ids = task_ids(task);
    if (!is_target(ids.tgid))
        return 1;
    struct thread *thread = thread_entry(ids, task);
    if (!thread)
        return 1;
    u64 now = bpf_ktime_get_ns();
    thread->wake_ns = now;
#if defined(THRESHOLD_NS) || defined(TRACE) || defined(STACKS)
    thread->waker_context = wakeup_context();
    thread->waker_tid = thread->waker_context == CONTEXT_TASK ? (u32)bpf_get_current_pid_tgid() : 0;
#endif
#ifdef THRESHOLD_NS
    bpf_get_current_comm(thread->waker_comm, 16);
#endif
#ifdef STACKS
    /* Through memory, so that the kernel's verifier looks at what follows only once. */
    volatile u64 *waker_stack = &thread->waker_stack;
    *waker_stack = thread->waker_context == CONTEXT_TASK;
    if (*waker_stack)
        *waker_stack = python_stack();
#endif
#ifdef TRACE
    struct ids waker = current_ids();
    if (thread->waker_context == CONTEXT_TASK && !is_target(waker.tgid))
        remember_name(waker, bpf_get_current_task());
    struct event event = {.ts_ns = now, .from_tid = thread->waker_tid, .to_tid = ids.tid};
    event.kind = kind;
    event.context = thread->waker_context;
    send_event(&event);
#endif
    return 1;
}

int on_waking(struct bpf_raw_tracepoint_args *ctx) { return woken(ctx->args[0], EVENT_WAKEUP); }
int on_wakeup_new(struct bpf_raw_tracepoint_args *ctx) { return woken(ctx->args[0], EVENT_NEW); }

/* A thread takes another name, by exec or of its own will. */
int on_rename(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tid = task_ids(ctx->args[0]).tid;
    struct thread *thread = threads.lookup(&tid);
    if (thread)
        bpf_probe_read_kernel(thread->comm, 16, (void *)ctx->args[1]);
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
