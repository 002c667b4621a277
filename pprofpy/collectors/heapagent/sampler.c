/* Samples the allocations of the Python process that it is loaded into: what `pprofpy heap --engine sampling` runs there.
 *
 * One build serves CPython 3.8 to 3.14: nothing of Python.h is used, only functions whose binary interface has not changed
 * in these versions, and `layouts` for what has. It is linked against nothing: every name is found in the process.
 *
 * Sampling is Poisson by bytes, as in Go: each thread counts down a random number of bytes, exponentially distributed with
 * mean `rate`. An allocation of n bytes is hit with probability 1 - exp(-n / rate), and counts for the inverse of that.
 * The hooks sit on the RAW, MEM and OBJ domains, and on NumPy's array data if that is loaded. A block's memory is never
 * touched, so blocks from before and after a recording need no care.
 *
 * Most blocks are small, come from Python's arenas and end soon, so their end must cost nothing: it is not hooked. A
 * small block that is hit is asked for as a large one, which the arenas' allocator takes from the RAW domain and gives
 * back there, by its address. So all sampled blocks end in the RAW domain, and only that has to look at each end.
 *
 * What must not happen in somebody else's process, and why it does not:
 *   deadlock, also after fork  - no lock is ever waited for; the child of a fork finds the sampler off
 *   running Python by surprise - stacks are read from the interpreter's frames; no object is made, no garbage collected
 *   a crash by unknown layout  - `walk()` reads through the kernel, which refuses bad addresses, and must find the
 *                                stack that sys._getframe() sees before `start()` is called
 *   calls into unmapped code   - this library stays loaded (linked with -z nodelete); tables go when nobody is inside
 *   staying on for ever        - a thread without Python watches the lock of pprofpy on the control file
 *
 * Source: Include/internal/pycore_frame.h, Include/cpython/pystate.h, Include/cpython/code.h of each version;
 * https://github.com/google/tcmalloc/blob/master/docs/sampling.md
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* -- Python's binary interface: what we use of it ------------------------------------------------------------------ */

typedef struct object { intptr_t refcnt; struct object *type; } PyObject;
typedef struct { const char *name; PyObject *(*function)(PyObject *, PyObject *); int flags; const char *doc; } PyMethodDef;
typedef struct {
    PyObject base;
    void *init;
    intptr_t index;
    PyObject *copy;
    const char *name, *doc;
    intptr_t size;
    PyMethodDef *methods;
    void *slots, *traverse, *clear, *free;
} PyModuleDef;
typedef struct {
    void *ctx;
    void *(*malloc)(void *ctx, size_t size);
    void *(*calloc)(void *ctx, size_t count, size_t size);
    void *(*realloc)(void *ctx, void *old, size_t size);
    void (*free)(void *ctx, void *block);
} Allocator; /* PyMemAllocatorEx, and PyDataMemAllocator up to `free` */

#define WEAK __attribute__((weak))
extern PyObject *PyModule_Create2(PyModuleDef *, int);
extern int PyArg_ParseTuple(PyObject *, const char *, ...);
extern PyObject *Py_BuildValue(const char *, ...);
extern PyObject *PyBytes_FromStringAndSize(const char *, intptr_t);
extern PyObject *PyList_New(intptr_t);
extern int PyList_SetItem(PyObject *, intptr_t, PyObject *);
extern PyObject *PyList_GetItem(PyObject *, intptr_t);
extern intptr_t PyList_Size(PyObject *);
extern PyObject *PyTuple_GetItem(PyObject *, intptr_t);
extern intptr_t PyTuple_Size(PyObject *);
extern long long PyLong_AsLongLong(PyObject *);
extern void *PyCapsule_GetPointer(PyObject *, const char *);
extern const char *PyCapsule_GetName(PyObject *);
extern void PyErr_SetString(PyObject *, const char *);
extern void PyErr_Clear(void);
extern PyObject *PyExc_RuntimeError;
extern char PyCode_Type[];
extern void Py_IncRef(PyObject *);
extern void Py_DecRef(PyObject *);
extern int PyCode_Addr2Line(PyObject *, int);
extern int PyFrame_GetLineNumber(void *);
extern void *PyGILState_GetThisThreadState(void);
extern int Py_AddPendingCall(int (*)(void *), void *);
extern int Py_IsInitialized(void);
extern const char *Py_GetVersion(void);
extern void PyMem_GetAllocator(int, Allocator *);
extern void PyMem_SetAllocator(int, Allocator *);
extern void *PyMem_RawMalloc(size_t);
extern void PyMem_RawFree(void *);
extern void *PyMem_Malloc(size_t);
extern void PyMem_Free(void *);
extern void *PyObject_Malloc(size_t);
extern void PyObject_Free(void *);
extern void *_PyThreadState_UncheckedGet(void) WEAK; /* up to 3.12 */
extern void *PyThreadState_GetUnchecked(void) WEAK;  /* from 3.13 on */
extern int _PyObject_DebugMallocStats(FILE *) WEAK;
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *) WEAK; /* glibc's pthread_atfork */
extern int musl_atfork(void (*)(void), void (*)(void), void (*)(void)) __asm__("pthread_atfork") WEAK;
struct mallinfo2_s { size_t arena, ordblks, smblks, hblks, hblkhd, usmblks, fsmblks, uordblks, fordblks, keepcost; };
extern struct mallinfo2_s mallinfo2_(void) __asm__("mallinfo2") WEAK; /* glibc 2.33 */

