"""From what py-spy writes to a Profile.

Of py-spy's formats, speedscope JSON says most: whole paths, lines, and one profile a thread. With `--threads` each
stack also begins (root side) with a pseudo frame for its thread, and with `--subprocesses` with one for each process
on the way there. Those are turned into labels. Collapsed stacks, in contrast, cannot tell a `;` in a name from a
separator.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping as Dict
from typing import Any, NamedTuple

from pprofpy.collectors.cpython.linetable import MOST_LINES
from pprofpy.collectors.cpython.modules import ModuleNames
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import ImplausibleTargetError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import (
    PYTHON_MAPPING,
    Frame,
    Function,
    Label,
    LabelSet,
    Line,
    Location,
    Mapping,
    Profile,
    ValueType,
)
from pprofpy.target import Target
from pprofpy.units import NS_PER_S

SAMPLES = ValueType("samples", "count")
CPU = ValueType("cpu", "nanoseconds")
WALL = ValueType("wall", "nanoseconds")

_NUMBER = re.compile(r"[0-9]{1,10}")
_PROCESS = re.compile(r"process (?P<pid>[0-9]{1,10}):", re.DOTALL)
_THREAD = re.compile(r"thread \((?P<tid>\w+)\)(?:: (?P<name>.*))?", re.DOTALL)
_ADDRESS = re.compile(r"0x(?P<address>[0-9a-f]+)")
_PYTHON_FILE = re.compile(r"<.*>|.*\.py[cw]?", re.DOTALL)
_NATIVE_FILE = re.compile(
    r".*(?:\.so[\d.]*|\.(?:c|cc|cpp|cxx|h|hh|hpp|rs|s|f|f90|pyx|pxd|go))", re.DOTALL | re.IGNORECASE
)


def convert(document: Dict[str, Any], options: CpuOptions, target: Target, tids: Dict[int, int]) -> Profile:
    """Build a Profile from py-spy's speedscope document.

    Args:
        document: The parsed JSON, recorded with --threads and --full-filenames.
        options: What py-spy was asked for.
        target: The process; its files tell packages from plain folders.
        tids: Thread ids in the target's pid namespace -> in ours, where they differ.

    Raises:
        ImplausibleTargetError: It is no such document: py-spy reads a target that may mislead it.
    """
    period_ns = NS_PER_S // options.rate_hz
    builder = _builder(options)
    try:
        frames = [_frame(one) for one in document["shared"]["frames"]]
        threads = [Counter(_stack(sample, len(frames)) for sample in one["samples"]) for one in document["profiles"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _senseless(target) from error
    stacks = _StackReader(builder, frames, options, target, tids)
    for thread in threads:
        for indices, count in thread.items():
            locations, labels = stacks.read(indices)
            builder.add_locations(locations, (count, count * period_ns), labels)
    return _built(builder, options)


def empty(options: CpuOptions) -> Profile:
    """A Profile without samples, of the same kind."""
    return _built(_builder(options), options)


def _builder(options: CpuOptions) -> ProfileBuilder:
    builder = ProfileBuilder((SAMPLES, WALL if options.idle else CPU))
    builder.mapping(PYTHON_MAPPING)  # first of all: tables are headed by the first mapping's name
    return builder


def _built(builder: ProfileBuilder, options: CpuOptions) -> Profile:
    profile = builder.build()
    profile.period_type, profile.period = profile.sample_types[1], NS_PER_S // options.rate_hz
    return profile


class _SpyFrame(NamedTuple):
    """One of py-spy's frames; its texts and numbers are what the target says."""

    name: str
    file: str
    line: int


def _frame(raw: Dict[str, Any]) -> _SpyFrame:
    name, file, line = raw["name"], raw.get("file") or "", raw.get("line") or 0
    if not isinstance(name, str) or not isinstance(file, str) or not isinstance(line, int):
        raise TypeError
    return _SpyFrame(name, file, min(max(line, 0), MOST_LINES - 1))


