/* Who waits for the current task: the tasks that await it, one after the other, each with its chain of coroutines.
 *
 * Those tasks are suspended, for as long as the current one runs. Their frames come behind the thread's own in the stack's
 * record, root-first for each task, with a frame whose code is PYTHON_AWAITED_BY before them; user space puts them where
 * they belong (pystacks/records.py).
 *
 * From 3.14 on a task says who awaits it. Before, its first callback does: it is the wake-up of the awaiting task, or
 * leads there by a future that `gather`, `wait`, `shield` or `wait_for` has made, or by a TaskGroup.
 *
 * Source: Modules/_asynciomodule.c, Lib/asyncio/tasks.py and taskgroups.py, Objects/genobject.c, Objects/setobject.c.
 */
#pragma parameter PYTHON_AWAITING /* 1: add the frames of tasks that await the current one */

#define PYTHON_AWAITING_TASKS 16
#ifdef BPF_ITER_NUM_NEW
#define PYTHON_AWAITING_FRAMES 96 /* marks between tasks are among them */
#else
#define PYTHON_AWAITING_FRAMES 20 /* more are too long for the verifier of Linux 6.1 */
#endif
#define PYTHON_AWAITING_HOPS 3
#define PYTHON_CLOSURE_CELLS 8
#define PYTHON_SET_SLOTS 8

/* Offsets that are the same in all versions. */
#define PYTHON_TYPE_NAME 24
#define PYTHON_FUTURE_CALLBACK 24
#define PYTHON_FUTURE_CALLBACKS 40 /* a list of (callback, context): further ones */
#define PYTHON_LIST_ITEMS 24
#define PYTHON_METHOD_SELF 24 /* of methods written in Python, and in C */
#define PYTHON_WRAPPED 16     /* in a cell, or an object that wraps another one */
#define PYTHON_TUPLE_ITEMS 24
#define PYTHON_PARTIAL_ARGUMENTS 24
#define PYTHON_SET_MASK 32
#define PYTHON_SET_TABLE 40
#define PYTHON_GROUP_PARENT 4 /* the place of `_parent_task` among the attributes of a TaskGroup */

/* Names of types, as the 8 bytes of a word. */
#define TEXT_FUNCTION 0x6e6f6974636e7566ULL       /* function */
#define TEXT_METHOD 0x646f6874656dULL             /* method */
#define TEXT_METHOD_BITS 0xffffffffffffffULL
#define TEXT_BUILTIN 0x5f6e69746c697562ULL        /* builtin_... */
#define TEXT_TASK_WAKEUP 0x656b61576b736154ULL    /* TaskWake... */
#define TEXT_PARTIAL 0x6c6f6f74636e7566ULL        /* functool... */
#define TEXT_GATHERING_FUTURE 0x697265687461475fULL /* _Gatheri... */
#define TEXT_ASYNCIO 0x6f69636e7973615fULL          /* _asyncio... */
#define TEXT_TASK_GROUP 0x756f72476b736154ULL       /* TaskGrou... */

static inline u64 python_type_text(struct python_target *target, u64 object)
{
    return python_read(python_read(python_read(object + target->object_type) + PYTHON_TYPE_NAME));
}

/* A future that a callback's function has in its closure. */
static inline u64 python_closure_future(struct python_target *target, struct python_label_source *source, u64 function)
{
    u64 closure = python_read(function + source->function_closure), count = python_read(closure + target->object_length);
    LOOP_BELOW(i, PYTHON_CLOSURE_CELLS) {
        if (!closure || i >= count)
            break;
        u64 object = python_read(python_read(closure + PYTHON_TUPLE_ITEMS + 8 * i) + PYTHON_WRAPPED);
        u64 text = object ? python_type_text(target, object) : 0;
        if (text == TEXT_GATHERING_FUTURE || text == TEXT_ASYNCIO)
            return object;
    }
    return 0;
}

/* The attributes of an instance whose dict nobody has asked for lie in an array; where it is depends on the version. */
static inline u64 python_group_parent(struct python_target *target, struct python_label_source *source, u64 group)
{
    u64 values = 0;
    if (python_type_text(target, group) != TEXT_TASK_GROUP)
        return 0;
    if (source->values_kind == PYTHON_VALUES_POINTED_TO)
        values = python_read(group - 32);
    else if (source->values_kind == PYTHON_VALUES_TAGGED)
        values = python_read(group - 24) + 1;
    else if (source->values_kind == PYTHON_VALUES_INLINE)
        values = group + 24;
    return values ? python_read(values + 8 * PYTHON_GROUP_PARENT) : 0;
}

/* Whoever a task's first callback wakes up, directly or by a future. */
static inline u64 python_awakened(struct python_target *target, struct python_label_source *source, u64 future)
{
    u64 found = 0;
    LOOP_BELOW(i, PYTHON_AWAITING_HOPS) {
        u64 callback = python_read(future + PYTHON_FUTURE_CALLBACK), others = python_read(future + PYTHON_FUTURE_CALLBACKS);
        u64 text = callback ? python_type_text(target, callback) : 0;
        if (i && text == TEXT_FUNCTION && others) { /* shield's own comes before that of who awaits it */
            callback = python_read(python_read(python_read(others + PYTHON_LIST_ITEMS)) + PYTHON_TUPLE_ITEMS);
            text = callback ? python_type_text(target, callback) : 0;
        }
        future = 0;
        if (text == TEXT_BUILTIN)
            found = python_read(callback + PYTHON_METHOD_SELF);
        else if (text == TEXT_TASK_WAKEUP)
            found = python_read(callback + PYTHON_WRAPPED);
        else if ((text & TEXT_METHOD_BITS) == TEXT_METHOD)
            found = python_group_parent(target, source, python_read(callback + PYTHON_METHOD_SELF));
        else if (text == TEXT_FUNCTION)
            future = python_closure_future(target, source, callback);
        else if (text == TEXT_PARTIAL)
            future = python_read(python_read(callback + PYTHON_PARTIAL_ARGUMENTS) + PYTHON_TUPLE_ITEMS);
        if (!future)
            break;
    }
    return found;
}

