/* What could not be kept, counted by reason: losses.py has the words. Before this file comes `enum { ..., LOST_REASONS };`,
 * whose order is that of the words. */

BPF_PERCPU_ARRAY(lost, u64, LOST_REASONS);

static inline void count_lost(int reason)
{
    u64 *count = lost.lookup(&reason);
    if (count)
        *count += 1;
}
