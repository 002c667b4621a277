/* The switch machine: follows threads from switch to switch, in the same way for every program at sched_switch.
 *
 * Before this file come sched.h, tracked.h, ending.h, losses.h with LOST_THREAD and HIDDEN_SWITCH among its reasons, and what the program itself keeps of a thread:
 *
 *     struct thread {
 *         struct tracked track;
 *         ...
 *     };
 *
 * Its own part of a switch then is:
 *
 *     struct switching at = read_switch(ctx);
 *     struct thread *in = thread_in(&at), *out = thread_out(&at);
 *     if (in)
 *         ... enter_cpu(&at, in) ...
 *     if (out)
 *         ... leave_cpu(&at, out) ...
 *
 * With PYTHON each switch has the Python stack of the thread that loses its CPU; python.h comes first. */

BPF_TABLE("hash", u32, struct thread, threads, 32768);

struct switching {
    u64 now;
    u64 out_task;
    u64 in_task;
    struct ids out; /* who loses the CPU; tid 0 is the idle task */
    struct ids in;  /* who gets it */
    u32 state;      /* what the one that loses it goes into */
    bool is_runnable; /* it could run on */
    bool is_dead;
    bool is_over; /* the recording has ended before */
    struct interpreter python;
    u64 stack; /* of Python; 0: none */
};

/* Raw tracepoint sched_switch: the thread that loses its CPU is still the current one. */
static inline struct switching read_switch(struct bpf_raw_tracepoint_args *ctx)
{
    struct switching at = {.now = bpf_ktime_get_ns(), .out_task = ctx->args[1], .in_task = ctx->args[2]};
#ifdef PYTHON
    /* First of all: the kernel's verifier goes through the walk once for each way that leads there. */
    at.python.target = python_current();
    at.python.thread_state = at.python.target ? python_thread_state(at.python.target) : 0;
    if (at.python.thread_state)
        at.stack = python_stack_of(at.python.target, at.python.thread_state);
#endif
    at.is_over = is_over(at.now);
    at.out = current_ids();
    at.in = task_ids(at.in_task);
    at.state = previous_state(ctx);
    at.is_runnable = left_runnable(ctx, at.state);
    at.is_dead = !at.is_runnable && (at.state & TASK_STATE_DEAD);
    return at;
}

/* A thread's entry, made if there is none; NULL if there is no room, which is counted. */
static inline struct thread *thread_of(struct ids ids, u64 task)
{
    u32 tid = ids.tid;
    struct thread *known = threads.lookup(&tid);
    if (known)
        return known;
    struct thread fresh = {};
    fresh.track.tgid = ids.tgid;
    task_comm(task, fresh.track.comm);
    threads.insert(&tid, &fresh);
    known = threads.lookup(&tid);
    if (!known)
        count_lost(LOST_THREAD);
    return known;
}

/* The thread that gets the CPU; NULL if it is not watched. */
static inline struct thread *thread_in(struct switching *at)
{
    return !at->is_over && at->in.tid && is_target(at->in.tgid) ? thread_of(at->in, at->in_task) : NULL;
}

/* The thread that loses the CPU; NULL if it is not watched. */
static inline struct thread *thread_out(struct switching *at)
{
    u32 tid = at->out.tid;
    if (at->is_over)
        return NULL;
    if (tid && is_target(at->out.tgid))
        return thread_of(at->out, at->out_task);
    /* A process is no target any more from when it begins to exit; its threads end with their last switch. */
    return at->is_dead ? threads.lookup(&tid) : NULL;
}

/* A thread's entry has one writer at a time, the scheduler's own order sees to that: it is switched out on one CPU before
 * it is switched in on another. Twice the same means that the kernel has not shown us the switch between. */
static inline u8 move_thread(struct thread *thread, u8 where, u64 now)
{
    u8 was = thread->track.where;
    if (was == where)
        count_lost(HIDDEN_SWITCH);
    thread->track.where = where;
    thread->track.since_ns = now;
    return was;
}

/* A thread gets its CPU; returns where it was until now. */
static inline u8 enter_cpu(struct switching *at, struct thread *thread)
{
    thread->track.is_dead = 0; /* by exec, a thread has taken a dead one's number */
    return move_thread(thread, ON_CPU, at->now);
}

/* A thread loses its CPU; returns where it was until now. */
static inline u8 leave_cpu(struct switching *at, struct thread *thread)
{
    u8 was = move_thread(thread, OFF_CPU, at->now);
    if (at->is_dead) {
        task_comm(at->out_task, thread->track.comm);
        thread->track.where = UNSEEN;
        thread->track.is_dead = 1;
    }
    return was;
}

/* Raw tracepoint task_rename: a thread takes another name, by exec or of its own will. */
int on_rename(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tid = task_ids(ctx->args[0]).tid;
    struct thread *thread = threads.lookup(&tid);
    if (thread)
        bpf_probe_read_kernel(thread->track.comm, 16, (void *)ctx->args[1]);
#ifdef NAMES
    if (NAMES)
        names.delete(&tid);
#endif
    return 1;
}

#ifndef PYTHON_TARGETS_ONLY
/* Raw tracepoint sched_process_fork; attached if children are to be followed. LOST_PROCESS is among the losses. */
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 child = task_ids(ctx->args[1]).tgid;
    u8 one = 1;
    if (is_target(task_ids(ctx->args[0]).tgid) && targets.update(&child, &one))
        count_lost(LOST_PROCESS);
    return 1;
}
#endif
