"""Driving `py-spy record`: start, watch, end at the right moment, take what it got, never leave anything behind.

What py-spy tells us, and where: the profile comes through a file in memory (no disk that could be full, nothing to
clean up); the number of looks from its debug log, one line each time it stops the target's main thread; the number of
failed looks and how far it fell behind from its messages. py-spy holds the target stopped while it writes that log, so
the log's pipe never blocks: if we cannot keep up, lines are lost and the number of looks becomes unknown.
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
from dataclasses import replace
from typing import Any

from pprofpy.collectors.pyspy import program
from pprofpy.collectors.pyspy.convert import convert, empty
from pprofpy.collectors.pyspy.notes import Piece, missed, on_options, on_pieces
from pprofpy.collectors.sampling.options import CpuOptions
from pprofpy.errors import InterruptedEarly, NotPossibleError, PprofpyError, TargetError
from pprofpy.model.combine import merge
from pprofpy.model.profile import Collection, Profile
from pprofpy.model.recording import Recording
from pprofpy.session import Recorder, Stop
from pprofpy.target import Target, permission_error, procfs
from pprofpy.target.freezer import refuse_frozen
from pprofpy.units import NS_PER_S

_LOG_PIPE_BYTES = 1 << 20
_POLL_S = 0.05
_PATIENCE_S = 20.0
"""How long py-spy may take to end after a SIGINT, besides the sleep between two looks that it may be in."""

_TAKE_OVER_S, _TAKE_OVER_POLL_S = 5.0, 0.001
"""How long the next py-spy may take to get in before the window is given up, which then ends with the next one."""

_FIRST_SAMPLE_S = 0.2
"""How long its first sample may take from then on; without pauses it does not tell of any."""

_ENTRY_S = 20.0
"""How long it may take to get into the target. Where that is frozen meanwhile, it would wait for ever."""

_STUCK_S = 4.0
"""How long it may sleep without any work while it gets in, or ends: it waits for memory that does not answer."""

_SLOWEST_HZ = 10
_SHORTEST_PIECE_NS = NS_PER_S // 2
"""A py-spy that is behind looks again and again without a pause, and the target hardly runs. It is then ended, and the
rest of the recording made at a lower rate, unless that is no longer worth it."""

_BEGAN = b"Sampling process"
_BEHIND = re.compile(rb"([\d.]+)s behind in sampling")
_TOTALS = re.compile(rb"Samples: (\d+) Errors: (\d+)")
_UNSUPPORTED = re.compile(r"Unsupported version of Python|[Ff]ailed to find python version|interpreter")


class PySpyRecorder(Recorder):
    """Samples one process with py-spy, which tells what it saw only when it ends: each window is a run of its own.

    The next py-spy gets in while the last one still samples, and takes over at its own first sample. So nothing is
    missed in between, but for a sample or two that both took, or neither.

    To be used by one thread: py-spy ends when the thread that started it does.

    Args:
        options: What to record.
        stop: The user's say while py-spy gets into the target.

    Raises (`watch`, `poll`, `window` and `finish`):
        TargetError: The target ended before anything was recorded.
        TargetPermissionError: py-spy may not look inside it.
        NotPossibleError: py-spy is missing, does not know this interpreter, or the target is frozen.
        InterruptedEarly: `stop` came before anything was recorded.
    """

    kind = "cpu"

    def __init__(self, options: CpuOptions, stop: Stop) -> None:
        super().__init__()
        self._options = self._slowed = options
        self._stop = stop
        self._pieces: list[Piece] = []
        self._profiles: list[Profile] = []
        self._running: list[_PySpy] = []
        self._is_over = False
        self.owned.callback(self._dismiss_all)

    _spy: _PySpy

    def watch(self, target: Target) -> None:
        """Start py-spy, and wait until it samples."""
        refuse_frozen(target)
        self._target = target
        self._engine = program.version()
        self._tids = _outer_tids(target)
        if not self._start():
            self._end_piece()

    def poll(self) -> None:
        """Read py-spy's log. One that falls behind is ended, and started again at a lower rate."""
        self._is_over = self._spy.poll()
        if self._spy.fell_behind:
            self._end_piece()
            left_ns = self._left_ns()
            if left_ns is None or left_ns >= _SHORTEST_PIECE_NS:
                self._slowed = replace(self._slowed, rate_hz=_slower(self._slowed.rate_hz))
                self._is_over = not self._start()

    def is_over(self) -> bool:
        """Has py-spy ended, whether by itself or because it is not worth starting it again?"""
        return self._is_over

    def window(self) -> Recording:
        """Have another py-spy take over, and return what the last one saw: nothing yet, if none gets in."""
        after = self._launched()
        if after.take_over(self._spy, self._stop):
            self._end_piece()
            self._spy = after
        else:
            after.dismiss()
        return self._recording(on_options(self._options))

    def finish(self) -> Recording:
        """Return what was recorded since the last window."""
        failure: tuple[str, ...] = ()
        try:
            self._end_piece()
        except PprofpyError as error:
            if not self._pieces:
                raise  # else what came before is worth keeping
            if not isinstance(error, InterruptedEarly):
                failure = (f"The recording ended early: {error.message}.",)
        notes = on_pieces(self._options, self._slowed, self._pieces, self._target)
        return self._recording((*on_options(self._options), *notes, *failure))

    def _recording(self, notes: tuple[str, ...]) -> Recording:
        """The pieces that are in no window yet, with notes."""
        profiles, self._profiles = self._profiles, []
        nothing = empty(self._options)
        nothing.collection = Collection(self._engine, str(self._target), asked=0, got=0, late=0, errors=0)
        profile = merge(profiles or [nothing])
        profile.collection = replace(profile.collection, notes=notes)
        return Recording(self.kind, profile)

    def _start(self) -> bool:
        """Start py-spy; False if it does not get in, or the user has had enough of waiting."""
        self._spy = self._launched()
        self._spy.wait_until_it_samples(self._stop)
        return not (self._spy.never_began or self._spy.stopped_by_user)

    def _launched(self) -> _PySpy:
        spy = _PySpy(self._target, replace(self._slowed, duration_ns=self._left_ns()))
        self._running = [*(one for one in self._running if not one.is_dismissed), spy]
        return spy

    def _dismiss_all(self) -> None:
        for spy in self._running:
            spy.dismiss()

    def _left_ns(self) -> int | None:
        done_ns = time.time_ns() - self._pieces[0].began_ns if self._pieces else 0
        return self._options.duration_ns and max(self._options.duration_ns - done_ns, 1)

    def _end_piece(self) -> None:
        """Have py-spy end, and take what it got."""
        spy, target = self._spy, self._target
        if spy.is_dismissed:
            return
        spy.end()
        if target.is_replaced():  # py-spy knows the pid only, and may have sampled both
            raise TargetError(
                f"process {target.pid} ended, and another one has its pid now: whose samples these are is not known",
                "record again",
            )
        document = spy.document()
        if document is None:
            raise _explain(spy, target)
        profile = convert(document, self._slowed, target, self._tids | _outer_tids(target))
        profile.time_ns, profile.duration_ns = spy.began_unix_ns, spy.duration_ns
        profile.collection = _collection(self._engine, target, self._slowed, spy, len(profile))
        behind_s = max((float(match[1]) for match in _BEHIND.finditer(spy.messages)), default=0.0)
        cpu_ns = spy.cpu_ns_at_end - spy.cpu_ns_at_start
        times_ns = spy.began_unix_ns, spy.duration_ns, profile.total(1), cpu_ns, spy.starved_ns
        self._pieces.append(Piece(*times_ns, behind_s))
        self._profiles.append(profile)
        spy.dismiss()


