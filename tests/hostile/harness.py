"""What every attack checks: how pprofpy ended, what it cost, and what is left of the target."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

DOCUMENTED_STATUSES = {0, 1, 2, 3, 4, 5, 130}
LONGEST_S = 10.0
"""For everything but the recording's own duration, on a machine that is free."""
MOST_BYTES = 300 << 20
CTRL_C_S = 2.0
_POLL_S = 0.05
_APART_S = 0.2
_DURATION_OPTIONS = {"-d", "--duration", "--seconds"}
_OURS = re.compile(r"/memfd:pprofpy|/\.pprofpy-[0-9a-f]{16} \(deleted\)")
"""The sampler's library: documented to stay loaded after `heap`."""
_RESERVED = 0b11 << 31
"""Signals 32 and 33: the C library catches them from a program's first thread on, whoever starts it."""
_MORE_ANONYMOUS = 16
"""The C library keeps the arenas and stacks of threads that have ended: two mappings each."""


def load() -> float:
    """By how much a busy machine stretches time: 1 if each thread that can run has a CPU."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def status_of(pid: int) -> dict[str, str]:
    """/proc/PID/status; the first value of each key, since a name may hold a line break escaped or not."""
    found: dict[str, str] = {}
    for line in Path(f"/proc/{pid}/status").read_bytes().split(b"\n"):
        key, _, value = line.partition(b":\t")
        found.setdefault(key.decode("latin-1"), value.decode("latin-1").strip())
    return found


@dataclass(frozen=True)
class Condition:
    """What an attach must not change in a process.

    Attributes:
        signals: Blocked, ignored, caught signals of the main thread, as the kernel prints them.
        threads: How many.
        files: Descriptor -> what it is of.
        mapped: Files mapped, and memory of no file that can be executed.
        anonymous_count: Mappings of no file.
    """

    signals: tuple[str, ...]
    threads: int
    files: dict[str, str]
    mapped: frozenset[str]
    anonymous_count: int

    @classmethod
    def of(cls, pid: int) -> Condition:
        """Read it."""
        status = status_of(pid)
        files = {}
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                files[link.name] = str(link.readlink())
        mapped, anonymous = set(), 0
        for line in Path(f"/proc/{pid}/maps").read_bytes().decode("latin-1").split("\n"):
            fields = line.split(maxsplit=5)
            name = fields[5] if len(fields) == 6 else ""
            anonymous += bool(fields) and not name
            if name or (fields and "x" in fields[1]):
                mapped.add(f"{fields[1]} {name}")
        mapped = {one for one in mapped if not _OURS.search(one)}
        signals = tuple(f"{int(status[key], 16) & ~_RESERVED:x}" for key in ("SigBlk", "SigIgn", "SigCgt"))
        return cls(signals, int(status["Threads"]), files, frozenset(mapped), anonymous)

    def lost(self, now: Condition) -> list[str]:
        """What differs, in words; empty if nothing does."""
        wrong = []
        if self.signals != now.signals:
            wrong.append(f"signals (blocked, ignored, caught): {self.signals} -> {now.signals}")
        if self.threads != now.threads:
            wrong.append(f"threads: {self.threads} -> {now.threads}")
        if self.files != now.files:
            wrong.append(f"descriptors: {dict(now.files.items() - self.files.items())} instead of "
                         f"{dict(self.files.items() - now.files.items())}")  # fmt: skip
        if self.mapped != now.mapped:
            wrong.append(f"mappings: new {set(now.mapped - self.mapped)}, gone {set(self.mapped - now.mapped)}")
        if now.anonymous_count > self.anonymous_count + _MORE_ANONYMOUS:
            wrong.append(f"mappings of no file: {self.anonymous_count} -> {now.anonymous_count}")
        return wrong


def trouble(pid: int, *, is_stopped: bool = False) -> list[str]:
    """Is it dead, traced, or stopped (or no longer so)? In words."""
    try:
        status = status_of(pid)
    except OSError:
        return ["the target is gone"]
    wrong = [f"the target's state is {status['State']}"] if (status["State"][0] in "TtZX") != is_stopped else []
    if status["TracerPid"] != "0":
        wrong.append(f"the target is traced by {status['TracerPid']}")
    return wrong


def harm(pid: int, before: Condition | None, grace_s: float = 2.0, *, is_stopped: bool = False) -> list[str]:
    """What is wrong with a target, after some time for what ends by itself.

    Args:
        pid: The target.
        before: Its condition before; None if it changes by itself.
        grace_s: On a free machine.
        is_stopped: It was, and must be.
    """
    deadline = time.monotonic() + grace_s * load()
    while True:
        wrong = trouble(pid, is_stopped=is_stopped)
        if not wrong and before:
            wrong = before.lost(Condition.of(pid))
        if not wrong or time.monotonic() > deadline:
            return wrong
        time.sleep(_POLL_S)


@dataclass(frozen=True)
class Outcome:
    """How a run of pprofpy ended. All of it has been checked already; for a test's own questions.

    Attributes:
        status: The exit status.
        stdout: Decoded, undecodable bytes as surrogates.
        stderr: The same.
        wall_s: From start to end.
        peak_bytes: Resident memory, it and its children together.
        pid: The target's.
    """

    status: int
    stdout: str
    stderr: str
    wall_s: float
    peak_bytes: int
    pid: int


class Run:
    """A pprofpy that runs, and is watched."""

    def __init__(self, words: list[str], environment: dict[str, str], prefix: tuple[str, ...] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "pprofpy", *words]
        pipe = subprocess.PIPE
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=environment, start_new_session=True
        )
        self._output = {"stdout": bytearray(), "stderr": bytearray()}
        self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in self._output]
        for reader in self._readers:
            reader.start()
        self._words, self._peak_bytes, self._twice_bytes = words, 0, 0

    def _read(self, name: str) -> None:
        stream = getattr(self._process, name)
        while part := stream.read1(1 << 16):
            self._output[name] += part

    def interrupt(self, when: bool | float, signals: tuple[int, ...] = (signal.SIGINT,)) -> None:
        """Send signals, by default one Ctrl-C: once it says that it records, or so many seconds after its start."""
        while self._process.poll() is None:
            elapsed_s = time.monotonic() - self._began
            if elapsed_s > when if when is not True else self._has_begun():
                break
            self._check_time(elapsed_s, LONGEST_S)
            self._note_memory()
            time.sleep(_POLL_S)
        for number in signals:
            if when is True:  # into the middle of it, not to its first line
                time.sleep(_APART_S)
            self._process.send_signal(number)

    def _has_begun(self) -> bool:
        """Does it say that it records? `trace` says nothing but what it records."""
        return b"recording " in self._output["stderr"] or bool(self._output["stdout"])

    def wait(self, longest_s: float, pid: int) -> Outcome:
        """Wait for its end, and check how it ended."""
        began = time.monotonic()
        while self._process.poll() is None:
            self._check_time(time.monotonic() - began, longest_s)
            self._note_memory()
            time.sleep(_POLL_S)
        wall_s = time.monotonic() - self._began
        for reader in self._readers:
            reader.join(5)
        text = {name: content.decode("utf-8", "surrogateescape") for name, content in self._output.items()}
        outcome = Outcome(self._process.returncode, text["stdout"], text["stderr"], wall_s, self._peak_bytes, pid)
        self._check(outcome)
        return outcome

    def end(self) -> None:
        """End it, and its children, whatever they do."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join(5)
        for name in self._output:
            getattr(self._process, name).close()

    def _check_time(self, elapsed_s: float, longest_s: float) -> None:
        if elapsed_s > longest_s * load():
            self.end()
            said = bytes(self._output["stderr"][-4000:])
            raise AssertionError(f"{self._words}: not ended after {elapsed_s:.1f} s (load {load():.1f}): {said!r}")

    def _note_memory(self) -> None:
        """Its own highest mark, or what it and its children have at once; each page counted once."""
        with suppress(OSError, KeyError):
            together = sum(map(proportional_bytes, family(self._process.pid)))
            self._twice_bytes = max(self._twice_bytes, bytes_mapped_twice(self._process.pid))
            own = int(status_of(self._process.pid)["VmHWM"].split()[0]) << 10
            self._peak_bytes = max(self._peak_bytes, own - self._twice_bytes, together)

    def _check(self, outcome: Outcome) -> None:
        said = (
            f"{self._words} ended with {outcome.status} and said:\n{outcome.stdout[-2000:]}\n{outcome.stderr[-4000:]}"
        )
        assert outcome.status in DOCUMENTED_STATUSES, said
        assert "Traceback" not in outcome.stderr, said
        assert "Traceback" not in outcome.stdout, said
        assert "unexpected error" not in outcome.stderr, said
        assert not control_characters(outcome.stdout + outcome.stderr), said
        assert outcome.peak_bytes <= MOST_BYTES, f"{outcome.peak_bytes >> 20} MB: {said}"


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, children.read_text().split())
    return found


