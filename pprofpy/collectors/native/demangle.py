"""Names of C++ functions as their authors wrote them, and clones of functions by the function's own name."""

from __future__ import annotations

import ctypes
import re
from contextlib import suppress
from functools import cache

_CLONE = re.compile(r"(?:\.(?:cold|part|constprop|isra|lto_priv|localalias|llvm)(?:\.\d+)*)+$")


def readable(symbol: str) -> str:
    """A function's name from a symbol: `_Z3addii.cold` is `add(int, int)`.

    What compilers split off a function, or specialise of it, counts as the function.
    """
    name = _CLONE.sub("", symbol)
    return _demangled(name) if name.startswith(("_Z", "__Z")) else name


def _demangled(name: str) -> str:
    library = _libstdcxx()
    if library is None:
        return name
    status = ctypes.c_int()
    text = library.__cxa_demangle(name.encode(), None, None, ctypes.byref(status))
    if not text:
        return name
    found = ctypes.string_at(text).decode("utf-8", "replace")
    _libc.free(ctypes.c_void_p(text))
    return found


_libc = ctypes.CDLL(None)


@cache
def _libstdcxx() -> ctypes.CDLL | None:
    """The C++ library, which knows how; None where there is none."""
    with suppress(OSError):
        library = ctypes.CDLL("libstdc++.so.6")
        library.__cxa_demangle.restype = ctypes.c_void_p
        return library
    return None
