/* Any event, counted by the Python stack of the thread that causes it: tracepoints, with one of their fields as a weight
 * if wanted, system calls as they begin, and the kernel's software events (page faults).
 */
#include <linux/types.h>
#include <uapi/linux/ptrace.h>
#include <uapi/linux/bpf_perf_event.h>
#include "python.h"
#include "ending.h"
#include "windows.h"

#define SYSCALLS 512

enum { EVENTS, LOST_COUNT, TALLIES };

/* What events are counted by. */
struct hit {
    u64 stack;
    u32 tid;
    u32 tgid;
    u32 event; /* user space's number for it */
    u32 window;
};

struct sums {
    u64 count;
    s64 weight;
};

/* What an attachment is told: which event this is, and where its weight lies in the record. */
union cookie {
    u64 number;
    struct {
        u16 event;
        u16 offset;
        u8 size; /* 0: there is no weight */
        u8 is_signed;
        u16 unused;
    };
};

BPF_TABLE("hash", struct hit, struct sums, hits, 65536);
BPF_ARRAY(wanted, u32, SYSCALLS); /* by number: 0, or user space's number for it + 1 */
BPF_PERCPU_ARRAY(tallies, u64, TALLIES);

static inline void tally(int which)
{
    u64 *count = tallies.lookup(&which);
    if (count)
        *count += 1;
}

static inline void count_event(u32 event, s64 weight)
{
    if (is_over(bpf_ktime_get_ns()))
        return;
    tally(EVENTS);
    u64 pid_tgid = current_pid_tgid();
    struct hit hit = {.tid = pid_tgid, .tgid = pid_tgid >> 32, .event = event, .window = this_window()};
    hit.stack = python_stack();
    struct sums first = {.count = 1, .weight = weight}, *known = hits.lookup(&hit);
    if (known) {
        __sync_fetch_and_add(&known->count, 1);
        __sync_fetch_and_add(&known->weight, weight);
    } else if (hits.update(&hit, &first)) {
        tally(LOST_COUNT);
    }
}

static inline s64 weight_of(void *ctx, union cookie at)
{
    u64 value = 0;
    u32 size = at.size & 15;
    if (!size || size > 8 || bpf_probe_read_kernel(&value, size, ctx + at.offset))
        return 0;
    u32 spare = 64 - 8 * size;
    return at.is_signed ? (s64)(value << spare) >> spare : (s64)value;
}

int on_tracepoint(void *ctx)
{
    if (!python_current())
        return 1;
    union cookie at = {.number = bpf_get_attach_cookie(ctx)};
    count_event(at.event, weight_of(ctx, at));
    return 1;
}

int on_software_event(struct bpf_perf_event_data *ctx)
{
    if (!python_current())
        return 0;
    union cookie at = {.number = bpf_get_attach_cookie(ctx)};
    count_event(at.event, 0);
    return 0;
}

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
    if (!python_current())
        return 1;
    u32 number = ctx->args[1], *event = wanted.lookup(&number);
    if (event && *event)
        count_event(*event - 1, 0);
    return 1;
}
