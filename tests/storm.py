"""Kill pprofpy (-9) at random moments, and look for anything that it leaves in its target or in the kernel."""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.conftest import PROGRAMS, interpreter
from tests.hostile.harness import Condition, load, status_of, trouble

DURATION_S = 0.5
GRACE_S = 2.0
_HANGS_S = 60.0
_SLOWEST = 0.5
"""Of the target's speed before: what other programs do to caches makes some of it."""
_SPEED_CPU_NS = 10_000_000
_MEASUREMENTS = 20
_POLL_S = 0.01
_BPF_SYSTEM_CALL = 321
_NEXT_ID = {"prog_id": 11, "map_id": 12, "link_id": 31}
"""As fdinfo names them -> bpf(2) command. Source: enum bpf_cmd in <linux/bpf.h>."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "cpu-bpf": ("cpu", "--engine", "bpf"),
    "cpu-py-spy": ("cpu", "--engine", "py-spy"),
    "heap-sampling": ("heap", "--engine", "sampling"),
    "heap-tracemalloc": ("heap", "--engine", "tracemalloc"),
    "off-cpu": ("off-cpu",),
    "gil": ("gil",),
    "sched-latency": ("sched-latency", "--stacks"),
    "events": ("events", "-e", "page-faults"),
    "trace": ("trace",),
}
WITHOUT_EBPF = {"cpu-py-spy", "heap-sampling", "heap-tracemalloc"}
PHASES = ("start-up", "recording", "end", "recording")

Launch = Callable[[list[str], int, int], int]
"""Start pprofpy with these words, its standard output and error there, in a session of its own; returns its pid."""


@dataclass
class Tally:
    """What a storm came to.

    Attributes:
        hit: Phase -> kills that hit it.
        missed: Runs that were over before they were killed.
        wrong: What was found, each with its command, phase and second.
    """

    hit: Counter[str] = field(default_factory=Counter)
    missed: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        return sum(self.hit.values())


class Victim:
    """A running target with its condition and speed as they were at first."""

    def __init__(self, folder: Path, version: str) -> None:
        self._file = folder / f"counter-{random.getrandbits(64):x}"
        self._file.write_bytes(bytes(8))
        words = [interpreter(version), str(PROGRAMS / "stormed.py"), str(self._file)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        assert self.process.stdout.readline() == "ready\n"
        self.pid = self.process.pid
        self._first_speed = self.speed()
        self._pending = self._waiting_signals()
        self._before = Condition.of(self.pid)

    def settle(self) -> None:
        """Take its mappings as they are after a recording that was not disturbed: `heap` leaves what it documents.

        That is the sampler's library, and what the C library keeps of threads that have ended.
        """
        wrong = self.harm()
        assert wrong == [], f"an undisturbed recording left: {wrong}"
        self._before = Condition.of(self.pid)

    def _waiting_signals(self) -> tuple[str, ...]:
        status = status_of(self.pid)
        return status["SigPnd"], status["ShdPnd"]

    def _work(self) -> tuple[int, int]:
        """Its rounds so far, and the nanoseconds of CPU time of its main thread."""
        spent = Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text().split()[0]
        return int.from_bytes(self._file.read_bytes(), "little"), int(spent)

    def speed(self) -> float:
        """Rounds per second of CPU time, measured now."""
        rounds, spent_ns = self._work()
        deadline = time.monotonic() + _HANGS_S
        while True:
            time.sleep(_POLL_S)
            now, now_ns = self._work()
            if now_ns - spent_ns >= _SPEED_CPU_NS:
                return (now - rounds) * 1e9 / (now_ns - spent_ns)
            if time.monotonic() > deadline:
                return 0.0

    def harm(self) -> list[str]:
        """What is wrong with it once its grace is over."""
        deadline = time.monotonic() + GRACE_S * load()
        while True:
            wrong = self._harm()
            if not wrong or time.monotonic() > deadline:
                break
            time.sleep(5 * _POLL_S)
        return wrong or self._slowness()

    def _slowness(self) -> list[str]:
        """Is it slow each time that it is measured, for some seconds? Others may share its caches for a moment."""
        for _ in range(_MEASUREMENTS):
            speed = self.speed()
            if speed >= _SLOWEST * self._first_speed:
                return []
        return [f"speed: {self._first_speed:.0f} -> {speed:.0f} rounds a second of CPU time"]

    def _harm(self) -> list[str]:
        wrong = trouble(self.pid)
        if not wrong:
            wrong = self._before.lost(Condition.of(self.pid))
            if self._waiting_signals() != self._pending:
                wrong.append(f"signals wait: {self._waiting_signals()}")
        return wrong

    def is_entered(self) -> bool:
        """Does the heap's agent hold its control file there?"""
        return any("memfd:pprofpy" in name for name in Condition.of(self.pid).files.values())

    def end(self) -> list[str]:
        """What it has noticed itself."""
        try:
            out = self.process.communicate(timeout=_HANGS_S)[0]
            return [str(one) for one in json.loads(out)]
        except (subprocess.TimeoutExpired, ValueError) as error:
            return [f"the target did not end well: {error!r}, status {self.process.poll()}"]
        finally:
            self.process.kill()
            self._file.unlink()


