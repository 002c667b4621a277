"""The names that a program gave its threads: `threading._active`, read from outside.

A dictionary is read while the program may be changing it. What cannot be read, or makes no sense, has no name: names
are for people, nothing depends on them.

Source: Include/cpython/dictobject.h, Include/internal/pycore_dict.h, pycore_object.h; what differs between
versions is in versions.py.
"""

from __future__ import annotations

import struct
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime, find_runtime
from pprofpy.collectors.cpython.versions import Attributes, Objects, version_of
from pprofpy.errors import ImplausibleTargetError, PprofpyError
from pprofpy.recent import Recent
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import open_target, procfs

_DICT_KEYS, _DICT_VALUES = 32, 40
_MODULE_DICT = 16
_TYPE_BASIC_SIZE, _TYPE_FLAGS, _TYPE_DICT_OFFSET = 32, 168, 288
_FLAG_INLINE_VALUES, _FLAG_MANAGED_DICT = 1 << 2, 1 << 4

_TRIES, _TRIES_FOR_PYTHON = 2, 5
_MOST_ENTRIES = 100_000
_LONGEST_NAME = 200
_SECONDS = 0.5
"""Reading one process's names takes at most this long. Thousands of modules and threads take a tenth of it."""

_PAUSES = 10
"""So many times as long as the names of a process took to read, they are not read again: programs start threads all the
while."""

_RENAMED_S = 0.4
"""Names are read again after this: programs give their threads the names of their jobs."""
_MOST_NAMES, _AND_MORE = 3, "…"

_MOST_THREADS = 100_000
"""Nor are more names kept, twice, however many threads are started at once."""

_MOST_PROCESSES = 10_000
"""So many interpreters are kept, those that were found last: programs may start processes for ever."""

_MADE_UP = "Dummy-"
"""How `threading` calls a thread that it has not started. Such an entry outlives its thread."""

_INT_VALUE, _INT_DIGIT_BITS = 24, 30


class ThreadNames:
    """The names of threads, by pid and tid (as our pid namespace numbers them).

    A thread that takes the name of each job has all of its names, in the order in which they were seen. Names are kept
    when threads end, for as long as they are asked for, and a minute longer.
    """

    def __init__(self) -> None:
        self._names: Recent[tuple[int, int], tuple[str, ...]] = Recent(_MOST_THREADS)
        self._tries: Recent[tuple[int, int], int] = Recent(_MOST_THREADS)
        self._implausible: set[int] = set()
        self._read_at: Recent[int, tuple[float, float]] = Recent(_MOST_PROCESSES)

    def name(self, pid: int, tid: int, otherwise: str = "") -> str:
        """A thread's name.

        Args:
            pid, tid: Which.
            otherwise: What to call it if Python has no name for it; by default its number in words.
        """
        names = ", ".join(self._names.get((pid, tid)) or ())
        return names or otherwise or ("MainThread" if tid == pid else f"thread {tid}")

    def learn_all(self, runtimes: Mapping[int, Runtime], threads: Iterable[tuple[int, int]]) -> None:
        """Read the names of threads that are new, and now and then those of all, which may have other names now.

        Args:
            runtimes: pid -> its Python, as far as that is known.
            threads: (pid, tid) of each.
        """
        tids: defaultdict[int, set[int]] = defaultdict(set)
        for pid, tid in threads:
            tids[pid].add(tid)
        for pid in tids.keys() & runtimes.keys():
            self.learn(runtimes[pid], tids[pid])

    def learn(self, runtime: Runtime, tids: Iterable[int]) -> None:
        """The same for one process. A thread that is only just beginning is tried again."""
        pid = runtime.pid
        new = [tid for tid in tids if (pid, tid) not in self._names and (self._tries.get((pid, tid)) or 0) < _TRIES]
        began_s = time.monotonic()
        if pid in self._implausible or not self._is_due(pid, began_s, has_new=bool(new)):
            return
        try:
            outer, names = bounded(f"process {pid}", lambda: (_outer_tids(pid), _read_names(runtime)))
            for native_id, name in names.items():
                self._add((pid, outer.get(native_id, native_id)), name)
            if (pid, pid) not in self._names:  # also before `threading` is imported
                self._add((pid, pid), "MainThread")
        except ImplausibleTargetError:
            self._implausible.add(pid)
        except (UnreadableError, PprofpyError, BlockedError):
            pass
        self._read_at[pid] = began_s, time.monotonic() - began_s
        for tid in new:
            self._tries[pid, tid] = (self._tries.get((pid, tid)) or 0) + 1

    def _is_due(self, pid: int, now_s: float, *, has_new: bool) -> bool:
        """Programs start threads all the while: what takes long to read is not read that often."""
        last = self._read_at.get(pid)
        if last is None:
            return has_new
        read_s, took_s = last
        return now_s > read_s + (_PAUSES * took_s if has_new else max(_RENAMED_S, 5 * _PAUSES * took_s))

    def _add(self, thread: tuple[int, int], name: str) -> None:
        known = self._names.get(thread) or ()
        if name in known or known[-1:] == (_AND_MORE,):
            return
        self._names[thread] = (*known, name) if len(known) < _MOST_NAMES else (*known, _AND_MORE)


