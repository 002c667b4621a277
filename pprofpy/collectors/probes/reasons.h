/* Why the thread that runs right now is about to wait: by the system call it is in, and what that call is made on.
 *
 * `wait_calls` says it for each system call; reasons.py fills it in. Needs sched.h, and python.h where PYTHON is
 * defined: then the interpreter's own lock and Python's locks are told from other futexes.
 */
#include "fd.h"
#include "registers.h"
#include "compat.h"
#include "gil_layout.h"
#pragma parameter TASK_FLAGS INODE_MODE INODE_SUPERBLOCK SUPERBLOCK_MAGIC

/* Mirrored by REASONS in reasons.py. */
enum {
    WAIT_OTHER,
    WAIT_RUN_QUEUE,
    WAIT_LOCK,
    WAIT_GIL,
    WAIT_FUTEX,
    WAIT_SLEEP,
    WAIT_POLL,
    WAIT_SOCKET,
    WAIT_PIPE,
    WAIT_FILE,
    WAIT_DISK,
    WAIT_DEVICE,
    WAIT_EVENT,
    WAIT_PROCESS,
    WAIT_SIGNAL,
    WAIT_MEMORY,
    WAIT_PAGE_FAULT,
    WAIT_STOPPED,
    WAIT_KERNEL,
    /* Only in `wait_calls`: what these wait for depends on their arguments. */
    WAIT_BY_FD,
    WAIT_BY_FD_COUNT_FIRST,
    WAIT_BY_FD_COUNT_SECOND,
};

#define TASK_STATE_STOPPED 0xc /* by a signal or a tracer */
#define TASK_STATE_NOLOAD 0x400
#define TASK_IS_KERNEL_THREAD 0x00200000 /* in task.flags */
#define ANONYMOUS_FILES 0x09041934       /* magic number of the file system of eventfd, timerfd, pidfd, ... */
#define WAIT_CALLS 512

BPF_ARRAY(wait_calls, u8, WAIT_CALLS);

static inline u8 wait_by_fd(u64 task, u32 fd)
{
    u64 file = file_of_fd(task, fd);
    if (!file)
        return WAIT_OTHER;
    u64 inode = read_u64(file + FILE_INODE);
    if (read_u32(read_u64(inode + INODE_SUPERBLOCK) + SUPERBLOCK_MAGIC) == ANONYMOUS_FILES)
        return WAIT_EVENT;
    switch (read_u32(inode + INODE_MODE) & 0170000) {
    case 0140000:
        return WAIT_SOCKET;
    case 0010000:
        return WAIT_PIPE;
    case 0020000:
        return WAIT_DEVICE;
    case 0060000:
        return WAIT_DISK;
    }
    return WAIT_FILE;
}

static inline u8 wait_on_futex(u64 address, struct interpreter in)
{
#ifdef PYTHON
    if (!in.target || !in.thread_state)
        return WAIT_FUTEX;
    u64 gil = python_gil(in.target, in.thread_state);
    if (gil && address - gil < GIL_END)
        return WAIT_GIL;
    /* Whoever waits for a lock of Python's has given the interpreter lock away. C code may keep it. */
    if (python_leaf_frame(in.target, in.thread_state) && !python_holds_gil(in.target, in.thread_state))
        return WAIT_LOCK;
#endif
    return WAIT_FUTEX;
}

/* What the current thread's system call waits for, if it waits. */
static inline u8 wait_of_call(struct interpreter in)
{
    u64 task = bpf_get_current_task();
    if (read_u32(task + TASK_FLAGS) & TASK_IS_KERNEL_THREAD)
        return WAIT_KERNEL;
    u64 registers = entry_registers();
    if (is_32_bit(registers))
        return WAIT_OTHER;
    u32 number = entry_call(registers);
    if (number >= WAIT_CALLS)
        return WAIT_PAGE_FAULT;
    u8 *known = wait_calls.lookup(&number);
    switch (known ? *known : WAIT_OTHER) {
    case WAIT_FUTEX:
        return wait_on_futex(entry_register(registers, REGISTER_ARGUMENT_0), in);
    case WAIT_BY_FD:
        return wait_by_fd(task, entry_register(registers, REGISTER_ARGUMENT_0));
    case WAIT_BY_FD_COUNT_FIRST: /* select() on nothing is how old Pythons sleep */
        return (u32)entry_register(registers, REGISTER_ARGUMENT_0) ? WAIT_POLL : WAIT_SLEEP;
    case WAIT_BY_FD_COUNT_SECOND:
        return (u32)entry_register(registers, REGISTER_ARGUMENT_1) ? WAIT_POLL : WAIT_SLEEP;
    }
    return known ? *known : WAIT_OTHER;
}

static inline bool waits_uninterruptibly(u32 state)
{
    return (state & TASK_STATE_UNINTERRUPTIBLE) && !(state & TASK_STATE_NOLOAD);
}

/* Why the current thread gives up its CPU, going into `state`. */
static inline u8 wait_reason(u32 state, struct interpreter in)
{
    if (state & TASK_STATE_STOPPED)
        return WAIT_STOPPED;
    u8 reason = wait_of_call(in);
    return reason == WAIT_FILE && waits_uninterruptibly(state) ? WAIT_DISK : reason;
}
