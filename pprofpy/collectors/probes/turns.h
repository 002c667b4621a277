/* Tables of sums that user space empties while they are written (turns.py): the key of each entry tells in which turn it
 * was made. When a new turn has begun, those of earlier ones are at rest and can be taken out. */

BPF_ARRAY(turn, u32, 1);

static inline u32 this_turn(void)
{
    int zero = 0;
    u32 *now = turn.lookup(&zero);
    return now ? *now : 0;
}
