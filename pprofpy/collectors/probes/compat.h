/* Is the current thread in a system call of a 32-bit program? Needs sched.h and registers.h; TASK_STATUS where arch/ does
 * not give MODE_32_BIT. */
#ifndef COMPAT_H
#define COMPAT_H

#pragma parameter TASK_STATUS
#define STATUS_32_BIT 2 /* TS_COMPAT in thread_info.status */

static inline bool is_32_bit(u64 registers)
{
#ifdef MODE_32_BIT
    return entry_register(registers, REGISTER_MODE) & MODE_32_BIT;
#else
    return read_u32(bpf_get_current_task() + TASK_STATUS) & STATUS_32_BIT;
#endif
}
#endif
