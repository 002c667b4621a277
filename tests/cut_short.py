"""Kill recordings (-9) at random moments: what is shown then lacks little, and sums up to what the target says."""

from __future__ import annotations

import io
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import pprofpy
from pprofpy.arch import machine
from pprofpy.events.log import Batch, EventLog, call_name
from pprofpy.events.scheduling import SWITCH, to_trace
from pprofpy.formats import eventlog
from pprofpy.model.profile import Profile
from pprofpy.model.trace import Kind, Trace
from pprofpy.recorded import Recorded
from tests.conftest import PATIENCE_S, PROGRAMS, interpreter, wait_until

_COLUMNS = ("time_ns", "cpu_ns", "switches", "sleeper_switches", "calls", "allocated")
_SAMPLE_BYTES, _LAG_S = 16_384, 0.7
_WINDOW_ENDS_S = 2.0
"""A window may be as late on a free machine: it is put together, written and flushed to the disk."""


class Metered:
    """A running target that keeps account of what it does."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / f"account-{random.getrandbits(64):x}"
        words = [interpreter("3.11"), str(PROGRAMS / "metered.py"), str(self._log)]
        self._process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        assert self._process.stdout.readline() == "ready\n"
        self.pid = self._process.pid

    def did(self, what: str, begin_ns: int, end_ns: int) -> float:
        """How much of something it did between two moments (Unix time)."""
        data = self._log.read_bytes()
        rows = np.frombuffer(data[: len(data) // 48 * 48], np.int64).reshape(-1, len(_COLUMNS))
        at, values = rows[:, 0], rows[:, _COLUMNS.index(what)]
        assert at[0] <= begin_ns < end_ns <= at[-1], "the account does not cover the recording"
        return float(np.interp(end_ns, at, values) - np.interp(begin_ns, at, values))

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@dataclass(frozen=True)
class Kept:
    """What a killed recording has left.

    Attributes:
        recording: As it is shown.
        path: Its file.
        slack: By how much the machine stretches time.
    """

    recording: Recorded
    path: Path
    slack: float

    @property
    def profile(self) -> Profile:
        return self.recording.profile

    @property
    def begin_ns(self) -> int:
        return self.profile.time_ns

    @property
    def end_ns(self) -> int:
        return self.profile.time_ns + self.profile.duration_ns

    def of_others(self, pid: int, column: int, state: str = "") -> int:
        """The sum of all threads but the main one; of samples with this label, if one is given."""
        found = 0
        for one in self.profile.samples():
            labels = {label.key: label.value for label in one.labels}
            found += one.values[column] if labels.get("tid") != pid and state in ("", labels.get("state")) else 0
        return found


class KeptEvents(Kept):
    """Events do not say how long was recorded when it was killed: their last one does."""

    @property
    def end_ns(self) -> int:
        reader, batches = self._read()
        ends = [int(batch.records["head"]["ts_ns"].max()) for batch in batches if len(batch.records)]
        ends += [int(batch.all_calls()["head"]["ts_ns"].max()) for batch in batches if len(batch.all_calls())]
        return reader.time_ns + max(ends, default=reader.start_ns) - reader.start_ns

    def _read(self) -> tuple[EventLog, list[Batch]]:
        reader = eventlog.EventReader(io.BytesIO(self.path.read_bytes()))
        return reader.log, list(reader.batches())

    def calls(self, name: str) -> int:
        return sum(
            call_name(one, 0, machine()) == name
            for batch in self._read()[1]
            for one in batch.all_calls()["head"]["event"].tolist()
        )

    def trace(self) -> Trace:
        log, batches = self._read()
        assert SWITCH in [one.name for one in log.tracepoints]
        return to_trace(log, batches, 0, self.profile.collection)

    def switches_out(self, pid: int) -> int:
        """How often the other threads of a process left their CPU of their own will."""
        records, threads = self.trace().records, self.trace().threads
        tids = [tid for tid, thread in threads.items() if thread.pid == pid != tid]
        is_theirs = (records["kind"] == Kind.SWITCH) & np.isin(records["from_tid"], tids)
        return int((is_theirs & (records["state"] != 0)).sum())


Sum = Callable[[Kept, Metered], tuple[float, float, float]]
"""What was recorded, what it should be, and by how much it may be off."""


def _lag(kept: Kept, target: Metered, what: str) -> float:
    """What may be in the next window, which is lost: the kernel's sums are taken over twice a second."""
    whole_s = kept.profile.duration_ns / 1e9
    return target.did(what, kept.begin_ns, kept.end_ns) * min(_LAG_S * kept.slack / whole_s, 1)


