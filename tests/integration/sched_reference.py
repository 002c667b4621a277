"""An independent account of run-queue waits: what `perf sched record` saw, worked out from `perf script`'s text."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.conftest import comm

PROGRAM = Path(__file__).parent.parent / "programs" / "sched_load.py"

LINE = re.compile(r"\[\d+\]\s+(?P<s>\d+)\.(?P<ns>\d{9}): +sched:(?P<event>\w+): (?P<rest>.*)", re.DOTALL)
SWITCH = re.compile(
    r"prev_comm=.* prev_pid=(?P<prev>\d+) prev_prio=-?\d+ prev_state=(?P<state>\S+)"
    r" ==> next_comm=.* next_pid=(?P<next>\d+)",
    re.DOTALL,
)
WAKING = re.compile(r"comm=.* pid=(?P<tid>\d+) prio=", re.DOTALL)


class Load:
    """A program that waits for `go`, works, and then waits to be let go of."""

    def __init__(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*prefix, sys.executable, str(PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        assert self._line() == b"ready\n"

    @property
    def pid(self) -> int:
        return self.process.pid

    def work(self) -> int:
        """Let it do its work; returns how often its threads lost the CPU, when all is done."""
        assert self.process.stdin
        self.process.stdin.write(b"g")
        word, count = self._line().split()
        assert word == b"done"
        return int(count)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _line(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()


@contextmanager
def loading(*arguments: str, prefix: tuple[str, ...] = ()) -> Iterator[Load]:
    """A load that ends with the block; `prefix` are words to start it with, like taskset's."""
    load = Load(*arguments, prefix=prefix)
    try:
        yield load
    finally:
        load.end()


@contextmanager
def perf_sched_record(output: Path) -> Iterator[None]:
    """perf records all switches and wake-ups on the machine while the block runs."""
    with perf("sched", "record", "-k", "CLOCK_MONOTONIC", "-m", "128M", "-r", "1", "-o", str(output)):
        yield


@contextmanager
def perf(*words: str) -> Iterator[None]:
    """perf records what these words say, from before the block to its end."""
    command = ["perf", *words, "--", "cat"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until_recording(process)
        yield
    finally:
        process.communicate(timeout=60)


def wait_until_recording(process: subprocess.Popen[bytes]) -> None:
    """perf starts its `cat` when all its events are enabled."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        for child in children.read_text().split():
            if comm(int(child)) == "cat":
                return
    raise AssertionError(f"perf ended: {process.communicate()[1].decode()}")


def script_lines(recording: Path) -> Iterator[tuple[int, str, str]]:
    """(time in ns, event, fields) of a perf recording, in order of time."""
    command = ["perf", "script", "-i", str(recording), "--ns", "-F", "cpu,time,event,trace"]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    # Threads may be called anything, line breaks included: a line that does not begin as one belongs to the last.
    for line in re.split(r"\n(?= *\[\d+\] +\d+\.\d{9}: )", text):
        if match := LINE.search(line):
            yield int(match["s"]) * 10**9 + int(match["ns"]), match["event"], match["rest"]


@dataclass
class Account:
    """What perf saw, by tid.

    Attributes:
        waits: Each wait for a CPU, in ns.
        switches: How often the thread lost the CPU.
        holes: How often it lost a CPU that it had never been given, or got one without having been woken: perf has lost
            an event.
    """

    waits: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    switches: Counter[int] = field(default_factory=Counter)
    holes: Counter[int] = field(default_factory=Counter)


def analyse(recording: Path, from_ns: int = 0, to_ns: int = 2**63) -> Account:
    """Work out all waits that lie between these times, in one pass over the events."""
    account = Account()
    on_cpu: dict[int, bool] = {}
    preempted_at: dict[int, int] = {}
    blocked_at: dict[int, int] = {}
    woken_at: dict[int, int] = {}
    woken_early: set[int] = set()
    for at_ns, event, rest in script_lines(recording):
        if event == "sched_switch":
            match = SWITCH.match(rest)
            assert match, rest
            previous, following = int(match["prev"]), int(match["next"])
            account.switches[previous] += 1
            account.holes[previous] += not on_cpu.get(previous, True)
            on_cpu[previous], on_cpu[following] = False, True
            (woken_early.add if previous in woken_at else woken_early.discard)(previous)
            woken_at.pop(previous, None)
            (preempted_at if match["state"].startswith("R") else blocked_at)[previous] = at_ns
            # If it was woken just before the switch that was to block it, it never really slept.
            blocked = blocked_at.pop(following, None)
            begins = (preempted_at.pop(following, None), woken_at.pop(following, None), blocked)
            found = [begin for begin in begins if begin is not None]
            if found == [blocked] and following not in woken_early:
                account.holes[following] += 1  # nobody was shown the wake-up
            elif found and found[0] >= from_ns and at_ns <= to_ns:
                account.waits[following].append(at_ns - found[0])
        elif event in ("sched_waking", "sched_wakeup_new"):
            match = WAKING.match(rest)
            assert match, rest
            woken_at[int(match["tid"])] = at_ns
    return account


needs_perf = pytest.mark.skipif(shutil.which("perf") is None, reason="perf is not installed")
