"""What programs must know of the running kernel's types: where members lie, which of its functions they may call."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from pprofpy.collectors.kernel.btf import Btf
from pprofpy.collectors.kernel.source import ITERATOR
from pprofpy.errors import NotPossibleError


@cache
def kernel_types() -> Btf:
    """The running kernel's type information.

    Raises:
        NotPossibleError: It was built without them.
    """
    return Btf.of_running_kernel()


def forget_kernel_types() -> None:
    """Free their memory, some megabytes; if they are asked for again, they are read again."""
    kernel_types.cache_clear()


def struct_offsets(members: Mapping[str, str], complaint: str) -> dict[str, int]:
    """Where members of the running kernel's structs lie: name of a parameter -> offset.

    Args:
        members: Name of the parameter -> `struct.member` (dots descend further).
        complaint: What it means if one of them does not exist.

    Raises:
        NotPossibleError: It does not.
    """
    types = kernel_types()
    try:
        return {name: types.offset(*path.split(".", 1)) for name, path in members.items()}
    except KeyError as error:
        raise NotPossibleError(
            f"this kernel has no {error.args[0]}: {complaint}", "please report it with the output of 'uname -a'"
        ) from error


@cache
def loop_iterator() -> dict[str, int]:
    """The functions that make an iterator (`loops.h`) and their numbers; empty where the kernel has none."""
    found = kernel_types().functions(ITERATOR)
    return {name: found[name] for name in ITERATOR} if len(found) == len(ITERATOR) else {}
