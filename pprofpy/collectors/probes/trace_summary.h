/* Events summed up in the kernel, by thread and kind, with the durations of system calls. */

#include "buckets.h"

struct summary_key {
    u32 tid;
    u16 event;
    u16 is_call;
};

/* Has one writer at a time: the thread itself. */
struct summary {
    u64 count;
    u64 errors;
    u64 total_ns;
    u64 min_ns;
    u64 max_ns;
    u64 last_ns; /* `comm` is the thread's name then */
    u32 tgid;
    u32 reserved;
    char comm[16];
};

struct summary_bucket {
    u32 tid;
    u16 event;
    u16 index;
};

BPF_TABLE("hash", struct summary_key, struct summary, summaries, 65536);
BPF_TABLE("hash", struct summary_bucket, u64, buckets, 262144);

static inline void count_bucket(u32 tid, u16 event, u64 duration_ns)
{
    struct summary_bucket key = {.tid = tid, .event = event, .index = bucket_index(duration_ns)};
    u64 *count = buckets.lookup(&key), one = 1;
    if (count)
        *count += 1;
    else if (buckets.update(&key, &one))
        count_lost(LOST_BUCKET);
}

static inline void summarize(u64 pid_tgid, u16 event, u16 is_call, u64 duration_ns, bool failed)
{
    struct summary_key key = {.tid = pid_tgid, .event = event, .is_call = is_call};
    struct summary *known = summaries.lookup(&key);
    if (!known) {
        struct summary fresh = {.min_ns = ~0ULL, .tgid = pid_tgid >> 32};
        summaries.insert(&key, &fresh);
        known = summaries.lookup(&key);
        if (!known) {
            count_lost(LOST_SUMMARY);
            return;
        }
    }
    known->count += 1;
    known->last_ns = bpf_ktime_get_ns();
    bpf_get_current_comm(known->comm, sizeof(known->comm));
    if (!is_call)
        return;
    known->errors += failed;
    known->total_ns += duration_ns;
    if (duration_ns < known->min_ns)
        known->min_ns = duration_ns;
    if (duration_ns > known->max_ns)
        known->max_ns = duration_ns;
    count_bucket(key.tid, event, duration_ns);
}