static inline u64 python_first_in_set(u64 set)
{
    u64 mask = python_read(set + PYTHON_SET_MASK), table = python_read(set + PYTHON_SET_TABLE);
    LOOP_BELOW(i, PYTHON_SET_SLOTS) {
        u64 key = i <= mask ? python_read(table + 16 * i) : 0;
        if (key && python_read(key + 8))
            return key;
    }
    return 0;
}

/* The task that awaits a task, the first of several; 0: none. It must be a task of the same kind. */
static inline u64 python_awaiting_task(struct python_target *target, struct python_label_source *source, u64 task)
{
    u64 found;
    if (source->task_awaited_by) {
        u8 is_set = 0;
        found = python_read(task + source->task_awaited_by);
        bpf_probe_read_user(&is_set, 1, (void *)(task + source->task_awaited_by_is_set));
        if (found && is_set)
            found = python_first_in_set(found);
    } else {
        found = python_awakened(target, source, task);
    }
    u64 type = python_read(task + target->object_type);
    return found && type && python_read(found + target->object_type) == type ? found : 0;
}

/* The frame of a coroutine or generator, if it is one. */
static inline u64 python_coroutine_frame(struct python_target *target, u64 object)
{
    u64 frame = target->generator_frame ? object + target->generator_frame : python_read(object + PYTHON_WRAPPED);
    return object && frame && python_is_frame(target, frame) ? frame : 0;
}

/* What the coroutine awaits whose frame was taken in last: the top of its stack, or (from 3.15 on) what is below that. */
static inline u64 python_awaited(
    struct python_walk *walk, struct python_target *target, struct python_label_source *source, u64 frame)
{
    u64 at = PYTHON_WORD(walk->frame, source->frame_stack, 120), depth;
    if (source->frame_depth) {
        depth = PYTHON_HALF_WORD(walk->frame, source->frame_depth, 124);
        if (source->frame_stack == source->frame_depth) /* it lies in the frame itself */
            at = frame + source->frame_values;
        at += 8 * depth;
    }
    return python_read(at - source->awaited_before) & ~(u64)PYTHON_POINTER_TAGS;
}

static inline void python_add_awaiting_mark(struct python_walk *walk, int i)
{
    volatile struct python_progress *progress = &walk->progress;
    struct python_frame *to = &walk->stack.frames[i];
    to->code = PYTHON_AWAITED_BY;
    to->instruction = 0;
    to->fingerprint = 0;
    progress->hash = python_mix(progress->hash, PYTHON_AWAITED_BY);
}

/* Take in one frame, or go on to the next task; false if that is the end. */
static inline bool python_await_on(
    struct python_walk *walk, struct python_target *target, struct python_label_source *source, int i)
{
    volatile struct python_awaiting *at = &walk->awaiting;
    u64 frame = at->frame;
    if (!frame) {
        u64 task = at->tasks < PYTHON_AWAITING_TASKS ? python_awaiting_task(target, source, at->task) : 0;
        frame = task ? python_coroutine_frame(target, python_read(task + source->task_coroutine)) : 0;
        at->task = task;
        at->tasks += 1;
        at->frame = frame;
        if (frame)
            python_add_awaiting_mark(walk, i);
        return frame;
    }
    u64 unused = frame;
    if (python_walk_frame(walk, target, &unused, i))
        return false;
    u64 object = python_awaited(walk, target, source, frame);
    at->frame = object ? python_coroutine_frame(target, object) : 0;
    if (object && !at->frame) /* what wraps a coroutine: __await__, anext */
        at->frame = python_coroutine_frame(target, python_read(object + PYTHON_WRAPPED));
    return true;
}

/* Add the frames of the tasks that await this one, as far as there is room. */
static inline void python_add_awaiting(
    struct python_walk *walk, struct python_target *target, struct python_label_source *source, u64 task)
{
    volatile struct python_awaiting *at = &walk->awaiting;
    volatile struct python_progress *progress = &walk->progress;
    volatile u32 *count = &walk->stack.frame_count;
    u64 begin = *count, coroutine = python_read(task + source->task_coroutine);
    if (!coroutine || progress->coroutine != coroutine || walk->stack.flags)
        return;
    walk->stack.thread_frames = begin;
    walk->stack.task_frames = progress->coroutine_frames;
    at->task = task;
    at->frame = at->tasks = 0;
    LOOP_BELOW(i, PYTHON_AWAITING_FRAMES) {
        u64 place = begin + i;
        if (place >= PYTHON_MAX_FRAMES)
            break;
        asm volatile("" : "+r"(place)); /* as in python_bounded */
        place &= PYTHON_MAX_FRAMES - 1;
        if (!python_await_on(walk, target, source, place))
            break;
        *count = place + 1;
    }
    walk->stack.id = python_mix(progress->hash, walk->stack.id) | 1;
}
