/* The stack of a thread, read from the interpreter's frames. */

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
