/* tracemalloc's traces summed up by stack: far quicker here than anywhere else. */

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
