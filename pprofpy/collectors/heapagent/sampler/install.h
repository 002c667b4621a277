/* Putting the hooks in, and taking them out. */

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