#define LOCAL_FAST static __thread /* how they are found: see LIBRARIES in hatch_build.py */
#define UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define LOAD(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define STORE(x, value) __atomic_store_n(&(x), (value), __ATOMIC_RELEASE)
#define ADD(x, value) __atomic_fetch_add(&(x), (value), __ATOMIC_ACQ_REL)

/* -- where each version keeps its frames --------------------------------------------------------------------------- */

typedef struct {
    int minor;
    int thread_cframe;  /* offset in the thread state of a pointer to what holds the frame; -1: it holds it itself */
    int current;        /* offset of the current frame there */
    int code, previous; /* offsets in a frame */
    int instruction;    /* offset of the instruction pointer; -1: PyFrame_GetLineNumber() tells the line */
    int owner;          /* offset of the kind of frame; -1: there is but one */
    int bytecode;       /* offset of the instructions in a code object */
} Layout;

static const Layout layouts[] = {
    {8, -1, 24, 32, 24, -1, -1, 0},
    {9, -1, 24, 32, 24, -1, -1, 0},
    {10, -1, 24, 32, 24, -1, -1, 0},
    {11, 56, 8, 32, 48, 56, 69, 184},
    {12, 56, 0, 0, 8, 56, 70, 192},
    {13, -1, 72, 0, 8, 56, 70, 200},
    {14, -1, 72, 0, 8, 56, 74, 208},
};
#define FIRST_SHIM 3 /* owners from here on are no Python functions */
#define TAG_BITS 3   /* 3.14 tags pointers in frames */

static const Layout *layout;

/* -- tables: bounded, mapped when a recording starts, unmapped after it --------------------------------------------- */

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

/* -- state --------------------------------------------------------------------------------------------------------- */

/* What a thread's countdown has left is compared with `due`, which is higher in each recording: the same comparison tells
 * that a sample is due, and that the countdown is of an earlier recording or has not begun. */
#define SPAN ((int64_t)1 << 40)  /* more than any countdown: `rate` is 2^34 at most */
#define NOT_DUE (INT64_MIN / 4)  /* due: no recording */
#define NEVER (INT64_MAX / 4)    /* left: it is a thread of ours */
#define NESTED (INT64_MAX / 2)   /* left: within an allocation that counts already */
#define AT_ONCE (INT64_MIN / 2)  /* left: also when there is no recording */
#define PROBE UINT32_MAX

enum { RAW, MEM, OBJ, NUMPY, DOMAINS };
static Allocator originals[DOMAINS] __attribute__((aligned(64))); /* often read: apart from what is often written */
static Allocator *numpy_allocator;
static uint32_t on; /* the number of the recording; 0: none */
static int64_t due = NOT_DUE;

static int32_t users __attribute__((aligned(64))); /* threads inside the tables */
static uint32_t generation; /* of the latest recording */
static int32_t readable;    /* read() may come in, though no recording is on */
static int32_t interning;   /* somebody adds to them */
static double rate;
static int max_depth;
static int control_fd = -1;
static uint64_t control_inode;

static struct {
    PyObject **codes;
    uint32_t count;
} garbage; /* references that could not be given back yet */

typedef struct {
    int64_t left;       /* bytes until the next sample, above `due` */
    uint32_t recording; /* that `left` belongs to; PROBE: see begin_probe() */
    uint32_t tid;
    uint64_t seed;
    void *probed;       /* see begin_probe() */
    int probes;
} Countdown;

LOCAL_FAST Countdown mine;

/* -- arithmetic: no libm, whose symbol versions would tie us to one glibc ------------------------------------------- */

static double natural_log(double x)
{
    union { double d; uint64_t u; } bits = {x};
    int exponent = (int)(bits.u >> 52) - 1022;
    bits.u = (bits.u & 0xfffffffffffffULL) | 0x3fe0000000000000ULL; /* 0.5 <= d < 1 */
    double z = (bits.d - 0.75) / (bits.d + 0.75), z2 = z * z, sum = 0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * z2 + 1.0 / k;
    return 2 * z * sum + exponent * 0.693147180559945309 - 0.287682072451780927;
}

