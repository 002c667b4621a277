/* The Python stack of the thread that runs right now, walked where it is: in the kernel, at any event.
 *
 *     #include "python.h"
 *     u64 stack = python_stack();    // 0: not a watched process, or nothing to walk (counted by reason)
 *
 * What the interpreter looks like comes from user space, one `struct python_target` per process (pystacks.py), so that
 * one program serves all versions and several processes at once.
 *
 * A stack is known by a hash of its frames. The first time it is seen, all of it goes to user space through a ring
 * buffer, and so does every code object that is new: name, file and line table, read at that very moment. Names are
 * right even if the code is freed, or the process gone, before user space looks. Both lists of what was seen forget
 * what was not used for long (LRU); it is then simply sent again.
 *
 * A frame is told by its code object's address, by a fingerprint of that object (an address is used again and again,
 * for other code), and by its current instruction.
 *
 * Needs TASK_FSBASE, the offset of `thread.fsbase` in `struct task_struct`.
 */
#include <uapi/linux/ptrace.h>
#include "loops.h"

#ifndef PYTHON_MAX_FRAMES
#define PYTHON_MAX_FRAMES 512
#endif
/* So many frames, from the leaf on, are looked at for code that is new; others are read from user space. */
#ifndef PYTHON_NEW_CODE_FRAMES
#define PYTHON_NEW_CODE_FRAMES 64
#endif
#ifndef PYTHON_RING_PAGES
#define PYTHON_RING_PAGES 2048
#endif
#ifndef PYTHON_KNOWN
#define PYTHON_KNOWN 65536
#endif
#ifndef PYTHON_MAX_THREADS
#define PYTHON_MAX_THREADS 512
#endif
#define PYTHON_NAME_BYTES 256
#define PYTHON_FILE_BYTES 512
#define PYTHON_TABLE_BYTES 4096
#define PYTHON_REGISTERS 15 /* r15 to rdi, as they lie in struct pt_regs */
#define PYTHON_NO_CFRAME 0xffff
#define PYTHON_BEHIND (1ULL << 63) /* a distance, if not on this stack */
#define PYTHON_STATUS_BOUND 8 /* `bound_gilstate` in PyThreadState._status */

/* Why a thread has no stack, or not all of it. Mirrored in pystacks.py. */
enum {
    PYTHON_NO_THREAD_STATE, /* a thread that Python knows nothing of, or not yet */
    PYTHON_NO_FRAME,        /* Python knows it, but it runs no Python function */
    PYTHON_UNREADABLE,      /* something that could not be read, or is no frame */
    PYTHON_TRUNCATED,       /* deeper than PYTHON_MAX_FRAMES */
    PYTHON_STACK_LOST,      /* no room in the ring buffer */
    PYTHON_CODE_LOST,
    PYTHON_BUSY, /* an event within an event */
    PYTHON_TOO_MANY_THREADS, /* its state is not among the first PYTHON_MAX_THREADS, and glibc does not tell it */
    PYTHON_REASONS
};

#define PYTHON_STACK_CUT 1    /* flags of a stack: deeper than shown */
#define PYTHON_STACK_BROKEN 2 /* the rest could not be read */

#define PYTHON_TARGET_FOLLOW 1 /* flags of a target: its children are targets, too */

#define PYTHON_RECORD_STACK 1
#define PYTHON_RECORD_CODE 2
#define PYTHON_RECORD_EXEC 3 /* a target has become another program */
#define PYTHON_RECORD_FORK 4 /* a target has a child, which is a target now */

