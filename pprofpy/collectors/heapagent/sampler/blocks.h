/* Sampled blocks in use: no lock. Whoever frees a block is the only one who may, so its slot is his. */

static uint64_t hash_of(const void *block) { return mix((uintptr_t)block >> 4); }

static uint8_t *page_filter(const void *block) { return &filter.pages[((uintptr_t)block >> 12) % PAGES_SIZE]; }

static uint8_t *block_filter(uint64_t hash) { return &filter.blocks[(hash >> 20) % FILTER_SIZE]; }

/* Two buckets may hold a block; whoever looks for it looks into both. */
static Bucket *bucket_of(uint64_t hash, int choice) { return &tables->buckets[(choice ? hash >> 44 : hash) % BUCKETS]; }

static void filter_add(uint8_t *count, int change)
{
    uint8_t old = LOAD(*count);
    do {
        if (old == UINT8_MAX) return; /* full once, full for ever: only the quick no is lost */
    } while (!__atomic_compare_exchange_n(count, &old, (uint8_t)(old + change), 1, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE));
}

static int remember(void *block, Block about)
{
    uint64_t hash = hash_of(block);
    for (int choice = 0; choice < 2; choice++) {
        Bucket *bucket = bucket_of(hash, choice);
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            uintptr_t nobody = 0;
            if (LOAD(bucket->address[i]) ||
                !__atomic_compare_exchange_n(&bucket->address[i], &nobody, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
                continue;
            bucket->block[i] = about;
            STORE(bucket->address[i], (uintptr_t)block);
            filter_add(block_filter(hash), 1);
            filter_add(page_filter(block), 1);
            return 1;
        }
    }
    return 0;
}

static int forget(void *block, Block *about)
{
    uint64_t hash = hash_of(block);
    for (int choice = 0; choice < 2; choice++) {
        Bucket *bucket = bucket_of(hash, choice);
        for (int i = 0; i < BUCKET_SLOTS; i++) {
            if (LOAD(bucket->address[i]) != (uintptr_t)block) continue;
            *about = bucket->block[i];
            STORE(bucket->address[i], 0);
            filter_add(block_filter(hash), -1);
            filter_add(page_filter(block), -1);
            return 1;
        }
    }
    return 0;
}

static void count_live(Block about, int sign)
{
    Cell *cell = &tables->cells[about.cell];
    ADD(cell->live_n, sign * weight(about.size));
    ADD(cell->live_bytes, sign * weighted_bytes(about.size));
    ADD(counters[LIVE], sign);
}
