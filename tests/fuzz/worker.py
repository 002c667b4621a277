"""Runs inputs in child processes, each within its limits; what breaks one is a finding, not the end."""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import select
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from types import FrameType

from pprofpy.errors import PprofpyError
from tests.fuzz.targets import Target

MOST_SECONDS = 1.0
MOST_BYTES = 200 << 20

_PER_CHILD = 2_000
_PATIENCE_S = 60.0
"""After so long without an answer, a child hangs in C."""


class _TooSlowError(BaseException):
    """Not an Exception, so that nothing which catches those hides it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that did not end as it must: its number, and what happened."""

    number: int
    what: str


@dataclass(slots=True)
class Outcome:
    """What became of many inputs of a target.

    Attributes:
        inputs: How many.
        refused: How many of them ended in an error of ours.
        findings: Those that ended otherwise, one of each kind.
        slowest_s, largest_bytes: The most that one took, beside what the process has.
    """

    inputs: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)
    slowest_s: float = 0.0
    largest_bytes: int = 0

    def add(self, other: Outcome) -> None:
        """Add another lot of the same target."""
        self.inputs += other.inputs
        self.refused += other.refused
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.largest_bytes = max(self.largest_bytes, other.largest_bytes)
        known = {_kind(finding.what) for finding in self.findings}
        self.findings += [finding for finding in other.findings if _kind(finding.what) not in known]


Inputs = Callable[[int], bytes]
"""The input of each number."""


def run(target: Target, inputs: Inputs, first: int, last: int) -> Outcome:
    """Run the inputs from `first` up to `last` in child processes."""
    total = Outcome()
    while first < last:
        end = min(first + _PER_CHILD, last)
        outcome, broken_at, how = _in_child(target, inputs, first, end)
        total.add(outcome)
        if broken_at >= 0:
            total.add(Outcome(broken_at + 1 - first, findings=[Finding(broken_at, how)]))
            end = broken_at + 1
        first = end
    return total


def try_one(target: Target, data: bytes) -> tuple[str, bool]:
    """Run one input here: what went wrong, or nothing; and was it refused?"""
    allowed: tuple[type[BaseException], ...] = (PprofpyError, *target.allowed)
    try:
        target.run(data)
    except allowed:
        return "", True
    except _TooSlowError:
        return f"more than {MOST_SECONDS} s of CPU time\n{_where()}", False
    except BaseException:
        return traceback.format_exc(limit=-6), False
    return "", False


def _in_child(target: Target, inputs: Inputs, first: int, last: int) -> tuple[Outcome, int, str]:
    """The outcome; and which input ended the child and how, if one did."""
    place = mmap.mmap(-1, 8)
    place[:8] = struct.pack("<q", first)
    answer, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(answer)
        try:
            with os.fdopen(write, "wb") as stream:
                pickle.dump(_all_of(target, inputs, first, last, place), stream)
        finally:
            os._exit(0)
    os.close(write)
    content, how = _answer(answer, child, place)
    os.close(answer)
    _, status = os.waitpid(child, 0)
    number = int(struct.unpack("<q", place[:8])[0])
    if content:
        said = pickle.loads(content)
        if isinstance(said, Outcome):
            return said, -1, ""
        raise RuntimeError(f"the fuzzer is at fault, not what it tries: {said}")
    return Outcome(), number, how or f"the process ended with status {status:#x}"


def _answer(answer: int, child: int, place: mmap.mmap) -> tuple[bytes, str]:
    """What a child says; one that stays with an input is killed."""
    content, seen, since = b"", b"", time.monotonic()
    while True:
        if select.select([answer], [], [], 1.0)[0]:
            part = os.read(answer, 1 << 16)
            if not part:
                return content, ""
            content += part
        elif place[:8] != seen:
            seen, since = place[:8], time.monotonic()
        elif time.monotonic() - since > _PATIENCE_S:
            os.kill(child, signal.SIGKILL)
            return b"", f"killed after {_PATIENCE_S} s"


def _all_of(target: Target, inputs: Inputs, first: int, last: int, place: mmap.mmap) -> Outcome | str:
    """The outcome, or what the fuzzer itself did wrong."""
    try:
        return _run_here(target, inputs, first, last, place)
    except BaseException:
        return traceback.format_exc()


def _run_here(target: Target, inputs: Inputs, first: int, last: int, place: mmap.mmap) -> Outcome:
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    os.dup2(devnull, 2)
    signal.signal(signal.SIGPROF, _too_slow)
    _limit_memory()
    outcome = Outcome()
    largest = _largest_bytes()
    for number in range(first, last):
        data = inputs(number)
        place[:8] = struct.pack("<q", number)
        signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
        began = time.process_time()
        what, refused = try_one(target, data)
        signal.setitimer(signal.ITIMER_PROF, 0)
        outcome.slowest_s = max(outcome.slowest_s, time.process_time() - began)
        growth, largest = _largest_bytes() - largest, _largest_bytes()
        outcome.largest_bytes = max(outcome.largest_bytes, growth)
        if not what and growth > MOST_BYTES:
            what = f"{growth >> 20} MB of memory"
        outcome.add(Outcome(1, int(refused), [Finding(number, what)] if what else []))
    return outcome


def _limit_memory() -> None:
    with open("/proc/self/statm") as stream:  # noqa: PTH123 - the kernel's
        size = int(stream.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MOST_BYTES, size + 2 * MOST_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _largest_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _too_slow(_number: int, _frame: FrameType | None) -> None:
    raise _TooSlowError


def _where() -> str:
    return "".join(traceback.format_tb(sys.exc_info()[2])[-4:])


def _kind(what: str) -> str:
    """The place and the error: many inputs find one fault."""
    return "\n".join(line for line in what.splitlines() if not line.startswith("    "))[-300:].split(": ")[0]
