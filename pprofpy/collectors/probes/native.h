/* What user space needs to follow the native stack of the current thread: its registers, and a copy of its stack.
 *
 * Only the functions on top of the leaf-most Python function are wanted. The evaluation loop that runs that function
 * keeps something of its own on the stack from 3.11 on; what is copied ends there, mostly after a few hundred bytes. Where
 * it is further away, the copy comes in several records. In older versions, and for threads that run no Python, it is
 * one, as large as it may be.
 */
#define NATIVE_PAGE_BYTES 4096
#define NATIVE_PAGES 7 /* in a record: a value of a per-CPU map may have 32 KB */
#define NATIVE_STACK_BYTES (NATIVE_PAGES * NATIVE_PAGE_BYTES)
#define NATIVE_PARTS 4
#define NATIVE_FAR_BYTES (8 << 20) /* further away is another stack: greenlets have their own */
#define NATIVE_RING_PAGES 4096
#define NATIVE_REGISTERS 34 /* room for those of any machine */
#define NATIVE_NO_OWNER 127 /* as the offset of a frame's owner */

struct native_record {
    u64 python_stack;
    u64 off_ns; /* the thread leaves its CPU, at that time; 0: it runs */
    u32 tid;
    u32 tgid;
    s32 kernel_stack;
    u32 part;
    u32 is_last; /* of the parts */
    u32 is_cut;  /* there is more of the stack than is copied */
    u64 loop;    /* an address within the frame of the evaluation loop; 0: unknown */
    u64 stack_start;
    u32 stack_bytes; /* in this part */
    u32 absent;      /* which of its pages could not be read: a bit each */
    u64 registers[NATIVE_REGISTERS]; /* as the kernel keeps them, REGISTERS of them */
    u8 stack[NATIVE_STACK_BYTES];
};

BPF_PERCPU_ARRAY(native_copies, struct native_record, 1);
BPF_RINGBUF_OUTPUT(native_records, NATIVE_RING_PAGES);

/* 3.11 and 3.12 have a structure there, later versions the frame that stands for the call from C. */
static inline u64 native_loop(struct python_target *target, u64 thread_state)
{
    u64 place = python_read(thread_state + target->thread_frame);
    if (target->cframe_frame != PYTHON_NO_CFRAME)
        return place;
    if (target->frame_owner == NATIVE_NO_OWNER)
        return 0;
    LOOP_BELOW(i, PYTHON_MAX_FRAMES) {
        u8 owner = 0;
        if (!place || bpf_probe_read_user(&owner, 1, (void *)(place + target->frame_owner)))
            return 0;
        if (owner >= PYTHON_CALL_FROM_C)
            return place;
        place = python_read(place + target->frame_previous);
    }
    return 0;
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
    u64 loop = thread_state ? native_loop(target, thread_state) : 0, wanted = NATIVE_STACK_BYTES;
    record->stack_start = from;
    record->loop = loop > from && loop - from < NATIVE_FAR_BYTES ? loop : 0;
    if (record->loop)
        wanted = loop - from;
    record->is_cut = !record->loop || wanted > NATIVE_PARTS * NATIVE_STACK_BYTES;
    return native_send_parts(record, wanted);
}
