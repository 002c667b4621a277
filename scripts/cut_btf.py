"""A kernel's type information (BTF), cut down to what pprofpy asks of it: some kilobytes, to be kept as a fixture.

    python scripts/cut_btf.py FULL OUTPUT

Structs keep their size, and of their members those that are asked for, where they are. Names that this kernel does not
have are left out.

Source: https://docs.kernel.org/bpf/btf.html
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path
from typing import NamedTuple

MEMBERS = (
    "task_struct.pid", "task_struct.tgid", "task_struct.comm", "task_struct.state", "task_struct.__state",
    "task_struct.flags", "task_struct.files", "task_struct.se.cfs_rq", "task_struct.thread.fsbase",
    "task_struct.thread.uw.tp_value", "task_struct.thread_info.status", "task_struct.thread_info.preempt.count",
    "cfs_rq.rq", "pcpu_hot.preempt_count", "files_struct.fdt", "fdtable.max_fds", "fdtable.fd", "file.f_inode",
    "file.f_path.dentry", "dentry.d_name.name", "inode.i_mode", "inode.i_sb", "inode.i_ino", "super_block.s_magic",
    "pt_regs.sp", "pt_regs.di", "pt_regs.orig_ax", "pt_regs.ip", "pt_regs.cs",
    "pt_regs.regs", "pt_regs.pc", "pt_regs.pstate", "pt_regs.syscallno",
    "task_struct.thread_pid", "task_struct.signal", "signal_struct.pids", "signal_struct.live", "pid.level",
    "pid.numbers", "upid.nr", "upid.ns", "pid_namespace.ns.inum",
)  # fmt: skip
PER_CPU = ("__preempt_count", "pcpu_hot", "runqueues")
TRACEPOINTS = ("sched_switch",)
FUNCTIONS = ("bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy")

_MAGIC, _HEADER = 0xEB9F, struct.Struct("<HBBIIIII")
_PTR, _STRUCT, _UNION, _TYPEDEF, _FUNC, _FUNC_PROTO, _VAR, _DATASEC = 2, 4, 5, 8, 12, 13, 14, 15
_MODIFIERS = (8, 9, 10, 11, 18)
_ENTRY_BYTES = {_STRUCT: 12, _UNION: 12, 6: 8, _FUNC_PROTO: 8, _DATASEC: 12, 19: 12}
_TAIL_BYTES = {1: 4, 3: 12, _VAR: 4, 17: 4}


class Type(NamedTuple):
    """A type as it stands in the file."""

    name: bytes
    info: int
    size_or_type: int
    content: bytes

    @property
    def kind(self) -> int:
        """BTF_KIND_*."""
        return self.info >> 24 & 0x1F

    @property
    def members(self) -> list[tuple[int, int, int]]:
        """Of a struct: name, type, place."""
        return list(struct.iter_unpack("<III", self.content))


class Full:
    """All types of a kernel."""

    def __init__(self, data: bytes) -> None:
        magic, _, _, head, types_at, types_bytes, strings_at, _ = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            sys.exit("this is no BTF")
        self._data, self._strings = data, head + strings_at
        self.types = [Type(b"", 0, 0, b"")]
        at, end = head + types_at, head + types_at + types_bytes
        while at < end:
            name, info, size = struct.unpack_from("<III", data, at)
            kind, count = info >> 24 & 0x1F, info & 0xFFFF
            length = _ENTRY_BYTES[kind] * count if kind in _ENTRY_BYTES else _TAIL_BYTES.get(kind, 0)
            self.types.append(Type(self.text(name), info, size, data[at + 12 : at + 12 + length]))
            at += 12 + length

    def text(self, offset: int) -> bytes:
        """A name."""
        start = self._strings + offset
        return self._data[start : self._data.index(0, start)]

    def find(self, kind: int, name: str) -> int:
        """The first type of a kind with this name; 0 if there is none."""
        wanted = name.encode()
        return next((place for place, one in enumerate(self.types) if one.kind == kind and one.name == wanted), 0)

    def bare(self, number: int) -> int:
        """The type without typedefs, const and the like."""
        while self.types[number].kind in _MODIFIERS:
            number = self.types[number].size_or_type
        return number


class Cut:
    """Those of them that are kept: each with the places of its members that are."""

    def __init__(self, full: Full) -> None:
        self._full = full
        self._kept: dict[int, set[int]] = {}
        self._followed: dict[tuple[int, int], int] = {}
        self._numbers: dict[int, int] = {}
        self._strings = bytearray(b"\0")

    def keep(self, number: int) -> int:
        """Keep a type."""
        self._kept.setdefault(number, set())
        return number

    def keep_path(self, number: int, path: list[str]) -> bool:
        """Keep a member of a struct's, through anonymous ones; False if it has none of that name."""
        number = self._full.bare(number)
        one = self._full.types[number]
        if one.kind not in (_STRUCT, _UNION):
            return False
        for place, (name, kind, _) in enumerate(one.members):
            text = self._full.text(name)
            rest = path if not text else path[1:]
            if text and text != path[0].encode():
                continue
            if rest and not self.keep_path(kind, rest):
                continue
            self.keep(number)
            self._kept[number].add(place)
            if rest:
                self._followed[number, place] = self._full.bare(kind)
            return True
        return False

    def keep_variables(self, names: tuple[str, ...]) -> None:
        """Keep per-CPU variables."""
        section = self._full.find(_DATASEC, ".data..percpu")
        for place, (number, _, _) in enumerate(self._full.types[section].members if section else []):
            if self._full.types[number].name.decode() in names:
                self.keep(number)
                self.keep(section)
                self._kept[section].add(place)
                self._followed[section, place] = number

    def keep_tracepoint(self, name: str) -> None:
        """Keep how many arguments a tracepoint has."""
        alias = self._full.find(_TYPEDEF, f"btf_trace_{name}")
        pointer = self._full.types[alias].size_or_type
        function = self._full.types[pointer].size_or_type
        for one in (function, pointer, alias):
            self.keep(one)

    def packed(self) -> bytes:
        """A file of what is kept."""
        order = sorted(self._kept)
        self._numbers = {number: place for place, number in enumerate(order, 1)}
        types = b"".join(map(self._packed, order))
        head = _HEADER.pack(_MAGIC, 1, 0, _HEADER.size, 0, len(types), len(types), len(self._strings))
        return head + types + bytes(self._strings)

    def _packed(self, number: int) -> bytes:
        one, places = self._full.types[number], sorted(self._kept[number])
        size, content, info = one.size_or_type, one.content, one.info
        if one.kind in (_STRUCT, _UNION, _DATASEC):
            rows = [one.members[place] for place in places]
            kinds = [self._numbers.get(self._followed.get((number, place), 0), 0) for place in places]
            if one.kind == _DATASEC:
                content = b"".join(struct.pack("<III", kind, *row[1:]) for kind, row in zip(kinds, rows, strict=True))
            else:
                named = [(self._text(self._full.text(row[0])), row[2]) for row in rows]
                content = b"".join(
                    struct.pack("<III", name, kind, place) for kind, (name, place) in zip(kinds, named, strict=True)
                )
            info = info & ~0xFFFF | len(rows)
        elif one.kind == _FUNC_PROTO:
            size, content = 0, bytes(len(content))
        else:
            size = self._numbers.get(size, 0)
        return struct.pack("<III", self._text(one.name), info, size) + content

    def _text(self, text: bytes) -> int:
        if not text:
            return 0
        if (at := self._strings.find(b"\0" + text + b"\0")) < 0:
            at = len(self._strings) - 1
            self._strings += text + b"\0"
        return at + 1


def main(full: str, output: str) -> None:
    """Write the cut-down types."""
    types = Full(Path(full).read_bytes())
    cut = Cut(types)
    for path in MEMBERS:
        root, *names = path.split(".")
        if number := types.find(_STRUCT, root):
            cut.keep_path(number, names)
    cut.keep_variables(PER_CPU)
    for name in TRACEPOINTS:
        cut.keep_tracepoint(name)
    for name in FUNCTIONS:
        if number := types.find(_FUNC, name):
            cut.keep(number)
    Path(output).write_bytes(cut.packed())


if __name__ == "__main__":
    main(*sys.argv[1:])
