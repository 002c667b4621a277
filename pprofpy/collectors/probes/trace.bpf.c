/* Kernel events as they happen: any tracepoint with its record as the kernel itself describes it, and system calls with
 * arguments, paths and results.
 *
 * A system call is one event, sent when it returns: enter and exit are put together here, so that slow ones can be
 * picked out, and calls be counted, without sending each of them to user space.
 *
 * Compiled with STACKS, each line has the Python stack of the thread; RECORD_BYTES is what there is room for of the kernel's
 * own record of a tracepoint. LINES: send each event; of calls only those that take SLOWER_THAN_NS. SUMMARY: sum them up.
 */
#pragma parameter LINES SUMMARY SLOWER_THAN_NS
#pragma parameter FILE_DENTRY DENTRY_NAME INODE_INO
#include <linux/types.h>
#include "sched.h"
#include "fd.h"
#include "registers.h"
#include "compat.h"
#ifdef STACKS
#include "python.h"
#endif

#define STRING_BYTES 256
#define FD_NAME_BYTES 48
#define SYSCALLS 512

enum { LOST_RECORD, LOST_CALL, LOST_PENDING, LOST_SUMMARY, LOST_BUCKET, LOST_THREAD, LOST_REASONS };
#include "ending.h"
#include "losses.h"

/* How a call deviates from enter-and-exit. */
#define CALL_NEVER_RETURNS 1
#define CALL_BEGAN_UNSEEN 2
#define CALL_IS_32_BIT 4
#define CALL_HAS_FD_NAME 8
/* An event that somebody else does to a thread of the target. */
#define RECORD_BY_OTHERS 16
/* From this bit on: where it comes from, CONTEXT_*; only of events that name a thread. */
#define RECORD_CONTEXT_SHIFT 8

/* What user space wants to know of a system call: `wanted[number]`. */
#define WANT_CALL 0x80
#define WANT_FD 0x40 /* its first argument is a file descriptor */
#define WANT_STRINGS 0x3f /* one bit for each argument that is a string, two at most */

struct head {
    u64 ts_ns; /* tracepoint: when it happened; call: when it began */
    u32 tgid;
    u32 tid;
    u16 cpu;
    u16 event; /* tracepoint: user space's number for it; call: the system call's number */
    u32 flags;
    char comm[16];
    u64 stack; /* the Python stack of whoever did it, as pystacks/stacks.py numbers them; 0: none */
};

struct call {
    struct head head;
    u64 duration_ns;
    s64 result;
    u64 args[6];
    u64 inode;
    char fd_name[FD_NAME_BYTES];
};

struct call_with_strings {
    struct call call;
    char strings[2][STRING_BYTES];
};

#include "trace_scope.h"
#include "trace_summary.h"

/* -- tracepoints ---------------------------------------------------------------------------------------------------- */

struct record {
    struct head head;
    u8 data[RECORD_BYTES];
};

BPF_RINGBUF_OUTPUT(records, 8192);

/* The cookie of an attachment: which tracepoint this is. */
struct cookie {
    u16 event;
    u16 size;        /* bytes to copy; RECORD_BYTES if there may be more behind the fixed fields */
    u16 task_offset; /* where the record names a thread that this event is done to; 0 if it does not */
    u16 reserved;
};

static inline bool is_about_target(void *ctx, u16 task_offset)
{
    u32 tid = 0;
    /* Records have the kernel's own numbers. */
    if (PID_LEVEL || !(TGID || TARGETS) || !task_offset || is_over(bpf_ktime_get_ns()) || bpf_probe_read_kernel(&tid, sizeof(tid), ctx + task_offset))
        return false;
    return TID ? tid == TID : target_threads.lookup(&tid) != NULL;
}

int on_tracepoint(void *ctx)
{
    u64 pid_tgid = current_pid_tgid();
    union {
        u64 number;
        struct cookie cookie;
    } at = {.number = bpf_get_attach_cookie(ctx)};
    u32 flags = is_watched(pid_tgid) ? 0 : RECORD_BY_OTHERS;
    if (flags && !is_about_target(ctx, at.cookie.task_offset))
        return 1;
    if (at.cookie.task_offset)
        flags |= wakeup_context() << RECORD_CONTEXT_SHIFT;
    if (SUMMARY)
        summarize(pid_tgid, at.cookie.event, 0, 0, false);
    if (!LINES)
        return 1;
    u64 stack = event_stack();
    struct record *record = records.ringbuf_reserve(sizeof(struct record));
    if (!record) {
        count_lost(LOST_RECORD);
        return 1;
    }
    fill_head(&record->head, pid_tgid, bpf_ktime_get_ns(), at.cookie.event, flags, stack);
    u32 size = at.cookie.size;
    if (size > RECORD_BYTES)
        size = RECORD_BYTES;
    bpf_probe_read_kernel(record->data, size, ctx);
    records.ringbuf_submit(record, BPF_RB_NO_WAKEUP);
    return 1;
}

