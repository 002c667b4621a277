"""Frames that are no functions: they stand in Python stacks for what the interpreter does, or for what is missing."""

from __future__ import annotations

from pprofpy.model.profile import Frame, Function

TRUNCATED = Frame(Function("[truncated]"))
"""Stands at the root of a stack that is deeper than what the kernel walks."""

UNREADABLE = Frame(Function("[unreadable]"))
"""Stands at the root of a stack whose rest could not be read."""

COLLECTS = {
    **{number + 1: Frame(Function(f"<GC generation {number}>")) for number in range(3)},
    4: Frame(Function("<GC>")),
}
"""Stands on top of the stack of a thread that collects garbage."""

AWAITS = Frame(Function("[awaited by]"))
"""Stands between the stack of a task and that of the task that awaits it, which is below."""