/* Where things lie in one process. Offsets are in bytes; pystacks.py fills it in from cpython/layouts.py. */
struct python_target {
    u64 runtime;   /* address of _PyRuntime */
    u64 code_type; /* address of PyCode_Type */
    u64 gil;       /* address of the GIL; 0 if each interpreter points to one */
    u32 flags;
    u16 thread_slot; /* from pthread_self() on, the thread's own state as glibc holds it; 0: unknown */
    u16 interpreters_head;
    u16 runtime_current; /* the state that has the GIL; 0 from 3.12 on */
    u16 interp_next;
    u16 interp_threads;
    u16 interp_gil;
    u16 gil_holder;
    u16 gil_locked;
    u16 thread_next;
    u16 thread_interp;
    u16 thread_id;
    u16 thread_frame;
    u16 thread_cframe; /* 3.10 to 3.12: leads to a structure on the C stack; else 0 */
    u16 thread_status; /* from 3.13 on; else 0 */
    u16 cframe_frame; /* in 3.11 and 3.12 `thread_frame` leads to a structure on the C stack; else 0xffff */
    u16 cframe_previous;
    u16 frame_bytes;
    u16 frame_previous;
    u16 frame_code;
    u16 frame_instruction;
    u16 frame_owner; /* these two: 127, where always a 0 is read, in versions that have none */
    u16 frame_entry; /* 3.11: is it the first of a call from C? */
    u16 frame_generator; /* how far before a generator's frame its state lies */
    u16 code_instructions;
    u16 instruction_is_address; /* a frame holds the address of its instruction; else (0) its number */
    u16 instruction_left;       /* what to shift the difference by to get the instruction's number */
    u16 instruction_right;
    u16 code_bytes;
    u16 code_first_line;
    u16 code_version; /* 0: there is none */
    u16 code_file;
    u16 code_name;
    u16 code_table;
    u16 object_type;
    u16 object_length; /* of str and bytes */
    u16 string_state;
    u16 string_kind_shift;
    u16 string_ascii;
    u16 string_wide;
    u16 bytes_data;
};

struct python_frame {
    u64 code;
    s32 instruction; /* from the first on, in units of two bytes; before 3.10 of one; below 0: not begun */
    u32 fingerprint;
};

struct python_stack {
    u32 kind;
    u32 tgid;
    u64 id;
    u64 thread_state;
    u32 tid;
    u32 flags;
    u32 frame_count;
    u32 frame_first; /* those before it do not count */
    struct python_frame frames[PYTHON_MAX_FRAMES]; /* leaf-first; code 0 is none: the interpreter's own frames */
};

struct python_code {
    u32 kind;
    u32 tgid;
    u64 code;
    u64 table; /* address of the line table */
    u32 fingerprint;
    s32 first_line;
    u32 name_bytes;
    u32 name_width; /* bytes a character */
    u32 file_bytes;
    u32 file_width;
    u32 table_bytes; /* all of it; more than PYTHON_TABLE_BYTES are not sent */
    u32 unused;
    u8 name_text[PYTHON_NAME_BYTES];
    u8 file_text[PYTHON_FILE_BYTES];
    u8 table_data[PYTHON_TABLE_BYTES];
};

struct python_process_event {
    u32 kind;
    u32 tgid;
    u32 parent_tgid;
    u32 unused;
};

/* What a walk has found out so far. It is kept in memory and volatile: what goes through memory is forgotten by the
 * kernel's verifier, which else looks at all that follows once for each number of frames. */
struct python_progress {
    u64 hash;
    u64 base;          /* a frame that the chain must lead to */
    u64 leaf_previous; /* what comes after the leaf, if the leaf itself does not say yet */
    u32 is_sure;       /* the chain has led there, or need not */
    u32 unused;
};

/* The state of a thread, as far as it is known. It is kept in memory for the same reason. */
struct python_search {
    u64 interp;
    u64 thread_state;
    u64 stack_pointer;
    u64 distance; /* of this state */
    u64 other;    /* is it another thread's? */
    u64 own;      /* the best of its own so far */
    u64 own_distance;
    u64 nearest; /* the best of the others' */
    u64 nearest_distance;
    u64 busy;
};

struct python_walk {
    struct python_stack stack;
    struct python_progress progress;
    u8 frame[128];
    u8 code[256];
    u64 registers[16];
    u32 busy;
    u32 unused;
};

