/* CPU samples: a timer on every CPU asks which thread of the target runs, and with which Python stack.
 *
 * Compiled with IDLE (and PYTHON), it is also told what threads do between two samples: intervals.h. With NATIVE, each sample
 * goes to user space, with a copy of the thread's stack: native.h; with both, so does each switch. GIL_ONLY: only threads
 * that hold the interpreter lock.
 */
#pragma parameter GIL_ONLY
#include <linux/types.h>
#include <uapi/linux/bpf_perf_event.h>
#include "python.h"

#define CLOSED 0xffffffff /* instead of a window's number: the recording is over */

/* What samples are counted by. A table of counts is read while the other one is written. */
struct sample {
    u64 stack;
    u32 tid;
    u32 tgid;
    s32 kernel_stack;
    u32 window;
};

/* Mirrored by _LOST in sampling/cpu.py. */
enum {
    LOST_COUNT, LOST_KERNEL_STACK, LOST_NATIVE_STACK, LOST_THREAD, LOST_TIME, HIDDEN_SWITCH, LOST_NATIVE_RATE, LOST_REASONS
};
#include "ending.h"
#include "losses.h"

BPF_TABLE("hash", struct sample, u64, samples, 65536);
BPF_ARRAY(window, u32, 1);
BPF_PERCPU_ARRAY(sample_count, u64, 1);
#include "kernel_stack.h"

#ifdef NATIVE
#include "native.h"
#endif
#ifdef IDLE
#define PYTHON_TARGETS_ONLY
#include "sched.h"
#include "intervals.h"
#endif

/* Unless the recording is over. */
static inline bool count_sample(u32 window)
{
    int zero = 0;
    u64 *count = sample_count.lookup(&zero);
    if (window == CLOSED || is_over(bpf_ktime_get_ns()))
        return false;
    if (count)
        *count += 1;
    return true;
}

int on_clock(struct bpf_perf_event_data *ctx)
{
    int zero = 0;
    struct python_target *target = python_current();
    u32 *now = window.lookup(&zero);
    if (!target || !now)
        return 0;
    u64 pid_tgid = current_pid_tgid(), thread_state = python_thread_state(target);
    if (GIL_ONLY && (!thread_state || !python_holds_gil(target, thread_state))) {
        count_sample(*now);
        return 0;
    }
    struct sample sample = {.tid = pid_tgid, .tgid = pid_tgid >> 32, .kernel_stack = NO_STACK};
    if (thread_state)
        sample.stack = python_stack_of(target, thread_state);
    else
        python_count(PYTHON_NO_THREAD_STATE);
    /* These after the walk: before it, they would add to what the verifier has to go through for each of its frames. */
    sample.window = *now;
    if (!count_sample(sample.window))
        return 0;
    if (KERNEL_STACKS && (ctx->regs.words[REGISTER_MODE] & MODE_MASK) != USER_MODE)
        sample.kernel_stack = kernel_stack(ctx);
#ifdef IDLE
    end_running(&sample);
#endif
#ifdef NATIVE
    if (!native_send(target, thread_state, sample.stack, sample.kernel_stack, 0))
        return 0;
    count_lost(LOST_NATIVE_STACK);
#endif
    u64 one = 1, *count = samples.lookup(&sample);
    if (count)
        __sync_fetch_and_add(count, 1);
    else if (samples.update(&sample, &one))
        count_lost(LOST_COUNT);
    return 0;
}