static double one_minus_exp_minus(double x) /* x >= 0 */
{
    if (x > 40) return 1;
    int halvings = 0;
    while (x > 0.25) x /= 2, halvings++;
    double sum = 0;
    for (int k = 12; k >= 1; k--) sum = (1 - sum) * x / k; /* x - x^2/2! + x^3/3! - ... */
    while (halvings--) sum = sum * (2 - sum); /* 1 - (1 - s)^2 */
    return sum;
}

static int64_t draw(void)
{
    if (!mine.seed) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        mine.seed = ((uintptr_t)&mine ^ ((uint64_t)now.tv_nsec << 20) ^ now.tv_sec) * 0x9E3779B97F4A7C15ULL | 1;
        for (int i = 0; i < 8; i++) mine.seed ^= mine.seed << 13, mine.seed ^= mine.seed >> 7, mine.seed ^= mine.seed << 17;
    }
    mine.seed ^= mine.seed << 13;
    mine.seed ^= mine.seed >> 7;
    mine.seed ^= mine.seed << 17;
    return (int64_t)(-natural_log(((mine.seed >> 11) + 0.5) / 9007199254740992.0) * rate) + 1;
}

static int64_t weight(uint64_t size) /* in parts of FIXED_POINT: how many objects a sample of this size stands for */
{
    return (int64_t)(FIXED_POINT / one_minus_exp_minus((double)(size ? size : 1) / rate) + 0.5);
}

static int64_t weighted_bytes(uint64_t size)
{
    return (int64_t)((double)size / one_minus_exp_minus((double)(size ? size : 1) / rate) + 0.5);
}

static uint64_t mix(uint64_t x)
{
    x *= 0x9E3779B97F4A7C15ULL;
    return x ^ (x >> 32);
}

/* fstat() is no name of its own in glibc before 2.33. */
static uint64_t inode_of(int fd)
{
    struct stat about;
    return fd < 0 || syscall(SYS_fstat, fd, &about) ? 0 : about.st_ino;
}

/* -- stacks -------------------------------------------------------------------------------------------------------- */

typedef int (*Reader)(const void *from, void *to, size_t size); /* 0: well */

static int read_directly(const void *from, void *to, size_t size)
{
    memcpy(to, from, size);
    return 0;
}

/* The kernel copies into the control file, and refuses with EFAULT what would have been a crash. */
static int read_carefully(const void *from, void *to, size_t size)
{
    return pwrite(control_fd, from, size, 0) != (ssize_t)size || pread(control_fd, to, size, 0) != (ssize_t)size;
}

/* This thread's state if it holds its interpreter's lock, else NULL. */
static char *attached_thread(void)
{
    if (PyThreadState_GetUnchecked) return PyThreadState_GetUnchecked();
    char *current = _PyThreadState_UncheckedGet ? _PyThreadState_UncheckedGet() : NULL;
    if (layout->minor >= 12) return current; /* kept by thread; before, it is whoever holds the lock */
    return current == PyGILState_GetThisThreadState() ? current : NULL;
}

/* Read the stack of a thread, leaf-first; returns its depth, -1 if memory was not readable. */
static inline __attribute__((always_inline)) int walk_frames(
    char *thread, PyObject **codes, int32_t *wheres, int limit, int *truncated, Reader read)
{
    char *holder = thread, *frame;
    int depth = 0;
    if (layout->thread_cframe >= 0 && read(thread + layout->thread_cframe, &holder, sizeof holder)) return -1;
    if (read(holder + layout->current, &frame, sizeof frame)) return -1;
    for (int steps = 0; frame && steps < 100000; steps++) {
        uintptr_t code;
        char owner = 0, *instruction, *type;
        if (read(frame + layout->code, &code, sizeof code)) return -1;
        if (layout->owner >= 0 && read(frame + layout->owner, &owner, 1)) return -1;
        code &= ~(uintptr_t)TAG_BITS;
        if (owner < FIRST_SHIM && code) {
            if (read((char *)code + offsetof(PyObject, type), &type, sizeof type)) return -1;
            if (type == PyCode_Type) {
                if (depth == limit) {
                    *truncated = 1;
                    break;
                }
                codes[depth] = (PyObject *)code;
                if (layout->instruction >= 0) {
                    if (read(frame + layout->instruction, &instruction, sizeof instruction)) return -1;
                    wheres[depth] = (int32_t)(instruction - ((char *)code + layout->bytecode));
                } else {
                    wheres[depth] = PyFrame_GetLineNumber(frame);
                }
                depth++;
            }
        }
        if (read(frame + layout->previous, &frame, sizeof frame)) return -1;
    }
    return depth;
}

static int line_of(PyObject *code, int32_t where)
{
    return layout->instruction >= 0 ? PyCode_Addr2Line(code, where) : where;
}

/* -- adding to the tables: `interning` is held --------------------------------------------------------------------- */