BPF_TABLE("hash", u32, struct python_target, python_targets, 4096);
BPF_TABLE("lru_hash", u32, u64, python_threads, 16384);
BPF_TABLE("lru_hash", u64, u32, python_stacks_seen, PYTHON_KNOWN);
BPF_TABLE("lru_hash", u64, u32, python_codes_seen, PYTHON_KNOWN);
BPF_PERCPU_ARRAY(python_searches, struct python_search, 1);
BPF_PERCPU_ARRAY(python_walks, struct python_walk, 1);
BPF_PERCPU_ARRAY(python_codes, struct python_code, 1);
BPF_PERCPU_ARRAY(python_missed, u64, PYTHON_REASONS);
BPF_RINGBUF_OUTPUT(python_records, PYTHON_RING_PAGES);
/* Things that were seen before user space forgot them are sent again: [0] is raised by it. */
BPF_ARRAY(python_epoch, u32, 1);

static inline void python_count(int reason)
{
    u64 *count = python_missed.lookup(&reason);
    if (count)
        *count += 1;
}

static inline u64 python_read(u64 address)
{
    u64 value = 0;
    bpf_probe_read_user(&value, sizeof(value), (void *)address);
    return value;
}

static inline u64 python_mix(u64 hash, u64 value)
{
    hash = (hash ^ value) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 29);
}

/* The watched process that runs right now, or NULL. */
static inline struct python_target *python_current(void)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    return python_targets.lookup(&tgid);
}

/* -- the thread's state ------------------------------------------------------------------------------------------- */

static inline u64 python_leaf_frame(struct python_target *target, u64 thread_state)
{
    u64 frame = python_read(thread_state + target->thread_frame);
    if (frame && target->cframe_frame != PYTHON_NO_CFRAME)
        frame = python_read(frame + target->cframe_frame);
    return frame;
}

/* What glibc's pthread_self() says: the same in all pid namespaces, unlike a thread's number. */
static inline u64 python_thread_ident(void)
{
    u64 ident = 0;
    bpf_probe_read_kernel(&ident, sizeof(ident), (void *)(bpf_get_current_task() + TASK_FSBASE));
    return ident;
}

/* A thread that has gone from one interpreter into another has a state with frames in each. How far is this one from
 * being the innermost, the one that it is in right now? The smallest number wins; of equal ones the first that is listed,
 * which is that of the newest interpreter.
 *
 * - From 3.13 on, the state that a thread was in last is marked.
 * - From 3.10 to 3.12 a state that runs leads to a structure on the C stack: the innermost is the nearest.
 * - Before, all that is known is the state that has, or had, the GIL. */
static inline u64 python_distance(struct python_target *target, u64 thread_state, u64 stack_pointer)
{
    if (target->thread_status)
        return ~python_read(thread_state + target->thread_status) & PYTHON_STATUS_BOUND;
    if (target->thread_cframe)
        return python_read(thread_state + target->thread_cframe) - stack_pointer;
    if (python_read(target->runtime + target->runtime_current) == thread_state)
        return 0;
    return python_read(target->gil + target->gil_holder) != thread_state;
}

/* Is it known without a look at the others? */
static inline bool python_is_innermost(struct python_target *target, u64 thread_state)
{
    return target->thread_status && !python_distance(target, thread_state, 0);
}

/* Take in one state, or go on to the next interpreter. */
static inline void python_look_at_state(volatile struct python_search *search, struct python_target *target, u64 ident)
{
    u64 here = search->thread_state;
    if (!here) {
        search->interp = python_read(search->interp + target->interp_next);
        search->thread_state = python_read(search->interp + target->interp_threads);
        return;
    }
    search->thread_state = python_read(here + target->thread_next);
    search->other = python_read(here + target->thread_id) ^ ident;
    if (search->other && !target->thread_cframe)
        return;
    search->distance = ~0ULL; /* a state without frames is better than none */
    if (python_leaf_frame(target, here))
        search->distance = python_distance(target, here, search->stack_pointer);
    if (search->other) {
        if (search->distance >= search->nearest_distance)
            return;
        search->nearest = here;
        search->nearest_distance = search->distance;
    } else if (!search->own || search->distance < search->own_distance) {
        search->own = here;
        search->own_distance = search->distance;
    }
}

