/* The kernel's own stack at an event. Before this file comes losses.h, with LOST_KERNEL_STACK among its reasons. */
#pragma parameter KERNEL_STACKS /* are they wanted? */

#define NO_STACK -1

BPF_STACK_TRACE(kernel_stacks, 16384);

/* The stack's number in `kernel_stacks`; NO_STACK if it could not be kept. */
static inline s32 kernel_stack(void *ctx)
{
    s32 number = kernel_stacks.get_stackid(ctx, 0);
    if (number >= 0)
        return number;
    count_lost(LOST_KERNEL_STACK);
    return NO_STACK;
}
