/* Which pid namespace its caller is in, as the kernel knows it: user space runs this once, on itself (ids.h needs it). */
#include <linux/types.h>
#include "ids.h"
#pragma parameter NAMESPACE_INODE /* offset in `struct pid_namespace` */

/* Mirrored by kernel/ids.py. */
struct whereabouts {
    u64 level;
    u64 namespace;
    u32 inode;
    u32 tid;
    u64 tgid;
};

/* What it is called in its own namespace. */
static inline struct numbered own_number(u64 pid)
{
    struct numbered numbered = {};
    u64 level = read_u32(pid + PID_DEPTH);
    bpf_probe_read_kernel(&numbered, sizeof(numbered), (void *)(pid + PID_NUMBERS + level * sizeof(numbered)));
    return numbered;
}

BPF_ARRAY(whereabouts, struct whereabouts, 1);

int on_ask(void *ctx)
{
    int zero = 0;
    struct whereabouts *found = whereabouts.lookup(&zero);
    u64 task = bpf_get_current_task(), pid = read_u64(task + TASK_THREAD_PID);
    struct numbered thread = own_number(pid);
    if (!found)
        return 1;
    found->level = read_u32(pid + PID_DEPTH);
    found->namespace = thread.namespace;
    found->inode = read_u32(thread.namespace + NAMESPACE_INODE);
    found->tid = thread.number;
    found->tgid = own_number(read_u64(read_u64(task + TASK_SIGNAL) + SIGNAL_TGID)).number;
    return 1;
}