def _slower(rate_hz: int) -> int:
    """The rate to go on with where `rate_hz` was too much."""
    return max(rate_hz // 4, min(rate_hz, _SLOWEST_HZ))


class _PySpy:
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
        self.looks = 0
        self.starved_ns = self._starved_before_ns = 0
        self.cpu_ns_at_start = self.cpu_ns_at_end = -1
        self.lost_looks = False
        self.complaints = b""
        self._target_was_stopped = _is_stopped(target)
        self.stopped_by_user = self.fell_behind = self.never_began = self.is_dismissed = False
        try:
            self._process = program.start(
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

    def take_over(self, before: _PySpy, stop: Stop) -> bool:
        """Wait until it samples, and have the other one end at that moment; False if it does not get in."""
        deadline = time.monotonic() + _TAKE_OVER_S
        while self._process.poll() is None and not self._began_ns and time.monotonic() < deadline:
            if stop.wait(_TAKE_OVER_POLL_S):
                break
            before._read_log()
            self._note_beginning()
        deadline = time.monotonic() + _FIRST_SAMPLE_S
        while self._began_ns and not self.looks and time.monotonic() < deadline and self._process.poll() is None:
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
        self.fell_behind = self._options.rate_hz > _SLOWEST_HZ and bool(_BEHIND.search(self.messages))
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
        """Let the log tell each look at the main thread, and warnings; the filter keeps all else out of the pipe."""
        look = f"^attached to thread {self._target.pid}$"
        return {"RUST_LOG": f"warn,remoteprocess::linux=debug/{look}|^[^ad]|^a[^t]|^d[^e]", "RUST_BACKTRACE": "0"}

    def _note_beginning(self) -> None:
        if not self._began_ns and _BEGAN in self.messages:
            self._read_log()
            self.looks = 0  # it has paused the target before, to find its way in it
            self._began_ns, self.began_unix_ns = time.monotonic_ns(), time.time_ns()
            self.cpu_ns_at_start = self.cpu_ns_at_end = self._target.cpu_time_ns()
            self._starved_before_ns = _run_queue_wait_ns(self._process.pid)

    def _read_log(self) -> None:
        try:
            chunk = os.read(self._log, 2 * _LOG_PIPE_BYTES)
        except BlockingIOError:
            return
        self.lost_looks |= len(chunk) > 0.9 * _LOG_PIPE_BYTES
        for line in chunk.splitlines():
            if b"attached to thread" in line:
                self.looks += 1
            elif len(self.complaints) < 100_000:
                self.complaints += line + b"\n"

    def _close(self) -> None:
        for descriptor in (self._profile, self._messages, self._log):
            os.close(descriptor)


def _collection(engine: str, target: Target, options: CpuOptions, spy: _PySpy, samples: int) -> Collection:
    asked = round(options.rate_hz * spy.duration_ns / NS_PER_S)
    got = spy.looks if (spy.looks or not samples) and not spy.lost_looks else -1
    totals = _TOTALS.search(spy.messages)
    return Collection(
        engine=engine,
        target=str(target),
        asked=asked,
        got=got,
        late=-1 if got < 0 else missed(asked, got),
        errors=int(totals[2]) if totals else -1,
    )


def _explain(spy: _PySpy, target: Target) -> PprofpyError:
    """Why py-spy gave us no profile."""
    said = (spy.complaints + spy.messages).decode("utf-8", "replace")
    if spy.never_began:
        return NotPossibleError(
            f"py-spy did not begin to sample {target} in time",
            "a frozen process lets nobody in, memory of a dead file server does not answer, thousands of threads take "
            "long; --engine bpf waits for none of these",
        )
    if spy.stopped_by_user:
        return InterruptedEarly("interrupted before anything was recorded")
    if not target.is_alive():
        return TargetError(
            f"process {target.pid} ended before anything was recorded",
            "'pprofpy cpu -- COMMAND' records from the start",
        )
    if "Permission" in said or "Operation not permitted" in said:
        return permission_error(target.pid, target.user)
    reason = next((line.removeprefix("Error: ") for line in said.splitlines() if line.startswith("Error: ")), "")
    if _UNSUPPORTED.search(reason):
        return NotPossibleError(
            f"py-spy cannot read {target.interpreter} in process {target.pid}: {reason}",
            f"see what is possible: pprofpy doctor --pid {target.pid}",
        )
    return PprofpyError(
        f"py-spy failed: {reason or said.strip()[-200:] or 'no message'}",
        f"see what is possible: pprofpy doctor --pid {target.pid}",
    )


def _is_stopped(target: Target) -> bool:
    """Is the target stopped by a signal (not by a tracer)?"""
    return target.state() == "T"


def _run_queue_wait_ns(pid: int) -> int:
    """How long a process's main thread has waited for a CPU; 0 where the kernel does not say."""
    with suppress(OSError):
        return procfs.run_queue_ns(pid)
    return 0


def _outer_tids(target: Target) -> dict[int, int]:
    """For a target in another pid namespace: thread ids there -> here."""
    return {thread.inner_tid: thread.tid for thread in target.threads() if thread.inner_tid != thread.tid}
