"""An independent account of run-queue waits: what `perf sched record` saw, worked out from the text of `perf script`."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROGRAM = Path(__file__).parent.parent / "programs" / "sched_load.py"

LINE = re.compile(r"\[\d+\]\s+(?P<s>\d+)\.(?P<ns>\d{9}): +sched:(?P<event>\w+): (?P<rest>.*)")
SWITCH = re.compile(
    r"prev_comm=.* prev_pid=(?P<prev>\d+) prev_prio=-?\d+ prev_state=(?P<state>\S+) ==> next_comm=.* next_pid=(?P<next>\d+)"
)
WAKING = re.compile(r"comm=.* pid=(?P<tid>\d+) prio=")


class Load:
    """A program that waits for `go`, works, and then waits to be let go of."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAM), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._expect(b"ready\n")

    @property
    def pid(self) -> int:
        return self.process.pid

    def work(self) -> None:
        """Let it do its work; returns when that is done."""
        assert self.process.stdin
        self.process.stdin.write(b"g")
        self._expect(b"done\n")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()

    def _expect(self, line: bytes) -> None:
        assert self.process.stdout
        assert self.process.stdout.readline() == line


@contextmanager
def loading(*arguments: str) -> Iterator[Load]:
    load = Load(*arguments)
    try:
        yield load
    finally:
        load.end()


@contextmanager
def perf_sched_record(output: Path) -> Iterator[None]:
    """perf records all switches and wake-ups on the machine while the block runs."""
    command = [
        "perf",
        "sched",
        "record",
        "-k",
        "CLOCK_MONOTONIC",
        "-m",
        "128M",
        "-r",
        "1",
        "-o",
        str(output),
        "--",
        "cat",
    ]
    perf = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        wait_until_recording(perf)
        yield
    finally:
        perf.communicate(timeout=60)


def wait_until_recording(perf: subprocess.Popen[bytes]) -> None:
    """perf starts its `cat` when all its events are enabled."""
    children = Path(f"/proc/{perf.pid}/task/{perf.pid}/children")
    while perf.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "cat\n":
                return
    raise AssertionError(f"perf ended: {perf.communicate()[1].decode()}")


def script_lines(recording: Path) -> Iterator[tuple[int, str, str]]:
    """(time in ns, event, fields) of a perf recording, in order of time."""
    command = ["perf", "script", "-i", str(recording), "--ns", "-F", "cpu,time,event,trace"]
    text = subprocess.run(command, capture_output=True, check=True).stdout.decode(errors="replace")
    for line in text.splitlines():
        if match := LINE.search(line):
            yield int(match["s"]) * 10**9 + int(match["ns"]), match["event"], match["rest"]


def waits_by_thread(recording: Path) -> dict[int, list[tuple[str, int]]]:
    """For each tid its waits: (woken or preempted, ns)."""
    waits = defaultdict(list)
    runnable_since: dict[int, tuple[str, int]] = {}
    blocked_at: dict[int, int] = {}
    for at_ns, event, rest in script_lines(recording):
        if event == "sched_switch":
            match = SWITCH.match(rest)
            assert match, rest
            previous, following = int(match["prev"]), int(match["next"])
            if match["state"].startswith("R"):
                runnable_since[previous] = "preempted", at_ns
            else:
                runnable_since.pop(previous, None)
                blocked_at[previous] = at_ns
            if following in runnable_since:
                kind, since_ns = runnable_since.pop(following)
                waits[following].append((kind, at_ns - since_ns))
            elif following in blocked_at:
                # Its wake-up came just before the switch that was to block it: it never really slept.
                waits[following].append(("woken", at_ns - blocked_at[following]))
            blocked_at.pop(following, None)
        elif event in ("sched_waking", "sched_wakeup_new"):
            match = WAKING.match(rest)
            assert match, rest
            tid = int(match["tid"])
            if runnable_since.get(tid, ("", 0))[0] != "preempted":
                runnable_since[tid] = "woken", at_ns
    return dict(waits)
