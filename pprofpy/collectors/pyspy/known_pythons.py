"""Which Pythons the py-spy that is installed knows. It tries others all the same."""

from __future__ import annotations

import re

from pprofpy.collectors.pyspy import executable
from pprofpy.errors import PprofpyError

_FIRST_KNOWN = (3, 3)
_LAST_KNOWN = (((0, 4, 2), (3, 14)), ((0, 4, 0), (3, 13)), ((0, 3, 13), (3, 11)))
"""From this version of py-spy on, this is the last Python that it knows; newest first. None knows builds without a GIL.

Source: py-spy's release notes of 0.3.13 and 0.4.0; its pull request 833, which 0.4.1 lacks and 0.4.2 has. Tried with
0.4.3: 3.13 is read, free-threaded 3.13 is not ("Failed to find a python interpreter in the .data section").
"""


def known_span() -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The first and the last version (major, minor) that it knows; None if that is unknown.

    Raises:
        NotPossibleError: There is no py-spy, or it does not run here.
    """
    release = _numbers(executable.version())
    last = next((known for since, known in _LAST_KNOWN if release >= since), None)
    return None if last is None else (_FIRST_KNOWN, last)


def knowledge() -> str:
    """What it knows, in words: "py-spy 0.4.3 knows 3.3 to 3.14, no free-threaded builds".

    Raises:
        NotPossibleError: There is no py-spy, or it does not run here.
    """
    span = known_span()
    if span is None:
        return f"which Pythons {executable.version()} knows is not known"
    first, last = (".".join(map(str, one)) for one in span)
    return f"{executable.version()} knows {first} to {last}, no free-threaded builds"


def doubt(python: str) -> str:
    """Why it may not know a version of Python (`3.14.2`); empty if it does, or if there is no py-spy."""
    try:
        span = known_span()
        version = _numbers(python)
        is_known = not version or (span is not None and span[0] <= version[:2] <= span[1])
        return "" if is_known else knowledge()
    except PprofpyError:
        return ""  # a check of its own says so


def _numbers(version: str) -> tuple[int, ...]:
    """`py-spy 0.4.2` -> (0, 4, 2); empty if there are none."""
    found = re.search(r"\d+(?:\.\d+)+", version)
    return tuple(map(int, found[0].split("."))) if found else ()