static uint32_t intern_place(PyObject *code, int32_t where)
{
    uint32_t at = mix((uintptr_t)code ^ ((uint64_t)where << 40)) % HASH_SIZE;
    for (; tables->place_hash[at]; at = (at + 1) % HASH_SIZE) {
        Place *place = &tables->places[tables->place_hash[at] - 1];
        if (place->code == code && place->where == where) return tables->place_hash[at] - 1;
    }
    if (tables->places_count == MAX_PLACES) return NONE;
    Py_IncRef(code); /* so that its address stays its own */
    tables->places[tables->places_count] = (Place){code, where, 0};
    tables->place_hash[at] = tables->places_count + 1;
    return tables->places_count++;
}

static uint32_t intern_stack(const uint32_t *places, int depth, int truncated)
{
    uint64_t hash = depth;
    for (int i = 0; i < depth; i++) hash = mix(hash ^ places[i]) + i;
    uint32_t at = hash % HASH_SIZE;
    for (; tables->stack_hash[at]; at = (at + 1) % HASH_SIZE) {
        StackEntry *stack = &tables->stacks[tables->stack_hash[at] - 1];
        if (stack->hash == hash && stack->depth == depth && !memcmp(tables->frames + stack->first, places, depth * 4))
            return tables->stack_hash[at] - 1;
    }
    if (tables->stacks_count == MAX_STACKS || tables->frames_count + depth > MAX_FRAMES) return NONE;
    memcpy(tables->frames + tables->frames_count, places, depth * 4);
    tables->stacks[tables->stacks_count] = (StackEntry){hash, tables->frames_count, depth, truncated};
    tables->frames_count += depth;
    tables->stack_hash[at] = tables->stacks_count + 1;
    return tables->stacks_count++;
}

static uint32_t intern_cell(uint32_t stack, uint32_t tid)
{
    uint32_t at = mix(((uint64_t)tid << 32) | stack) % HASH_SIZE;
    for (; tables->cell_hash[at]; at = (at + 1) % HASH_SIZE) {
        Cell *cell = &tables->cells[tables->cell_hash[at] - 1];
        if (cell->stack == stack && cell->tid == tid) return tables->cell_hash[at] - 1;
    }
    if (tables->cells_count == MAX_CELLS) return NONE;
    tables->cells[tables->cells_count] = (Cell){.stack = stack, .tid = tid};
    tables->cell_hash[at] = tables->cells_count + 1;
    return tables->cells_count++;
}

