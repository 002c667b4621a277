/* The walk: from a thread's leaf frame to its root, and what to make of frames that are just being changed. */

/* In 3.11 and 3.12 a call from C into Python first hangs a new structure into the thread's state, and only then says
 * in it which frame is running: for some instructions, what stands there is left over from something else. The frame
 * before the call is known for certain; the chain must lead to it, or that is where the walk begins. Without such a call
 * nothing is new: what Nuitka has compiled runs on the thread's first structure. */
static inline void python_find_base(struct python_walk *walk, struct python_target *target, u64 thread_state)
{
    volatile struct python_progress *progress = &walk->progress;
    u64 cframe = python_read(thread_state + target->thread_frame);
    u64 previous = cframe ? python_read(cframe + target->cframe_previous) : 0;
    progress->is_sure = !previous;
    progress->base = previous ? python_read(previous + target->cframe_frame) : 0;
}

static inline bool python_is_frame(struct python_target *target, u64 address)
{
    u64 code = python_read(address + target->frame_code) & ~(u64)PYTHON_POINTER_TAGS;
    return code && python_read(code + target->object_type) == target->code_type;
}

/* A call from Python to Python makes the new frame the running one and then writes into it who called, or the other
 * way round, as the compiler likes. In between, the caller is in one of the interpreter's registers, for nothing else
 * is known of it. */
static inline u64 python_caller_in_registers(struct python_walk *walk, struct python_target *target, u64 frame)
{
    if (bpf_probe_read_kernel(walk->registers, sizeof(walk->registers), (void *)entry_registers()))
        return 0;
    LOOP_BELOW(i, REGISTERS_WITH_POINTERS) {
        u64 value = walk->registers[i];
        if (value != frame && value > 65536 && python_is_frame(target, value))
            return value;
    }
    return 0;
}

/* Nuitka's frame objects have less before their frame (104 bytes); a generator behind a frame object has more. */
#define PYTHON_FRAME_OBJECT_BYTES 136

/* What is not as it seems at the leaf; returns where to begin. */
static inline u64 python_check_leaf(struct python_walk *walk, struct python_target *target, u64 frame)
{
    volatile struct python_progress *progress = &walk->progress;
    u8 state = 0;
    bpf_probe_read_user(walk->frame, target->frame_bytes & 127, (void *)frame);
    u64 previous = PYTHON_WORD(walk->frame, target->frame_previous, 120);
    u64 place = PYTHON_WORD(walk->frame, target->frame_instruction, 120);
    u64 code = PYTHON_WORD(walk->frame, target->frame_code, 120) & ~(u64)PYTHON_POINTER_TAGS;
    if (walk->frame[target->frame_owner & 127] == PYTHON_GENERATOR) {
        /* What Nuitka has compiled calls its frames a generator's; they lie within their frame objects. */
        if (frame - PYTHON_WORD(walk->frame, target->frame_object, 120) < PYTHON_FRAME_OBJECT_BYTES)
            return frame;
        bpf_probe_read_user(&state, 1, (void *)(frame - target->frame_generator));
        if (state != target->generator_runs) /* a generator that does not run is no leaf: it is just returning, or left over */
            return previous;
    }
    if (place < code + target->code_instructions || !previous)
        progress->leaf_previous = python_caller_in_registers(walk, target, frame);
    return frame;
}

/* 1 if a number is not 0: by arithmetic, for the reason below. LLVM must not see what it is. */
static inline u64 is_set(u64 number)
{
    u64 negative = -number;
    asm volatile("" : "+r"(negative));
    return (number | negative) >> 63;
}

/* Which coroutine of a task's the stack is in: the one that nothing but the event loop has called. Between it and the leaf
 * there may be generators of any kind, and functions; those that run in a function below it are of another chain. */
static inline void python_note_coroutine(
    struct python_walk *walk, struct python_target *target, u64 frame, u64 in_python, u64 i)
{
    volatile struct python_progress *progress = &walk->progress;
    u64 flags = PYTHON_HALF_WORD(walk->code, target->code_flags, 252) & in_python & PYTHON_COROUTINE_FLAGS;
    u64 owner = walk->frame[target->frame_owner & 127];
    u64 inside = target->generator_frame, outside = target->frame_of_generator;
    u64 generator = (frame - inside) & -(is_set(inside) & ~is_set(owner ^ PYTHON_GENERATOR));
    generator |= PYTHON_WORD(walk->frame, outside, 120) & -is_set(outside);
    u64 is_generator = is_set(generator), is_coroutine = is_generator & is_set(flags);
    u64 known = progress->coroutine, beyond = progress->is_beyond_coroutines;
    beyond |= is_set(known) & ~is_generator & in_python & 1;
    u64 take = -(is_coroutine & ~beyond & 1);
    progress->coroutine = (generator & take) | (known & ~take);
    progress->coroutine_frames = ((i + 1) & take) | (progress->coroutine_frames & ~take);
    progress->outer_coroutine = (generator & -is_coroutine) | (progress->outer_coroutine & ~-is_coroutine);
    progress->is_beyond_coroutines = beyond;
}

/* The loops that run the frames are only asked for where native functions are put between Python's (native.h). From 3.12 on
 * the frame that stands for a call from C lies on the C stack, in the loop's own frame. */
