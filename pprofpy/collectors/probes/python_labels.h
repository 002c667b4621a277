/* Whose work the current thread does: its asyncio task, and the values of context variables that were asked for.
 *
 * Both are read from an unmodified process, at the very moment of the event. A task may live for less than a millisecond,
 * and its address is used again at once: so the labels of a stack are their texts, numbered by a hash, and sent the first
 * time that they are met.
 *
 * Where to read comes from user space, one `struct python_label_source` per process (pystacks/label_sources.py).
 *
 * Source: Modules/_asynciomodule.c, Python/hamt.c, Include/internal/pycore_context.h.
 */
#pragma parameter PYTHON_VARIABLES /* label them with so many context variables */

#define PYTHON_NEWEST_TASKS 16 /* so many entries of the dict of current tasks are tried: one for each running loop */
#define PYTHON_TRIE_LEVELS 7
#define PYTHON_COLLISIONS 4

/* Offsets that are the same in all versions. */
#define PYTHON_TYPE_FLAGS 168
#define PYTHON_INT_SUBCLASS (1 << 24)
#define PYTHON_STR_SUBCLASS (1 << 28)
#define PYTHON_NODE_SIZE 16
#define PYTHON_NODE_BITMAP 24
#define PYTHON_NODE_PAIRS 32
#define PYTHON_NODE_CHILDREN 16

/* Texts, as the 8 bytes of a word. */
#define TEXT_BITMAP_NODE 0x7469625f746d6168ULL    /* hamt_bit... */
#define TEXT_ARRAY_NODE 0x7272615f746d6168ULL     /* hamt_arr... */
#define TEXT_COLLISION_NODE 0x6c6f635f746d6168ULL /* hamt_col... */
#define TEXT_NONE_TYPE 0x65707954656e6f4eULL      /* NoneType */
#define TEXT_TASK 0x2d6b736154ULL                 /* Task- */
#define TEXT_TASK_BITS 0xffffffffffULL

BPF_TABLE("hash", u32, struct python_label_source, python_label_sources, PYTHON_MAX_PROCESSES);
BPF_TABLE("lru_hash", u64, u32, python_labels_seen, 16384);

/* Take in a str, an int or None; of another object the name of its type. */
static inline void python_take_value(struct python_target *target, u64 object, struct python_value *value)
{
    u64 type = python_read(object + target->object_type), flags = python_read(type + PYTHON_TYPE_FLAGS);
    if (flags & PYTHON_STR_SUBCLASS) {
        u32 state = python_read(object + target->string_state);
        u64 is_compact = (state >> ((target->string_kind_shift + 3) & 31)) & 1;
        u64 bytes = python_copy_string(target, object, (u8 *)value->text, PYTHON_VALUE_BYTES, &value->width);
        value->kind = PYTHON_VALUE_STR;
        value->bytes = bytes;
        if (!is_compact) /* of a subclass: its text is elsewhere */
            bpf_probe_read_user(value->text, python_bounded(bytes, PYTHON_VALUE_BYTES),
                                (void *)python_read(object + target->string_wide));
    } else if (flags & PYTHON_INT_SUBCLASS) {
        value->kind = PYTHON_VALUE_INT;
        value->bytes = 3 * sizeof(u64);
        bpf_probe_read_user(value->text, 3 * sizeof(u64), (void *)(object + target->object_length));
    } else {
        value->kind = PYTHON_VALUE_OTHER;
        value->width = 1;
        s64 bytes = bpf_probe_read_user_str(value->text, PYTHON_VALUE_BYTES, (void *)python_read(type + PYTHON_TYPE_NAME));
        value->bytes = bytes > 0 ? bytes - 1 : 0;
        if (value->text[0] == TEXT_NONE_TYPE && value->bytes == 8)
            value->kind = PYTHON_VALUE_NONE;
    }
}

static inline void python_clear_value(struct python_value *value)
{
    value->kind = value->bytes = value->width = value->unused = 0;
#pragma unroll
    for (int i = 0; i < PYTHON_VALUE_WORDS; i++)
        value->text[i] = 0;
}

/* Before Python 3.14: `_asyncio._current_tasks` has an entry for each loop that runs a task. Ours is the one whose
 * coroutine is on the stack. Entries that were deleted stay as gaps until the table is full. */
static inline u64 python_task_in_dict(struct python_label_source *source, volatile struct python_progress *progress)
{
    u64 keys = python_read(source->current_tasks + 32), entries, count;
    if (source->has_compact_keys) {
        entries = keys + 32 + (1ULL << ((python_read(keys + 8) >> 8) & 31));
        count = python_read(keys + 24);
    } else {
        entries = keys + 40 + python_read(keys + 8);
        count = python_read(keys + 32);
    }
    u64 inner = progress->coroutine, outer = progress->outer_coroutine;
    LOOP_BELOW(i, PYTHON_NEWEST_TASKS) {
        if (i >= count)
            break;
        u64 task = python_read(entries + 24 * (count - 1 - i) + 16);
        u64 coroutine = task ? python_read(task + source->task_coroutine) : 0;
        if (coroutine && (coroutine == inner || coroutine == outer))
            return task;
    }
    return 0;
}

/* Take in the task, and return it: by the name that the program gave it, else by its coroutine. Names that asyncio makes
 * up are never the same. */