static int begin_interning(void)
{
    for (int tries = 0; tries < 1000; tries++) {
        int32_t nobody = 0;
        if (__atomic_compare_exchange_n(&interning, &nobody, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) return 1;
        if (tries > 100) syscall(SYS_sched_yield);
    }
    return 0;
}

/* Stack 0 stands for allocations outside Python, stack 1 for those whose stack found no room; cell 1 is for the rest. */
enum { OUTSIDE, NO_ROOM };

static uint32_t cell_here(void)
{
    PyObject *codes[MAX_DEPTH];
    int32_t wheres[MAX_DEPTH];
    uint32_t places[MAX_DEPTH], stack = OUTSIDE;
    char *thread = attached_thread();
    int truncated = 0, depth = thread ? walk_frames(thread, codes, wheres, max_depth, &truncated, read_directly) : 0;
    if (!begin_interning()) {
        ADD(counters[BUSY], 1);
        return NO_ROOM;
    }
    if (depth > 0) {
        for (int i = 0; i < depth && stack != NO_ROOM; i++)
            if ((places[i] = intern_place(codes[i], wheres[i])) == NONE) stack = NO_ROOM;
        if (stack != NO_ROOM) stack = intern_stack(places, depth, truncated);
        if (stack == NONE || stack == NO_ROOM) stack = NO_ROOM, ADD(counters[LOST_STACKS], 1);
    } else {
        ADD(counters[NO_STACK], 1);
    }
    if (truncated) ADD(counters[TRUNCATED], 1);
    uint32_t cell = intern_cell(stack, mine.tid);
    if (cell == NONE) cell = NO_ROOM, ADD(counters[LOST_STACKS], 1);
    STORE(interning, 0);
    return cell;
}

/* -- sampled blocks in use: no lock. Whoever frees a block is the only one who may, so its slot is his. --------------- */

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

/* -- the hooks ----------------------------------------------------------------------------------------------------- */

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

static int is_ours(int domain)
{
    Allocator now;
    PyMem_GetAllocator(domain, &now);
    return now.malloc == hooks[domain].malloc || now.malloc == hooks_in_arenas[domain].malloc;
}

/* From here to end_probe(), `mine.probed` becomes the block for which this thread comes through the hook of a domain. */
static Countdown begin_probe(int domain)
{
    Countdown before = mine;
    mine.left = AT_ONCE;
    mine.recording = PROBE;
    mine.probed = NULL;
    mine.probes = domain;
    return before;
}

static void *end_probe(Countdown before)
{
    void *probed = mine.probed;
    mine = before;
    return probed;
}

/* Does a call to this domain pass through our hook, be it below another's? */
static int is_reached(int domain)
{
    static void *(*const allocate[])(size_t) = {PyMem_RawMalloc, PyMem_Malloc, PyObject_Malloc};
    static void (*const release[])(void *) = {PyMem_RawFree, PyMem_Free, PyObject_Free};
    Countdown before = begin_probe(domain);
    void *block = allocate[domain](40);
    int reached = end_probe(before) != NULL;
    release[domain](block);
    return reached;
}

/* Does this domain's own allocator come down to RAW for so many bytes, and give out the very block that it gets there? */
static int comes_down(int domain, size_t size)
{
    const Allocator *original = &originals[domain];
    Countdown before = begin_probe(RAW);
    void *block = original->malloc(original->ctx, size);
    int is_same = end_probe(before) == block;
    original->free(original->ctx, block);
    return block && is_same;
}

/* Is it Python's own allocator, with nothing above or in between? */
static int has_arenas(int domain)
{
    return domain != RAW && !originals[domain].ctx && comes_down(domain, LARGEST_SMALL + 1) &&
           !comes_down(domain, LARGEST_SMALL);
}

static void install(int domain)
{
    if (is_ours(domain) || is_reached(domain)) return;
    PyMem_GetAllocator(domain, &originals[domain]);
    Allocator hook = hooks[domain];
    if (has_arenas(domain)) {
        hook = hooks_in_arenas[domain];
        hook.free = originals[domain].free;
    }
    hook.ctx = originals[domain].ctx;
    PyMem_SetAllocator(domain, &hook);
}

/* NumPy lets each program replace its allocator; arrays keep the one that they came from. We change the default one in
 * place, one word at a time; the context stays. */
static void set_numpy(const Allocator *from)
{
    STORE(numpy_allocator->free, from->free);
    STORE(numpy_allocator->realloc, from->realloc);
    STORE(numpy_allocator->malloc, from->malloc);
    STORE(numpy_allocator->calloc, from->calloc);
}

static void uninstall(void)
{
    for (int domain = RAW; domain <= OBJ; domain++)
        if (is_ours(domain)) PyMem_SetAllocator(domain, &originals[domain]);
    if (numpy_allocator && numpy_allocator->malloc == hooks[NUMPY].malloc) set_numpy(&originals[NUMPY]);
}

/* -- the end of a recording ---------------------------------------------------------------------------------------- */

/* Give back the references to code objects; needs the interpreter's lock. */
static int release_codes(void *unused)
{
    (void)unused;
    PyObject **codes = __atomic_exchange_n(&garbage.codes, NULL, __ATOMIC_ACQ_REL);
    for (uint32_t i = 0; codes && i < garbage.count; i++) Py_DecRef(codes[i]);
    free(codes);
    return 0;
}

/* Unmap the tables when nobody is inside any more; what they refer to becomes garbage. */
static void discard_tables(void)
{
    const struct timespec pause = {0, 1000000};
    STORE(readable, 0);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    for (int tries = 0; LOAD(users) && tries < 5000; tries++) nanosleep(&pause, NULL);
    Tables *old = tables;
    if (!LOAD(users)) { /* else somebody sleeps inside: rather leak than crash */
        PyObject **codes = garbage.codes ? NULL : malloc((old->places_count + 1) * sizeof(PyObject *));
        for (uint32_t i = 0; codes && i < old->places_count; i++) codes[i] = old->places[i].code;
        garbage.count = old->places_count;
        if (codes) STORE(garbage.codes, codes);
        munmap(old, sizeof(Tables));
        madvise(&filter, sizeof filter, MADV_DONTNEED); /* also makes it all zero */
    }
    STORE(tables, NULL);
}

/* Switch off; once for each recording, by whoever comes first. Needs no interpreter lock. */
static int switch_off(uint32_t recording)
{
    uint32_t expected = recording;
    if (!recording || !__atomic_compare_exchange_n(&on, &expected, 0, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED)) return 0;
    STORE(due, NOT_DUE);
    uninstall();
    return 1;
}

/* The child of a fork: other threads are gone, perhaps out of the middle of something, and pprofpy does not know it. */
static void after_fork(void)
{
    STORE(on, 0);
    STORE(due, NOT_DUE);
    STORE(readable, 0);
    interning = 0;
    users = 0;
    control_fd = -1;
    if (tables) munmap(tables, sizeof(Tables));
    tables = NULL;
    garbage.codes = NULL;
    madvise(&filter, sizeof filter, MADV_DONTNEED);
}

/* -- the watch ----------------------------------------------------------------------------------------------------- */

#define WATCH_PERIOD_NS 200000000

static int owner_lives(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    if (inode_of(control_fd) != control_inode) return 0; /* some programs close what they do not know */
    return fcntl(control_fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

static void *watch(void *argument)
{
    uint32_t recording = (uintptr_t)argument;
    struct timespec period = {0, WATCH_PERIOD_NS};
    syscall(SYS_prctl, PR_SET_NAME, "pprofpy", 0, 0, 0);
    while (owner_lives()) nanosleep(&period, NULL);
    switch_off(recording);
    if (inode_of(control_fd) == control_inode) close(control_fd);
    STORE(control_fd, -1);
    discard_tables(); /* last: until then the sampler is busy, and nobody opens another control file */
    if (LOAD(garbage.codes) && Py_IsInitialized()) Py_AddPendingCall(release_codes, NULL);
    return NULL;
}

static int start_watch(uint32_t recording)
{
    pthread_t thread;
    pthread_attr_t attributes;
    sigset_t all, before;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 128 << 10);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* the target's signals are for its own threads */
    int failed = pthread_create(&thread, &attributes, watch, (void *)(uintptr_t)recording);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return failed;
}

/* -- tracemalloc's traces summed up by stack: far quicker here than anywhere else ------------------------------------- */

typedef struct { PyObject *frames; int64_t count, bytes, deeper; } StackSum;

static StackSum *sums;                 /* a hash table by the address of `frames`; the interpreter's lock guards it */
static uint32_t sums_size, sums_count; /* the first is a power of two */

static StackSum *sum_of(PyObject *frames)
{
    uint32_t at = mix((uintptr_t)frames >> 4) & (sums_size - 1);
    while (sums[at].frames && sums[at].frames != frames) at = (at + 1) & (sums_size - 1);
    return &sums[at];
}

static int make_room(void)
{
    StackSum *old = sums;
    uint32_t old_size = sums_size;
    if (old && sums_count < old_size / 2) return 1;
    StackSum *larger = calloc(old ? old_size * 2 : 1024, sizeof(StackSum));
    if (!larger) return 0;
    sums = larger;
    sums_size = old ? old_size * 2 : 1024;
    for (uint32_t i = 0; i < old_size; i++)
        if (old[i].frames) *sum_of(old[i].frames) = old[i];
    free(old);
    return 1;
}

static int add_trace(PyObject *trace) /* (domain, size, frames[, their number before they were cut]) */
{
    PyObject *frames = PyTuple_GetItem(trace, 2);
    if (!frames || !make_room()) return 0;
    StackSum *sum = sum_of(frames);
    if (!sum->frames) {
        Py_IncRef(frames); /* so that its address stays its own */
        sum->frames = frames;
        sums_count++;
    }
    sum->count++;
    sum->bytes += PyLong_AsLongLong(PyTuple_GetItem(trace, 1));
    if (PyTuple_Size(trace) < 4)
        sum->deeper = -1; /* Python 3.8 does not tell */
    else
        sum->deeper += PyLong_AsLongLong(PyTuple_GetItem(trace, 3)) > PyTuple_Size(frames);
    return 1;
}

/* -- the module ---------------------------------------------------------------------------------------------------- */

static PyObject *fail(const char *message)
{
    PyErr_SetString(PyExc_RuntimeError, message);
    return NULL;
}

static PyObject *none(void) { return Py_BuildValue(""); }

/* open(fd): use this control file, which pprofpy has locked; before anything else. */
static PyObject *py_open(PyObject *self, PyObject *arguments)
{
    int fd;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "i", &fd)) return NULL;
    if (LOAD(on) || LOAD(tables)) return fail("busy");
    if (!(control_inode = inode_of(fd))) return fail("no control file");
    control_fd = fd;
    return none();
}

