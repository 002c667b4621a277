/* CPU samples: a clock on every CPU asks which thread of the target runs, and with which Python stack.
 *
 * Compile-time switches: KERNEL_STACKS (what the kernel did on top of it), GIL_ONLY (threads that hold the interpreter
 * lock, no others), IDLE (what threads do between the looks, too: absences.h), NATIVE (each sample goes to user space,
 * with a copy of the thread's stack: native.h).
 */
#include <linux/types.h>
#include <uapi/linux/bpf_perf_event.h>
#include "python.h"

#define NO_STACK -1
#define CLOSED 0xffffffff /* instead of a window's number: the recording is over */

/* What samples are counted by. A table of counts is read while the other one is written. */
struct sample {
    u64 stack;
    u32 tid;
    u32 tgid;
    s32 kernel_stack;
    u32 window;
};

enum { LOOKS, LOST_COUNT, LOST_KERNEL_STACK, LOST_NATIVE_STACK, TALLIES };

BPF_TABLE("hash", struct sample, u64, samples, MAX_SAMPLES);
BPF_ARRAY(window, u32, 1);
BPF_PERCPU_ARRAY(tallies, u64, TALLIES);
#ifdef KERNEL_STACKS
BPF_STACK_TRACE(kernel_stacks, 16384);
#endif

#ifdef IDLE
#include "sched.h"
#include "absences.h"
#endif
#ifdef NATIVE
#include "native.h"
#endif

static inline void tally(int which)
{
    u64 *count = tallies.lookup(&which);
    if (count)
        *count += 1;
}

/* Unless the recording is over. */
static inline bool count_look(u32 window)
{
    if (window == CLOSED)
        return false;
    tally(LOOKS);
    return true;
}

int on_clock(struct bpf_perf_event_data *ctx)
{
    int zero = 0;
    struct python_target *target = python_current();
    u32 *now = window.lookup(&zero);
    if (!target || !now)
        return 0;
    u64 pid_tgid = bpf_get_current_pid_tgid(), thread_state = python_thread_state(target);
#ifdef GIL_ONLY
    if (!thread_state || !python_holds_gil(target, thread_state)) {
        count_look(*now);
        return 0;
    }
#endif
    struct sample sample = {.tid = pid_tgid, .tgid = pid_tgid >> 32, .kernel_stack = NO_STACK};
    if (thread_state)
        sample.stack = python_stack_of(target, thread_state);
    else
        python_count(PYTHON_NO_THREAD_STATE);
    /* These after the walk: before it, they would add to what the verifier has to go through for each of its frames. */
    sample.window = *now;
    if (!count_look(sample.window))
        return 0;
#ifdef KERNEL_STACKS
    if (!(ctx->regs.cs & 3)) {
        sample.kernel_stack = kernel_stacks.get_stackid(ctx, 0);
        if (sample.kernel_stack < 0) {
            sample.kernel_stack = NO_STACK;
            tally(LOST_KERNEL_STACK);
        }
    }
#endif
#ifdef IDLE
    seen_running(&sample);
#endif
#ifdef NATIVE
    if (!native_send(target, thread_state, sample.stack, sample.kernel_stack))
        return 0;
    tally(LOST_NATIVE_STACK);
#endif
    u64 one = 1, *count = samples.lookup(&sample);
    if (count)
        __sync_fetch_and_add(count, 1);
    else if (samples.update(&sample, &one))
        tally(LOST_COUNT);
    return 0;
}