/* A thread may also be in a state that another thread has made, and that bears the name of that one (until 3.12). But
 * what lies between here and a thread's own structure on the C stack is on its stack. */
static inline u64 python_find_thread_state(struct python_target *target, u64 interp, u64 ident)
{
    int zero = 0;
    struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
    struct python_search *search = python_searches.lookup(&zero);
    if (!search)
        return 0;
    if (search->busy) {
        python_count(PYTHON_BUSY);
        return 0;
    }
    search->busy = 1;
    search->interp = interp;
    search->thread_state = python_read(interp + target->interp_threads);
    search->own = 0;
    search->nearest_distance = PYTHON_BEHIND;
    bpf_probe_read_kernel(&search->stack_pointer, sizeof(u64), &registers->sp);
    LOOP_BELOW(i, PYTHON_MAX_THREADS) {
        if (!((volatile struct python_search *)search)->interp)
            break;
        python_look_at_state(search, target, ident);
    }
    if (!search->own && search->interp) { /* there are more than we went through */
        u64 held = target->thread_slot ? python_read(ident + target->thread_slot) : 0;
        if (held && python_read(held + target->thread_id) == ident)
            search->own = held;
        else if (held || !target->thread_slot)
            python_count(PYTHON_TOO_MANY_THREADS);
        search->nearest_distance = PYTHON_BEHIND;
    }
    u64 own = search->own, own_distance = search->own_distance, nearest_distance = search->nearest_distance;
    u64 found = own && nearest_distance < own_distance && own_distance < PYTHON_BEHIND ? search->nearest : own;
    search->busy = 0;
    return found;
}

/* The current thread's PyThreadState; 0 if Python knows nothing of this thread. */
static inline u64 python_thread_state(struct python_target *target)
{
    u32 tid = bpf_get_current_pid_tgid();
    u64 ident = python_thread_ident(), interp = python_read(target->runtime + target->interpreters_head);
    bool is_only_interp = interp && !python_read(interp + target->interp_next);
    u64 *known = python_threads.lookup(&tid);
    /* A state that has no frame may have been left: C threads take a new one for each call into Python. */
    if (known && python_read(*known + target->thread_id) == ident && python_leaf_frame(target, *known) &&
        (is_only_interp || python_is_innermost(target, *known)))
        return *known;
    u64 found = python_find_thread_state(target, interp, ident);
    if (found)
        python_threads.update(&tid, &found);
    return found;
}

/* -- the interpreter lock ----------------------------------------------------------------------------------------- */

/* The address of the GIL that a thread needs; 0 if unknown. */
static inline u64 python_gil(struct python_target *target, u64 thread_state)
{
    if (target->gil)
        return target->gil;
    u64 interp = python_read(thread_state + target->thread_interp);
    return interp ? python_read(interp + target->interp_gil) : 0;
}

/* Until 3.11 a thread changes from one interpreter to another without a word to the lock: its holder is only the last
 * state that had to take it. */
static inline bool python_holds_gil(struct python_target *target, u64 thread_state)
{
    u64 gil = python_gil(target, thread_state), holder = 0;
    if (!gil || !(u32)python_read(gil + target->gil_locked))
        return false;
    if (target->runtime_current)
        holder = python_read(target->runtime + target->runtime_current);
    if (!holder)
        holder = python_read(gil + target->gil_holder);
    return holder == thread_state;
}

/* -- code objects ------------------------------------------------------------------------------------------------- */

#define PYTHON_WORD(buffer, offset, mask) (*(u64 *)((buffer) + ((offset) & (mask))))
#define PYTHON_HALF_WORD(buffer, offset, mask) (*(u32 *)((buffer) + ((offset) & (mask))))