/* walk() -> [(code, line), ...]: the caller's stack, leaf-first, read carefully. */
static PyObject *py_walk(PyObject *self, PyObject *arguments)
{
    PyObject *codes[MAX_DEPTH];
    int32_t wheres[MAX_DEPTH];
    int truncated = 0;
    (void)self, (void)arguments;
    if (!layout) return fail("unknown version of Python");
    char *thread = attached_thread();
    if (!thread) return fail("no thread state");
    int depth = walk_frames(thread, codes, wheres, MAX_DEPTH, &truncated, read_carefully);
    if (depth < 0) return fail("unreadable frames");
    PyObject *list = PyList_New(depth);
    for (int i = 0; list && i < depth; i++)
        PyList_SetItem(list, i, Py_BuildValue("(Oi)", codes[i], line_of(codes[i], wheres[i])));
    return list;
}

/* use_numpy(_ARRAY_API): hook the data of arrays, too; True if that could be done. Source: NEP 49. */
static PyObject *py_use_numpy(PyObject *self, PyObject *arguments)
{
    enum { FEATURE_VERSION = 211, DEFAULT_HANDLER = 306, NUMPY_1_22 = 0xf };
    typedef struct { char name[127]; uint8_t version; Allocator allocator; } Handler;
    PyObject *capsule;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "O", &capsule)) return NULL;
    void **api = PyCapsule_GetPointer(capsule, NULL);
    if (!api || ((unsigned (*)(void))api[FEATURE_VERSION])() < NUMPY_1_22) goto unknown;
    Handler *handler = PyCapsule_GetPointer(*(PyObject **)api[DEFAULT_HANDLER], "mem_handler");
    if (!handler || handler->version != 1 || strcmp(handler->name, "default_allocator")) goto unknown;
    if (handler->allocator.malloc != hooks[NUMPY].malloc) {
        originals[NUMPY] = handler->allocator;
        numpy_allocator = &handler->allocator;
        set_numpy(&hooks[NUMPY]);
    }
    return Py_BuildValue("i", 1);
