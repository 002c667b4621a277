/* A loop whose end every kernel's verifier can see: `for (u64 i = 0; i < limit; i++)`, with a constant limit.
 *
 * Left to itself, LLVM turns the condition into a count-down to `!= 0`, from the smaller of the limit and whatever else
 * ends the loop. That bounds nothing in verifiers before Linux 6.8, which then refuse what the loop reads as out of
 * bounds. So the counter is hidden from LLVM in each round; what is left is the comparison as it is written.
 */
#define LOOP_BELOW(i, limit) \
    for (u64 i = 0; ({ asm volatile("" : "+r"(i)); i < (limit); }); i++)