def _stack(raw: list[Any], frame_count: int) -> tuple[int, ...]:
    if not all(isinstance(index, int) and 0 <= index < frame_count for index in raw):
        raise ValueError
    return tuple(raw)


def _senseless(target: Target) -> ImplausibleTargetError:
    return ImplausibleTargetError(f"what py-spy recorded of {target} makes no sense", "use another engine")


class _StackReader:
    """Reads py-spy's stacks (root first, indices into its frames) as locations (leaf-first) and labels."""

    def __init__(
        self,
        builder: ProfileBuilder,
        frames: list[_SpyFrame],
        options: CpuOptions,
        target: Target,
        tids: Dict[int, int],
    ) -> None:
        self._builder = builder
        self._frames = frames
        self._options = options
        self._target = target
        self._modules = ModuleNames(target.root, target.pid)
        self._tids = tids
        self._locations: dict[int, int] = {}

    def read(self, indices: tuple[int, ...]) -> tuple[tuple[int, ...], LabelSet]:
        pid, start = self._processes(indices)
        if start >= len(indices):
            raise _senseless(self._target)
        labels = self._labels(self._frames[indices[start]].name, pid)
        return tuple(self._location(index) for index in reversed(indices[start + 1 :])), labels

    def _processes(self, indices: tuple[int, ...]) -> tuple[int | None, int]:
        """The pid of the innermost process frame, if there are any, and where the thread's frame is."""
        pid, place = None, 0
        if self._options.subprocesses:
            for index in indices:
                match = _PROCESS.match(self._frames[index].name)
                if match is None:
                    break
                pid, place = int(match["pid"]), place + 1
        return pid, place

    def _labels(self, thread_frame: str, pid: int | None) -> LabelSet:
        match = _THREAD.fullmatch(thread_frame)
        if match is None:
            raise _senseless(self._target)
        tid = int(match["tid"]) if _NUMBER.fullmatch(match["tid"]) else None
        tid = self._tids.get(tid, tid) if tid is not None else None
        is_main = tid == (self._target.pid if pid is None else pid)
        fallback = "MainThread" if is_main else f"thread {match['tid']}"  # nameless without a `threading` module
        labels = [Label("thread", match["name"] or fallback)]
        if tid is not None:
            labels.append(Label("tid", tid))
        if pid is not None:
            labels.append(Label("pid", pid))
        return tuple(labels)

    def _location(self, index: int) -> int:
        if index not in self._locations:
            frame = self._frames[index]
            self._locations[index] = (
                self._native_location(frame) if self._is_native(frame) else self._python_location(frame)
            )
        return self._locations[index]

    def _is_native(self, frame: _SpyFrame) -> bool:
        filename = frame.file
        if not self._options.native or _PYTHON_FILE.fullmatch(filename):
            return False
        return bool(_ADDRESS.fullmatch(frame.name) or _NATIVE_FILE.fullmatch(filename)) or not frame.line

    def _python_location(self, frame: _SpyFrame) -> int:
        name, filename = frame.name, frame.file
        module = self._modules.name(filename)
        function = Function(f"{module}.{name}" if module else name, name, filename)
        return self._builder.frame_location(Frame(function, frame.line))

    def _native_location(self, frame: _SpyFrame) -> int:
        """A C function; where py-spy knows but an address, its library stands for it.

        The mapping's name is in brackets: with a path to a real ELF file, `go tool pprof` would disassemble that file
        instead of showing our source lines.
        """
        name, filename, line = frame.name, frame.file, frame.line
        library = f"[{filename.rpartition('/')[2].strip('[]')}]" if not line and filename else "[native]"
        mapping = Mapping(library, has_functions=True, has_filenames=True, has_line_numbers=True)
        address = _ADDRESS.fullmatch(name)
        if address is None:
            return self._builder.frame_location(Frame(Function(name, name, filename), line), mapping)
        function = self._builder.function(Function(library, library, filename))
        place = int(address["address"], 16)
        return self._builder.location(Location((Line(function),), self._builder.mapping(mapping), place))
