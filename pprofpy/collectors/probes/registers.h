/* The registers with which a thread has entered the kernel. Where each of them lies, in words, is told by constants of
 * arch/: REGISTER_CALL (the number of the system call), REGISTER_ARGUMENT_0 to _5, REGISTER_STACK_POINTER,
 * REGISTER_MODE (of the processor). */
#ifndef REGISTERS_H
#define REGISTERS_H

/* The address of those of the current thread. */
static inline u64 entry_registers(void)
{
    return (u64)bpf_task_pt_regs(bpf_get_current_task_btf());
}

static inline u64 entry_register(u64 registers, u64 place)
{
    u64 value = 0;
    bpf_probe_read_kernel(&value, sizeof(value), (void *)(registers + place * sizeof(value)));
    return value;
}

/* The number of the system call; below 0 if an interrupt or a fault came instead. Some machines keep other things in the
 * upper half of the word. */
static inline s32 entry_call(u64 registers)
{
    return entry_register(registers, REGISTER_CALL);
}
#endif
