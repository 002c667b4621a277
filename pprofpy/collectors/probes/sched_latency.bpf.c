/* Run-queue latency: the time from runnable to running, of every thread of the watched processes.
 *
 * A wait begins when a thread is woken (sched_waking, sched_wakeup_new) or switched out while it could run on, and
 * ends when it is switched in. All counting happens here; user space reads the maps when it wants to know.
 *
 * Compiled with PYTHON, waits are also told by the Python stack of the thread that waits and of the one that woke it. TRACE:
 * send each event. THRESHOLD_NS: send each wait that is as long, with who had the CPU; 0: none.
 */
#pragma parameter TRACE THRESHOLD_NS
#include <linux/types.h>
#include "sched.h"
#ifdef PYTHON
#include "python.h"
#endif

enum { EVENT_SWITCH, EVENT_WAKEUP, EVENT_NEW };
enum {
    LOST_THREAD, LOST_BUCKET, LOST_LONG_WAIT, LOST_EVENT, LOST_PROCESS, HIDDEN_SWITCH, HIDDEN_WAKE_UP, LOST_STACK,
    LOST_REASONS
};
#include "ending.h"
#include "losses.h"
#include "windows.h"
#include "times.h"
#include "tracked.h"
#define NAMES TRACE
#include "names.h"

/* The longest wait is kept by window (from one report of user space to the next), the current one's at [window & 1]: the
 * other is then at rest and can be read. */
struct waits {
    u64 count;
    u64 total_ns;
    u64 max_ns[2];
    u64 max_at_ns[2];
};

struct thread {
    struct tracked track;
    struct wakeup wakeup;
    u64 stack; /* of Python, when it was last switched out; 0 if there is none */
    struct waits woken;
    struct waits preempted;
    u32 window[2]; /* which window the longest waits are of */
    u64 migrations;
    u32 cpu; /* where it last ran, plus one */
    u32 left_runnable;
    char waker_comm[16];
};

struct bucket {
    u32 tid;
    u16 was_preempted;
    u16 index;
};

BPF_TABLE("hash", struct bucket, u64, histogram, 262144);
BPF_ARRAY(window, u32, 1);

#include "switches.h"
#ifdef PYTHON
#define WAKERS true
#else
#define WAKERS (THRESHOLD_NS || TRACE)
#endif
#include "wakeups.h"
#include "buckets.h"

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

#ifdef PYTHON
struct stack_key {
    u64 stack;
    u64 waker_stack;
    u32 tid;
    u16 was_preempted;
    u16 window;
};

BPF_TABLE("hash", struct stack_key, struct times, stack_waits, 131072);

/* A thread's entries have one writer, the CPU that it is switched in on. */
static inline void count_stack(u32 tid, struct thread *thread, u64 wait_ns)
{
    struct stack_key key = {.stack = thread->stack, .tid = tid, .was_preempted = thread->left_runnable};
    key.window = this_window();
    if (!thread->left_runnable)
        key.waker_stack = thread->wakeup.stack;
    struct times *known = stack_waits.lookup(&key), first = {};
    if (known) {
        add_to_times(known, wait_ns);
        return;
    }
    add_to_times(&first, wait_ns);
    if (stack_waits.update(&key, &first))
        count_lost(LOST_STACK);
}
#endif

/* -- the events themselves, in order (--trace) ---------------------------------------------------------------------- */

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

BPF_RINGBUF_OUTPUT(events, 8192);

static inline void send_event(struct event *event)
{
    event->cpu = bpf_get_smp_processor_id();
    if (events.ringbuf_output(event, sizeof(*event), BPF_RB_NO_WAKEUP))
        count_lost(LOST_EVENT);
}

