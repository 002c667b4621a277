"""How the kernel finds a thread's PyThreadState: by what pthread_self() says, and at once where glibc holds it.

The kernel knows a thread's thread pointer. What pthread_self() says is that, or lies before it (`pprofpy.arch`).

CPython notes each thread's state under a key of its own (pthread_setspecific; `autoTSSkey`, 3.8 to 3.14). glibc keeps
the values of the first 32 keys in the thread's own structure, to which pthread_self() points. From 3.15 on it notes it
in a thread-local variable, which lies as far from there in all threads. Which key or place it is, is not read but
proved: it is the one whose value is the state of each thread that is compared.

Source: nptl/descr.h (`specific_1stblock`), Python/pystate.c (`gilstate_tss_set`; 3.15: `_Py_tss_gilstate`).
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

from pprofpy.arch import here
from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.errors import NotPossibleError
from pprofpy.system.blocking import BlockedError, bounded

_KEYS = 32
_ENTRY = struct.Struct("<QQ")
"""A key's sequence number, and its value."""

_ATTEMPTS, _RECORDS_COMPARED = 100, 4
_VARIABLES_BYTES = 256
"""So far before pthread_self() thread-local variables of the interpreter are looked for."""

_COMPARED = 32
"""So many threads are looked at. Some of them may have a state of which glibc knows nothing, made by C code."""


def thread_record(runtime: Runtime) -> int:
    """How far before what a thread's thread pointer points to pthread_self() lies: the same for all threads.

    Raises:
        NotPossibleError: That is not known for the C library of this process.
        ImplausibleTargetError: The process does not let itself be read.
    """
    try:
        found = bounded(f"process {runtime.pid}", lambda: _find_records(runtime))
    except BlockedError as error:
        raise error.as_error() from error
    if len(found) == 1:
        return found.pop()
    raise NotPossibleError(
        f"the threads of process {runtime.pid} cannot be told apart: on {here().title}, "
        "pprofpy knows how glibc does that, and this is another C library",
        "run the program with a Python that uses glibc",
    )


def _find_records(runtime: Runtime) -> set[int]:
    reader, found = runtime.reader(), set[int]()
    for _ in range(_ATTEMPTS):
        with suppress(UnreadableError):  # threads come and go meanwhile
            for state in islice(reader.thread_states(runtime.address), _RECORDS_COMPARED):
                ident = reader.memory.word(state + runtime.layout.thread_id)
                pointer = here().thread_pointer_of(ident, reader.memory.read_if_there)
                found |= {pointer - ident} if pointer is not None else set()
        if found:
            break
    return found


def thread_slot(runtime: Runtime) -> int:
    """How far from pthread_self() the address of a thread's state lies; 0 if that is unknown (not glibc, or too new).

    The kernel's walk asks of each state that it finds there whose it is: a wrong slot gives no stack, never that of
    another thread.

    Raises:
        ImplausibleTargetError: The process does not let itself be read.
    """
    try:
        return bounded(f"process {runtime.pid}", lambda: _find_slot(runtime))
    except BlockedError as error:
        raise error.as_error() from error


def _find_slot(runtime: Runtime) -> int:
    reader, keys, places, compared = runtime.reader(), Counter[int](), Counter[int](), 0
    try:
        for state in islice(reader.thread_states(runtime.address), _COMPARED):
            ident = reader.memory.word(state + runtime.layout.thread_id)
            values = _ENTRY.iter_unpack(reader.memory.read(ident + here().glibc_keys_at, _KEYS * _ENTRY.size))
            keys.update(key for key, (_, value) in enumerate(values) if value == state)
            places.update(_places_of(state, ident, reader.memory))
            compared += 1
    except UnreadableError:  # threads come and go meanwhile: those that were compared do
        pass
    # The lowest of equals: Python makes its key as it starts, extensions that note the same make theirs later.
    key, count = min(keys.items(), key=lambda item: (-item[1], item[0]), default=(0, 0))
    if count and 2 * count > compared:
        return here().glibc_keys_at + key * _ENTRY.size + 8
    # Several places: which one still has it when the thread waits is not known. (Before them lies the stack.)
    found = [place for place, count in places.items() if 2 * count > compared]
    return found[0] if len(found) == 1 else 0


def _places_of(state: int, ident: int, memory: Memory) -> Iterator[int]:
    """Where thread-local variables have a state: how far from pthread_self()."""
    words = struct.unpack(f"<{_VARIABLES_BYTES // 8}Q", memory.read(ident - _VARIABLES_BYTES, _VARIABLES_BYTES))
    return (8 * number - _VARIABLES_BYTES for number, word in enumerate(words) if word == state)
