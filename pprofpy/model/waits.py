"""The format of off-CPU profiles: sample types `contentions/count, delay/nanoseconds`, and a label for each fact.

The labels: `state` (one of STATES), `reason` (`lock`, `socket`, ...), `waker` (who ended it), `thread`, `tid`, `pid`.

Where wakers are recorded, a stack is a chain: below, the stack that was blocked; above it WOKEN_BY, and the stack of
the thread that ended the wait. So in every view "called by" reads "while this waited", and what ended waits is flat.
"""

from __future__ import annotations

from pprofpy.model.profile import Frame, Function, Stack, ValueType

OFF_CPU_TYPES = (ValueType("contentions", "count"), ValueType("delay", "nanoseconds"))

STATES = ("sleeping", "disk", "runqueue")
"""Interruptible sleep; uninterruptible sleep, mostly for a disk; runnable, waiting for a CPU."""

STILL_WAITING = "(still waiting)"
"""As `waker`: the recording ended first."""

OFF_CPU = "off-cpu"
"""As `state` in profiles of wall-clock time: measured intervals off the CPU, not samples of a running thread."""

WOKEN_BY = Frame(Function("--- woken by ---"))
"""Separates a blocked stack from the waker's stack above it."""


def chain(blocked: Stack, waker: Stack) -> Stack:
    """Join two stacks (all leaf-first): the waker's on top of the blocked one."""
    return (*waker, WOKEN_BY, *blocked)


def unchain(stack: Stack) -> tuple[Stack, Stack]:
    """Inverse of `chain`: return the blocked stack and the waker's, `()` if unknown."""
    if WOKEN_BY not in stack:
        return stack, ()
    place = stack.index(WOKEN_BY)
    return stack[place + 1 :], stack[:place]
