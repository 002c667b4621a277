"""The kernel's own type information (BTF): where members lie in its structs, on the very kernel that runs here.

Only what the programs need is read: member offsets (through anonymous members), enum values, the addresses of per-CPU
variables, and how many arguments a tracepoint has.

Source: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from pprofpy.errors import NotPossibleError, exhausted

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
(_PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT) = (2, 3, 4, 5, 6, 8, 9, 10, 11)
(_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _TYPE_TAG, _ENUM64) = (12, 13, 14, 15, 18, 19)
_MODIFIERS = frozenset({_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG})
# Bytes that follow a type's header: for each of its `vlen` entries, or once.
_ENTRY_SIZE = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
_TAIL_SIZE = {1: 4, _ARRAY: 12, _VAR: 4, 17: 4}


class _Type(NamedTuple):
    kind: int
    name: int
    entry_count: int
    has_bitfields: bool
    size_or_type: int
    entries: int
    """Where its entries start in the file."""


class Btf:
    """Type information of one kernel.

    Args:
        data: The content of a BTF file.

    Raises:
        ValueError: It is no BTF.
    """

    def __init__(self, data: bytes) -> None:
        magic, _, _, header_size, types_at, types_size, strings_at, strings_size = struct.unpack_from("<HBBIIIII", data)
        if magic != _MAGIC:
            raise ValueError("not BTF")
        self._data = data
        self._strings = header_size + strings_at, strings_size
        self._types: list[_Type] = [_Type(0, 0, 0, False, 0, 0)]
        self._by_name: dict[tuple[int, bytes], int] = {}
        self._sections: list[int] = []
        position, end = header_size + types_at, header_size + types_at + types_size
        while position < end:
            name, info, size_or_type = struct.unpack_from("<III", data, position)
            position += 12
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            self._types.append(_Type(kind, name, count, bool(info >> 31), size_or_type, position))
            if kind in (_STRUCT, _UNION, _ENUM, _TYPEDEF, _ENUM64) and name:
                self._by_name.setdefault((kind, self._name(name)), len(self._types) - 1)
            elif kind == _DATASEC:
                self._sections.append(len(self._types) - 1)
            position += _ENTRY_SIZE[kind] * count if kind in _ENTRY_SIZE else _TAIL_SIZE.get(kind, 0)

    @classmethod
    def of_running_kernel(cls) -> Btf:
        """The running kernel's types.

        Raises:
            NotPossibleError: It was built without them.
        """
        try:
            return cls(VMLINUX.read_bytes())
        except (OSError, ValueError, struct.error) as error:
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
        type_id, total = self._by_name[_STRUCT, struct_name.encode()], 0
        for name in path.split("."):
            found = self._member(type_id, name.encode())
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

    def enum_value(self, name: str, member: str) -> int:
        """The value of an enum's member.

        Raises:
            KeyError: There is no such enum or member.
        """
        for kind, layout in ((_ENUM, "<Ii"), (_ENUM64, "<Iq")):
            found = self._by_name.get((kind, name.encode()))
            if found is None:
                continue
            item = self._types[found]
            for index in range(item.entry_count):
                text, value = struct.unpack_from(layout, self._data, item.entries + index * _ENTRY_SIZE[kind])
                if self._name(text) == member.encode():
                    return int(value)
        raise KeyError(f"enum {name}.{member}")

    def enumerators(self, names: Collection[str]) -> dict[str, int]:
        """The values of those of these names that are members of any enum."""
        wanted, found = {name.encode() for name in names}, {}
        for item in self._types:
            layout = {_ENUM: "<Ii", _ENUM64: "<Iq"}.get(item.kind)
            if layout is None:
                continue
            size = _ENTRY_SIZE[item.kind]
            entries = self._data[item.entries : item.entries + size * item.entry_count]
            for text, value in struct.iter_unpack(layout, entries):
                if (name := self._name(text)) in wanted:
                    found[name.decode()] = int(value)
        return found

    def functions(self, names: Collection[str]) -> dict[str, int]:
        """The numbers by which programs call those of these functions that the kernel has."""
        wanted = {name.encode() for name in names}
        found: dict[str, int] = {}
        for number, item in enumerate(self._types):
            if item.kind == _FUNC and (name := self._name(item.name)) in wanted:
                found.setdefault(name.decode(), number)
        return found

    def percpu_offset(self, variable: str) -> int:
        """Where a per-CPU variable lies within each CPU's area.

        Raises:
            KeyError: There is no such variable, or it is not per-CPU.
        """
        for section in self._sections:
            item = self._types[section]
            if self._name(item.name) != b".data..percpu":
                continue
            for index in range(item.entry_count):
                type_id, offset = struct.unpack_from("<II", self._data, item.entries + 12 * index)
                if self._name(self._types[type_id].name) == variable.encode():
                    return int(offset)
        raise KeyError(f"per-CPU variable {variable}")

    def tracepoint_arguments(self, name: str) -> int:
        """How many arguments a raw tracepoint hands to its programs.

        Raises:
            KeyError: There is no such tracepoint.
        """
        pointer = self._types[self._by_name[_TYPEDEF, f"btf_trace_{name}".encode()]].size_or_type
        return self._types[self._types[pointer].size_or_type].entry_count - 1  # less the hidden `void *__data`

    def _name(self, offset: int) -> bytes:
        start = self._strings[0] + offset
        return self._data[start : self._data.index(0, start)]

    def _member(self, type_id: int, wanted: bytes) -> tuple[int, int] | None:
        """A member's offset in bytes and its type, looked for through anonymous structs and unions."""
        item = self._types[self._bare(type_id)]
        if item.kind not in (_STRUCT, _UNION):
            return None
        for name, member_type, place in struct.iter_unpack(
            "<III", self._data[item.entries : item.entries + 12 * item.entry_count]
        ):
            offset = (place & 0xFFFFFF if item.has_bitfields else place) // 8
            if not name and (inner := self._member(member_type, wanted)):
                return offset + inner[0], inner[1]
            if name and self._name(name) == wanted:
                return offset, member_type
        return None

    def _bare(self, type_id: int) -> int:
        """The type without typedefs, const and the like."""
        while self._types[type_id].kind in _MODIFIERS:
            type_id = self._types[type_id].size_or_type
        return type_id