/* Tells a code object from others that lie, or lay, at the same address. `code` is a copy of its head. */
static inline u32 python_fingerprint(struct python_target *target, u8 *code)
{
    u64 hash = PYTHON_HALF_WORD(code, target->code_first_line, 252);
    if (target->code_version)
        hash |= (u64)PYTHON_HALF_WORD(code, target->code_version, 252) << 32;
    hash = python_mix(hash, PYTHON_WORD(code, target->code_file, 248));
    hash = python_mix(hash, PYTHON_WORD(code, target->code_name, 248));
    hash = python_mix(hash, PYTHON_WORD(code, target->code_table, 248));
    return hash >> 32;
}

/* A str: its text goes to `to`. */
static inline u32 python_copy_string(struct python_target *target, u64 string, u8 *to, u32 room, u32 *width)
{
    u64 length = python_read(string + target->object_length);
    u32 state = python_read(string + target->string_state);
    u32 kind = (state >> (target->string_kind_shift & 31)) & 7;
    bool is_ascii = (state >> ((target->string_kind_shift + 4) & 31)) & 1;
    u64 bytes = length < 65536 ? length * kind : 65536;
    if (bytes > room)
        bytes = room;
    *width = kind;
    string += is_ascii ? target->string_ascii : target->string_wide;
    if (bpf_probe_read_user(to, bytes, (void *)string))
        return 0;
    return bytes;
}

static inline bool python_send_code(
    struct python_target *target, struct python_code *record, u32 tgid, u64 code, u32 fingerprint)
{
    record->kind = PYTHON_RECORD_CODE;
    record->tgid = tgid;
    record->code = code;
    record->fingerprint = fingerprint;
    record->first_line = python_read(code + target->code_first_line);
    record->table = python_read(code + target->code_table);
    record->name_bytes = python_copy_string(
        target, python_read(code + target->code_name), record->name_text, PYTHON_NAME_BYTES, &record->name_width);
    record->file_bytes = python_copy_string(
        target, python_read(code + target->code_file), record->file_text, PYTHON_FILE_BYTES, &record->file_width);
    u64 bytes = python_read(record->table + target->object_length);
    record->table_bytes = bytes;
    if (bytes > PYTHON_TABLE_BYTES)
        bytes = 0;
    bpf_probe_read_user(record->table_data, bytes, (void *)(record->table + target->bytes_data));
    u64 size = __builtin_offsetof(struct python_code, table_data) + bytes;
    return !python_records.ringbuf_output(record, size, BPF_RB_NO_WAKEUP);
}

/* Send what is new among the leaf-most code objects of a stack. */
static inline void python_send_codes(struct python_walk *walk, struct python_target *target, u32 epoch)
{
    int zero = 0;
    u32 tgid = walk->stack.tgid;
    u32 count = walk->stack.frame_count;
    struct python_code *record = python_codes.lookup(&zero);
    if (!record)
        return;
    LOOP_BELOW(i, PYTHON_NEW_CODE_FRAMES) {
        if (i >= count)
            break;
        struct python_frame *frame = &walk->stack.frames[i];
        u64 key = python_mix(python_mix(tgid, frame->code), frame->fingerprint);
        u32 *seen = python_codes_seen.lookup(&key);
        if (!frame->code || (seen && *seen == epoch))
            continue;
        python_codes_seen.update(&key, &epoch);
        if (!python_send_code(target, record, tgid, frame->code, frame->fingerprint)) {
            python_codes_seen.delete(&key);
            python_count(PYTHON_CODE_LOST);
        }
    }
}

/* -- the walk ----------------------------------------------------------------------------------------------------- */

#define PYTHON_GENERATOR 1 /* owners of a frame */
#define PYTHON_CALL_FROM_C 3

/* In 3.11 and 3.12 a call from C into Python first hangs a new structure into the thread's state, and only then says
 * in it which frame is running: for some instructions, what stands there is left over from something else. The frame
 * before the call is known for certain; the chain must lead to it, or that is where the walk begins. */
static inline u64 python_base_frame(struct python_target *target, u64 thread_state)
{
    u64 cframe = python_read(thread_state + target->thread_frame);
    u64 previous = cframe ? python_read(cframe + target->cframe_previous) : 0;
    return previous ? python_read(previous + target->cframe_frame) : 0;
}

