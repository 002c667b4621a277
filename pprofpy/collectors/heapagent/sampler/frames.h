/* The stack of a thread, read from the interpreter's frames. */

/* Where each version keeps its frames. The rows, and the other constants of this file, are defined by hatch_build.py from
 * cpython/versions.py. */
typedef struct {
    int minor;
    int thread_cframe;  /* offset in the thread state of a pointer to what holds the frame; -1: it holds it itself */
    int current;        /* offset of the current frame there */
    int code, previous; /* offsets in a frame */
    int instruction;    /* offset of the instruction pointer; -1: PyFrame_GetLineNumber() tells the line */
    int owner;          /* offset of the kind of frame; -1: there is but one */
    int bytecode;       /* offset of the instructions in a code object */
    int id;             /* offset in the thread state of the thread that made it */
    int is_current_by_thread; /* the current thread state is kept by thread; else it is whoever holds the lock */
} Layout;

static const Layout layouts[] = {LAYOUTS};

static const Layout *layout;

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

/* Does this lie on the running thread's stack? A stack ends at the thread's own record, whose address is its identity;
 * only the main thread's lies above all of them. */
static int is_on_own_stack(const char *address, const char *record)
{
    const char *here = __builtin_frame_address(0);
    return address > here && (address < record || record < here);
}

/* Is it this thread that runs with a state that is in use? The state may be of another interpreter than the thread's
 * first, which alone the C library knows of. The thread that made the state may have left it to another one: what the
 * interpreter's loop keeps on the stack of whoever runs it tells, where there is such a thing. */
static int is_own(const char *state)
{
    if (state == PyGILState_GetThisThreadState()) return 1;
    unsigned long self = PyThread_get_thread_ident();
    if (layout->thread_cframe >= 0) return is_on_own_stack(*(char *const *)(state + layout->thread_cframe), (char *)self);
    return *(const unsigned long *)(state + layout->id) == self;
}

/* This thread's state if it holds its interpreter's lock, else NULL. */
static char *attached_thread(void)
{
    if (PyThreadState_GetUnchecked) return PyThreadState_GetUnchecked();
    char *current = _PyThreadState_UncheckedGet ? _PyThreadState_UncheckedGet() : NULL;
    if (layout->is_current_by_thread || !current) return current;
    return is_own(current) ? current : NULL;
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
        code &= ~(uintptr_t)POINTER_TAGS;
        if (owner < CALL_FROM_C && code) {
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
