/* Who wakes the threads that switches.h follows: `struct thread` then has a `struct wakeup wakeup`.
 *
 * Before this file come WAKERS (who it was is wanted, not only when), and NAMES of names.h, if that is there. With PYTHON
 * there can be the waker's Python stack. */
#ifdef PYTHON
#pragma parameter WAKER_STACKS
#endif

/* Is it the current thread that wakes another? An interrupt only borrows its context, and so does a softirq, unless
 * that works off what the thread itself sends. */
static inline bool is_by_current(u32 context)
{
#ifdef WAIT_CALLS /* reasons.h is there */
    if (context == CONTEXT_SOFTIRQ)
        return wait_of_call((struct interpreter){}) == WAIT_SOCKET;
#endif
    return context == CONTEXT_TASK;
}

/* Raw tracepoints sched_waking and sched_wakeup_new: the thread that is woken; NULL if it is not watched. */
static inline struct thread *note_wakeup(u64 task)
{
    u64 now = bpf_ktime_get_ns();
    struct ids ids = task_ids(task);
    struct thread *thread = is_target(ids.tgid) && !is_over(now) ? thread_of(ids, task) : NULL;
    if (!thread)
        return NULL;
    struct wakeup *wakeup = &thread->wakeup;
    wakeup->at_ns = now;
    if (!(WAKERS))
        return thread;
    wakeup->context = wakeup_context();
    wakeup->tid = 0;
    /* Through memory, so that the kernel's verifier goes through what follows only once. */
    volatile u64 *stack = &wakeup->stack;
    *stack = is_by_current(wakeup->context);
    if (*stack) {
        *stack = 0;
#ifdef PYTHON
        if (WAKER_STACKS)
            *stack = python_stack();
#endif
        struct ids waker = shown_ids(current_ids(), bpf_get_current_task());
        wakeup->tid = waker.tid;
#ifdef NAMES
        if (NAMES)
            remember_name(waker, bpf_get_current_task());
#endif
    }
    return thread;
}