static inline bool python_is_frame(struct python_target *target, u64 address)
{
    u64 code = python_read(address + target->frame_code) & ~3ULL;
    return code && python_read(code + target->object_type) == target->code_type;
}

/* A call from Python to Python makes the new frame the running one and then writes into it who called, or the other
 * way round, as the compiler likes. In between, the caller is in one of the interpreter's registers, for nothing else
 * is known of it. */
static inline u64 python_caller_in_registers(struct python_walk *walk, struct python_target *target, u64 frame)
{
    struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
    if (bpf_probe_read_kernel(walk->registers, PYTHON_REGISTERS * sizeof(u64), registers))
        return 0;
    LOOP_BELOW(i, PYTHON_REGISTERS) {
        u64 value = walk->registers[i];
        if (value != frame && value > 65536 && python_is_frame(target, value))
            return value;
    }
    return 0;
}

/* What is not as it seems at the leaf; returns where to begin. */
static inline u64 python_check_leaf(struct python_walk *walk, struct python_target *target, u64 frame)
{
    volatile struct python_progress *progress = &walk->progress;
    u64 code = python_read(frame + target->frame_code) & ~3ULL, place = python_read(frame + target->frame_instruction);
    u8 owner = 0, state = 0;
    bpf_probe_read_user(&owner, 1, (void *)(frame + target->frame_owner));
    if (owner == PYTHON_GENERATOR) {
        bpf_probe_read_user(&state, 1, (void *)(frame - target->frame_generator));
        if (state) /* a generator that does not run is no leaf: it is just returning, or left over */
            return python_read(frame + target->frame_previous);
    }
    if (place < code + target->code_instructions || !python_read(frame + target->frame_previous))
        progress->leaf_previous = python_caller_in_registers(walk, target, frame);
    return frame;
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
    u64 code = PYTHON_WORD(walk->frame, target->frame_code, 120) & ~3ULL & in_python;
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
    struct python_frame *to = &walk->stack.frames[i];
    to->code = code;
    to->instruction = instruction;
    to->fingerprint = fingerprint;
    progress->hash = python_mix(python_mix(progress->hash, code ^ (u64)fingerprint << 32), (u32)instruction);
    *frame = previous;
    return bad;
}

static inline void python_walk_frames(struct python_walk *walk, struct python_target *target, u64 thread_state, u64 frame)
{
    volatile struct python_progress *progress = &walk->progress;
    volatile u32 *count = &walk->stack.frame_count, *first = &walk->stack.frame_first, *flags = &walk->stack.flags;
    *count = *first = *flags = 0;
    progress->hash = walk->stack.tgid;
    progress->leaf_previous = 0;
    progress->base = 0;
    progress->is_sure = target->cframe_frame == PYTHON_NO_CFRAME;
    if (!progress->is_sure) {
        progress->base = python_base_frame(target, thread_state);
        frame = python_check_leaf(walk, target, frame);
    }
    LOOP_BELOW(i, PYTHON_MAX_FRAMES) {
        u64 was_sure = progress->is_sure;
        if (!(frame | (was_sure ^ 1)))
            break;
        if (!python_walk_frame(walk, target, &frame, i)) {
            *count = i + 1;
            continue;
        }
        if (was_sure) {
            *flags = PYTHON_STACK_BROKEN;
            break;
        }
        frame = progress->base;
        progress->is_sure = 1;
        progress->hash = walk->stack.tgid;
        *first = *count = i + 1;
    }
    if (*flags) {
        python_count(PYTHON_UNREADABLE);
    } else if (frame) {
        *flags = PYTHON_STACK_CUT;
        python_count(PYTHON_TRUNCATED);
    }
    walk->stack.id = python_mix(progress->hash, *flags) | 1; /* never 0 */
}