static inline u64 python_take_task(
    struct python_walk *walk, struct python_target *target, struct python_label_source *source, u64 thread_state)
{
    volatile struct python_progress *progress = &walk->progress;
    struct python_value *name = &walk->labels.values[PYTHON_TASK_NAME];
    u64 task = 0;
    if (source->thread_task)
        task = python_read(thread_state + source->thread_task);
    else if (source->current_tasks && progress->outer_coroutine)
        task = python_task_in_dict(source, progress);
    if (!task)
        return 0;
    u64 coroutine = python_read(task + source->task_coroutine);
    python_take_value(target, python_read(task + source->task_name), name);
    if (name->kind != PYTHON_VALUE_STR && name->kind != PYTHON_VALUE_INT) { /* it is none of asyncio's tasks */
        python_clear_value(name);
        return 0;
    }
    if (name->kind == PYTHON_VALUE_INT || (name->width == 1 && (name->text[0] & TEXT_TASK_BITS) == TEXT_TASK))
        python_clear_value(name);
    python_take_value(target, python_read(coroutine + source->coroutine_name), &walk->labels.values[PYTHON_TASK_COROUTINE]);
    return task;
}

static inline u32 count_ones(u32 bits)
{
    bits -= bits >> 1 & 0x55555555;
    bits = (bits & 0x33333333) + (bits >> 2 & 0x33333333);
    return ((bits + (bits >> 4)) & 0x0f0f0f0f) * 0x01010101 >> 24;
}

/* A context maps variables to values by a trie of their hashes, 5 bits a level. */
static inline u64 python_in_trie(struct python_target *target, u64 node, u64 variable, u32 hash)
{
    u64 found = 0;
    LOOP_BELOW(level, PYTHON_TRIE_LEVELS) {
        u64 kind = python_type_text(target, node);
        u32 bit = hash & 31, bitmap = python_read(node + PYTHON_NODE_BITMAP);
        hash >>= 5;
        if (kind == TEXT_ARRAY_NODE) {
            node = python_read(node + PYTHON_NODE_CHILDREN + 8 * (u64)bit);
            continue;
        }
        if (kind != TEXT_BITMAP_NODE || !(bitmap >> bit & 1))
            break;
        u64 pair = node + PYTHON_NODE_PAIRS + 16 * (u64)count_ones(bitmap & ((1u << bit) - 1));
        u64 key = python_read(pair);
        node = python_read(pair + 8);
        if (key) {
            found = key == variable ? node : 0;
            node = 0;
            break;
        }
    }
    if (!node || python_type_text(target, node) != TEXT_COLLISION_NODE)
        return found;
    u64 count = python_read(node + PYTHON_NODE_SIZE);
    LOOP_BELOW(i, PYTHON_COLLISIONS) {
        u64 pair = node + PYTHON_NODE_PAIRS + 16 * i;
        if (2 * i < count && python_read(pair) == variable)
            return python_read(pair + 8);
    }
    return 0;
}

static inline void python_take_variable(
    struct python_walk *walk, struct python_target *target, struct python_label_source *source, u64 thread_state, int i)
{
    u64 variable = source->variables[i];
    if (!variable)
        return;
    u64 context = python_read(thread_state + source->thread_context);
    u64 root = context ? python_read(python_read(context + 24) + 16) : 0;
    u64 value = root ? python_in_trie(target, root, variable, source->hashes[i]) : 0;
    if (!value)
        value = python_read(variable + source->variable_default);
    if (value)
        python_take_value(target, value, &walk->labels.values[PYTHON_FIRST_VARIABLE + i]);
}

/* A number for what was taken in; 0 if that is nothing. */
static inline u64 python_hash_labels(struct python_labels *labels)
{
    u64 hash = labels->tgid, kinds = 0;
#pragma unroll
    for (int i = 0; i < PYTHON_VALUES; i++) {
        struct python_value *value = &labels->values[i];
        kinds |= value->kind;
        hash = python_mix(hash, (u64)value->kind << 32 | value->bytes);
        if (i >= PYTHON_FIRST_VARIABLE + PYTHON_VARIABLES)
            continue;
#pragma unroll
        for (int word = 0; word < PYTHON_VALUE_WORDS; word++)
            hash = python_mix(hash, value->text[word]);
    }
    return kinds ? hash | 1 : 0;
}

/* A child has its parent's memory, at the same addresses. */
static inline void python_copy_label_source(u32 parent, u32 child)
{
    struct python_label_source *source = python_label_sources.lookup(&parent);
    if (!source)
        return;
    struct python_label_source copy = *source;
    python_label_sources.update(&child, &copy);
}

/* Label the stack that was walked last: its labels are part of what it is. */
static inline void python_label(struct python_walk *walk, struct python_target *target, u64 thread_state)
{
    int zero = 0;
    struct python_labels *labels = &walk->labels;
    u32 tgid = walk->stack.tgid, *epoch = python_epoch.lookup(&zero);
    struct python_label_source *source = python_label_sources.lookup(&tgid);
    if (!source || !epoch)
        return;
#pragma unroll
    for (int i = 0; i < PYTHON_VALUES; i++)
        python_clear_value(&labels->values[i]);
    labels->kind = PYTHON_RECORD_LABELS;
    labels->tgid = tgid;
    u64 task = PYTHON_TASKS ? python_take_task(walk, target, source, thread_state) : 0;
    if (PYTHON_AWAITING && task)
        python_add_awaiting(walk, target, source, task);
#pragma unroll
    for (int i = 0; i < PYTHON_MAX_VARIABLES; i++)
        if (i < PYTHON_VARIABLES)
            python_take_variable(walk, target, source, thread_state, i);
    u64 id = labels->id = python_hash_labels(labels);
    if (!id)
        return;
    u32 now = *epoch, *seen = python_labels_seen.lookup(&id);
    if (!seen || *seen != now) {
        if (python_records.ringbuf_output(labels, sizeof(*labels), BPF_RB_NO_WAKEUP)) {
            python_count(PYTHON_LABELS_LOST);
            return;
        }
        python_labels_seen.update(&id, &now);
    }
    walk->stack.labels = id;
    walk->stack.id = python_mix(walk->stack.id, id) | 1;
}
