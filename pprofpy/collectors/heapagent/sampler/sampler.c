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
#include "abi.h"
#include "tables.h"
#include "state.h"
#include "chance.h"
#include "frames.h"
#include "cells.h"
#include "blocks.h"
#include "hooks.h"
#include "install.h"
#include "ending.h"
#include "sums.h"

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

/* ignore_thread(flag): do not count what this thread allocates. */
static PyObject *py_ignore_thread(PyObject *self, PyObject *arguments)
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
    {"ignore_thread", py_ignore_thread, VARARGS, NULL},
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