def _cpu(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth = target.did("cpu_ns", kept.begin_ns, kept.end_ns)
    chance = 6 * math.sqrt(truth * kept.profile.period)
    return kept.profile.total(1), truth, 0.05 * truth + chance + _lag(kept, target, "cpu_ns")


def _wall(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth = 2 * kept.profile.duration_ns  # of its two threads
    return kept.profile.total(1), truth, 0.05 * truth + 2e9 * _LAG_S * kept.slack


def _py_spy(kept: Kept, target: Metered) -> tuple[float, float, float]:
    collection = kept.profile.collection
    truth = 2 * (collection.got - max(collection.errors, 0))
    return kept.profile.total(0), truth, 0.05 * truth + 4


def _off_cpu(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth = kept.profile.duration_ns
    return kept.of_others(target.pid, 1), truth, 0.03 * truth + 1e9 * _LAG_S * kept.slack


def _gil(kept: Kept, target: Metered) -> tuple[float, float, float]:
    """Who runs, as the samples of `gil` say."""
    ran = sum(int(str(row["cpu_ns"])) for row in kept.recording.tables["threads"])
    truth = target.did("cpu_ns", kept.begin_ns, kept.end_ns)
    return ran, truth, 0.05 * truth + 6 * math.sqrt(truth * 1e7) + _lag(kept, target, "cpu_ns")


def _waits(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth = target.did("sleeper_switches", kept.begin_ns, kept.end_ns)
    woken = kept.of_others(target.pid, 0, "woken")
    return woken, truth, 0.02 * truth + 4 + _lag(kept, target, "sleeper_switches")


def _switches(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth = target.did("switches", kept.begin_ns, kept.end_ns)
    return kept.profile.total(0), truth, 0.02 * truth + 20 + _lag(kept, target, "switches")


def _allocated(kept: Kept, target: Metered) -> tuple[float, float, float]:
    truth, column = target.did("allocated", kept.begin_ns, kept.end_ns), kept.profile.value_index("alloc_space")
    here = [
        one for one in kept.profile.samples() if any(frame.function.name.endswith("allocate") for frame in one.stack)
    ]
    found = sum(one.values[column] for one in here)
    return found, truth, 0.05 * truth + 6 * math.sqrt(truth * _SAMPLE_BYTES)


def _calls(kept: Kept, target: Metered) -> tuple[float, float, float]:
    assert isinstance(kept, KeptEvents)
    truth = target.did("calls", kept.begin_ns, kept.end_ns)
    return kept.calls("getppid"), truth, 0.01 * truth + 25


def _left(kept: Kept, target: Metered) -> tuple[float, float, float]:
    assert isinstance(kept, KeptEvents)
    truth = target.did("sleeper_switches", kept.begin_ns, kept.end_ns)
    return kept.switches_out(target.pid), truth, 0.02 * truth + 4


@dataclass(frozen=True)
class CutShort:
    """A kind of recording: its command, what in it has a truth, and how its file is called."""

    words: tuple[str, ...]
    sum: Sum
    pattern: str = "*.spool"
    kept: type[Kept] = Kept


KINDS = {
    "cpu": CutShort(("cpu", "--engine", "bpf", "-r", "999"), _cpu),
    "cpu --idle": CutShort(("cpu", "--engine", "bpf", "--idle"), _wall),
    "cpu --engine py-spy": CutShort(("cpu", "--engine", "py-spy", "--idle"), _py_spy),
    "heap": CutShort(("heap", "--engine", "sampling", "--sample-bytes", str(_SAMPLE_BYTES)), _allocated),
    "off-cpu": CutShort(("off-cpu",), _off_cpu),
    "gil": CutShort(("gil",), _gil),
    "sched-latency": CutShort(("sched-latency",), _waits),
    "sched-latency --trace": CutShort(("sched-latency", "--trace"), _left, "*.trace", KeptEvents),
    "events": CutShort(("events", "-e", "context-switches"), _switches),
    "trace": CutShort(("trace", "-o", "OUT/calls.trace"), _calls, "*.part", KeptEvents),
}
WITHOUT_EBPF = {"cpu --engine py-spy", "heap"}


@dataclass(frozen=True)
class Outcome:
    """What one kill came to.

    Attributes:
        kind: Which recording.
        killed_s: How long it had recorded.
        lacks_s: How much of that is not shown.
        off: By how much the sum is off, as a share of the truth; 0 if nothing is shown yet.
        wrong: What must not be, in words.
    """

    kind: str
    killed_s: float
    lacks_s: float
    off: float = 0.0
    wrong: str = ""


def kill_one(
    kind: str, folder: Path, after_s: float, window_s: float, slack: float = 1.0, target: Metered | None = None
) -> Outcome:
    """Record a program, and kill the recording.

    Args:
        kind: One of KINDS.
        folder: For all files; nothing else is in it.
        after_s: How long after it has begun.
        window_s: The length of its windows.
        slack: By how much the machine stretches time, as `load` says.
        target: What to record; by default a program of its own.
    """
    if target is None:
        target = Metered(folder.parent)
        try:
            return kill_one(kind, folder, after_s, window_s, slack, target)
        finally:
            target.end()
    with _recording(kind, folder, target, window_s) as process:
        begun = time.time()
        time.sleep(after_s)
        killed = time.time()
        process.send_signal(signal.SIGKILL)
    time.sleep(0.2)  # the target's account goes a little beyond
    return _looked_at(kind, folder, target, begun, killed, window_s, slack)


@contextmanager
def _recording(kind: str, folder: Path, target: Metered, window_s: float) -> Iterator[subprocess.Popen[bytes]]:
    words = [word.replace("OUT", str(folder)) for word in KINDS[kind].words]
    length = ["-d", "1h"] if words[0] == "trace" else ["-d", "1h", "--window", f"{window_s * 1000:.0f}ms"]
    said = folder.with_suffix(".err")
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "pprofpy", *words, "--pid", str(target.pid), *length],
            env={**os.environ, "PPROFPY_DIR": str(folder)}, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    try:
        begins = b"engine:" if "bpf" in words else b"recording "
        wait_until(lambda: begins in said.read_bytes() or process.poll() is not None, "it records")
        assert process.poll() is None, said.read_text()
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)


def _looked_at(
    kind: str, folder: Path, target: Metered, begun: float, killed: float, window_s: float, slack: float
) -> Outcome:
    about = KINDS[kind]
    files = [path for path in folder.glob(about.pattern) if path.stat().st_size > 100]
    bound_s = window_s + _WINDOW_ENDS_S * slack
    if not files:
        early = killed - begun <= bound_s
        return Outcome(kind, killed - begun, killed - begun, wrong="" if early else "nothing is shown")
    kept = about.kept(pprofpy.load(files[0]), files[0], slack)
    lacks_s = killed - kept.end_ns / 1e9
    found, truth, most = about.sum(kept, target)
    wrong = f"it lacks {lacks_s:.1f} s" if lacks_s > bound_s else ""
    if abs(found - truth) > most:
        wrong += f" the sum is {found:.0f}, not {truth:.0f} +- {most:.0f}"
    return Outcome(kind, killed - begun, lacks_s, abs(found - truth) / max(truth, 1), wrong)
