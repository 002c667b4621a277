/* What runs at each allocation, and at each end of a block. */

/* Between these two, the tables stay. */
static int enter(void)
{
    ADD(users, 1);
    if (LOAD(on)) return 1;
    ADD(users, -1);
    return 0;
}

static void leave(void) { ADD(users, -1); }

static void put_live(void *block, Block about)
{
    if (remember(block, about))
        count_live(about, 1);
    else
        ADD(counters[LOST_LIVE], 1);
}

static void sample(void *block, size_t size)
{
    if (!enter()) return;
    mine.left = NEVER;
    Block about = {.size = size, .cell = cell_here()};
    Cell *cell = &tables->cells[about.cell];
    ADD(counters[SAMPLES], 1);
    ADD(cell->alloc_n, weight(size));
    ADD(cell->alloc_bytes, weighted_bytes(size));
    put_live(block, about);
    mine.left = LOAD(due) + draw();
    leave();
}

/* The countdown has come below `due`: is an allocation of this size hit? */
static int is_hit(size_t size)
{
    uint32_t recording = LOAD(on);
    if (mine.recording == PROBE) return 0;
    if (mine.recording != recording || !recording) { /* this thread's first allocation in a recording, or after it */
        mine.recording = recording;
        mine.tid = syscall(SYS_gettid);
        mine.left = recording ? LOAD(due) + draw() - (int64_t)size : 0;
    }
    return recording && mine.left < LOAD(due);
}

static void count_hit(void *block, size_t size)
{
    if (block)
        sample(block, size);
    else
        mine.left = LOAD(due); /* out of memory: the next one, then */
}

static void note(void *block, int domain)
{
    if (mine.recording == PROBE && mine.probes == domain) mine.probed = block;
}

static __attribute__((noinline)) void count_slowly(void *block, size_t size, int domain)
{
    note(block, domain);
    if (is_hit(size)) count_hit(block, size);
}

/* `left` is what was left before the allocation. */
static inline __attribute__((always_inline)) void on_allocation(int64_t left, void *block, size_t size, int domain)
{
    mine.left = left -= size;
    if (UNLIKELY(left < __atomic_load_n(&due, __ATOMIC_RELAXED))) count_slowly(block, size, domain);
}

static __attribute__((noinline)) int take(void *block, Block *about)
{
    if (!block || !LOAD(*block_filter(hash_of(block))) || !enter()) return 0;
    int found = forget(block, about);
    if (found) count_live(*about, -1);
    leave();
    return found;
}

/* Off, or for no block at all, the answer is no, or take() finds out. */
static inline __attribute__((always_inline)) int may_be_sampled(const void *block)
{
    return UNLIKELY(__atomic_load_n(page_filter(block), __ATOMIC_RELAXED));
}

static __attribute__((noinline)) void free_slowly(void *ctx, void *block, int domain)
{
    Block about;
    take(block, &about);
    originals[domain].free(ctx, block);
}

static __attribute__((noinline)) void put_back(void *block, Block about)
{
    if (!enter()) return;
    put_live(block, about);
    leave();
}

/* Hooks for any allocator. One above RAW may come down to it for large blocks: only the outermost call counts, and no
 * sample is due within it. The context that a hook gets is the original's own, so that a thread which reads the function
 * before and the context after a change finds a pair that fits. */
#define ALLOCATE(domain, size, call)                   \
    int64_t left = mine.left;                          \
    if ((domain) != RAW) mine.left = NESTED;           \
    void *block = originals[domain].call;              \
    on_allocation(left, block, size, domain)

#define ALLOCATING(domain)                                                         \
    static void *malloc_##domain(void *ctx, size_t size)                           \
    {                                                                              \
        ALLOCATE(domain, size, malloc(ctx, size));                                 \
        return block;                                                              \
    }                                                                              \
    static void *calloc_##domain(void *ctx, size_t count, size_t size)             \
    {                                                                              \
        ALLOCATE(domain, count *size, calloc(ctx, count, size));                   \
        return block;                                                              \
    }                                                                              \
    static void *realloc_##domain(void *ctx, void *old, size_t size)               \
    {                                                                              \
        Block about;                                                               \
        int was_sampled = may_be_sampled(old) && take(old, &about);                \
        ALLOCATE(domain, size, realloc(ctx, old, size));                           \
        if (UNLIKELY(!block && was_sampled)) put_back(old, about);                 \
        return block;                                                              \
    }

