"""The names that a program gave its threads: `threading._active`, read from outside.

A dictionary is read while the program may be changing it. What cannot be read, or makes no sense, has no name: names
are for people, nothing depends on them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

from pprofpy.collectors.cpython.dicts import Dicts, module_dict, modules_of
from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.runtime import Runtime, find_runtime
from pprofpy.errors import ImplausibleTargetError, PprofpyError
from pprofpy.recent import Recent
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import open_target, procfs

_TRIES, _TRIES_FOR_PYTHON = 2, 5
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
    dicts = Dicts.of(runtime, reader)
    modules = modules_of(runtime, dicts, interp)
    if "threading" not in modules:
        return
    module = module_dict(dicts, modules["threading"])
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