/* Make sure that user space knows the stack; returns its id, 0 if that is not possible. */
static inline u64 python_intern(struct python_walk *walk, struct python_target *target)
{
    int zero = 0;
    u64 id = walk->stack.id;
    u32 *epoch = python_epoch.lookup(&zero), *seen = python_stacks_seen.lookup(&id);
    if (!epoch)
        return 0;
    if (seen && *seen == *epoch)
        return id;
    u32 now = *epoch;
    python_send_codes(walk, target, now);
    u64 count = walk->stack.frame_count;
    u64 size = __builtin_offsetof(struct python_stack, frames) + count * sizeof(struct python_frame);
    if (size > sizeof(struct python_stack))
        size = sizeof(struct python_stack);
    if (python_records.ringbuf_output(&walk->stack, size, BPF_RB_NO_WAKEUP)) {
        python_count(PYTHON_STACK_LOST);
        return 0;
    }
    python_stacks_seen.update(&id, &now);
    return id;
}

/* The stack of the current thread, whose state is known. */
static inline u64 python_stack_of(struct python_target *target, u64 thread_state)
{
    int zero = 0;
    u64 frame = python_leaf_frame(target, thread_state), pid_tgid = bpf_get_current_pid_tgid(), id = 0;
    if (!frame) {
        python_count(PYTHON_NO_FRAME);
        return 0;
    }
    struct python_walk *walk = python_walks.lookup(&zero);
    if (!walk)
        return 0;
    if (walk->busy) {
        python_count(PYTHON_BUSY);
        return 0;
    }
    walk->busy = 1;
    walk->stack.kind = PYTHON_RECORD_STACK;
    walk->stack.tgid = pid_tgid >> 32;
    walk->stack.tid = pid_tgid;
    walk->stack.thread_state = thread_state;
    python_walk_frames(walk, target, thread_state, frame);
    if (walk->stack.frame_count > walk->stack.frame_first || walk->stack.flags)
        id = python_intern(walk, target);
    else
        python_count(PYTHON_NO_FRAME);
    walk->busy = 0;
    return id;
}

/* The current thread's Python stack as an id that pystacks.py can spell out; 0 if there is none. */
static inline u64 python_stack(void)
{
    struct python_target *target = python_current();
    if (!target)
        return 0;
    u64 thread_state = python_thread_state(target);
    if (!thread_state) {
        python_count(PYTHON_NO_THREAD_STATE);
        return 0;
    }
    return python_stack_of(target, thread_state);
}

/* -- fork and exec ------------------------------------------------------------------------------------------------ */

static inline void python_send_event(u32 kind, u32 tgid, u32 parent_tgid)
{
    struct python_process_event event = {.kind = kind, .tgid = tgid, .parent_tgid = parent_tgid};
    python_records.ringbuf_output(&event, sizeof(event), BPF_RB_NO_WAKEUP);
}

/* Raw tracepoint sched_process_fork: a child has its parent's memory, at the same addresses. */
int python_on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32, child = 0;
    bpf_probe_read_kernel(&child, sizeof(child), (void *)(ctx->args[1] + TASK_TGID));
    struct python_target *target = python_targets.lookup(&tgid);
    if (!target || child == tgid || !(target->flags & PYTHON_TARGET_FOLLOW))
        return 1;
    struct python_target copy = *target;
    if (!python_targets.update(&child, &copy))
        python_send_event(PYTHON_RECORD_FORK, child, tgid);
    return 1;
}

/* Raw tracepoint sched_process_exec: nothing is where it was. User space looks at the new program. */
int python_on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tgid = bpf_get_current_pid_tgid() >> 32;
    if (python_targets.lookup(&tgid)) {
        python_targets.delete(&tgid);
        python_send_event(PYTHON_RECORD_EXEC, tgid, tgid);
    }
    return 1;
}

/* Raw tracepoint sched_process_exit: the number may be another's soon. */
int python_on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u32 tid = bpf_get_current_pid_tgid(), tgid = bpf_get_current_pid_tgid() >> 32;
    python_threads.delete(&tid);
    if (tid == tgid)
        python_targets.delete(&tgid);
    return 1;
}
