/* Who a task is: the numbers of its thread and process, as our own pid namespace has them. All programs ask here.
 *
 * Where ours is the host's (PID_LEVEL is 0), they are the kernel's own, and cost next to nothing. Elsewhere they stand in
 * the task's `struct pid`, which has a number for each namespace from the host's down to the task's own. Of a task that
 * our namespace does not show, both are 0, as of the idle task: it is nobody.
 *
 * A task has no `struct pid` any more once it has been collected; that may be before it is switched out for the last
 * time. And with exec a thread takes the number of its process's first. So what was read is kept by the task's address,
 * and holds for as long as the kernel's own numbers are the same.
 */
#ifndef IDS_H
#define IDS_H
#pragma parameter TASK_PID TASK_SIGNAL /* offsets in `struct task_struct`; the tgid follows the pid: that is checked */
#pragma parameter PID_LEVEL PID_NAMESPACE /* how deep ours is below the host's, and its address */
#pragma parameter TASK_THREAD_PID SIGNAL_TGID PID_DEPTH PID_NUMBERS /* offsets; 0 where they are not needed */

static inline u32 read_u32(u64 address)
{
    u32 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
    return value;
}

static inline u64 read_u64(u64 address)
{
    u64 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)address);
    return value;
}

struct ids {
    u32 tid;
    u32 tgid;
};

struct known_ids {
    struct ids kernel;
    struct ids ours;
    /* Before it took another thread's number. */
    u32 kernel_tid_before;
    u32 our_tid_before;
};

BPF_TABLE("lru_hash", u64, struct known_ids, ids_by_task, 32768);

/* Source: struct upid in include/linux/pid.h. */
struct numbered {
    u32 number;
    u32 unused;
    u64 namespace;
};

/* The number that a `struct pid` has in our namespace; 0 if it has none, or there is no such struct. */
static inline u32 our_number(u64 pid)
{
    struct numbered numbered = {};
    if (!pid || read_u32(pid + PID_DEPTH) < PID_LEVEL)
        return 0;
    bpf_probe_read_kernel(&numbered, sizeof(numbered), (void *)(pid + PID_NUMBERS + PID_LEVEL * sizeof(numbered)));
    return numbered.namespace == PID_NAMESPACE ? numbered.number : 0;
}

static inline struct ids our_ids(u64 task, struct ids kernel)
{
    struct known_ids *known = ids_by_task.lookup(&task), fresh = {.kernel = kernel};
    if (known && known->kernel.tid == kernel.tid && known->kernel.tgid == kernel.tgid)
        return known->ours;
    u64 pid = read_u64(task + TASK_THREAD_PID);
    if (!pid)
        return fresh.ours;
    fresh.ours.tid = our_number(pid);
    fresh.ours.tgid = our_number(read_u64(read_u64(task + TASK_SIGNAL) + SIGNAL_TGID));
    if (known && known->kernel.tgid == kernel.tgid) {
        fresh.kernel_tid_before = known->kernel.tid;
        fresh.our_tid_before = known->ours.tid;
    }
    ids_by_task.update(&task, &fresh);
    return fresh.ours;
}

static inline struct ids task_ids(u64 task)
{
    struct ids ids = {};
    bpf_probe_read_kernel(&ids, sizeof(ids), (void *)(task + TASK_PID));
    return PID_LEVEL ? our_ids(task, ids) : ids;
}

/* Of whoever runs now. */
static inline struct ids current_ids(void)
{
    u64 both = bpf_get_current_pid_tgid();
    struct ids ids = {.tid = (u32)both, .tgid = both >> 32};
    return PID_LEVEL ? our_ids(bpf_get_current_task(), ids) : ids;
}

/* The same as one number, the thread's below. */
static inline u64 current_pid_tgid(void)
{
    struct ids ids = current_ids();
    return (u64)ids.tgid << 32 | ids.tid;
}

/* The number that the current thread had before exec, which the kernel tells us as its own. */
static inline u32 tid_before_exec(u32 kernel_tid)
{
    if (!PID_LEVEL)
        return kernel_tid;
    u64 task = bpf_get_current_task();
    struct ids ids = current_ids();
    struct known_ids *known = ids_by_task.lookup(&task);
    return known && known->kernel_tid_before == kernel_tid ? known->our_tid_before : ids.tid;
}

/* To tell a thread that our namespace does not show from the idle task. Mirrored by kernel/ids.py. */
#define OUTSIDE 0xffffffff

static inline struct ids shown_ids(struct ids ids, u64 task)
{
    if (PID_LEVEL && !ids.tid && read_u32(task + TASK_PID))
        ids.tid = OUTSIDE;
    return ids;
}
#endif
