"""One run of `py-spy record`: start, end at the right moment, take what it got, never leave anything behind.

What py-spy tells us, and where: the profile comes through a file in memory (no disk that could be full, nothing to
clean up); the number of samples from its debug log, one line each time it stops the target's main thread; the number of
samples that failed and how far it fell behind from its messages. It holds the target stopped while it writes that log,
so the log's pipe never blocks: if we cannot keep up, lines are lost and the number of samples becomes unknown.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pprofpy.collectors.pyspy import executable
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.session import Stop
from pprofpy.target import Target, procfs
from pprofpy.units import NS_PER_S

_LOG_PIPE_BYTES = 1 << 20
_POLL_S = 0.05
_PATIENCE_S = 20.0
"""How long py-spy may take to end after a SIGINT, besides the sleep between two samples that it may be in."""

_TAKE_OVER_S, _TAKE_OVER_POLL_S = 5.0, 0.001
"""How long the next py-spy may take to get in before the window is given up, which then ends with the next one."""

_FIRST_SAMPLE_S = 0.2
"""How long its first sample may take from then on; without pauses it does not tell of any."""

_ENTRY_S = 20.0
"""How long it may take to get into the target. Where that is frozen meanwhile, it would wait for ever."""

_STUCK_S = 4.0
"""How long it may sleep without any work while it gets in, or ends: it waits for memory that does not answer."""

SLOWEST_HZ = 10
"""At this rate it may fall behind as it likes."""

_BEGAN = b"Sampling process"
BEHIND = re.compile(rb"([\d.]+)s behind in sampling")


class PySpy:
    """One run of `py-spy record`."""

    def __init__(self, target: Target, options: CpuOptions) -> None:
        self._target = target
        self._options = options
        self._profile = os.memfd_create("pprofpy-profile")
        self._messages = os.memfd_create("pprofpy-messages")
        self._log, log_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        fcntl.fcntl(log_end, fcntl.F_SETPIPE_SZ, _LOG_PIPE_BYTES)
        self.began_unix_ns = self._began_ns = self._ended_ns = 0
        self._busy_ns, self._busy_s = -1, time.monotonic()
        self.sample_count = 0
        self.starved_ns = self._starved_before_ns = 0
        self.cpu_ns_at_start = self.cpu_ns_at_end = -1
        self.lost_samples = False
        self.complaints = b""
        self._target_was_stopped = _is_stopped(target)
        self.stopped_by_user = self.fell_behind = self.never_began = self.is_dismissed = False
        try:
            self._process = executable.start(
                self._arguments(), self._environment(), self._messages, log_end, [self._profile]
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(log_end)

    def dismiss(self) -> None:
        """Have it end, and forget what it saw."""
        if not self.is_dismissed:
            self.is_dismissed = True
            self.end()
            self._close()

    @property
    def duration_ns(self) -> int:
        """How long it has sampled so far, or did."""
        return self._ended_ns - self._began_ns if self._began_ns else 0

    @property
    def messages(self) -> bytes:
        """All that py-spy has printed so far."""
        return os.pread(self._messages, os.fstat(self._messages).st_size, 0)

    def wait_until_it_samples(self, stop: Stop) -> None:
        """Return when it does, has ended, does not get in, or the user says so."""
        deadline = time.monotonic() + _ENTRY_S
        while self._process.poll() is None and not self._began_ns and time.monotonic() < min(deadline, self._stuck_s()):
            if stop.wait(_POLL_S / 10):
                self.stopped_by_user = True
                return
            self._read_log()
            self._note_beginning()
        self.never_began = not self._began_ns and self._process.poll() is None

    def take_over(self, before: PySpy, stop: Stop) -> bool:
        """Wait until it samples, and have the other one end at that moment; False if it does not get in."""
        deadline = time.monotonic() + _TAKE_OVER_S
        while self._process.poll() is None and not self._began_ns and time.monotonic() < deadline:
            if stop.wait(_TAKE_OVER_POLL_S):
                break
            before._read_log()
            self._note_beginning()
        deadline = time.monotonic() + _FIRST_SAMPLE_S
        while self._began_ns and not self.sample_count and time.monotonic() < deadline and self._process.poll() is None:
            stop.wait(_TAKE_OVER_POLL_S)
            self._read_log()
        if self._began_ns:
            before.end(self._began_ns)
        return self._began_ns > 0

    def _stuck_s(self) -> float:
        """When it counts as stuck if nothing changes: the target may make it wait for its memory for ever."""
        with suppress(OSError):
            stat = procfs.stat(self._process.pid)
            if stat.state not in "SD" or stat.cpu_ns != self._busy_ns:
                self._busy_ns, self._busy_s = stat.cpu_ns, time.monotonic()
        return self._busy_s + _STUCK_S

    def poll(self) -> bool:
        """Take in what it says; True if it has ended, or should: it has fallen behind."""
        self._note_beginning()
        self._ended_ns = time.monotonic_ns()
        if self._process.poll() is not None:
            return True
        self._read_log()
        self.cpu_ns_at_end = max(self.cpu_ns_at_end, self._target.cpu_time_ns())
        self.starved_ns = max(self.starved_ns, _run_queue_wait_ns(self._process.pid) - self._starved_before_ns)
        self.fell_behind = self._options.rate_hz > SLOWEST_HZ and bool(BEHIND.search(self.messages))
        return self.fell_behind

    def document(self) -> dict[str, Any] | None:
        """What py-spy wrote; None if it failed."""
        size = os.fstat(self._profile).st_size
        return json.loads(os.pread(self._profile, size, 0)) if size and self._process.returncode == 0 else None

    def end(self, at_ns: int = 0) -> None:
        """Have py-spy let go of the target and end; by force only if it does not answer.

        Args:
            at_ns: When it ends, on the monotonic clock, if not now.
        """
        if self._process.poll() is None:
            self._note_beginning()
            self._ended_ns = at_ns or time.monotonic_ns()
            self.cpu_ns_at_end = max(self.cpu_ns_at_end, self._target.cpu_time_ns())
            self._process.send_signal(signal.SIGINT)
            pause_s = 10 / self._options.rate_hz
            deadline = time.monotonic() + _PATIENCE_S + pause_s
            self._busy_s = self._busy_s if self.never_began else time.monotonic()
            while self._process.poll() is None and time.monotonic() < min(deadline, self._stuck_s() + pause_s):
                self._read_log()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_POLL_S)
        if self._process.poll() is None:
            self._process.kill()
            with suppress(subprocess.TimeoutExpired):  # a FUSE server lets nobody go whose request it has taken
                self._process.wait(_STUCK_S)
            if _is_stopped(self._target) and not self._target_was_stopped:
                os.kill(self._target.pid, signal.SIGCONT)  # killed while attaching, it left a SIGSTOP behind
        self._read_log()

    def _arguments(self) -> Sequence[str]:
        options = self._options
        switches = {
            "--native": options.native,
            "--gil": options.gil,
            "--idle": options.idle,
            "--subprocesses": options.subprocesses,
            "--nonblocking": options.nonblocking,
        }
        return [
            *("record", "--pid", str(self._target.pid), "--rate", str(options.rate_hz)),
            *("--format", "speedscope", "--output", f"/proc/self/fd/{self._profile}"),
            *("--threads", "--full-filenames", *(switch for switch, is_on in switches.items() if is_on)),
            *self._backstop(),
        ]

    def _backstop(self) -> Sequence[str]:
        """A duration for py-spy itself, well beyond ours: it matters only if we are suspended meanwhile."""
        if self._options.duration_ns is None:
            return []
        return ["--duration", str(math.ceil(self._options.duration_ns / NS_PER_S * 1.5) + 5)]

    def _environment(self) -> dict[str, str]:
        """Let the log tell each sample of the main thread, and warnings; the filter keeps all else out of the pipe."""
        sample = f"^attached to thread {self._target.pid}$"
        return {"RUST_LOG": f"warn,remoteprocess::linux=debug/{sample}|^[^ad]|^a[^t]|^d[^e]", "RUST_BACKTRACE": "0"}

    def _note_beginning(self) -> None:
        if not self._began_ns and _BEGAN in self.messages:
            self._read_log()
            self.sample_count = 0  # it has paused the target before, to find its way in it
            self._began_ns, self.began_unix_ns = time.monotonic_ns(), time.time_ns()
            self.cpu_ns_at_start = self.cpu_ns_at_end = self._target.cpu_time_ns()
            self._starved_before_ns = _run_queue_wait_ns(self._process.pid)

    def _read_log(self) -> None:
        try:
            chunk = os.read(self._log, 2 * _LOG_PIPE_BYTES)
        except BlockingIOError:
            return
        self.lost_samples |= len(chunk) > 0.9 * _LOG_PIPE_BYTES
        for line in chunk.splitlines():
            if b"attached to thread" in line:
                self.sample_count += 1
            elif len(self.complaints) < 100_000:
                self.complaints += line + b"\n"

    def _close(self) -> None:
        for descriptor in (self._profile, self._messages, self._log):
            os.close(descriptor)


def _is_stopped(target: Target) -> bool:
    """Is the target stopped by a signal (not by a tracer)?"""
    return target.state() == "T"


def _run_queue_wait_ns(pid: int) -> int:
    """How long a process's main thread has waited for a CPU; 0 where the kernel does not say."""
    with suppress(OSError):
        return procfs.run_queue_ns(pid)
    return 0