@contextmanager
def victims(folder: Path, count: int, wrong: list[str], version: str = "3.12") -> Iterator[list[Victim]]:
    """Start several; what they have noticed by their end is added to `wrong`."""
    started = [Victim(folder, version) for _ in range(count)]
    try:
        yield started
    finally:
        for one in started:
            wrong += one.end()


class Round:
    """One pprofpy from its start to its violent end."""

    def __init__(self, name: str, victim: Victim, launch: Launch) -> None:
        self._name, self._victim = name, victim
        self.words = [*COMMANDS[name], "--pid", str(victim.pid), "-d", f"{DURATION_S * 1000:.0f}ms"]
        self._began_s = time.monotonic()
        self._pipe, theirs = os.pipe()
        self.pid = launch(self.words, theirs, theirs)
        os.close(theirs)
        self._said = b""
        self._is_over = False
        self.recording_since_s = 0.0

    def advance(self, until_s: float) -> None:
        """Watch it until this time or its end."""
        while not self._is_over and (left_s := until_s - time.monotonic()) > 0:
            self._listen(min(left_s, _POLL_S))

    def wait_for_recording(self) -> None:
        """Watch it until it records, or has ended."""
        deadline = time.monotonic() + _HANGS_S
        while not self._is_over and not self.recording_since_s and time.monotonic() < deadline:
            self._listen(_POLL_S)

    def _listen(self, timeout_s: float) -> None:
        if select.select([self._pipe], [], [], timeout_s)[0]:
            part = os.read(self._pipe, 1 << 16)
            self._said += part
            self._is_over = self._is_over or not part
        if not self.recording_since_s and self._records():
            self.recording_since_s = time.monotonic()

    def _records(self) -> bool:
        if self._name.startswith("heap"):
            return self._victim.is_entered()
        if self._name == "trace":  # it does not say so, and shows events late
            return any(kind == "link_id" for kind, _ in kernel_ids(self.pid))
        return b"recording " in self._said

    def phase(self) -> str:
        """Where it is now."""
        if not self.recording_since_s:
            return "start-up"
        return "recording" if time.monotonic() < self.recording_since_s + DURATION_S else "end"

    def elapsed_s(self) -> float:
        return time.monotonic() - self._began_s

    def kill(self) -> bool:
        """Kill it; False if it had ended by itself."""
        os.kill(self.pid, signal.SIGKILL)
        status = os.waitpid(self.pid, 0)[1]
        self._close()
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL

    def wait(self) -> str:
        """Let it end; what it said."""
        while not self._is_over:
            self._listen(_POLL_S)
        os.waitpid(self.pid, 0)
        self._close()
        return self._said.decode(errors="replace")

    def _close(self) -> None:
        os.close(self._pipe)


