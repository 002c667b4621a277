"""What tests/programs/chains.py does, held against stacks: is each of them a way that it goes?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.model.profile import Profile

UNKNOWN_NAME = UNKNOWN[0].function.name
NOT_NAMED = "[python"
"""How a stripped interpreter's own functions are shown."""


class Link(NamedTuple):
    """A Python function, and native functions: it was called through one of these at least, if any is named."""

    python: str
    through: tuple[str, ...] = ()
    is_in_interpreter: bool = True


_MAP = ("map_next", "list_extend", "list_extend_lock_held", "list___init___impl", "list_vectorcall")
_CYTHON = ("chains_cython.through", "chains_cython.Caller.visit", "chains_cython.Caller.call")
WAYS = {
    "by_sorted": [Link("key_of", ("builtin_sorted", "list_sort", "list_sort_impl"))],
    "by_reduce": [Link("combine", ("functools_reduce", "_functools_reduce", "_functools_reduce_impl"))],
    "by_pattern": [Link("replacement", ("pattern_subx", "_sre_SRE_Pattern_sub"))],
    "by_callback": [Link("called_back", ("through",), is_in_interpreter=False)],
    "by_classes": [Link("called_back", ("through_classes",), is_in_interpreter=False)],
    "by_slot": [Link("__len__", ("builtin_len", "slot_sq_length", "PyObject_Size"))],
    "by_recursion": [Link("descend"), *[Link("descend", _MAP)] * 6],
    "by_generator": [Link("produce", ("builtin_sum", "builtin_sum_impl"))],
    "by_cython": [Link("", _CYTHON, is_in_interpreter=False)],
    "by_ufunc": [Link("element", ("PyUFunc_On_Om", "[_multiarray_umath"), is_in_interpreter=False)],
}
"""From each function of `main` to `innermost`, which the last one calls itself; an empty name is `innermost`."""


def frames_of(profile: Profile, stack: int) -> list[tuple[str, bool]]:
    """(name, is it Python's?) of each place in a stack, root-first."""
    found = []
    for location in reversed(list(profile.stacks[stack])):
        place = profile.locations[location]
        function = profile.functions[place.lines[0].function]
        is_python = profile.mappings[place.mapping].filename == "[python]"
        name = function.system_name.rpartition(".")[2] or function.name
        found.append((name if is_python else function.name, is_python))
    return found


def mistake(frames: Sequence[tuple[str, bool]], *, is_named: bool) -> str:
    """What is wrong with a stack, root-first; empty if nothing is.

    Args:
        frames: (name, is it Python's?).
        is_named: The interpreter's file tells the names of its functions.
    """
    names = [name for name, _ in frames]
    begun = next((place for place, name in enumerate(names) if name in WAYS), None)
    if begun is None:
        return ""
    links = WAYS[names[begun]]
    expected = [link if link.python else link._replace(python="innermost") for link in links]
    if expected[-1].python != "innermost":
        expected.append(Link("innermost"))
    native: list[str] = []
    for name, is_python in frames[begun + 1 :]:
        if not is_python:
            native.append(name)
            continue
        if not expected:
            return f"{name} behind innermost"
        link = expected.pop(0)
        if name != link.python:
            return f"{name} instead of {link.python}"
        if not link.through and native:
            return f"{native} before {name}"
        if link.through and (is_named or not link.is_in_interpreter) and not _has(native, link.through):
            return f"{native} before {name}"
        native = []
    return ""


def _has(native: Iterable[str], wanted: Iterable[str]) -> bool:
    return any(name.startswith(one) for name in native for one in wanted)


def judged(profile: Profile, tids: Iterable[int], *, is_named: bool) -> tuple[Counter[str], Counter[str]]:
    """Samples of some threads: how many are `right`, `marked` or `wrong`, and what is wrong with them.

    Those without any native function, for which there was no room in the kernel's buffer, are none of these.
    """
    counts, mistakes, threads = Counter[str](), Counter[str](), set(tids)
    for place, stack in enumerate(profile.sample_stacks.tolist()):
        labels = profile.label_sets[profile.sample_labels[place]]
        if not any(label.key == "tid" and label.value in threads for label in labels):
            continue
        frames, count = frames_of(profile, stack), int(profile.values[place][0])
        if frames[-1] == (UNKNOWN_NAME, True):
            continue
        wrong = mistake(frames, is_named=is_named)
        kind = "marked" if (UNKNOWN_NAME, True) in frames else "wrong" if wrong else "right"
        counts[kind] += count
        if kind == "wrong":
            mistakes[f"{wrong}: {' > '.join(name for name, _ in frames)}"] += count
    return counts, mistakes