class Interpreters:
    """The Pythons of processes. Each is sought a few times from when it is first seen: it may only just be starting."""

    def __init__(self) -> None:
        self._found: dict[int, Runtime] = {}
        self._tries: dict[int, int] = {}

    def of(self, pids: set[int]) -> dict[int, Runtime]:
        """Return pid -> interpreter, of those that have one."""
        for pid in pids - self._found.keys():
            self._tries[pid] = self._tries.get(pid, 0) + 1
            if self._tries[pid] <= _TRIES_FOR_PYTHON:
                with suppress(PprofpyError, OSError):
                    self._found[pid] = find_runtime(open_target(pid))
        for known in (self._found, self._tries):
            for pid in list(known)[:-_MOST_PROCESSES]:
                del known[pid]
        return self._found


def _outer_tids(pid: int) -> dict[int, int]:
    """Thread numbers in the process's own pid namespace -> in ours, as far as they differ."""
    with suppress(OSError):
        if procfs.namespace(pid, "pid") == procfs.namespace("self", "pid"):
            return {}
    found = {}
    for tid in procfs.tids(pid):
        with suppress(OSError):
            found[procfs.status(pid, tid).inner_id] = tid
    return found


def _read_names(runtime: Runtime) -> dict[int, str]:
    """Thread number in its own namespace -> name, of every thread that a `threading` module knows.

    Each interpreter has one of its own; what the main interpreter says, the oldest, comes last. Of more threads than
    can be read in the time that there is, some have names.
    """
    reader, found = runtime.snapshot_reader(_SECONDS), dict[int, str]()
    try:
        for interp in reader.interpreters(runtime.address):
            with suppress(UnreadableError):
                for native_id, name in _threads_of(runtime, reader, interp):
                    found[native_id] = name
    except ImplausibleTargetError:
        if not found:
            raise
    return found


def _threads_of(runtime: Runtime, reader: ObjectReader, interp: int) -> Iterator[tuple[int, str]]:
    """(thread number, name). Of several entries for one thread the first counts: the others are gevent's greenlets."""
    dicts = _Dicts(reader, version_of(runtime.version).objects)
    modules = dicts.by_name(reader.memory.word(interp + runtime.layout.interp_modules))
    if "threading" not in modules:
        return
    module = dicts.by_name(reader.memory.word(modules["threading"] + _MODULE_DICT))
    if "_active" not in module:
        return
    named: set[int] = set()
    for _, thread in dicts.entries(module["_active"]):
        with suppress(UnreadableError, KeyError):
            attributes = dicts.attributes(thread)
            native_id, name = dicts.integer(attributes["_native_id"]), reader.string(attributes["_name"])
            if native_id not in named:
                yield native_id, name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
                if not name.startswith(_MADE_UP):
                    named.add(native_id)


