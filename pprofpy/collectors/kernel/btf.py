"""The kernel's own type information (BTF): where members lie in its structs, on the very kernel that runs here.

Only what the programs need is read: member offsets (through anonymous members), enum values, the addresses of per-CPU
variables, and how many arguments a tracepoint has. There are more than a hundred thousand types, so they are kept as
columns, and what has a name is found by where that name stands.

Source: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.errors import NotPossibleError, exhausted

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
(_PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT) = (2, 3, 4, 5, 6, 8, 9, 10, 11)
(_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _TYPE_TAG, _ENUM64) = (12, 13, 14, 15, 18, 19)
_MODIFIERS = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
_KINDS, _HEADER_WORDS, _AT_ONCE = 32, 3, 1 << 16
# Words that follow a type's header: for each of its entries, or once.
_ENTRY_WORDS = {_STRUCT: 3, _UNION: 3, _ENUM: 2, _FUNC_PROTO: 2, _DATASEC: 3, _ENUM64: 3}
_TAIL_WORDS = {1: 1, _ARRAY: 3, _VAR: 1, 17: 1}

_Words = NDArray[np.uint32]


class Btf:
    """Type information of one kernel. A type is known by its number; 0 is `void`.

    Args:
        data: The content of a BTF file.

    Raises:
        ValueError: It is no BTF.
    """

    def __init__(self, data: bytes) -> None:
        try:
            magic, _, _, header_bytes, types_at, types_bytes, strings_at, strings_bytes = struct.unpack_from(
                "<HBBIIIII", data
            )
            self._words: _Words = np.frombuffer(data, "<u4", types_bytes // 4, header_bytes + types_at)
        except (struct.error, ValueError) as error:
            raise ValueError("not BTF") from error
        if magic != _MAGIC:
            raise ValueError("not BTF")
        self._data = data
        self._strings = header_bytes + strings_at, header_bytes + strings_at + strings_bytes
        self._at = _starts(self._words)
        self._kinds = self._column(1) >> 24 & 0x1F
        self._names = self._column(0)

    @classmethod
    def of_running_kernel(cls) -> Btf:
        """The running kernel's types.

        Raises:
            NotPossibleError: It was built without them.
        """
        try:
            return cls(VMLINUX.read_bytes())
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and (running_out := exhausted(error.errno or 0)):
                raise running_out from error
            raise NotPossibleError(
                f"this kernel does not tell where its structures lie ({VMLINUX} is missing or unreadable)",
                "it needs a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of Debian, Ubuntu and Fedora are",
            ) from error

    def offset(self, struct_name: str, path: str) -> int:
        """Bytes from the start of `struct struct_name` to the member `path` (dots descend: `se.cfs_rq`).

        Raises:
            KeyError: There is no such struct or member.
        """
        type_id, total = self._named(_STRUCT, struct_name), 0
        for name in path.split("."):
            found = self._member(type_id, self._spellings(name))
            if found is None:
                raise KeyError(f"{struct_name}.{path}")
            total, type_id = total + found[0], found[1]
        return total

    def has(self, struct_name: str, path: str) -> bool:
        """Is there such a member?"""
        try:
            self.offset(struct_name, path)
        except KeyError:
            return False
        return True

    def enumerators(self, names: Collection[str]) -> dict[str, int]:
        """The values of those of these names that are members of any enum."""
        wanted = {spelling: name for name in names for spelling in self._spellings(name)}
        found = {}
        for word in np.flatnonzero(np.isin(self._words, list(wanted))).tolist():
            type_id = int(np.searchsorted(self._at, word, "right")) - 1
            kind, place = int(self._kinds[type_id]), word - int(self._at[type_id]) - _HEADER_WORDS
            if kind in (_ENUM, _ENUM64) and place >= 0 and place % _ENTRY_WORDS[kind] == 0:
                low, high = self._words[word + 1 : word + 3].tolist()
                value = low | (high << 32 if kind == _ENUM64 else -(low & 1 << 31))
                found[wanted[int(self._words[word])]] = value - (1 << 64 if value >> 63 > 0 else 0)
        return found

    def functions(self, names: Collection[str]) -> dict[str, int]:
        """The numbers by which programs call those of these functions that the kernel has."""
        found = {name: self._ids(_FUNC, name) for name in names}
        return {name: ids[0] for name, ids in found.items() if ids}

    def percpu_offset(self, variable: str) -> int:
        """Where a per-CPU variable lies within each CPU's area.

        Raises:
            KeyError: There is no such variable, or it is not per-CPU.
        """
        variables = self._ids(_VAR, variable)
        for section in self._ids(_DATASEC, ".data..percpu"):
            for type_id, offset, _ in self._entries(section).tolist():
                if type_id in variables:
                    return int(offset)
        raise KeyError(f"per-CPU variable {variable}")

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a raw tracepoint hands to its programs.

        Raises:
            KeyError: There is no such tracepoint.
        """
        pointer = self._reference(self._named(_TYPEDEF, f"btf_trace_{name}"))
        return len(self._entries(self._reference(pointer))) - 1  # less the hidden `void *__data`

    def _column(self, word: int) -> _Words:
        """One word of each type's header; 0 for `void`."""
        column: _Words = self._words[self._at + word]
        column[0] = 0
        return column

    def _spellings(self, name: str) -> list[int]:
        """Where a name stands among the strings."""
        found, text, (start, end) = [], b"\0" + name.encode() + b"\0", self._strings
        at = self._data.find(text, start, end)
        while at >= 0:
            found.append(at + 1 - start)
            at = self._data.find(text, at + 1, end)
        return found

    def _ids(self, kind: int, name: str) -> list[int]:
        """The types of a kind and name."""
        spelled = np.isin(self._names, self._spellings(name)) & (self._kinds == kind)
        found: list[int] = np.flatnonzero(spelled).tolist()
        return found

    def _named(self, kind: int, name: str) -> int:
        """The first of them. Raises KeyError if there is none."""
        for found in self._ids(kind, name):
            return found
        raise KeyError(name)

    def _reference(self, type_id: int) -> int:
        """The type that one refers to."""
        return int(self._words[self._at[type_id] + 2])

    def _entries(self, type_id: int) -> NDArray[Any]:
        """What follows a type's header: (entries, words)."""
        size = _ENTRY_WORDS[int(self._kinds[type_id])]
        start = int(self._at[type_id])
        count = int(self._words[start + 1]) & 0xFFFF
        return self._words[start + _HEADER_WORDS : start + _HEADER_WORDS + count * size].reshape(count, size)

    def _member(self, type_id: int, spellings: list[int]) -> tuple[int, int] | None:
        """A member's offset in bytes and its type, looked for through anonymous structs and unions."""
        type_id = self._bare(type_id)
        if self._kinds[type_id] not in (_STRUCT, _UNION):
            return None
        has_bitfields = int(self._words[self._at[type_id] + 1]) >> 31
        for name, member_type, place in self._entries(type_id).tolist():
            offset = (place & 0xFFFFFF if has_bitfields else place) // 8
            if not name and (inner := self._member(member_type, spellings)):
                return offset + inner[0], inner[1]
            if name in spellings:
                return offset, member_type
        return None

    def _bare(self, type_id: int) -> int:
        """The type without typedefs, const and the like."""
        while self._kinds[type_id] in _MODIFIERS:
            type_id = self._reference(type_id)
        return type_id


def _starts(words: _Words) -> NDArray[Any]:
    """Where each type's header begins, by its number; for `void` it is 0, too."""
    entry_words, tail_words = _by_kind(_ENTRY_WORDS), _by_kind(_TAIL_WORDS)
    # Of each word, where the next type would begin if one began here; a part at a time, to take little memory.
    following = np.arange(_HEADER_WORDS, len(words) - 1 + _HEADER_WORDS, dtype=np.uint32)
    for start in range(0, len(following), _AT_ONCE):
        infos = words[start + 1 : start + 1 + _AT_ONCE]
        kinds = infos >> 24 & 0x1F
        following[start : start + _AT_ONCE] += entry_words[kinds] * (infos & 0xFFFF) + tail_words[kinds]
    next_of, at, starts = following.data, 0, array("I", [0])
    while at < len(following):
        starts.append(at)
        at = next_of[at]
    return np.frombuffer(starts, np.uint32)


def _by_kind(words: dict[int, int]) -> _Words:
    return np.array([words.get(kind, 0) for kind in range(_KINDS)], np.uint32)