/* -- system calls --------------------------------------------------------------------------------------------------- */

/* A call that has begun and not yet returned. */
struct pending {
    u64 start_ns;
    u64 args[6];
    u64 inode;
    u32 number;
    u32 flags;
    char fd_name[FD_NAME_BYTES];
};

struct strings {
    char text[2][STRING_BYTES];
};

BPF_TABLE("hash", u32, struct pending, pending_calls, 65536);
BPF_TABLE("hash", u32, struct strings, pending_strings, 4096);
BPF_PERCPU_ARRAY(scratch, struct strings, 1);
BPF_RINGBUF_OUTPUT(calls, 8192);
BPF_RINGBUF_OUTPUT(calls_with_strings, 8192);

static inline u8 wanted_of(u32 number)
{
    u8 *found = wanted.lookup(&number);
    return found ? *found : 0;
}

/* What a file descriptor stands for, as of now: user space would look too late. */
static inline void name_of_fd(struct pending *call)
{
    u64 file = file_of_fd(bpf_get_current_task(), call->args[0]);
    if (!file)
        return;
    call->inode = read_u64(read_u64(file + FILE_INODE) + INODE_INO);
    u64 name = read_u64(read_u64(file + FILE_DENTRY) + DENTRY_NAME);
    bpf_probe_read_kernel_str(call->fd_name, FD_NAME_BYTES, (void *)name);
    call->flags |= CALL_HAS_FD_NAME;
}

/* The strings among the arguments, NUL-terminated; "\xff" where one could not be read (not yet in memory, or no such
 * address). */
static inline void read_strings(struct strings *strings, u64 args[6], u8 mask)
{
    u32 found = 0;
    strings->text[0][0] = strings->text[1][0] = 0;
#pragma unroll
    for (int i = 0; i < 6; i++) {
        if (!(mask >> i & 1))
            continue;
        char *text = strings->text[found & 1];
        if (bpf_probe_read_user_str(text, STRING_BYTES, (void *)args[i]) < 0) {
            text[0] = 0xff;
            text[1] = 0;
        }
        found++;
    }
}

static inline void fill_call(
    struct call *event, u64 pid_tgid, struct pending *call, u64 duration_ns, s64 result, u64 stack)
{
    fill_head(&event->head, pid_tgid, call->start_ns, call->number, call->flags, stack);
    event->duration_ns = duration_ns;
    event->result = result;
    __builtin_memcpy(event->args, call->args, sizeof(event->args));
    event->inode = call->inode;
    __builtin_memcpy(event->fd_name, call->fd_name, FD_NAME_BYTES);
}

static inline void send_call(u64 pid_tgid, struct pending *call, u64 duration_ns, s64 result, u64 stack)
{
    struct call *event = calls.ringbuf_reserve(sizeof(struct call));
    if (!event) {
        count_lost(LOST_CALL);
        return;
    }
    fill_call(event, pid_tgid, call, duration_ns, result, stack);
    calls.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static inline void send_call_with_strings(
    u64 pid_tgid, struct pending *call, u64 duration_ns, s64 result, u64 stack, struct strings *strings, u8 mask)
{
    struct call_with_strings *event = calls_with_strings.ringbuf_reserve(sizeof(struct call_with_strings));
    if (!event) {
        count_lost(LOST_CALL);
        return;
    }
    fill_call(&event->call, pid_tgid, call, duration_ns, result, stack);
    if (strings)
        __builtin_memcpy(event->strings, strings->text, sizeof(event->strings));
    else
        read_strings((struct strings *)event->strings, call->args, mask);
    calls_with_strings.ringbuf_submit(event, BPF_RB_NO_WAKEUP);
}

static inline void finish(u64 pid_tgid, struct pending *call, u64 duration_ns, s64 result, u64 stack, u8 want)
{
    if (SUMMARY)
        summarize(pid_tgid, call->number, 1, duration_ns, result < 0 && result >= -4095);
    if (!LINES)
        return;
    u32 tid = pid_tgid;
    struct strings *strings = NULL;
    if (want & WANT_STRINGS && !(call->flags & CALL_BEGAN_UNSEEN)) {
        strings = pending_strings.lookup(&tid);
        send_call_with_strings(pid_tgid, call, duration_ns, result, stack, strings, want & WANT_STRINGS);
        if (strings)
            pending_strings.delete(&tid);
    } else {
        send_call(pid_tgid, call, duration_ns, result, stack);
    }
}

int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
    u64 pid_tgid = current_pid_tgid();
    if (!is_watched(pid_tgid))
        return 1;
    u32 number = ctx->args[1], tid = pid_tgid;
    u8 want = wanted_of(number);
    bool is_compat = is_32_bit(ctx->args[0]);
    if (is_compat)
        want = wanted_of(SYSCALLS - 1);
    if (!(want & WANT_CALL))
        return 1;
    u64 arguments[ARGUMENT_REGISTERS]; /* and what lies between them */
    u64 *first = (u64 *)ctx->args[0] + FIRST_ARGUMENT_REGISTER;
    if (bpf_probe_read_kernel(arguments, sizeof(arguments), first))
        return 1;
    struct pending call = {.number = number};
    call.args[0] = arguments[REGISTER_ARGUMENT_0 - FIRST_ARGUMENT_REGISTER];
    call.args[1] = arguments[REGISTER_ARGUMENT_1 - FIRST_ARGUMENT_REGISTER];
    call.args[2] = arguments[REGISTER_ARGUMENT_2 - FIRST_ARGUMENT_REGISTER];
    call.args[3] = arguments[REGISTER_ARGUMENT_3 - FIRST_ARGUMENT_REGISTER];
    call.args[4] = arguments[REGISTER_ARGUMENT_4 - FIRST_ARGUMENT_REGISTER];
    call.args[5] = arguments[REGISTER_ARGUMENT_5 - FIRST_ARGUMENT_REGISTER];
    if (is_compat)
        call.flags = CALL_IS_32_BIT;
    if (LINES && want & WANT_FD)
        name_of_fd(&call);
    int zero = 0;
    struct strings *strings = LINES && want & WANT_STRINGS ? scratch.lookup(&zero) : NULL;
    if (strings) {
        read_strings(strings, call.args, want & WANT_STRINGS);
        /* Not in memory yet: by its end the call itself will have brought it there. */
        bool is_unread = (u8)strings->text[0][0] == 0xff || (u8)strings->text[1][0] == 0xff;
        if (!is_unread && pending_strings.update(&tid, strings))
            is_unread = true;
        if (is_unread)
            pending_strings.delete(&tid);
    }
    call.start_ns = bpf_ktime_get_ns();
    if (!is_compat && (number == SYSCALL_EXIT || number == SYSCALL_EXIT_GROUP)) {
        call.flags |= CALL_NEVER_RETURNS;
        finish(pid_tgid, &call, 0, 0, 0, want);
        return 1;
    }
    if (pending_calls.update(&tid, &call))
        count_lost(LOST_PENDING);
    return 1;
}

