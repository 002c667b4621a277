/* The kernel's own stack at an event. Before this file come KERNEL_STACK_ROOM (how many different stacks there is room for;
 * 0: none is asked for) and losses.h, with LOST_KERNEL_STACK among its reasons. */

#define NO_STACK -1

#if KERNEL_STACK_ROOM
BPF_STACK_TRACE(kernel_stacks, KERNEL_STACK_ROOM);
#endif

/* The stack's number in `kernel_stacks`; NO_STACK if it could not be kept. */
static inline s32 kernel_stack(void *ctx)
{
#if KERNEL_STACK_ROOM
    s32 number = kernel_stacks.get_stackid(ctx, 0);
    if (number >= 0)
        return number;
    count_lost(LOST_KERNEL_STACK);
#endif
    return NO_STACK;
}
