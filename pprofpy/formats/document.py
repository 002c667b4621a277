"""JSON from a file: parsed and checked value by value, so that nothing but DocumentError comes of a hostile one."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from pprofpy.formats.decoding import clean, decode_text
from pprofpy.model.profile import Collection

LARGEST, LOWEST = 2**63 - 1, -(2**63)
"""The bounds of what a column of values or a time can hold."""

_LONGEST_TEXT = 1 << 20


class DocumentError(ValueError):
    """It is not JSON, or a value is not of the type or in the range that is due."""


def parse(content: bytes) -> Any:
    """The document.

    Raises:
        DocumentError: It is not JSON, or nested too deeply.
    """
    try:
        return json.loads(decode_text(content), parse_constant=_refuse)
    except RecursionError as error:
        raise DocumentError("it is nested too deeply") from error
    except ValueError as error:  # also numbers of thousands of digits
        raise DocumentError(f"it is not valid JSON ({error})") from error


def integer(value: Any, low: int = 0, high: int = LARGEST) -> int:
    """A whole number in a range; truth values and fractions are none.

    Raises:
        DocumentError: It is no integer, or beyond the bounds.
    """
    if type(value) is not int or not low <= value <= high:
        raise DocumentError(f"{brief(value)} stands where a number from {low} to {high} is due")
    return value


def number_in(text: Any, low: int = 0, high: int = LARGEST) -> int:
    """A number that is written as text, as keys of objects are.

    Raises:
        DocumentError: It is no number, or beyond the bounds.
    """
    if not (isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 20):
        raise DocumentError(f"{brief(text)} stands where a number is due")
    return integer(int(text), low, high)


def string(value: Any) -> str:
    """Text that can be written again.

    Raises:
        DocumentError: It is no text, or too long.
    """
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise DocumentError(f"{brief(value)} stands where a text is due")
    return clean(value)


def members(value: Any) -> dict[str, Any]:
    """An object.

    Raises:
        DocumentError: It is no object.
    """
    if not isinstance(value, dict):
        raise DocumentError(f"{brief(value)} stands where an object is due")
    return value


def items(value: Any, count: int = -1) -> list[Any]:
    """A list; of `count` items unless that is negative.

    Raises:
        DocumentError: It is no list.
    """
    if not isinstance(value, list) or (count >= 0 and len(value) != count):
        raise DocumentError(f"{brief(value)} stands where a list{f' of {count}' if count >= 0 else ''} is due")
    return value


def collection(value: Any) -> Collection:
    """A saved Collection; what does not fit is left out."""
    saved = value if isinstance(value, dict) else {}
    known: dict[str, Any] = {}
    for name, default in asdict(Collection()).items():
        given = saved.get(name)
        if type(given) is int and type(default) is int and -1 <= given <= LARGEST:
            known[name] = given
        elif isinstance(given, str) and isinstance(default, str):
            known[name] = clean(given)
    for name in ("notes", "basis"):
        texts = saved.get(name)
        known[name] = tuple(clean(text) for text in texts if isinstance(text, str)) if isinstance(texts, list) else ()
    losses = saved.get("losses")
    known["losses"] = {
        clean(name): count
        for name, count in (losses.items() if isinstance(losses, dict) else ())
        if type(count) is int and 0 <= count <= LARGEST
    }
    return Collection(**known)


def brief(value: Any) -> str:
    """A value for an error message; of a container only its kind, since it may be nested without end."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if type(value) is int and value.bit_length() > 64:
        return "a number of more than 64 bits"
    return repr(value[:40] if isinstance(value, str) else value)[:42]


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no number")
