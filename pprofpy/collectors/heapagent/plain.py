"""Plain data from a target: a strict reader of what `marshal` writes there, and checks of what came.

`marshal.loads` trusts its input: five bytes make it ask for gigabytes, others crash the interpreter. This reader takes
numbers, texts, bytes, tuples and lists, and nothing else. Nothing is made room for before its bytes have been seen, and
what it returns takes a bounded multiple of its input's size.

Source: Python/marshal.c of CPython 3.8 to 3.15, format version 4 and, for columns of numbers, 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

import numpy as np

from pprofpy.errors import ImplausibleTargetError

MOST_BYTES = 32 << 20
MOST_OBJECTS = 1 << 20
MOST_DEPTH = 8
MOST_NUMBER = (1 << 63) - 1
MOST_COUNT = 1 << 53
"""Objects, bytes: more than any process has, and sums of them still fit in 64 bits."""
MOST_LINES = (1 << 31) - 1

_REFERENCED = 0x80
"""A flag of a tag: others refer to this object by its number."""
_NUMBER, _LONG_NUMBER, _REFERENCE, _BYTES = b"ilrs"
_SHORT_TEXTS, _TEXTS = frozenset(b"zZ"), frozenset(b"aAut")
_SHORT_TUPLE, _TUPLE, _LIST = b")(["
_CONSTANTS = {ord("N"): None, ord("T"): True, ord("F"): False}
_DIGIT_BITS = 15
_MOST_DIGITS = 5
_CELL = np.dtype([("tag", "u1"), ("value", "<i4")])
_COLUMN = 16
"""From so many elements on, it pays to see whether they are all short numbers."""
_UNFINISHED = object()


def decode(content: bytes) -> Any:
    """Read one object, which must take up all of `content`.

    Raises:
        ImplausibleTargetError: It is not plain data, or too much of it.
    """
    if len(content) > MOST_BYTES:
        raise implausible(f"{len(content)} bytes in one piece")
    reader = _Reader(content)
    try:
        found = reader.one(0)
    except (IndexError, UnicodeDecodeError):
        raise implausible("data that are cut short, or no text") from None
    if reader.at != len(content):
        raise implausible("more than was asked for")
    return found


def implausible(what: str) -> ImplausibleTargetError:
    """The error for an answer that the agent does not give."""
    return ImplausibleTargetError(
        f"the target's answer makes no sense ({what}): something in it changes what pprofpy's agent does or says",
        "do not trust what this process says of itself; record it from outside: pprofpy cpu",
    )


class _Reader:
    """Reads objects from `at` on."""

    def __init__(self, content: bytes) -> None:
        self.at = 0
        self._content = content
        self._objects = 0
        self._known: list[Any] = []

    def one(self, depth: int) -> Any:
        """The next object. IndexError: there is none."""
        tag = self._content[self.at]
        self.at += 1
        if tag == _REFERENCE:
            return self._referenced()
        self._spend(1)
        if not tag & _REFERENCED:
            return self._object(tag, depth)
        place = len(self._known)
        self._known.append(_UNFINISHED)
        self._known[place] = found = self._object(tag ^ _REFERENCED, depth)
        return found

    def _spend(self, objects: int) -> None:
        self._objects += objects
        if self._objects > MOST_OBJECTS:
            raise implausible("too many objects")

    def _referenced(self) -> Any:
        number = self._size()
        if number >= len(self._known) or self._known[number] is _UNFINISHED:
            raise implausible("a reference that leads nowhere")
        return self._known[number]

    def _object(self, tag: int, depth: int) -> Any:
        if tag == _NUMBER:
            return int.from_bytes(self._bytes(4), "little", signed=True)
        if tag in _SHORT_TEXTS:
            return self._bytes(self._bytes(1)[0]).decode("ascii")
        if tag in _TEXTS:
            return self._bytes(self._size()).decode("utf-8", "surrogatepass")
        if tag == _SHORT_TUPLE:
            return tuple(self._items(self._bytes(1)[0], depth))
        if tag == _TUPLE:
            return tuple(self._items(self._size(), depth))
        if tag == _LIST:
            return self._items(self._size(), depth)
        if tag == _BYTES:
            return self._bytes(self._size())
        if tag == _LONG_NUMBER:
            return self._long_number()
        if tag in _CONSTANTS:
            return _CONSTANTS[tag]
        raise implausible("neither number nor text, list or tuple")

    def _items(self, count: int, depth: int) -> list[Any]:
        if depth >= MOST_DEPTH:
            raise implausible("data within data, again and again")
        self._check_rest(count)  # each takes one byte at least
        if count >= _COLUMN and (numbers := self._column(count)) is not None:
            return numbers
        return [self.one(depth + 1) for _ in range(count)]

    def _column(self, count: int) -> list[Any] | None:
        """Elements that are all short numbers, or all references, each of five bytes: all at once."""
        part = self._content[self.at : self.at + count * _CELL.itemsize]
        tags = part[:: _CELL.itemsize]
        if len(part) < count * _CELL.itemsize or tags[:1] * count != tags or tags[0] not in (_NUMBER, _REFERENCE):
            return None
        self._spend(count)
        values = np.frombuffer(part, _CELL)["value"]
        self.at += len(part)
        if tags[0] == _NUMBER:
            return list(values.tolist())
        if values.min() < 0 or values.max() >= len(self._known):
            raise implausible("a reference that leads nowhere")
        found = [self._known[number] for number in values.tolist()]
        if any(one is _UNFINISHED for one in found):
            raise implausible("a reference that leads nowhere")
        return found

    def _long_number(self) -> int:
        count = int.from_bytes(self._bytes(4), "little", signed=True)
        if not 0 < abs(count) <= _MOST_DIGITS:
            raise implausible("a number that is too large")
        value = 0
        for place in range(abs(count)):
            digit = int.from_bytes(self._bytes(2), "little")
            value |= digit << place * _DIGIT_BITS
        if value > MOST_NUMBER:
            raise implausible("a number that is too large")
        return value if count > 0 else -value

    def _size(self) -> int:
        return int.from_bytes(self._bytes(4), "little")

    def _bytes(self, count: int) -> bytes:
        self._check_rest(count)
        start = self.at
        self.at += count
        return self._content[start : self.at]

    def _check_rest(self, count: int) -> None:
        if count > len(self._content) - self.at:
            raise implausible("data that are cut short")


# -- checks --------------------------------------------------------------------------------------------------------


def fields(value: Any, *kinds: type) -> tuple[Any, ...]:
    """A tuple with values of these very types.

    Raises (all of these functions):
        ImplausibleTargetError: It is something else.
    """
    if type(value) is not tuple or len(value) != len(kinds):
        _wrong("an unknown record")
    for one, kind in zip(value, kinds, strict=True):
        if type(one) is not kind:
            _wrong("an unknown record")
    return value


def rows(value: Any, *kinds: type, most: int) -> list[tuple[Any, ...]]:
    """A list of such tuples, of no more than `most`."""
    if type(value) is not list or len(value) > most:
        _wrong("an unknown list")
    for row in value:
        fields(row, *kinds)
    return value


def only(pieces: Iterator[Any]) -> Any:
    """The one piece that there is."""
    found = list(islice(pieces, 2))
    if len(found) != 1:
        _wrong("another number of pieces")
    return found[0]


def count(value: int, most: int = MOST_COUNT) -> int:
    """A number of objects or bytes."""
    if not 0 <= value <= most:
        _wrong("a number out of range")
    return value


def line(value: int) -> int:
    """The number of a line in a file; 0 where the interpreter knows none and says so by a negative number."""
    return count(max(value, 0), MOST_LINES)


def _wrong(what: str) -> NoReturn:
    raise implausible(what)
