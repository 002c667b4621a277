/* Tables of sums that user space empties while they are written (kernel/windows.py): the key of each entry tells in which
 * window it was made. When a new window has begun, those of earlier ones are at rest and can be taken out. */

BPF_ARRAY(table_window, u32, 1);

static inline u32 this_window(void)
{
    int zero = 0;
    u32 *now = table_window.lookup(&zero);
    return now ? *now : 0;
}
