/* The end of a recording, by whatever comes first: stop(), a fork, or the end of the pprofpy that began it. */

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