#define FREEING(domain)                                                            \
    static void free_##domain(void *ctx, void *block)                              \
    {                                                                              \
        if (may_be_sampled(block)) return free_slowly(ctx, block, domain);         \
        originals[domain].free(ctx, block);                                        \
    }

ALLOCATING(RAW)
ALLOCATING(MEM)
ALLOCATING(OBJ)
ALLOCATING(NUMPY)
FREEING(RAW)
FREEING(MEM)
FREEING(OBJ)

/* Hooks for Python's arenas, see the head of this file. Large blocks count when they come to RAW. */
#define LARGEST_SMALL 512 /* SMALL_REQUEST_THRESHOLD in Objects/obmalloc.c */

static inline __attribute__((always_inline)) int is_due(size_t size)
{
    return UNLIKELY((mine.left -= size) < __atomic_load_n(&due, __ATOMIC_RELAXED));
}

static __attribute__((noinline)) void *place_small(void *ctx, void *old, size_t size, int domain, int is_sample)
{
    int64_t left = mine.left;
    mine.left = NESTED;
    void *block = originals[domain].realloc(ctx, old, is_sample ? LARGEST_SMALL + 1 : size);
    mine.left = left;
    note(block, domain);
    if (is_sample) count_hit(block, size);
    return block;
}

static __attribute__((noinline)) void *malloc_due(void *ctx, size_t size, int domain)
{
    return place_small(ctx, NULL, size, domain, is_hit(size));
}

static __attribute__((noinline)) void *calloc_due(void *ctx, size_t size, int domain)
{
    void *block = malloc_due(ctx, size, domain);
    return block ? memset(block, 0, size) : NULL;
}

#define ALLOCATING_IN_ARENAS(domain)                                                            \
    static void *malloc_in_arenas_##domain(void *ctx, size_t size)                              \
    {                                                                                           \
        if (size <= LARGEST_SMALL && is_due(size)) return malloc_due(ctx, size, domain);        \
        return originals[domain].malloc(ctx, size);                                             \
    }                                                                                           \
    static void *calloc_in_arenas_##domain(void *ctx, size_t count, size_t size)                \
    {                                                                                           \
        size_t all = count * size; /* no overflow: Python has looked */                         \
        if (all <= LARGEST_SMALL && is_due(all)) return calloc_due(ctx, all, domain);           \
        return originals[domain].calloc(ctx, count, size);                                      \
    }                                                                                           \
    static void *realloc_in_arenas_##domain(void *ctx, void *old, size_t size)                  \
    {                                                                                           \
        if (size > LARGEST_SMALL) return originals[domain].realloc(ctx, old, size);             \
        return place_small(ctx, old, size, domain, is_due(size) && is_hit(size));               \
    }

ALLOCATING_IN_ARENAS(MEM)
ALLOCATING_IN_ARENAS(OBJ)

/* NumPy's free is also told the size. */
typedef void SizedFree(void *ctx, void *block, size_t size);

static void free_sized(void *ctx, void *block, size_t size)
{
    Block about;
    if (may_be_sampled(block)) take(block, &about);
    ((SizedFree *)(void *)originals[NUMPY].free)(ctx, block, size);
}

static const Allocator hooks[DOMAINS] = {
    {NULL, malloc_RAW, calloc_RAW, realloc_RAW, free_RAW},
    {NULL, malloc_MEM, calloc_MEM, realloc_MEM, free_MEM},
    {NULL, malloc_OBJ, calloc_OBJ, realloc_OBJ, free_OBJ},
    {NULL, malloc_NUMPY, calloc_NUMPY, realloc_NUMPY, (void (*)(void *, void *))(void *)free_sized},
};

static const Allocator hooks_in_arenas[DOMAINS] = {
    [MEM] = {NULL, malloc_in_arenas_MEM, calloc_in_arenas_MEM, realloc_in_arenas_MEM, NULL},
    [OBJ] = {NULL, malloc_in_arenas_OBJ, calloc_in_arenas_OBJ, realloc_in_arenas_OBJ, NULL},
};