/* -- who had the CPU during a long wait (--threshold) --------------------------------------------------------------- */

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
    wait->waker_stack = thread->left_runnable ? 0 : thread->wakeup.stack;
    wait->tid = tid;
    wait->tgid = thread->track.tgid;
    wait->cpu = bpf_get_smp_processor_id();
    wait->cpu_before = thread->cpu;
    wait->waker_tid = thread->wakeup.tid;
    wait->waker_context = thread->wakeup.context;
    wait->was_preempted = thread->left_runnable;
    __builtin_memcpy(wait->comm, thread->track.comm, 16);
    __builtin_memcpy(wait->waker_comm, thread->waker_comm, 16);
    if (long_waits.ringbuf_output(wait, sizeof(*wait), BPF_RB_NO_WAKEUP))
        count_lost(LOST_LONG_WAIT);
}

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
    u64 wake_ns = thread->wakeup.at_ns, off_ns = thread->track.since_ns;
    thread->wakeup.at_ns = 0;
    if (thread->track.where == ON_CPU)
        return 0;
    if (!thread->left_runnable && off_ns && !wake_ns) {
        count_lost(HIDDEN_WAKE_UP); /* it slept, for all that we know, until just now */
        return 0;
    }
    return thread->left_runnable || wake_ns < off_ns ? off_ns : wake_ns;
}

/* A thread gets a CPU: its wait is over. Returns how long it was; 0 if nobody saw it begin. */
static inline u64 switched_in(struct switching *at, struct thread *thread)
{
    u64 since = wait_began(thread), wait_ns = 0;
    if (since && at->now > since) {
        wait_ns = at->now - since;
        count_wait(thread, at->now, wait_ns);
        count_bucket(at->in.tid, thread->left_runnable, wait_ns);
#ifdef PYTHON
        count_stack(at->in.tid, thread, wait_ns);
#endif
        if (THRESHOLD_NS && wait_ns >= THRESHOLD_NS)
            send_long_wait(at->now, wait_ns, at->in.tid, thread);
    }
    enter_cpu(at, thread);
    u32 cpu = bpf_get_smp_processor_id() + 1;
    if (thread->cpu && thread->cpu != cpu)
        thread->migrations += 1;
    thread->cpu = cpu;
    return wait_ns;
}

static inline void switched_out(struct switching *at, struct thread *thread)
{
    leave_cpu(at, thread);
    thread->stack = at->stack;
    thread->left_runnable = at->is_runnable;
    thread->cpu = bpf_get_smp_processor_id() + 1;
}

int on_switch(struct bpf_raw_tracepoint_args *ctx)
{
    struct switching at = read_switch(ctx);
    struct thread *in = thread_in(&at), *out = thread_out(&at);
    u8 was_preempted = in ? in->left_runnable : 0;
    u64 wait_ns = 0;
    /* Volatile: LLVM would join the two pointers by `|`, which the kernel's verifier does not allow. */
    volatile bool is_out_watched = out, is_in_watched = in;
    if (out)
        switched_out(&at, out);
    if (in)
        wait_ns = switched_in(&at, in);
    if (THRESHOLD_NS)
        remember_slice(at.now, shown_ids(at.in, at.in_task), at.in_task);
    if (TRACE && (is_out_watched || is_in_watched)) {
        at.out = shown_ids(at.out, at.out_task);
        at.in = shown_ids(at.in, at.in_task);
        if (!is_out_watched)
            remember_name(at.out, at.out_task);
        if (!is_in_watched)
            remember_name(at.in, at.in_task);
        struct event event = {.ts_ns = at.now, .wait_ns = wait_ns, .from_tid = at.out.tid, .to_tid = at.in.tid};
        event.kind = EVENT_SWITCH;
        event.state = at.is_runnable ? 0 : at.state;
        event.context = was_preempted;
        send_event(&event);
    }
    return 1;
}

static inline int woken(u64 task, u8 kind)
{
    struct thread *thread = note_wakeup(task);
    if (!thread)
        return 1;
    if (THRESHOLD_NS)
        bpf_get_current_comm(thread->waker_comm, 16);
    if (!TRACE)
        return 1;
    struct event event = {.ts_ns = thread->wakeup.at_ns, .from_tid = thread->wakeup.tid, .to_tid = task_ids(task).tid};
    event.kind = kind;
    event.context = thread->wakeup.context;
    send_event(&event);
    return 1;
}

int on_waking(struct bpf_raw_tracepoint_args *ctx) { return woken(ctx->args[0], EVENT_WAKEUP); }
int on_wakeup_new(struct bpf_raw_tracepoint_args *ctx) { return woken(ctx->args[0], EVENT_NEW); }
