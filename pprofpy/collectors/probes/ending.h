/* When a recording ends, on the monotonic clock; 0 if that is not known yet. What comes later does not count, however
 * late user space gets a CPU to take the program away (KernelRecorder.end_at). */

BPF_ARRAY(recording_end, u64, 1);

static inline bool is_over(u64 now)
{
    int zero = 0;
    u64 *end = recording_end.lookup(&zero);
    return end && *end && now >= *end;
}