def kill_repeatedly(
    name: str, targets: list[Victim], rounds: int, launch: Launch, tally: Tally, until_s: float = float("inf")
) -> None:
    """Kill one command again and again.

    Args:
        name: Which of COMMANDS.
        targets: In turn.
        rounds: How many kills.
        launch: How pprofpy is started.
        tally: Where the outcome goes.
        until_s: Ends it earlier, by the monotonic clock.
    """
    begin_s, end_s = map(max, zip(*(calibrate(name, one, launch) for one in targets), strict=True))
    mounts = own_mounts()
    target_kills = tally.kills + rounds
    while tally.kills < target_kills and time.monotonic() < until_s:
        victim = targets[tally.kills % len(targets)]
        wanted = PHASES[tally.kills % len(PHASES)]
        round_ = Round(name, victim, launch)
        if wanted == "start-up":
            round_.advance(time.monotonic() + random.uniform(0, begin_s))
        else:
            round_.wait_for_recording()
            begun_s = round_.recording_since_s or time.monotonic()
            late_s = random.uniform(0, DURATION_S) if wanted == "recording" else DURATION_S + random.uniform(0, end_s)
            round_.advance(begun_s + late_s)
        phase, elapsed_s, ids = round_.phase(), round_.elapsed_s(), kernel_ids(round_.pid)
        if not round_.kill():
            tally.missed += 1
            continue
        tally.hit[phase] += 1
        wrong = victim.harm() + left_in_kernel(ids) + left_alive(round_.pid)
        if own_mounts() != mounts:
            wrong.append("a mount was left")
        tally.wrong += [f"{name}, killed in {phase} after {elapsed_s:.2f} s: {one}" for one in wrong]


def calibrate(name: str, victim: Victim, launch: Launch) -> tuple[float, float]:
    """How long its start-up takes, and its end, undisturbed; in seconds."""
    undisturbed = Round(name, victim, launch)
    undisturbed.wait_for_recording()
    begin_s = undisturbed.elapsed_s()
    said, end_s = undisturbed.wait(), undisturbed.elapsed_s() - begin_s - DURATION_S
    if not undisturbed.recording_since_s:
        raise AssertionError(f"{undisturbed.words} never began to record: {said[-2000:]}")
    victim.settle()
    return begin_s, max(end_s, 0.05)


# -- how it is started -----------------------------------------------------------------------------------------------


def launch_cold(words: list[str], out: int, error: int) -> int:
    """As users do."""
    command = [sys.executable, "-m", "pprofpy", *words]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=out, stderr=error, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},  # else `trace` shows late that it records
    )  # fmt: skip
    process.returncode = 0  # waited for by its pid
    return process.pid


# -- what is left ----------------------------------------------------------------------------------------------------


def kernel_ids(pid: int) -> set[tuple[str, int]]:
    """The BPF programs, maps and links that a process has descriptors of."""
    found = set()
    for info in Path(f"/proc/{pid}/fdinfo").glob("*"):
        with suppress(OSError):
            found |= {(kind, int(number)) for kind, number in
                      re.findall(r"^(prog_id|map_id|link_id):\t(\d+)$", info.read_text(), re.MULTILINE)}  # fmt: skip
    return found


def existing_ids() -> set[tuple[str, int]]:
    """All BPF programs, maps and links of the machine."""
    libc, found = ctypes.CDLL(None, use_errno=True), set()
    for kind, command in _NEXT_ID.items():
        attribute = (ctypes.c_uint32 * 32)()
        while libc.syscall(_BPF_SYSTEM_CALL, command, attribute, ctypes.sizeof(attribute)) == 0:
            attribute[0] = attribute[1]
            found.add((kind, attribute[1]))
    return found


def left_in_kernel(ids: set[tuple[str, int]]) -> list[str]:
    """Which of these are still there after some time: the kernel frees them after a grace period of its own."""
    deadline = time.monotonic() + GRACE_S * load()
    while left := ids and ids & existing_ids():
        if time.monotonic() > deadline:
            return [f"left in the kernel: {sorted(left)}"]
        time.sleep(_POLL_S)
    return []


def left_alive(session: int) -> list[str]:
    """Processes of a session of which nothing should be left."""
    deadline = time.monotonic() + GRACE_S * load()
    while alive := members(session):
        if time.monotonic() > deadline:
            return [f"processes left: {alive}"]
        time.sleep(_POLL_S)
    return []


def members(session: int) -> list[str]:
    """The processes of a session that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            name, _, fields = stat.read_text(errors="replace").rpartition(")")
            if int(fields.split()[3]) == session and fields.split()[0] not in "ZX":
                found.append(f"{name})")
    return found


def own_mounts() -> list[str]:
    """The tracing files mounted where we see them."""
    lines = Path("/proc/self/mountinfo").read_bytes().decode(errors="replace").split("\n")
    return [line for line in lines if " - tracefs " in line]
