/* The tables of a recording: bounded, mapped when it starts, unmapped after it. */

#define MAX_PLACES (1 << 16)
#define MAX_STACKS (1 << 16)
#define MAX_CELLS (1 << 16)
#define MAX_FRAMES (1 << 21)
#define MAX_DEPTH 256
#define HASH_SIZE (1 << 17)
#define BUCKETS (1 << 13)
#define BUCKET_SLOTS 8
#define PAGES_SIZE (1 << 15)
#define FILTER_SIZE (1 << 17)
#define FIXED_POINT 1024 /* counts of objects are kept in parts of this, so that they cancel out exactly */
#define NONE UINT32_MAX

typedef struct { PyObject *code; int32_t where; int32_t line; } Place; /* where: byte offset, or line (see Layout) */
typedef struct { uint64_t hash; uint32_t first; uint16_t depth; uint16_t truncated; } StackEntry;
typedef struct { uint32_t stack; uint32_t tid; int64_t alloc_n, alloc_bytes, live_n, live_bytes; } Cell;
typedef struct { uint64_t size; uint32_t cell; uint32_t unused; } Block;
typedef struct { uintptr_t address[BUCKET_SLOTS]; Block block[BUCKET_SLOTS]; } Bucket;

typedef struct {
    uint32_t places_count, stacks_count, cells_count, frames_count;
    Place places[MAX_PLACES];
    StackEntry stacks[MAX_STACKS];
    Cell cells[MAX_CELLS];
    uint32_t frames[MAX_FRAMES]; /* indices into places, leaf-first */
    uint32_t place_hash[HASH_SIZE], stack_hash[HASH_SIZE], cell_hash[HASH_SIZE]; /* index + 1; 0: free */
    Bucket buckets[BUCKETS];                                                      /* the sampled blocks in use */
} Tables;

enum { SAMPLES, LOST_LIVE, LOST_STACKS, NO_STACK, TRUNCATED, LIVE, BUSY, COUNTERS };
static int64_t counters[COUNTERS] __attribute__((aligned(64)));

static Tables *tables;
/* How many sampled blocks lie in pages that share this entry, and how many hash here: two quick noes, the first of which
 * stays in the processor's nearest cache. */
static struct { uint8_t pages[PAGES_SIZE], blocks[FILTER_SIZE]; } filter __attribute__((aligned(4096)));

static uint64_t mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15ULL;
    return x ^ (x >> 32);
}
