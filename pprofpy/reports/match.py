"""Finding what a user's regular expression names, and helping when it names nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches

from pprofpy.errors import PprofpyError
from pprofpy.model.filters import compile_regex
from pprofpy.text import printable

_WORD = re.compile(r"\w+")
_NAMES_COMPARED = 5000
"""Similar names are sought among this many of the costliest: the comparison is slow."""


def matching(pattern: str, names: Iterable[str]) -> set[str]:
    """Those of `names` (costliest first) in which the regular expression is found.

    Raises:
        UsageError: It is not a regular expression.
        PprofpyError: It is found in none; the hint has the names most like it.
    """
    regex = compile_regex(pattern)
    known = list(dict.fromkeys(names))
    if found := {name for name in known if regex.search(name)}:
        return found
    raise PprofpyError(f"nothing in this profile matches {pattern!r}", _hint(pattern, known))


def _hint(pattern: str, names: list[str]) -> str:
    """The names most like a pattern, as a whole or by their last part; the costliest ones if none is."""
    if not names:
        return "the profile has no samples left; try without filters"
    candidates = {part.lower(): name for name in reversed(names[:_NAMES_COMPARED]) for part in (name, _last_word(name))}
    alike = get_close_matches(pattern.lower(), candidates, n=4) or get_close_matches(
        _last_word(pattern).lower(), candidates, n=4
    )
    nearest = list(dict.fromkeys(candidates[part] for part in alike))[:3]
    label = "nearest names" if nearest else "the costliest are"
    return f"{label}: " + ", ".join(printable(name) for name in nearest or names[:3])


def _last_word(name: str) -> str:
    words: list[str] = _WORD.findall(name)
    return words[-1] if words else name
