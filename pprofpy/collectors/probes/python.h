/* The Python stack of the thread that runs right now, walked where it is: in the kernel, at any event.
 *
 *     #include "python.h"
 *     u64 stack = python_stack();    // 0: not a watched process, or nothing to walk (counted by reason)
 *
 * What the interpreter looks like comes from user space, one `struct python_target` per process (pystacks/stacks.py), so that
 * one program serves all versions and several processes at once.
 *
 * A stack is known by a hash of its frames. The first time it is seen, all of it goes to user space through a ring
 * buffer, and so does every code object that is new: name, file and line table, read at that very moment. Names are
 * right even if the code is freed, or the process gone, before user space looks. Both lists of what was seen forget
 * what was not used for long (LRU); it is then simply sent again.
 *
 * A frame is told by its code object's address, by a fingerprint of that object (an address is used again and again,
 * for other code), and by its current instruction.
 *
 * Needs KERNEL_DEFINES of cpython/versions.py.
 */
#pragma parameter SIGNAL_LIVE /* an offset in `struct signal_struct`: so many of its threads have not begun to exit */
#pragma parameter TASK_THREAD_POINTER /* an offset in `struct task_struct` */
#pragma parameter PYTHON_TASKS /* 1: label stacks with their asyncio task */
#include <linux/types.h>
#include "ids.h"
#include "loops.h"
#include "registers.h"
#include "python_tables.h"
#include "python_states.h"
#include "python_codes.h"
#include "python_walk.h"
#include "python_awaiting.h"
#include "python_labels.h"

/* Make sure that user space knows the stack; returns its id, 0 if that is not possible. */
static inline u64 python_intern(struct python_walk *walk, struct python_target *target)
{
    int zero = 0;
    u64 id = walk->stack.id;
    u32 *epoch = python_epoch.lookup(&zero), *seen = python_stacks_seen.lookup(&id);
    if (!epoch)
        return 0;
    if (seen && *seen == *epoch)
        return id;
    u32 now = *epoch;
    python_send_codes(walk, target, now);
    u64 count = walk->stack.frame_count;
    u64 size = __builtin_offsetof(struct python_stack, frames) + count * sizeof(struct python_frame);
    if (size > sizeof(struct python_stack))
        size = sizeof(struct python_stack);
    if (python_records.ringbuf_output(&walk->stack, size, BPF_RB_NO_WAKEUP)) {
        python_count(PYTHON_STACK_LOST);
        return 0;
    }
    python_stacks_seen.update(&id, &now);
    return id;
}

/* Is it collecting garbage? One thread does, and holds the lock. Each collection counts for the next generation, and
 * resets the counts of its own and of the younger ones, some hundred instructions after it has begun. */
static inline u32 python_collecting(struct python_target *target, u64 thread_state)
{
    if (!target->gc_collecting)
        return 0;
    u64 state = target->runtime;
    if (!target->gc_in_runtime)
        state = python_read(thread_state + target->thread_interp);
    state += target->gc_collecting;
    if (!(u32)python_read(state) || !python_holds_gil(target, thread_state))
        return 0;
    if (!target->gc_older)
        return PYTHON_GC_UNKNOWN;
    state -= target->gc_older;
    if ((u32)python_read(state))
        return PYTHON_GC_FIRST;
    return (u32)python_read(state + PYTHON_GC_GENERATION_BYTES) ? PYTHON_GC_FIRST + 1 : PYTHON_GC_FIRST + 2;
}

/* The stack of the current thread, whose state is known. */
static inline u64 python_stack_of(struct python_target *target, u64 thread_state)
{
    int zero = 0;
    u64 frame = python_leaf_frame(target, thread_state), pid_tgid = current_pid_tgid(), id = 0;
    if (!frame) {
        python_count(PYTHON_NO_FRAME);
        return 0;
    }
    struct python_walk *walk = python_walks.lookup(&zero);
    if (!walk)
        return 0;
    if (walk->busy) {
        python_count(PYTHON_BUSY);
        return 0;
    }
    walk->busy = 1;
    walk->stack.kind = PYTHON_RECORD_STACK;
    walk->stack.tgid = pid_tgid >> 32;
    walk->stack.tid = pid_tgid;
    walk->stack.thread_state = thread_state;
    walk->stack.labels = walk->stack.thread_frames = walk->stack.task_frames = 0;
    python_walk_frames(walk, target, thread_state, frame);
    volatile u32 *collecting = &walk->stack.collecting; /* in memory, as what the walk has found out */
    *collecting = python_collecting(target, thread_state);
    walk->stack.id = python_mix(walk->stack.id, *collecting) | 1;
    if (PYTHON_TASKS | PYTHON_VARIABLES)
        python_label(walk, target, thread_state);
    if (walk->stack.frame_count > walk->stack.frame_first || walk->stack.flags)
        id = python_intern(walk, target);
    else
        python_count(PYTHON_NO_FRAME);
    walk->busy = 0;
    return id;
}

/* The current thread's Python stack as an id that pystacks can spell out; 0 if there is none. */
static inline u64 python_stack(void)
{
    struct python_target *target = python_current();
    if (!target)
        return 0;
    u64 thread_state = python_thread_state(target);
    if (!thread_state) {
        python_count(PYTHON_NO_THREAD_STATE);
        return 0;
    }
    return python_stack_of(target, thread_state);
}

/* -- fork and exec ------------------------------------------------------------------------------------------------ */

static inline bool python_send_event(u32 kind, u32 tgid, u32 parent_tgid)
{
    struct python_process_event event = {.kind = kind, .tgid = tgid, .parent_tgid = parent_tgid};
    return !python_records.ringbuf_output(&event, sizeof(event), BPF_RB_NO_WAKEUP);
}

/* Raw tracepoint sched_process_fork: a child has its parent's memory, at the same addresses. */
int python_on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tgid = current_ids().tgid, child = task_ids(ctx->args[1]).tgid;
    struct python_target *target = python_targets.lookup(&tgid);
    if (!target || child == tgid || !(target->flags & PYTHON_TARGET_FOLLOW))
        return 1;
    struct python_target copy = *target;
    if (PYTHON_TASKS | PYTHON_VARIABLES)
        python_copy_label_source(tgid, child);
    if (python_targets.update(&child, &copy) || !python_send_event(PYTHON_RECORD_FORK, child, tgid))
        python_count(PYTHON_CHILD_LOST);
    return 1;
}

/* Raw tracepoint sched_process_exec: nothing is where it was. User space looks at the new program, which may start other
 * Pythons although it is none itself. */
int python_on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tgid = current_ids().tgid;
    struct python_target *target = python_targets.lookup(&tgid);
    if (target) {
        target->runtime = 0;
        python_label_sources.delete(&tgid);
        if (!python_send_event(PYTHON_RECORD_EXEC, tgid, tgid))
            python_count(PYTHON_CHILD_LOST);
    }
    return 1;
}

/* Raw tracepoint sched_process_exit: with the last of its threads a process is over, and its number may be another's soon.
 * That need not be the first thread: others go on without it, or one of them takes its place by exec. */
int python_on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    struct ids ids = current_ids();
    python_threads.delete(&ids.tid);
    if (read_u32(read_u64(bpf_get_current_task() + TASK_SIGNAL) + SIGNAL_LIVE) == 0) {
        python_targets.delete(&ids.tgid);
        python_label_sources.delete(&ids.tgid);
    }
    return 1;
}
