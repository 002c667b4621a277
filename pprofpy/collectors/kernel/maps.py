"""BPF maps as NumPy arrays: whole maps in one system call, not one per entry."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel import syscall as kernel
from pprofpy.collectors.kernel.cpus import possible_cpus
from pprofpy.errors import PprofpyError

_ANY, _ONLY_NEW = 0, 1
_AT_ONCE = 4096
"""So many entries are read at a time: room for all of a large table would be taken again and again."""

Records = NDArray[Any]

_ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH = 2, 5, 6, 10
_PER_CPU = frozenset({_PERCPU_HASH, _PERCPU_ARRAY, _LRU_PERCPU_HASH})


class MapTable:
    """One map of a loaded program.

    Args:
        descriptor: The map's file descriptor; it belongs to the program.
        key, value: What an entry is read as.

    Attributes:
        capacity: How many entries it has room for.
        refused: How many entries found no room; whoever writes them goes on without.

    Raises:
        PprofpyError: The sizes are not those of the C side.
    """

    def __init__(self, descriptor: int, key: np.dtype[Any], value: np.dtype[Any]) -> None:
        facts = kernel_facts(descriptor)
        sizes = facts["key_size"], facts["value_size"]
        if sizes != (key.itemsize, value.itemsize):
            raise PprofpyError(f"a kernel map has entries of {sizes} bytes, not {(key.itemsize, value.itemsize)}")
        self.capacity = facts["max_entries"]
        self.refused = 0
        self._descriptor = descriptor
        self._key = key
        self._value = value
        self._is_per_cpu = facts["map_type"] in _PER_CPU
        self._copies = possible_cpus() if self._is_per_cpu else 1
        self._is_array = facts["map_type"] in (_ARRAY, _PERCPU_ARRAY)

    def items(self) -> tuple[Records, Records]:
        """All entries.

        Returns:
            Keys (n,) and values: (n,), or (n, CPUs) for a per-CPU map.
        """
        if self._is_array:
            keys = np.arange(self.capacity, dtype=np.uint32)
            return keys, np.concatenate([self._lookup(key) for key in keys])
        keys, values = self._read_hash()
        return keys, values if self._is_per_cpu else values[:, 0]

    def get(self, key: int) -> Records:
        """The value of one entry, as an array of its fields."""
        values: Records = self._lookup(key)[0]
        return values

    def put(self, key: Any, value: Any) -> None:
        """Set an entry of a map that is not per-CPU.

        Raises:
            PprofpyError: The map is gone.
        """
        self._write(key, value, _ANY)

    def put_new(self, key: Any, value: Any) -> bool:
        """Add an entry unless there is one; returns False if there is.

        Raises:
            PprofpyError: The map is gone.
        """
        return self._write(key, value, _ONLY_NEW)

    def _write(self, key: Any, value: Any, mode: int) -> bool:
        try:
            self._update(key, value, mode)
        except OSError as error:
            if error.errno == errno.EEXIST:
                return False
            if error.errno != errno.E2BIG or self._is_array:
                raise PprofpyError(f"a kernel map could not be written: {error.strerror}") from error
            self.refused += 1
        return True

    def _update(self, key: Any, value: Any, mode: int) -> None:
        raw_key, raw_value = np.array([key], self._key), np.array([value], self._value)
        kernel.update(self._descriptor, raw_key.ctypes.data, raw_value.ctypes.data, mode)

    def delete(self, keys: Records) -> None:
        """Remove entries; those that are gone already are skipped."""
        for key in np.ascontiguousarray(keys, self._key).reshape(-1, 1):
            with suppress(OSError):
                kernel.delete(self._descriptor, key.ctypes.data)

    def clear(self, keys: Records) -> None:
        """Remove many entries at once; those that are gone already do not matter."""
        keys = np.ascontiguousarray(keys, self._key)
        done = 0
        while done < len(keys):
            count, _ = kernel.delete_batch(self._descriptor, keys[done:].ctypes.data, len(keys) - done)
            done += count + 1  # the one that it stopped at was gone

    def _lookup(self, key: Any) -> Records:
        values = np.zeros((1, self._copies), self._padded())
        raw_key = np.array([key], self._key)
        try:
            kernel.lookup(self._descriptor, raw_key.ctypes.data, values.ctypes.data)
        except OSError as error:
            raise PprofpyError(f"a kernel map could not be read: {error.strerror}") from error
        return self._trimmed(values) if self._is_per_cpu else self._trimmed(values)[:, 0]

    def _read_hash(self) -> tuple[Records, Records]:
        parts = []
        # A place in the map: the kernel wants room for a key, and 4 bytes at least.
        place = np.zeros(max(self._key.itemsize, 4), np.uint8)
        started, most = False, min(_AT_ONCE, self.capacity)
        while True:
            keys, values = self._buffers(most)
            before = place.ctypes.data if started else 0
            addresses = before, place.ctypes.data, keys.ctypes.data, values.ctypes.data
            count, problem = kernel.lookup_batch(self._descriptor, *addresses, most)
            if problem == errno.ENOSPC and most < self.capacity:  # all that hashes to one place comes at once
                most = self.capacity
                continue
            if problem not in (0, errno.ENOENT):
                raise PprofpyError(f"a kernel map could not be read: {os.strerror(problem)}")
            parts.append((keys[:count].copy(), self._trimmed(values[:count]).copy()))
            started = True
            if problem == errno.ENOENT:
                return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def _buffers(self, count: int) -> tuple[Records, Records]:
        return np.empty(count, self._key), np.empty((count, self._copies), self._padded())

    def _padded(self) -> np.dtype[Any]:
        """The value as the kernel copies it: per-CPU ones are rounded up to 8 bytes each."""
        if not self._is_per_cpu:
            return self._value
        return np.dtype((np.void, -(-self._value.itemsize // 8) * 8))

    def _trimmed(self, values: Records) -> Records:
        if values.dtype == self._value:
            return values
        raw = values.view(np.uint8).reshape(len(values), self._copies, -1)[:, :, : self._value.itemsize]
        return np.ascontiguousarray(raw).view(self._value)[:, :, 0]


def kernel_facts(descriptor: int) -> dict[str, int]:
    """What the kernel says of a map or program of ours. Source: /proc/self/fdinfo."""
    lines = (line.split() for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
