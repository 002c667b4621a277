"""A tracepoint: its name, its number and its fields, as the kernel describes them in events/GROUP/NAME/format.

Source: Linux, Documentation/trace/events.rst; include/trace/stages/stage4_event_fields.h.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from pprofpy.errors import ProfileFormatError
from pprofpy.text import printable

Ints = NDArray[np.int64]

COMMON_BYTES = 8
"""Each record begins with fields that all tracepoints share; they say nothing about the event."""

# A description may come from a file: what repeats is bounded, and cannot be matched in more than one way.
_FIELD = re.compile(
    r"\tfield:(?P<declared>[^;\t\n]{1,300});\toffset:([0-9]{1,6});\tsize:([0-9]{1,6});(?:\tsigned:([0-9]);)?"
)
_DECLARED = re.compile(r"(?P<type>.*?)\s*\b(?P<name>\w+)(?P<array>\[[^\]]*\])?$")
_LONGEST_TEXT = 1 << 17
_MOST_FIELDS = 512


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Attributes:
        name: As the kernel calls it.
        type: Its C type; for an array, of an element.
        offset, size: Where it lies, in bytes.
        is_signed: As a number.
        is_array: Of fixed length, within the record.
        location: "" for a value; "data" or "rel" if the record only says where (further behind) the content lies.
    """

    name: str
    type: str
    offset: int
    size: int
    is_signed: bool
    is_array: bool = False
    location: str = ""

    @property
    def is_text(self) -> bool:
        """Does it hold characters?"""
        return self.type == "char" and (self.is_array or bool(self.location))

    @property
    def is_pointer(self) -> bool:
        """Does it hold an address?"""
        return self.type.endswith("*")

    @property
    def is_number(self) -> bool:
        """Is it a number (or an address) of its own?"""
        return not self.is_array and not self.location and self.size in (1, 2, 4, 8)


@dataclass(frozen=True)
class Tracepoint:
    """One kind of event.

    Attributes:
        group, event: Its two names: `sched`, `sched_switch`.
        number: What the kernel knows it by, until the next boot.
        fields: Without the common ones.
        print_format: The format string and the arguments, as in C.
        description: The kernel's own text that all this was read from.
        constants: The values of the kernel's enumerators that `print_format` mentions by name.
    """

    group: str
    event: str
    number: int
    fields: tuple[Field, ...]
    print_format: str
    description: str = ""
    constants: Mapping[str, int] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Both names: `sched:sched_switch`."""
        return f"{self.group}:{self.event}"

    @property
    def size(self) -> int:
        """Bytes of a record, without what lies behind its fixed fields."""
        return max((one.offset + one.size for one in self.fields), default=COMMON_BYTES)

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Its fields."""
        return {one.name: one for one in self.fields}

    @property
    def has_dynamic_fields(self) -> bool:
        """Are records of different length?"""
        return any(one.location for one in self.fields)


class Columns:
    """Many records of one tracepoint, field by field.

    Args:
        raw: uint8 (n, bytes): the records, all cut or padded to the same length.
    """

    def __init__(self, raw: NDArray[np.uint8]) -> None:
        self._raw = raw
        self._width = raw.shape[1]

    def __len__(self) -> int:
        return len(self._raw)

    def numbers(self, field: Field) -> Ints:
        """A number of each record; unsigned 64-bit ones as the signed number with the same bits.

        Raises:
            ValueError: The field is of no size that numbers have.
        """
        column = np.ascontiguousarray(self._raw[:, field.offset : field.offset + field.size])
        if field.size not in (1, 2, 4, 8) or column.shape[1] != field.size:
            raise ValueError(f"the field {field.name} is no number, or lies outside the record")
        return column.view(f"<{'i' if field.is_signed else 'u'}{field.size}")[:, 0].astype(np.int64)

    def contents(self, field: Field) -> list[bytes]:
        """The bytes of an array, wherever they lie; cut off where the record was."""
        raw, width = self._raw.tobytes(), self._width
        if not field.location:
            start, size = field.offset, field.size
            return [raw[base + start : base + start + size] for base in range(0, len(raw), width)]
        places = self.numbers(Field(field.name, "", field.offset, 4, False))
        starts, lengths = places & 0xFFFF, places >> 16
        if field.location == "rel":
            starts = starts + field.offset + 4
        ends = np.minimum(starts + lengths, width)
        bases = np.arange(len(self)) * width
        return [raw[start:end] for start, end in zip((bases + starts).tolist(), (bases + ends).tolist(), strict=True)]

    def texts(self, field: Field) -> list[str]:
        """A string of each record, safe to print; `…` where it was cut off."""
        return [as_text(content) for content in self.contents(field)]


def as_text(content: bytes) -> str:
    """Bytes up to the first NUL, in words that are safe to print: whatever a program or a file name may hold."""
    text, end, _ = content.partition(b"\0")
    shown = printable(text.decode("utf-8", "backslashreplace"))
    return shown if end or not text or len(content) <= _SHORT else shown + "…"


_SHORT = 64
"""Fixed arrays may be filled to the brim without a NUL; only longer content without one has been cut off."""


def parse_format(group: str, text: str, constants: Mapping[str, int] | None = None) -> Tracepoint:
    """Read a tracepoint's description.

    Args:
        group: The folder that it was found in.
        text: Its content.
        constants: Values of the enumerators that it mentions, as far as they are known.

    Raises:
        ProfileFormatError: It is none.
    """
    name = re.search(r"^name: ([^\s\n]{1,200})$", text, re.MULTILINE)
    number = re.search(r"^ID: ([0-9]{1,9})$", text, re.MULTILINE)
    fields = [_parse_field(match) for match in islice(_FIELD.finditer(text), _MOST_FIELDS + 1)]
    if name is None or number is None or len(text) > _LONGEST_TEXT or len(fields) > _MOST_FIELDS:
        raise ProfileFormatError(f"the description of a tracepoint in group {group[:80]!r} cannot be read")
    _, _, print_format = text.partition("print fmt: ")
    return Tracepoint(
        group,
        name[1],
        int(number[1]),
        tuple(one for one in fields if one.offset >= COMMON_BYTES),
        print_format.strip(),
        text,
        dict(constants or {}),
    )


_PLACE_BYTES = 4
"""What says where content lies is that large, whatever a description in a file says of it."""


def _parse_field(match: re.Match[str]) -> Field:
    declared, (offset, size) = match["declared"].strip(), (int(match[2]), int(match[3]))
    location = ""
    for prefix in ("data", "rel"):
        if declared.startswith(f"__{prefix}_loc "):
            location, declared = prefix, declared.removeprefix(f"__{prefix}_loc ")
    if location:
        type_name, _, name = declared.rpartition(" ")
        return Field(name, type_name.removesuffix("[]").strip(), offset, _PLACE_BYTES, False, location=location)
    parts = _DECLARED.match(declared)
    if parts is None:
        return Field(declared, "", offset, size, False, is_array=True)
    is_array = parts["array"] is not None
    return Field(parts["name"], parts["type"].strip(), offset, size, match[4] == "1", is_array)


def enumerators_of(text: str) -> set[str]:
    """Names in a description that may be enumerators: its tables of flags and symbols use them."""
    _, _, print_format = text.partition("print fmt: ")
    return set(re.findall(r"\b[A-Z][A-Z0-9_]+\b", re.sub(r'"(?:[^"\\]|\\.)*"', "", print_format))) - {"REC"}
