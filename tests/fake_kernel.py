"""A kernel for unit tests: ring buffers in files, maps in dictionaries, and refusals at will."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections import Counter
from dataclasses import dataclass, field

import pytest

from pprofpy.collectors.kernel import maps, ring, syscall

DISCARDED, BUSY = 1 << 30, 1 << 31
RING_BYTES = 4 * mmap.PAGESIZE
_DATA_AT = 2 * mmap.PAGESIZE


class FakeRing:
    """The kernel's end of a ring buffer: a file laid out as the map is, its data twice in a row.

    Source: Linux, kernel/bpf/ringbuf.c.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.descriptor = os.memfd_create("ring")
        os.ftruncate(self.descriptor, _DATA_AT + 2 * RING_BYTES)
        self.produced = 0
        monkeypatch.setattr(ring, "kernel_facts", lambda descriptor: {"max_entries": RING_BYTES})

    def write(self, content: bytes, flags: int = 0) -> bool:
        """Write a record; False if there is no room for it."""
        record = struct.pack("<II", len(content) | flags, 0) + content
        record += bytes(-len(record) % 8)
        if self.produced + len(record) - self.consumed > RING_BYTES:
            return False
        place = self.produced % RING_BYTES
        for copy in (place - RING_BYTES, place, place + RING_BYTES):  # a page of the ring is seen at two places
            begin = max(-copy, 0)
            if copy < 2 * RING_BYTES and begin < len(record):
                os.pwrite(self.descriptor, record[begin : 2 * RING_BYTES - copy], _DATA_AT + copy + begin)
        self._advance(len(record))
        return True

    def finish(self, content: bytes, flags: int = 0) -> None:
        """Submit (or discard) the last record, which was busy and as long as this."""
        header = struct.pack("<I", len(content) | flags)
        place = (self.produced - (8 + len(content) + 7) // 8 * 8) % RING_BYTES
        for copy in (place, place + RING_BYTES):
            os.pwrite(self.descriptor, header, _DATA_AT + copy)

    def _advance(self, count: int) -> None:
        self.produced += count
        os.pwrite(self.descriptor, struct.pack("<Q", self.produced), mmap.PAGESIZE)

    @property
    def consumed(self) -> int:
        """Up to where the reader has given room back."""
        return int.from_bytes(os.pread(self.descriptor, 8, 0), "little")

    def close(self) -> None:
        os.close(self.descriptor)


@dataclass
class FakeMap:
    """One map: its sizes, and key -> value as the kernel copies it (all CPUs' values in a row)."""

    kind: int
    key_bytes: int
    value_bytes: int
    entries: int
    content: dict[bytes, bytes] = field(default_factory=dict)


class FakeKernel:
    """Stands for bpf(2) in `collectors.kernel`.

    Attributes:
        maps: Descriptor -> map.
        calls: How often each function was called.
        refusals: Function -> the error number that it always answers with.
        batch: How many entries one batch serves at most.
        cpus: How many copies a per-CPU map holds.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cpus: int = 2) -> None:
        self.maps: dict[int, FakeMap] = {}
        self.calls: Counter[str] = Counter()
        self.refusals: dict[str, int] = {}
        self.batch = 1 << 30
        self.loaded: list[str] = []
        for name in ("create_map", "load_program", "open_raw_tracepoint", "lookup", "update", "delete",
                     "lookup_batch", "delete_batch"):  # fmt: skip
            monkeypatch.setattr(syscall, name, getattr(self, name))
        monkeypatch.setattr(maps, "kernel_facts", self._facts)
        monkeypatch.setattr(maps, "possible_cpus", lambda: cpus)
        self.value_copies = {5: cpus, 6: cpus, 10: cpus}

    def _facts(self, descriptor: int) -> dict[str, int]:
        one = self.maps[descriptor]
        return {"map_type": one.kind, "key_size": one.key_bytes, "value_size": one.value_bytes,
                "max_entries": one.entries}  # fmt: skip

    def _answer(self, name: str) -> None:
        self.calls[name] += 1
        if code := self.refusals.get(name):
            raise OSError(code, os.strerror(code))

    @staticmethod
    def _descriptor() -> int:
        return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def create_map(self, kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int, name: str) -> int:
        self._answer("create_map")
        descriptor = self._descriptor()
        self.maps[descriptor] = FakeMap(kind, key_bytes, value_bytes, entries)
        return descriptor

    def load_program(self, kind: int, instructions: bytes, name: str) -> int:
        self._answer("load_program")
        self.loaded.append(name)
        return self._descriptor()

    def open_raw_tracepoint(self, name: str, program: int) -> int:
        self._answer("open_raw_tracepoint")
        return self._descriptor()

    def lookup(self, map_: int, key_at: int, value_at: int) -> None:
        self._answer("lookup")
        one = self.maps[map_]
        value = one.content.get(ctypes.string_at(key_at, one.key_bytes))
        if value is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        ctypes.memmove(value_at, value, len(value))

    def update(self, map_: int, key_at: int, value_at: int, mode: int) -> None:
        self._answer("update")
        one = self.maps[map_]
        key = ctypes.string_at(key_at, one.key_bytes)
        if mode == 1 and key in one.content:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        if key not in one.content and len(one.content) == one.entries:
            raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
        one.content[key] = ctypes.string_at(value_at, one.value_bytes)

    def delete(self, map_: int, key_at: int) -> None:
        self._answer("delete")
        one = self.maps[map_]
        if one.content.pop(ctypes.string_at(key_at, one.key_bytes), None) is None:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def lookup_batch(
        self, map_: int, before_at: int, after_at: int, keys_at: int, values_at: int, count: int
    ) -> tuple[int, int]:
        self.calls["lookup_batch"] += 1
        if code := self.refusals.get("lookup_batch"):
            return 0, code
        one = self.maps[map_]
        begin = int.from_bytes(ctypes.string_at(before_at, 4), "little") if before_at else 0
        served = list(one.content.items())[begin : begin + min(count, self.batch)]
        for number, (key, value) in enumerate(served):
            ctypes.memmove(keys_at + number * one.key_bytes, key, len(key))
            ctypes.memmove(values_at + number * len(value), value, len(value))
        ctypes.memmove(after_at, struct.pack("<I", begin + len(served)), 4)
        return len(served), errno.ENOENT if begin + len(served) == len(one.content) else 0

    def delete_batch(self, map_: int, keys_at: int, count: int) -> tuple[int, int]:
        self.calls["delete_batch"] += 1
        if code := self.refusals.get("delete_batch"):
            return 0, code
        one = self.maps[map_]
        for number in range(count):
            if one.content.pop(ctypes.string_at(keys_at + number * one.key_bytes, one.key_bytes), None) is None:
                return number, errno.ENOENT
        return count, 0
