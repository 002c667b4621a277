/* Buckets of a distribution: log-linear, 32 to each power of two, each at most 3.2 % wide. Mirrors
 * pprofpy.model.latency.bucket_edges. */
static inline u16 bucket_index(u64 value)
{
    if (value < 32)
        return value;
    u32 log = bpf_log2l(value) - 1;
    return ((log - 4) << 5) | ((value >> (log - 5)) & 31);
}
