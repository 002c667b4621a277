/* Native stacks of threads that leave their CPU. Needs native.h and switches.h; `copy_due_ns`, `is_copied` and `kernel_stack`
 * in what the program keeps of a thread; LOST_NATIVE_RATE and LOST_NATIVE_STACK among its losses.
 *
 * A copy costs the thread some microseconds, and user space more. So a thread that switches all the time has one each
 * NATIVE_COPY_NS; the first ones after a rest are free. */
#define NATIVE_COPY_NS 2000000
#define NATIVE_REST_NS (64 * NATIVE_COPY_NS)

static inline bool copy_native_stack(struct switching *at, struct thread *thread)
{
    u64 due_ns = thread->copy_due_ns;
    if (!at->python.target)
        return false;
    if (due_ns > at->now + NATIVE_REST_NS) {
        count_lost(LOST_NATIVE_RATE);
        return false;
    }
    thread->copy_due_ns = (due_ns > at->now ? due_ns : at->now) + NATIVE_COPY_NS;
    if (!native_send(at->python.target, at->python.thread_state, at->stack, thread->kernel_stack, at->now))
        return true;
    count_lost(LOST_NATIVE_STACK);
    return false;
}
