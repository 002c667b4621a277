/* What all programs at the scheduler's tracepoints share. Tasks are handled as addresses: struct offsets come from the
 * kernel's BTF as parameters (see scheduler.py), so that no kernel header is needed. */
#pragma parameter TASK_COMM TASK_STATE SWITCH_TELLS_STATE
#include "ids.h"

enum { CONTEXT_TASK, CONTEXT_INTERRUPT, CONTEXT_SOFTIRQ };

#define TASK_STATE_UNINTERRUPTIBLE 0x2
#define TASK_STATE_DEAD 0x80

static inline void task_comm(u64 task, char comm[16])
{
    bpf_probe_read_kernel(comm, 16, (void *)(task + TASK_COMM));
}

/* Whose Python, if any: NULL and 0 for none. */
struct interpreter {
    struct python_target *target;
    u64 thread_state;
};

/* The state that a task is switched out in; 0 means that it could run on. */
static inline u32 previous_state(struct bpf_raw_tracepoint_args *ctx)
{
    return SWITCH_TELLS_STATE ? (u32)ctx->args[3] : read_u32(ctx->args[1] + TASK_STATE);
}

/* Preempted, or gave way while still runnable: either way it is now waiting for its turn. */
static inline bool left_runnable(struct bpf_raw_tracepoint_args *ctx, u32 state)
{
    return state == 0 || (ctx->args[0] & 1);
}

/* -- which processes are watched ---------------------------------------------------------------------------------- */

#ifdef PYTHON_TARGETS_ONLY /* those whose Python python.h knows */
static inline bool is_target(u32 tgid) { return python_of(tgid) != NULL; }
#else
/* TARGETS: those in the table. TGID: that one. Neither (0): everybody. */
#pragma parameter TARGETS TGID
BPF_HASH(targets, u32, u8, 65536);

static inline bool is_target(u32 tgid)
{
    if (TARGETS)
        return targets.lookup(&tgid) != NULL;
    if (TGID)
        return tgid == TGID;
    return !PID_LEVEL || tgid; /* those whom our namespace does not show are nobody */
}
#endif

/* -- what a wake-up comes from ------------------------------------------------------------------------------------ */

/* An interrupt borrows the context of whatever ran: the current task is then not the waker, only a bystander. The
 * preempt_count tells. Each task has its own, or each CPU; then its address follows from that of the CPU's run queue,
 * which every task points to (0 if that is unknown: then no wake-up is known as an interrupt's). */
#pragma parameter TASK_PREEMPT_COUNT PREEMPT_COUNT_FROM_RUNQUEUE TASK_CFS_RQ CFS_RQ_RQ
#ifdef TASKS_COUNT_PREEMPTION
static inline u32 preempt_count(void) { return read_u32(bpf_get_current_task() + TASK_PREEMPT_COUNT); }
#else
BPF_PERCPU_ARRAY(preempt_count_address, u64, 1);

static inline u32 preempt_count(void)
{
    if (PREEMPT_COUNT_FROM_RUNQUEUE == 0)
        return 0;
    int zero = 0;
    u64 *cached = preempt_count_address.lookup(&zero);
    if (!cached)
        return 0;
    if (!*cached) {
        u64 queue = read_u64(bpf_get_current_task() + TASK_CFS_RQ);
        *cached = read_u64(queue + CFS_RQ_RQ) + PREEMPT_COUNT_FROM_RUNQUEUE;
    }
    return read_u32(*cached);
}
#endif

static inline u32 wakeup_context(void)
{
    u32 count = preempt_count();
    if (count & 0xff0000)
        return CONTEXT_INTERRUPT;
    return count & 0x100 ? CONTEXT_SOFTIRQ : CONTEXT_TASK;
}
