/* What user space needs to follow the native stack of the current thread: its registers, and a copy of its stack.
 *
 * Only the functions on top of the leaf-most Python function are wanted. The evaluation loop that runs that function
 * keeps something of its own on the stack from 3.11 on; what is copied ends there, mostly after a few hundred bytes.
 * In older versions, and for threads that run no Python, the copy is as large as it may be.
 */
#define NATIVE_STACK_BYTES 28672 /* a value of a per-CPU map may have 32 KB */
#define NATIVE_CHUNK_BYTES 4096
#define NATIVE_RED_ZONE_BYTES 128 /* in use below the stack pointer; what was just popped is there, too */
#define NATIVE_RING_PAGES 4096
#define NATIVE_REGISTERS 21
#define NATIVE_NO_OWNER 127 /* as the offset of a frame's owner */

struct native_record {
    u64 python_stack;
    u32 tid;
    u32 tgid;
    s32 kernel_stack;
    u32 is_cut;     /* there is more of the stack than is copied */
    u64 loop;       /* an address within the frame of the evaluation loop; 0: unknown */
    u64 stack_start;
    u64 stack_bytes;
    u64 registers[NATIVE_REGISTERS]; /* as in struct pt_regs */
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
    for (int i = 0; i < PYTHON_MAX_FRAMES; i++) {
        u8 owner = 0;
        if (!place || bpf_probe_read_user(&owner, 1, (void *)(place + target->frame_owner)))
            return 0;
        if (owner >= PYTHON_CALL_FROM_C)
            return place;
        place = python_read(place + target->frame_previous);
    }
    return 0;
}

/* The red zone belongs to it; where that begins in a page that has never been used, as far as it is in the next one. */
static inline u64 native_stack_start(u64 stack_pointer)
{
    u64 start = stack_pointer - NATIVE_RED_ZONE_BYTES, word;
    if (bpf_probe_read_user(&word, sizeof(word), (void *)start))
        return stack_pointer & ~(u64)(NATIVE_CHUNK_BYTES - 1);
    return start;
}

/* The stack from `from` on; the last chunk may reach beyond the end of the stack's memory. */
static inline void native_copy_stack(struct native_record *record, u64 from, u64 wanted)
{
    u64 copied = 0;
    for (int i = 0; i < NATIVE_STACK_BYTES / NATIVE_CHUNK_BYTES; i++) {
        u64 place = from + i * NATIVE_CHUNK_BYTES, size = wanted - i * NATIVE_CHUNK_BYTES;
        if (wanted <= i * NATIVE_CHUNK_BYTES)
            break;
        if (size > NATIVE_CHUNK_BYTES)
            size = NATIVE_CHUNK_BYTES;
        u8 *to = record->stack + i * NATIVE_CHUNK_BYTES;
        if (bpf_probe_read_user(to, size, (void *)place)) {
            size = -place & (NATIVE_CHUNK_BYTES - 1);
            if (!bpf_probe_read_user(to, size, (void *)place))
                copied += size;
            break;
        }
        copied += size;
    }
    record->stack_bytes = copied;
    record->is_cut = copied == NATIVE_STACK_BYTES;
}

/* Send the native side of a sample; anything but 0 if there was no room. */
static inline int native_send(struct python_target *target, u64 thread_state, u64 python_stack, s32 kernel_stack)
{
    int zero = 0;
    u64 pid_tgid = bpf_get_current_pid_tgid();
    struct native_record *record = native_copies.lookup(&zero);
    struct pt_regs *registers = (void *)bpf_task_pt_regs(bpf_get_current_task_btf());
    if (!record || bpf_probe_read_kernel(record->registers, sizeof(record->registers), registers))
        return 1;
    record->python_stack = python_stack;
    record->tid = pid_tgid;
    record->tgid = pid_tgid >> 32;
    record->kernel_stack = kernel_stack;
    u64 from = native_stack_start(record->registers[19]), wanted = NATIVE_STACK_BYTES; /* sp */
    record->loop = thread_state ? native_loop(target, thread_state) : 0;
    record->stack_start = from;
    if (record->loop > from && record->loop - from < wanted)
        wanted = record->loop - from;
    native_copy_stack(record, from, wanted);
    u64 size = __builtin_offsetof(struct native_record, stack) + record->stack_bytes;
    if (size > sizeof(*record))
        size = sizeof(*record);
    return native_records.ringbuf_output(record, size, BPF_RB_NO_WAKEUP);
}
