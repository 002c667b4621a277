"""Proof that an interpreter in a process's memory is the one that runs, by reading alone.

A file can be mapped twice (symbolizers map it to read it), a libpython can be loaded beside an interpreter that is
linked into the program: such a copy has a `_PyRuntime` that nobody has initialized, and whoever calls its functions
ends the process. The one that runs has the states of this process's threads.
"""

from __future__ import annotations

from pprofpy.arch import here
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.versions import Layout

_TYPE_NAME = 16
"""From an object's type to a type's `tp_name`: over `ob_type` and `ob_size`. Source: Include/cpython/object.h."""

_CODE = b"code\0"


class NotLivingError(Exception):
    """Why an interpreter is not one that runs."""


class IdleImageError(NotLivingError):
    """Nobody has initialized it, at least not yet."""


def prove_living(reader: ObjectReader, runtime: int, code_type: int) -> None:
    """Prove that the interpreter that `reader` reads is in use by threads of its process.

    Its type of code objects must be a type of that name (objects have the size that we know, the image is relocated);
    a thread's state must lead back to the interpreter that lists it, and name a thread of the C library.

    Args:
        reader: Reads the interpreter.
        runtime: The address of its `_PyRuntime`.
        code_type: The address of its `PyCode_Type`.

    Raises:
        NotLivingError: It is not in use (an IdleImageError), or its structures are not where they should be.
        UnreadableError: It is not there, or changed while it was read.
        TargetError: The process has ended.
    """
    layout = reader.layout
    if not _is_type_of_code(reader, layout, code_type):
        raise NotLivingError("its objects have an unknown form")
    interpreters = list(reader.interpreters(runtime))
    if not interpreters:
        raise IdleImageError("no interpreter has been made in it")
    problem = "no thread of it was found"
    for interp in interpreters:
        for thread in reader.threads(interp):
            if reader.memory.word(thread + layout.thread_interp) != interp:
                problem = "a thread's state does not lead back to its interpreter"
            elif _is_thread(reader, reader.memory.word(thread + layout.thread_id)):
                return
            else:
                problem = "the states of its threads name no thread of the process"
    raise NotLivingError(problem)


def _is_type_of_code(reader: ObjectReader, layout: Layout, code_type: int) -> bool:
    name = reader.memory.word(code_type + layout.object_type + _TYPE_NAME)
    return reader.memory.read(name, len(_CODE)) == _CODE


def _is_thread(reader: ObjectReader, ident: int) -> bool:
    """Is this what `pthread_self` returned to a thread? Else it may be the state of one that has ended."""
    return here().thread_pointer_of(ident, reader.memory.read_if_there) is not None