unknown:
    PyErr_Clear();
    return Py_BuildValue("i", 0);
}

/* start(rate_bytes, frames): begin a recording; stop() or the end of pprofpy ends it. */
static PyObject *py_start(PyObject *self, PyObject *arguments)
{
    static int is_registered;
    (void)self;
    if (LOAD(on) || LOAD(tables) || control_fd < 0) return fail("busy");
    if (!PyArg_ParseTuple(arguments, "di", &rate, &max_depth)) return NULL;
    if (max_depth > MAX_DEPTH) max_depth = MAX_DEPTH;
    release_codes(NULL);
    void *memory = mmap(NULL, sizeof(Tables), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) return fail("no memory for the tables");
    tables = memory;
    tables->stacks_count = 2;
    tables->cells_count = 2;
    tables->cells[OUTSIDE].stack = OUTSIDE;
    tables->cells[NO_ROOM].stack = NO_ROOM;
    memset(counters, 0, sizeof counters);
    if (!is_registered && __register_atfork) is_registered = !__register_atfork(NULL, NULL, after_fork, NULL);
    if (!is_registered && musl_atfork) is_registered = !musl_atfork(NULL, NULL, after_fork);
    if (!is_registered) {
        munmap(memory, sizeof(Tables));
        tables = NULL;
        return fail("no way to notice a fork");
    }
    uint32_t recording = ++generation;
    for (int domain = RAW; domain <= OBJ; domain++) install(domain);
    STORE(readable, 1);
    STORE(on, recording);
    STORE(due, recording * SPAN);
    if (start_watch(recording)) { /* last: pprofpy may have been killed by now, and the watch discards the tables at once */
        switch_off(recording);
        discard_tables();
        return fail("no thread can be started");
    }
    return none();
}

/* stop() -> were the hooks taken out everywhere? The tables stay until pprofpy lets go of the control file. */
static PyObject *py_stop(PyObject *self, PyObject *arguments)
{
    (void)self, (void)arguments;
    switch_off(LOAD(on));
    return Py_BuildValue("i", !is_reached(RAW) && !is_reached(MEM) && !is_reached(OBJ));
}

/* save_allocators(), restore_allocators() -> were they there to be restored?: for who puts others on top in between. */
static Allocator saved[NUMPY];

static PyObject *py_save_allocators(PyObject *self, PyObject *arguments)
{
    (void)self, (void)arguments;
    for (int domain = RAW; domain <= OBJ; domain++) PyMem_GetAllocator(domain, &saved[domain]);
    return none();
}

static PyObject *py_restore_allocators(PyObject *self, PyObject *arguments)
{
    int is_saved = saved[RAW].malloc != NULL;
    Allocator now;
    (void)self, (void)arguments;
    for (int domain = RAW; domain <= OBJ && is_saved; domain++) {
        PyMem_GetAllocator(domain, &now);
        /* Python's own allocators do without a context: leave it, for threads that have read the function already. */
        if (!saved[domain].ctx) saved[domain].ctx = now.ctx;
        PyMem_SetAllocator(domain, &saved[domain]);
    }
    memset(saved, 0, sizeof saved);
    return Py_BuildValue("i", is_saved);
}

/* hush(flag): do not count what this thread allocates. */
static PyObject *py_hush(PyObject *self, PyObject *arguments)
{
    int flag;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "i", &flag)) return NULL;
    mine.recording = flag ? LOAD(on) : 0;
    mine.left = flag ? NEVER : 0; /* 0: it joins again */
    return none();
}

static PyObject *bytes_of(const void *from, size_t size) { return PyBytes_FromStringAndSize(from, size); }

/* read() -> ([(code, line), ...], stacks, frames, cells, counters, hooked): the tables as they are. */
static PyObject *py_read(PyObject *self, PyObject *arguments)
{
    (void)self, (void)arguments;
    ADD(users, 1);
    if (!LOAD(readable)) {
        ADD(users, -1);
        return fail("no recording");
    }
    uint32_t cells_count = tables->cells_count, stacks_count = tables->stacks_count; /* first: they refer to the others */
    uint32_t frames_count = tables->frames_count, places_count = tables->places_count;
    PyObject *places = PyList_New(places_count);
    for (uint32_t i = 0; places && i < places_count; i++) {
        Place *place = &tables->places[i];
        if (!place->line) place->line = line_of(place->code, place->where);
        PyList_SetItem(places, i, Py_BuildValue("(Oi)", place->code, place->line));
    }
    PyObject *result = Py_BuildValue("(NNNNNi)", places,
        bytes_of(tables->stacks, stacks_count * sizeof(StackEntry)), bytes_of(tables->frames, frames_count * 4),
        bytes_of(tables->cells, cells_count * sizeof(Cell)), bytes_of(counters, sizeof counters),
        is_reached(RAW) && is_reached(MEM) && is_reached(OBJ));
    ADD(users, -1);
    return result;
}

