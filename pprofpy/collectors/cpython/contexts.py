"""`contextvars`: where a variable is, and where each thread has its context.

Source: Include/internal/pycore_context.h, Python/context.c, Python/hamt.c; builds with a GIL.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from pprofpy.collectors.cpython.dicts import Dicts, module_dict
from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime

VARIABLE_DEFAULT, _VARIABLE_HASH = 24, 56
"""In a ContextVar."""

THREAD_CONTEXT = {
    (3, 8): 240,
    (3, 9): 240,
    (3, 10): 240,
    (3, 11): 224,
    (3, 12): 208,
    (3, 13): 208,
    (3, 14): 208,
    (3, 15): 232,
}
"""(major, minor) -> in PyThreadState, its context; 0 is written there until it has one."""

_VARIABLE_TYPE, _CONTEXT_TYPE = "ContextVar", "Context"
_THREADS_TRIED = 64
_CONTEXT_VARIABLES, _TRIE_ROOT, _CHILDREN, _BITMAP, _PAIRS = 24, 16, 16, 24, 32
_TRIE_LEVELS, _COLLISIONS = 7, 4


class NoVariableError(Exception):
    """There is no such variable: why not, in words."""


@dataclass(frozen=True, slots=True)
class VariableAt:
    """A variable: its address, and its hash as contexts use it."""

    address: int
    hash: int


def find_variable(dicts: Dicts, modules: dict[str, int], module: str, name: str) -> VariableAt:
    """Find a variable that a module of a process defines.

    Args:
        dicts: Reads the process.
        modules: Its `sys.modules`.
        module, name: The variable is MODULE.NAME.

    Raises:
        NoVariableError: There is none.
        UnreadableError: It has changed while it was read.
    """
    if module not in modules:
        raise NoVariableError(f"module {module} is not imported")
    defined = module_dict(dicts, modules[module])
    if name in defined and dicts.type_name(defined[name]) == _VARIABLE_TYPE:
        return VariableAt(defined[name], _folded(dicts.memory.word(defined[name] + _VARIABLE_HASH)))
    others = [other for other, address in defined.items() if _is_variable(dicts, address)]
    has = f"it has {', '.join(sorted(others))}" if others else "it has none"
    what = f"{name} is no ContextVar" if name in defined else f"there is no {name}"
    raise NoVariableError(f"{what} in module {module}; {has}")


def _is_variable(dicts: Dicts, address: int) -> bool:
    with suppress(UnreadableError):
        return dicts.type_name(address) == _VARIABLE_TYPE
    return False


def _folded(value: int) -> int:
    """A hash in 32 bits, as `hamt_hash` makes it."""
    folded = (value ^ value >> 32) & 0xFFFFFFFF
    return folded if folded != 0xFFFFFFFF else 0xFFFFFFFE


def value_in_thread(reader: ObjectReader, dicts: Dicts, variable: VariableAt, context_at: int) -> int:
    """The address of a variable's value in a thread's context, or of its default; 0: it has none.

    Args:
        reader, dicts: Read the interpreter.
        variable: Which.
        context_at: Where the thread's state has its context.
    """
    memory = reader.memory
    context = memory.word(context_at)
    node = memory.word(memory.word(context + _CONTEXT_VARIABLES) + _TRIE_ROOT) if context else 0
    found = _in_trie(memory, dicts, node, variable) if node else 0
    return found or memory.word(variable.address + VARIABLE_DEFAULT)


def _in_trie(memory: Memory, dicts: Dicts, node: int, variable: VariableAt) -> int:
    """As `python_in_trie` in python_labels.h does it."""
    for level in range(_TRIE_LEVELS):
        kind, bit = dicts.type_name(node), variable.hash >> 5 * level & 31
        if kind == "hamt_array_node":
            node = memory.word(node + _CHILDREN + 8 * bit)
            if not node:
                return 0
            continue
        if kind != "hamt_bitmap_node":
            break
        bitmap = memory.half_word(node + _BITMAP)
        if not bitmap >> bit & 1:
            return 0
        pair = node + _PAIRS + 16 * (bitmap & (1 << bit) - 1).bit_count()
        key, node = memory.word(pair), memory.word(pair + 8)
        if key:
            return node if key == variable.address else 0
    pairs = (node + _PAIRS + 16 * place for place in range(_COLLISIONS))
    return next((memory.word(pair + 8) for pair in pairs if memory.word(pair) == variable.address), 0)


def has_contexts(runtime: Runtime, reader: ObjectReader, dicts: Dicts) -> bool:
    """Is what threads have for a context one, or nothing? Else this interpreter is not what we know."""
    offset = THREAD_CONTEXT.get(runtime.version)
    if offset is None or runtime.is_free_threaded:
        return False
    for thread in islice(reader.thread_states(runtime.address), _THREADS_TRIED):
        context = dicts.memory.word(thread + offset)
        if context and dicts.type_name(context) != _CONTEXT_TYPE:
            return False
    return True