static inline void python_forget_entries(struct python_walk *walk)
{
#ifdef NATIVE
    volatile struct python_entries *entries = &walk->entries;
    entries->count = entries->frame_count = 0;
#endif
}

static inline void python_note_entry(struct python_walk *walk, u64 frame, u64 is_python, u64 is_entry)
{
#ifdef NATIVE
    volatile struct python_entries *entries = &walk->entries;
    u32 count = entries->count, frames = entries->frame_count + (is_python & 1);
    entries->addresses[count & (PYTHON_MAX_FRAMES - 1)] = frame;
    entries->frames[count & (PYTHON_MAX_FRAMES - 1)] = frames;
    entries->frame_count = frames;
    entries->count = count + (is_entry & 1);
#endif
}

/* Take in the frame at `frame`, which becomes the one before it; anything but 0 if it cannot be one.
 *
 * Conditions are masks here: each branch would double what the verifier has to go through in every round. */
static inline u64 python_walk_frame(struct python_walk *walk, struct python_target *target, u64 *frame, int i)
{
    volatile struct python_progress *progress = &walk->progress;
    u64 bad = bpf_probe_read_user(walk->frame, target->frame_bytes & 127, (void *)*frame);
    u64 previous = PYTHON_WORD(walk->frame, target->frame_previous, 120);
    u64 place = PYTHON_WORD(walk->frame, target->frame_instruction, 120);
    u64 is_call = ((u64)walk->frame[target->frame_owner & 127] + 256 - PYTHON_CALL_FROM_C) >> 8 & 1;
    u64 in_python = is_call - 1; /* all bits, or none */
    u64 code = PYTHON_WORD(walk->frame, target->frame_code, 120) & ~(u64)PYTHON_POINTER_TAGS & in_python;
    bad |= bpf_probe_read_user(walk->code, target->code_bytes & 255, (void *)code) & in_python;
    bad |= (PYTHON_WORD(walk->code, target->object_type, 56) ^ target->code_type) & in_python;
    u32 fingerprint = python_fingerprint(target, walk->code) & in_python;
    u64 start = (code + target->code_instructions) & -(u64)target->instruction_is_address;
    s32 instruction = ((s64)((place - start) << (target->instruction_left & 63)) >> (target->instruction_right & 63)) & in_python;
    if (i == 0 && progress->leaf_previous)
        previous = progress->leaf_previous;
    u64 is_entry = is_call | (walk->frame[target->frame_entry & 127] & 1), is_sure = progress->is_sure;
    bad |= (previous ^ progress->base) & -(is_entry & ~is_sure & 1);
    progress->is_sure = is_sure | is_entry;
    if (PYTHON_TASKS)
        python_note_coroutine(walk, target, *frame, in_python, i);
    python_note_entry(walk, *frame, in_python, is_entry);
    struct python_frame *to = &walk->stack.frames[i];
    to->code = code;
    to->instruction = instruction;
    to->fingerprint = fingerprint;
    progress->hash = python_mix(python_mix(progress->hash, code ^ (u64)fingerprint << 32), (u32)instruction);
    *frame = previous;
    return bad;
}

/* Go on at `frame`; false if that is the end. */
static inline bool python_walk_on(struct python_walk *walk, struct python_target *target, u64 *frame, int i)
{
    volatile struct python_progress *progress = &walk->progress;
    volatile u32 *count = &walk->stack.frame_count, *first = &walk->stack.frame_first, *flags = &walk->stack.flags;
    u64 was_sure = progress->is_sure;
    if (!(*frame | (was_sure ^ 1)))
        return false;
    if (!python_walk_frame(walk, target, frame, i)) {
        *count = i + 1;
        return true;
    }
    if (was_sure) {
        *flags = PYTHON_STACK_BROKEN;
        return false;
    }
    *frame = progress->base;
    progress->is_sure = 1;
    python_forget_entries(walk);
    progress->hash = walk->stack.tgid;
    *first = *count = i + 1;
    return true;
}

static inline void python_walk_frames(struct python_walk *walk, struct python_target *target, u64 thread_state, u64 frame)
{
    volatile struct python_progress *progress = &walk->progress;
    volatile u32 *count = &walk->stack.frame_count, *first = &walk->stack.frame_first, *flags = &walk->stack.flags;
    *count = *first = *flags = 0;
    python_forget_entries(walk);
    progress->hash = walk->stack.tgid;
    progress->coroutine = progress->outer_coroutine = progress->is_beyond_coroutines = 0;
    progress->leaf_previous = 0;
    progress->base = 0;
    progress->is_sure = target->cframe_frame == PYTHON_NO_CFRAME;
    if (!progress->is_sure) {
        python_find_base(walk, target, thread_state);
        frame = python_check_leaf(walk, target, frame);
    }
    LOOP_BELOW(i, PYTHON_MAX_FRAMES / 2) { /* two a round, for a round has its price, too */
        if (!python_walk_on(walk, target, &frame, 2 * i) || !python_walk_on(walk, target, &frame, 2 * i + 1))
            break;
    }
    if (*flags) {
        python_count(PYTHON_UNREADABLE);
    } else if (frame) {
        *flags = PYTHON_STACK_CUT;
        python_count(PYTHON_TRUNCATED);
    }
    walk->stack.id = python_mix(progress->hash, *flags) | 1; /* never 0 */
}