def proportional_bytes(pid: int) -> int:
    """A process's resident memory, pages shared by n processes as 1/n; 0 if it has gone."""
    with suppress(OSError):
        found = re.search(rb"\nPss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_bytes())
        return int(found[1]) << 10 if found else 0
    return 0


def bytes_mapped_twice(pid: int) -> int:
    """Of a process's resident memory, what is counted twice: the kernel maps ring buffers two times in a row.

    Source: ringbuf_map_mmap_kern and bpf_ringbuf_area_alloc in kernel/bpf/ringbuf.c.
    """
    rings = re.findall(rb"^(\w+)-(\w+) .* anon_inode:bpf-map$", Path(f"/proc/{pid}/maps").read_bytes(), re.MULTILINE)
    pages = ((int(end, 16) - int(begin, 16)) // os.sysconf("SC_PAGE_SIZE") for begin, end in rings)
    return sum(count // 2 for count in pages) * os.sysconf("SC_PAGE_SIZE")


def control_characters(text: str) -> set[str]:
    """Those that could steer a terminal; line ends are none."""
    return {one for one in text if one != "\n" and unicodedata.category(one) in ("Cc", "Cf", "Zl", "Zp")}


def duration_of(words: list[str]) -> float:
    """What -d says, in seconds; 0 without one."""
    for option, value in pairwise(words):
        if option in _DURATION_OPTIONS and (match := re.fullmatch(r"([\d.]+)(ms|s|m)?", value)):
            return float(match[1]) * {"ms": 0.001, "s": 1, "m": 60}[match[2] or "s"]
    return 0.0