/* A call that returns. */
struct returning {
    struct pending *begun; /* NULL: it began unseen */
    u32 number;
    bool is_wanted;
};

static inline struct returning returning_call(struct bpf_raw_tracepoint_args *ctx, u32 tid, u64 now)
{
    s32 number = entry_call(ctx->args[0]);
    struct pending *begun = pending_calls.lookup(&tid);
    /* rt_sigreturn forgets its own number (-1). A thread that takes another's tid by execve meets that one's call. */
    if (begun && number >= 0 && (u32)number != begun->number)
        begun = NULL;
    struct returning call = {.begun = begun, .number = number, .is_wanted = begun != NULL};
    if (begun && now - begun->start_ns < SLOWER_THAN_NS)
        call.is_wanted = false;
    if (!begun && LINES && !SLOWER_THAN_NS)
        call.is_wanted = !(number < 0 || is_32_bit(ctx->args[0]) || !(wanted_of(number) & WANT_CALL));
    return call;
}

#ifdef STACKS
/* The Python stacks of threads whose call is about to be sent. */
BPF_TABLE("lru_hash", u32, u64, call_stacks, 4096);

/* Runs right before on_sys_exit: for the kernel's verifier both together would be too long. */
int on_sys_exit_walk(struct bpf_raw_tracepoint_args *ctx)
{
    u64 now = bpf_ktime_get_ns(), pid_tgid = current_pid_tgid();
    u32 tid = pid_tgid;
    if (!is_watched(pid_tgid) || !returning_call(ctx, tid, now).is_wanted)
        return 1;
    u64 stack = event_stack();
    call_stacks.update(&tid, &stack);
    return 1;
}

static inline u64 call_stack(u32 tid)
{
    u64 *known = call_stacks.lookup(&tid), stack = known ? *known : 0;
    if (known)
        call_stacks.delete(&tid);
    return stack;
}
#else
static inline u64 call_stack(u32 tid) { return 0; }
#endif

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 now = bpf_ktime_get_ns(), pid_tgid = current_pid_tgid();
    if (!is_watched(pid_tgid))
        return 1;
    u32 tid = pid_tgid;
    struct returning call = returning_call(ctx, tid, now);
    if (call.is_wanted && call.begun) {
        u8 want = wanted_of(call.begun->flags & CALL_IS_32_BIT ? SYSCALLS - 1 : call.begun->number);
        finish(pid_tgid, call.begun, now - call.begun->start_ns, ctx->args[1], call_stack(tid), want);
    }
    if (LINES && call.is_wanted && !call.begun) {
        struct pending unseen = {.start_ns = now, .number = call.number, .flags = CALL_BEGAN_UNSEEN};
        send_call(pid_tgid, &unseen, 0, ctx->args[1], call_stack(tid));
    }
    pending_calls.delete(&tid);
    return 1;
}
