"""Proof that a layout which an interpreter tells of itself is right, by a walk from outside.

One stack must be whole: from its leaf to the frame that every thread's stack begins with, each frame of a code object
whose names are text, whose line table covers its instructions exactly, and whose current instruction is one of these.
What is not in the interpreter's own table is proved the same way: the form of line tables, the bits of a thread's
status, who owns a frame, the form of the lock.

Within a minor version the order of the table is known, and its values are what may be new. In a version that is new,
the order may be, too: two members that have changed places are told by the stack of a module, whose name and line are
known.
"""

from __future__ import annotations

from pprofpy.collectors.cpython.linetable import units_covered
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.versions import STATUS_BOUND, Layout

_STATUS, _STATUS_WHILE_USED = 0b1111, 0b0011 | STATUS_BOUND
"""The first bits of a thread's status: initialized, bound, unbound, bound as the state that C finds.

Source: `_status` of PyThreadState, Include/cpython/pystate.h."""

_MODULE = "<module>"


def prove_walk(reader: ObjectReader, runtime: int, known: Layout, *, is_new: bool) -> bool:
    """Prove a layout by the stack of one thread.

    Args:
        reader: Reads by the layout that is to be proved.
        runtime: The address of the interpreter's `_PyRuntime`.
        known: The nearest layout that is known for certain.
        is_new: Its version is not known: only the stack of a module proves it.

    Returns:
        Is there a proof? There is none where no thread runs Python.

    Raises:
        UnreadableError: No stack proves it: why the last one does not.
    """
    _same_lock(reader.layout, known)
    problem: UnreadableError | None = None
    for thread in reader.thread_states(runtime):
        if not reader.leaf_frame(thread):
            continue
        try:
            _prove_stack(reader, thread, needs_module=is_new)
            return True
        except UnreadableError as error:
            problem = error
    if problem:
        raise problem
    return False


def _same_lock(layout: Layout, known: Layout) -> None:
    """Of the lock, the table tells two members; where they lie elsewhere, so may what it does not tell."""
    if (layout.gil_holder, layout.gil_locked) != (known.gil_holder, known.gil_locked):
        raise UnreadableError("its lock has an unknown form")


def _prove_stack(reader: ObjectReader, thread: int, *, needs_module: bool) -> None:
    status = reader.memory.half_word(thread + reader.layout.thread_status)
    if status & _STATUS != _STATUS_WHILE_USED:
        raise UnreadableError("a thread that runs Python is not said to be in use")
    places = list(reader.all_places(thread))
    is_python, root, _ = places[-1]
    if is_python or reader.is_code(root):
        raise UnreadableError("a stack does not begin with a call from C")
    names = [_prove_place(reader, code, place) for is_python, code, place in places if is_python]
    if needs_module and _MODULE not in names:
        raise UnreadableError("a stack has no module in it")


def _prove_place(reader: ObjectReader, address: int, place: int) -> str:
    """Prove one frame's code object; return its name."""
    code, layout = reader.code(address), reader.layout
    if not (code.name.isprintable() and code.name and code.filename.isprintable() and code.filename):
        raise UnreadableError("a function's name is no text")
    units = reader.memory.word(address + layout.object_length)
    if units_covered(code.table) != units:
        raise UnreadableError("a line table is not as long as its code")
    instruction = place - address - layout.code_instructions
    if not 0 <= instruction < 2 * units or instruction % 2:
        raise UnreadableError("an instruction lies beyond its code")
    if code.name == _MODULE and code.first_line != 1:
        raise UnreadableError("a module does not begin in its first line")
    return code.name
