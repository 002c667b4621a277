/* What user space needs to follow the native stack of the current thread and to put Python's frames in their places: its
 * registers, a copy of its stack up to where the thread began, and where on it evaluation loops are.
 *
 * Each evaluation loop keeps something of its own in its frame on the C stack from 3.11 on: the frame that stands for the
 * call from C, or (3.11) the structure that the thread's state leads to. Older loops are found by their name.
 *
 * Large stacks come in several records, the leaf's side first.
 */
#pragma parameter TASK_MM MM_START_STACK /* offsets in `struct task_struct` and `struct mm_struct` */
#define NATIVE_PAGE_BYTES 4096
#define NATIVE_PAGES 7 /* in a record: a value of a per-CPU map may have 32 KB */
#define NATIVE_STACK_BYTES (NATIVE_PAGES * NATIVE_PAGE_BYTES)
#define NATIVE_PARTS 8
#define NATIVE_MOST_BYTES (NATIVE_PARTS * NATIVE_STACK_BYTES)
#define NATIVE_FAR_BYTES (8 << 20) /* further away is another stack: greenlets may have their own */
#define NATIVE_LOOPS 128
#define NATIVE_RING_PAGES 4096
#define NATIVE_REGISTERS 34 /* room for those of any machine */
#define NATIVE_NO_MEMBER 127 /* as an offset in a frame */

struct native_record {
    u64 python_stack;
    u64 off_ns; /* the thread leaves its CPU, at that time; 0: it runs */
    u32 tid;
    u32 tgid;
    s32 kernel_stack;
    u32 part;
    u32 is_last; /* of the parts */
    u32 is_cut;  /* there is more of the stack than is copied */
    u64 stack_start;
    u32 stack_bytes; /* in this part */
    u32 absent;      /* which of its pages could not be read: a bit each */
    u32 loop_count;
    u32 group_count;
    u32 walk_flags; /* of the walk of the Python stack: PYTHON_STACK_* */
    u32 unused;
    u64 registers[NATIVE_REGISTERS]; /* as the kernel keeps them, REGISTERS of them */
    u32 loops[NATIVE_LOOPS];  /* leaf-first: how far behind `stack_start` something of each loop's lies; 0: not in the copy */
    u16 groups[NATIVE_LOOPS]; /* Python frames from the leaf to the outermost one of each loop */
    u8 stack[NATIVE_STACK_BYTES];
};

BPF_PERCPU_ARRAY(native_copies, struct native_record, 1);
BPF_RINGBUF_OUTPUT(native_records, NATIVE_RING_PAGES);

static inline u32 native_distance(struct native_record *record, u64 address)
{
    u64 distance = address - record->stack_start;
    return distance < NATIVE_MOST_BYTES ? distance : 0;
}

/* 3.11: one structure for each loop. The first may be that of a loop that is just being entered, and the last one is not on
 * the stack. */
static inline void native_put_structures(struct native_record *record, struct python_target *target, u64 thread_state)
{
    u64 place = python_read(thread_state + target->thread_frame);
    volatile u32 *loops = &record->loop_count;
    *loops = 0;
    LOOP_BELOW(i, NATIVE_LOOPS) {
        if (!place)
            break;
        record->loops[i] = native_distance(record, place);
        *loops = i + 1;
        place = python_read(place + target->cframe_previous);
    }
}

/* What the walk has met on its way (python_walk.h). */
static inline void native_put_loops(struct native_record *record, struct python_target *target, u64 thread_state)
{
    int zero = 0;
    struct python_walk *walk = python_walks.lookup(&zero);
    volatile u32 *loops = &record->loop_count; /* else the verifier goes through the loop for each number */
    *loops = record->group_count = 0;
    if (!walk || !record->python_stack || walk->stack.id != record->python_stack)
        return;
    record->walk_flags = walk->stack.flags;
    *loops = record->group_count = walk->entries.count;
    LOOP_BELOW(i, NATIVE_LOOPS) {
        if (i >= *loops)
            break;
        record->groups[i] = walk->entries.frames[i];
        record->loops[i] = native_distance(record, walk->entries.addresses[i]);
    }
    if (target->frame_entry != NATIVE_NO_MEMBER)
        native_put_structures(record, target, thread_state);
}

/* How much of the stack lies above: that of the first thread begins where the kernel has put it, that of any other below the C
 * library's record of it. Whichever is nearer. */
static inline u64 native_stack_bytes(struct python_target *target, u64 from)
{
    u64 mm = 0, first = 0, other = python_thread_ident(target) - from;
    bpf_probe_read_kernel(&mm, sizeof(mm), (void *)(bpf_get_current_task() + TASK_MM));
    bpf_probe_read_kernel(&first, sizeof(first), (void *)(mm + MM_START_STACK));
    first -= from;
    return first < other ? first : other;
}

/* A part of the stack, page by page: those of large arrays may never have been used, and are not there. */
static inline void native_copy_part(struct native_record *record, u64 from, u64 bytes)
{
    record->absent = 0;
    LOOP_BELOW(i, NATIVE_PAGES) {
        if (bytes <= i * NATIVE_PAGE_BYTES)
            break;
        u64 size = bytes - i * NATIVE_PAGE_BYTES;
        if (size > NATIVE_PAGE_BYTES)
            size = NATIVE_PAGE_BYTES;
        if (bpf_probe_read_user(record->stack + i * NATIVE_PAGE_BYTES, size, (void *)(from + i * NATIVE_PAGE_BYTES)))
            record->absent |= 1 << i;
    }
}

/* Anything but 0 if there was no room. */
static inline int native_send_parts(struct native_record *record, u64 wanted)
{
    LOOP_BELOW(part, NATIVE_PARTS) {
        u64 bytes = wanted - part * NATIVE_STACK_BYTES;
        record->is_last = bytes <= NATIVE_STACK_BYTES || part == NATIVE_PARTS - 1;
        if (bytes > NATIVE_STACK_BYTES)
            bytes = NATIVE_STACK_BYTES;
        native_copy_part(record, record->stack_start + part * NATIVE_STACK_BYTES, bytes);
        record->part = part;
        record->stack_bytes = bytes;
        u64 size = __builtin_offsetof(struct native_record, stack) + bytes;
        if (native_records.ringbuf_output(record, size, BPF_RB_NO_WAKEUP))
            return 1;
        if (record->is_last)
            break;
    }
    return 0;
}

/* Send the native side of a sample, or of a switch at `off_ns`; anything but 0 if there was no room. */
static inline int native_send(
    struct python_target *target, u64 thread_state, u64 python_stack, s32 kernel_stack, u64 off_ns)
{
    int zero = 0;
    u64 pid_tgid = current_pid_tgid();
    struct native_record *record = native_copies.lookup(&zero);
    if (!record || bpf_probe_read_kernel(record->registers, REGISTERS * sizeof(u64), (void *)entry_registers()))
        return 1;
    record->python_stack = python_stack;
    record->off_ns = off_ns;
    record->tid = pid_tgid;
    record->tgid = pid_tgid >> 32;
    record->kernel_stack = kernel_stack;
    /* What was just popped is there, too. */
    u64 from = (record->registers[REGISTER_STACK_POINTER] - RED_ZONE_BYTES) & ~(u64)(NATIVE_PAGE_BYTES - 1);
    u64 wanted = native_stack_bytes(target, from);
    record->stack_start = from;
    native_put_loops(record, target, thread_state);
    record->is_cut = wanted > NATIVE_MOST_BYTES;
    return native_send_parts(record, wanted > NATIVE_FAR_BYTES ? NATIVE_STACK_BYTES : wanted);
}