/* add_traces(list): sum them up by stack. */
static PyObject *py_add_traces(PyObject *self, PyObject *arguments)
{
    PyObject *traces;
    (void)self;
    if (!PyArg_ParseTuple(arguments, "O", &traces)) return NULL;
    for (intptr_t i = 0, count = PyList_Size(traces); i < count; i++)
        if (!add_trace(PyList_GetItem(traces, i))) return fail("no memory to sum up traces");
    return none();
}

/* take_sums() -> [(frames, blocks, bytes, blocks whose stack was cut or -1), ...]: none are left. */
static PyObject *py_take_sums(PyObject *self, PyObject *arguments)
{
    (void)self, (void)arguments;
    StackSum *taken = sums;
    uint32_t size = sums_size, count = sums_count, next = 0;
    sums = NULL;
    sums_size = sums_count = 0;
    PyObject *list = PyList_New(count);
    for (uint32_t i = 0; i < size; i++) {
        StackSum *sum = &taken[i];
        if (!sum->frames) continue;
        if (list)
            PyList_SetItem(list, next++,
                Py_BuildValue("(OLLL)", sum->frames, (long long)sum->count, (long long)sum->bytes, (long long)sum->deeper));
        Py_DecRef(sum->frames);
    }
    free(taken);
    return list;
}

/* state() -> (recording, tables are mapped, RAW, MEM, OBJ and NumPy are hooked). */
static PyObject *py_state(PyObject *self, PyObject *arguments)
{
    (void)self, (void)arguments;
    return Py_BuildValue("(iiiiii)", LOAD(on) != 0, LOAD(tables) != NULL, is_ours(RAW), is_ours(MEM), is_ours(OBJ),
        numpy_allocator && numpy_allocator->malloc == hooks[NUMPY].malloc);
}

/* memory() -> (what sys._debugmallocstats() prints, bytes that malloc has given out; -1: not known). */
static PyObject *py_memory(PyObject *self, PyObject *arguments)
{
    char *text = NULL;
    size_t size = 0;
    (void)self, (void)arguments;
    FILE *stream = _PyObject_DebugMallocStats ? open_memstream(&text, &size) : NULL;
    if (stream) {
        _PyObject_DebugMallocStats(stream);
        fclose(stream);
    }
    long long in_use = -1;
    if (mallinfo2_) {
        struct mallinfo2_s info = mallinfo2_();
        in_use = info.uordblks + info.hblkhd;
    }
    PyObject *result = Py_BuildValue("(sL)", text ? text : "", in_use);
    free(text);
    return result;
}

#define VARARGS 1
#define NOARGS 4
static PyMethodDef methods[] = {
    {"open", py_open, VARARGS, NULL},
    {"walk", py_walk, NOARGS, NULL},
    {"use_numpy", py_use_numpy, VARARGS, NULL},
    {"start", py_start, VARARGS, NULL},
    {"stop", py_stop, NOARGS, NULL},
    {"save_allocators", py_save_allocators, NOARGS, NULL},
    {"restore_allocators", py_restore_allocators, NOARGS, NULL},
    {"hush", py_hush, VARARGS, NULL},
    {"read", py_read, NOARGS, NULL},
    {"add_traces", py_add_traces, VARARGS, NULL},
    {"take_sums", py_take_sums, NOARGS, NULL},
    {"state", py_state, NOARGS, NULL},
    {"memory", py_memory, NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static PyModuleDef definition = {{1, NULL}, NULL, 0, NULL, "_pprofpy_sampler", NULL, -1, methods, NULL, NULL, NULL, NULL};

__attribute__((visibility("default"))) PyObject *PyInit__pprofpy_sampler(void)
{
    int minor = 0;
    /* Objects of such a build have longer heads: the module definition above would crash it. */
    if (strstr(Py_GetVersion(), "free-threading")) return fail("a build without a global lock has other objects");
    for (const char *digit = Py_GetVersion() + 2; *digit >= '0' && *digit <= '9'; digit++) minor = minor * 10 + *digit - '0';
    for (size_t i = 0; i < sizeof layouts / sizeof *layouts; i++)
        if (layouts[i].minor == minor) layout = &layouts[i];
    return PyModule_Create2(&definition, 3 /* the stable ABI */);
}
