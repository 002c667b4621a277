/* Who the threads outside of the watched processes are, by thread number. Needs sched.h, and NAMES: whether they are
 * wanted. Comes before switches.h. */

struct name {
    u32 tgid;
    char comm[16];
};

BPF_TABLE("lru_hash", u32, struct name, names, 16384);

static inline void remember_name(struct ids ids, u64 task)
{
    u32 tid = ids.tid;
    if (names.lookup(&tid))
        return;
    struct name name = {};
    name.tgid = ids.tgid;
    task_comm(task, name.comm);
    names.update(&tid, &name);
}
