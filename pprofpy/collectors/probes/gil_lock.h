/* The interpreter lock itself: where it lies, how often it changes hands, and what its threads sleep for. Needs python.h
 * and SYSCALL_FUTEX. */

#include "gil_layout.h"

#define FUTEX_COMMAND 0x7f
#define FUTEX_WAIT 0
#define FUTEX_WAIT_BITSET 9

/* What a thread is about when it is switched out. */
enum { ELSEWHERE, FOR_A_TAKER, FOR_THE_GIL, WITH_THE_GIL };
struct lock {
    u64 gil;
    u64 tgid;
};

BPF_TABLE("lru_hash", struct lock, u64, switch_numbers, 1024);

/* The address of the structure. What python_gil() gives may be that of a later member. */
static inline u64 gil_of(struct python_target *target, u64 thread_state)
{
    u64 gil = python_gil(target, thread_state);
    return gil ? gil + target->gil_holder - GIL_HOLDER : 0;
}

/* How often the lock has changed hands; what is known of it while none of its threads runs is kept. */
static inline u64 switch_number(u64 gil, u32 tgid)
{
    struct lock key = {.gil = gil, .tgid = tgid};
    u64 number = python_read(gil + GIL_SWITCH_NUMBER);
    switch_numbers.update(&key, &number);
    return number;
}

/* What the current thread sleeps for, if it does: for the GIL, or for somebody to take it. */
static inline int sleeps_for(u64 gil)
{
    u64 registers = entry_registers();
    if (entry_call(registers) != SYSCALL_FUTEX)
        return ELSEWHERE;
    u64 address = entry_register(registers, REGISTER_ARGUMENT_0);
    u64 command = entry_register(registers, REGISTER_ARGUMENT_1) & FUTEX_COMMAND;
    if (command != FUTEX_WAIT && command != FUTEX_WAIT_BITSET)
        return ELSEWHERE;
    if (address >= gil + GIL_COND && address < gil + GIL_SWITCH_COND)
        return FOR_THE_GIL;
    return address >= gil + GIL_SWITCH_COND && address < gil + GIL_END ? FOR_A_TAKER : ELSEWHERE;
}
