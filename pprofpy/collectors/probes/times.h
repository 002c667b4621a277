/* How often something lasted how long. */

struct times {
    u64 count;
    u64 total_ns;
    u64 max_ns;
};

/* Each entry has one writer at a time. */
static inline void add_to_times(struct times *times, u64 time_ns)
{
    times->count += 1;
    times->total_ns += time_ns;
    if (time_ns > times->max_ns)
        times->max_ns = time_ns;
}
