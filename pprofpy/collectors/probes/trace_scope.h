/* Which threads and calls are watched, and the head of what is sent of them: those of the thread TID, if there is one, else
 * those of targets, but not of SELF_TGID, which is pprofpy's own process. */
#pragma parameter TID SELF_TGID ADOPT_CHILDREN FOLLOW_CHILDREN

BPF_ARRAY(wanted, u8, SYSCALLS);
/* The threads of the watched processes: for events in which somebody else does something to one of them. */
BPF_TABLE("hash", u32, u8, target_threads, 65536);

static inline bool is_watched(u64 pid_tgid)
{
    u32 tgid = pid_tgid >> 32;
    bool is_meant = TID ? (u32)pid_tgid == TID : tgid != SELF_TGID && is_target(tgid);
    return is_meant && !is_over(bpf_ktime_get_ns()); /* the clock last: most calls are other processes' */
}

/* The Python stack of the current thread. Once in a program: for the kernel's verifier it is long. */
static inline u64 event_stack(void)
{
#ifdef STACKS
    return python_stack();
#else
    return 0;
#endif
}

static inline void fill_head(struct head *head, u64 pid_tgid, u64 ts_ns, u16 event, u32 flags, u64 stack)
{
    head->ts_ns = ts_ns;
    head->tgid = pid_tgid >> 32;
    head->tid = pid_tgid;
    head->cpu = bpf_get_smp_processor_id();
    head->event = event;
    head->flags = flags;
    bpf_get_current_comm(head->comm, sizeof(head->comm));
    head->stack = stack;
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    struct ids child = task_ids(ctx->args[1]);
    u32 parent_tgid = task_ids(ctx->args[0]).tgid;
    u8 one = 1;
    /* The command that pprofpy starts is watched from its first instruction on. */
    if (ADOPT_CHILDREN && parent_tgid == SELF_TGID && child.tgid != parent_tgid) {
        if (targets.update(&child.tgid, &one) || target_threads.update(&child.tid, &one))
            count_lost(LOST_THREAD);
        return 1;
    }
    if (!is_target(parent_tgid) || (child.tgid != parent_tgid && !FOLLOW_CHILDREN))
        return 1;
    if (child.tgid != parent_tgid && targets.update(&child.tgid, &one))
        count_lost(LOST_THREAD);
    if (target_threads.update(&child.tid, &one))
        count_lost(LOST_THREAD);
    return 1;
}

int on_thread_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tid = task_ids(ctx->args[0]).tid;
    target_threads.delete(&tid);
    return 1;
}
