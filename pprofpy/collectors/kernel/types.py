"""What programs must know of the running kernel's types: where members lie, which of its functions they may call.

Reading all types takes a quarter of a second, so what is found is kept (`cache.py`) as long as they stay the same.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from pprofpy.collectors.kernel.btf import VMLINUX, Btf
from pprofpy.collectors.kernel.cache import remembered
from pprofpy.collectors.kernel.source import ITERATOR
from pprofpy.errors import NotPossibleError


@cache
def kernel_types() -> Btf:
    """The running kernel's type information, read once."""
    return Btf.of_running_kernel()


def kernel_constants(find_out: Callable[[Btf], dict[str, int]]) -> dict[str, int]:
    """What a function finds in the running kernel's types; it is asked again only when it or the kernel has changed."""
    key = (_types_digest(), find_out.__qualname__, Path(inspect.getfile(find_out)).read_text())
    return remembered("types", key, lambda: json.dumps(find_out(kernel_types())), _offsets)


def struct_offsets(members: Mapping[str, str], complaint: str) -> dict[str, int]:
    """Where members of the running kernel's structs lie: name of a constant -> offset.

    Args:
        members: Name of the constant -> `struct.member` (dots descend further).
        complaint: What it means if one of them does not exist.

    Raises:
        NotPossibleError: It does not.
    """

    def find_out() -> str:
        types = kernel_types()
        return json.dumps({name: types.offset(*path.split(".", 1)) for name, path in members.items()})

    try:
        key = (_types_digest(), *(f"{name}={path}" for name, path in members.items()))
        return remembered("types", key, find_out, _offsets)
    except KeyError as error:
        raise NotPossibleError(
            f"this kernel has no {error.args[0]}: {complaint}", "please report it with the output of 'uname -a'"
        ) from error


@cache
def loop_iterator() -> dict[str, int]:
    """The functions that make an iterator (`loops.h`) and their numbers; empty where the kernel has none."""
    found = kernel_constants(_find_iterator)
    return {name: found[name] for name in ITERATOR} if found else {}


def _find_iterator(types: Btf) -> dict[str, int]:
    found = types.functions(ITERATOR)
    return found if len(found) == len(ITERATOR) else {}


def _offsets(text: str) -> dict[str, int]:
    """Raises ValueError for anything but names and whole numbers."""
    found = json.loads(text)
    if not isinstance(found, dict) or not all(type(value) is int for value in found.values()):
        raise ValueError("these are no offsets")
    return found


@cache
def _types_digest() -> str:
    """Tells one kernel's types from another's; empty if there are none."""
    try:
        return hashlib.sha256(VMLINUX.read_bytes()).hexdigest()
    except OSError:
        return ""
