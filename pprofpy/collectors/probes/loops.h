/* Loops that every kernel's verifier accepts: `for (u64 i = 0; i < limit; i++)`, with a constant limit.
 *
 * Where the kernel has iterators (Linux 6.4), its verifier goes through such a loop only until a round tells it nothing
 * new, mostly twice. All others go through each single round: hundreds of thousands of instructions, a tenth of a second
 * for every two hundred thousand.
 *
 * An iterator is three functions of the kernel's. What stands for them here is replaced by the loader with their
 * numbers in the running kernel (kernel/bytecode.py).
 */
#ifdef BPF_ITER_NUM_NEW
static int (*loop_new)(u64 *iterator, int from, int to) = (void *)BPF_ITER_NUM_NEW;
static u32 *(*loop_next)(u64 *iterator) = (void *)BPF_ITER_NUM_NEXT;
static void (*loop_destroy)(u64 *iterator) = (void *)BPF_ITER_NUM_DESTROY;

static inline u64 *loop_begin(u64 *iterator, int limit)
{
    loop_new(iterator, 0, limit);
    return iterator;
}

static inline bool loop_goes_on(u64 *iterator, u64 *i)
{
    u32 *next = loop_next(iterator);
    if (next)
        *i = *next;
    return next;
}

static inline void loop_end(u64 *iterator)
{
    loop_destroy(iterator);
}

#define LOOP_BELOW(i, limit) \
    for (u64 i = 0, iterator_##i __attribute__((cleanup(loop_end))), *begun_##i = loop_begin(&iterator_##i, limit); \
         loop_goes_on(&iterator_##i, &i) && i < (limit);)
#else
/* Left to itself, LLVM turns the condition into a count-down to `!= 0`, from the smaller of the limit and whatever else
 * ends the loop. That bounds nothing in verifiers before Linux 6.8, which then refuse what the loop reads as out of
 * bounds. So the counter is hidden from LLVM in each round; what is left is the comparison as it is written. */
#define LOOP_BELOW(i, limit) \
    for (u64 i = 0; ({ asm volatile("" : "+r"(i)); i < (limit); }); i++)
#endif
