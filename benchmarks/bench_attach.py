"""What attaching costs a busy target, and that it does no harm: many rounds on each interpreter, then violent deaths.

The target (tests/programs/harmless.py) allocates, computes, sleeps and waits in seven threads, and notices changed
registers, wrong sums, a wrong errno, waits that end too early, and lost signals. While we attach without a pause,
signals are sent to it and counted. Then a process of ours attaches all the time and is killed (-9) at random moments.

    python -m benchmarks.bench_attach [ROUNDS [DEATHS [VERSION...]]]
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from pprofpy.collectors.attach import Answer, run
from pprofpy.target import Target, open_target

ROOT = Path(__file__).parents[1]
PROGRAMS = ROOT / "tests" / "programs"
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "system")
SLEEPING = ("230", "23", "270")
PATIENCE_S = 2.0


class Signals(threading.Thread):
    """Sends a SIGUSR1 when the main thread sleeps, and waits for its answer; or real-time signals, many at once."""

    def __init__(self, process: subprocess.Popen[str], real_time: bool) -> None:
        super().__init__()
        self.process, self.real_time = process, real_time
        self.sent = self.late = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Go on until `end()`."""
        while not self.ended.is_set():
            if self.real_time:
                for _ in range(10):
                    os.kill(self.process.pid, signal.SIGRTMIN + 1)
                self.sent += 10
                time.sleep(0.005)
            elif sleeps(self.process.pid):
                self.one_answered()
            else:
                time.sleep(0.0005)

    def one_answered(self) -> None:
        """A signal that comes too late is asked for again."""
        assert self.process.stderr
        time.sleep(random.random() * 0.003)
        os.kill(self.process.pid, signal.SIGUSR1)
        self.sent += 1
        while not select.select([self.process.stderr], [], [], PATIENCE_S)[0]:
            self.late += 1
            os.kill(self.process.pid, signal.SIGUSR1)
        os.read(self.process.stderr.fileno(), 100)

    def end(self) -> None:
        """Send no more."""
        self.ended.set()
        self.join()


def main() -> None:
    """Every interpreter, one after the other."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    deaths = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "registers.so"
        source = PROGRAMS / "registers.c"
        flags = ["-O1", "-mavx", "-mno-red-zone", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", library, source], check=True)
        for version in sys.argv[3:] or VERSIONS:
            if program := interpreter(version):
                bench(version, program, library, rounds, deaths)


def bench(version: str, program: str, library: Path, rounds: int, deaths: int) -> None:
    """Print what the rounds cost, what became of the signals, and what the target found."""
    pipe = subprocess.PIPE
    command = [program, str(PROGRAMS / "harmless.py"), str(library)]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout
        process.stdout.readline()
        target = open_target(process.pid)
        answers: list[Answer] = []
        answered, counted = Signals(process, False), Signals(process, True)
        rss_kb: list[int] = []
        for signals, share in ((answered, 0.5), (counted, 0.5)):
            signals.start()
            answers += [run(target, "result = '1'") for _ in range(int(rounds * share))]
            signals.end()
            rss_kb.append(resident_kb(target))
        died = die(target, deaths)
        run(target, "result = '1'")
        while not sleeps(process.pid):  # Python may miss a signal that comes just before it sleeps
            time.sleep(0.001)
        out, _ = process.communicate("\n", timeout=60)
    found = json.loads(out)
    figures = {"attach": [one.attach_ms for one in answers], "stopped": [one.stopped_us / 1000 for one in answers]}
    figures["answer"] = [one.total_ms for one in answers]
    looks = f"{found['registers']} looks at registers, {found['sums']} sums, {found['sleeps']} sleeps"
    print(
        f"{version}: {len(answers)} rounds: {', '.join(f'{name} {spread(values)}' for name, values in figures.items())}"
    )
    print(f"    {answered.sent} SIGUSR1, {answered.late} late; {counted.sent} real-time signals,", end=" ")
    print(f"{counted.sent - found['rt']} lost; RSS {rss_kb[-1] - rss_kb[-2]:+} kB over the second half")
    print(f"    {died} of us killed; found wrong by the target: {found['wrong'] or 'nothing'} ({looks})", end="; ")
    print(f"its status {process.returncode}", flush=True)


def die(target: Target, deaths: int) -> int:
    """Kill so many processes of ours at random moments of their attaches."""
    for _ in range(deaths):
        child = os.fork()
        if not child:
            with suppress(BaseException):
                while True:
                    run(target, "result = '1'")
            os._exit(1)
        time.sleep(0.002 + random.random() * 0.03)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return deaths


def spread(values: list[float]) -> str:
    """Median, 95th percentile and largest, in milliseconds."""
    ordered = sorted(values)
    return f"p50 {statistics.median(ordered):.1f} p95 {ordered[int(len(ordered) * 0.95)]:.1f} max {ordered[-1]:.0f} ms"


def sleeps(pid: int) -> bool:
    """Is the main thread in a sleep?"""
    return Path(f"/proc/{pid}/syscall").read_text().split()[0] in SLEEPING


def resident_kb(target: Target) -> int:
    """Its resident memory."""
    status = Path(f"/proc/{target.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def interpreter(version: str) -> str | None:
    """The path of a Python of this minor version, if there is one."""
    if version == "system":
        return "/usr/bin/python3" if Path("/usr/bin/python3").exists() else None
    root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    kept = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pprofpy-tests"
    found = sorted(root.glob(f"versions/{version}.*/bin/python")) or sorted(kept.glob(f"*/usr/bin/python{version}"))
    return str(found[-1]) if found else None


if __name__ == "__main__":
    main()