class _Dicts:
    """Reads dictionaries and instances of one version."""

    def __init__(self, reader: ObjectReader, forms: Objects) -> None:
        self._reader = reader
        self._memory = reader.memory
        self._forms = forms
        self._strings: dict[int, str] = {}

    def by_name(self, address: int) -> dict[str, int]:
        """A dict with str keys: key -> address of the value. Other keys are left out."""
        found = {}
        for key, value in self.entries(address):
            with suppress(UnreadableError):
                found[self._string(key)] = value
        return found

    def _string(self, address: int) -> str:
        """A key. The names of attributes are the same objects in all instances: they are read once."""
        found = self._strings.get(address)
        if found is None:
            found = self._strings[address] = self._reader.string(address)
        return found

    def entries(self, address: int) -> list[tuple[int, int]]:
        """The addresses of a dict's keys and values, in order of insertion."""
        keys = self._memory.word(address + _DICT_KEYS)
        values = self._memory.word(address + _DICT_VALUES)
        if values:
            return self._with_values(keys, values + self._forms.values_head)
        return [(key, value) for key, value in self._slots(keys) if key and value]

    def attributes(self, instance: int) -> dict[str, int]:
        """An instance's own attributes: name -> address of the value."""
        kind = self._memory.word(instance + self._reader.layout.object_type)
        flags = self._memory.word(kind + _TYPE_FLAGS)
        if self._forms.attributes is Attributes.IN_DICT or not flags & _FLAG_MANAGED_DICT:
            offset = self._memory.word(kind + _TYPE_DICT_OFFSET)
            return self.by_name(self._memory.word(instance + offset))
        values = self._inline_values(instance, kind, flags)
        if not values:
            return self.by_name(self._memory.word(instance - 24))
        keys = self._memory.word(kind + self._forms.cached_keys)
        return {self._string(key): value for key, value in self._with_values(keys, values)}

    def integer(self, address: int) -> int:
        """An int below 2**60."""
        low, high = struct.unpack("<II", self._memory.read(address + _INT_VALUE, 8))
        size = self._memory.word(address + 16)
        digits = size >> self._forms.int_flag_bits
        return int(low | high << _INT_DIGIT_BITS) if digits > 1 else int(low)

    def _inline_values(self, instance: int, kind: int, flags: int) -> int:
        """Where the attributes lie if not in a dict of their own; 0 if they do."""
        if self._forms.attributes is Attributes.POINTED_TO:
            return self._memory.word(instance - 32)
        if self._forms.attributes is Attributes.TAGGED:
            tagged = self._memory.word(instance - 24)
            return tagged + 1 if tagged & 1 else 0
        values = instance + self._memory.word(kind + _TYPE_BASIC_SIZE)
        if not flags & _FLAG_INLINE_VALUES or not self._memory.read(values, 4)[3]:
            return 0
        return values + 8

    def _with_values(self, keys: int, values: int) -> list[tuple[int, int]]:
        slots = self._slots(keys)
        pointers = struct.unpack(f"<{len(slots)}Q", self._memory.read(values, 8 * len(slots)))
        return [(key, value) for (key, _), value in zip(slots, pointers, strict=True) if key and value]

    def _slots(self, keys: int) -> list[tuple[int, int]]:
        """All (key, value) places of a table that are in use or were."""
        if self._forms.has_compact_keys:
            head = self._memory.read(keys, 32)
            index_bytes, is_general, count = 1 << head[9], head[10] == 0, struct.unpack_from("<Q", head, 24)[0]
            start, width = keys + 32 + index_bytes, 24 if is_general else 16
        else:
            _, size, _, _, count = struct.unpack("<5Q", self._memory.read(keys, 40))
            index_width = 1 if size <= 0xFF else 2 if size <= 0xFFFF else 4 if size <= 0xFFFFFFFF else 8
            start, width = keys + 40 + size * index_width, 24
        if count > _MOST_ENTRIES:
            raise UnreadableError(f"no dict at {keys:#x}")
        raw = self._memory.read(start, count * width)
        return [struct.unpack_from("<QQ", raw, place + width - 16) for place in range(0, count * width, width)]
