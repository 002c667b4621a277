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
from dataclasses import dataclass, replace
from typing import Any

from pprofpy.collectors.pyspy import program
from pprofpy.collectors.pyspy.convert import convert
from pprofpy.collectors.sampling.options import CpuOptions
from pprofpy.errors import InterruptedEarly, NotPossibleError, PprofpyError, TargetError
from pprofpy.model.combine import merge
from pprofpy.model.profile import Collection, Profile
from pprofpy.model.recording import Recording
from pprofpy.session import Recorder, Stop
from pprofpy.target import Target, permission_error, procfs
from pprofpy.target.freezer import refuse_frozen
from pprofpy.units import NS_PER_S, format_duration

_LOG_PIPE_BYTES = 1 << 20
_POLL_S = 0.05
_PATIENCE_S = 20.0
"""How long py-spy may take to end after a SIGINT, besides the sleep between two looks that it may be in."""

_ENTRY_S = 20.0
"""How long it may take to get into the target. Where that is frozen meanwhile, it would wait for ever."""

STARVED_SHARE = 0.02
STARVED_NOTE = "py-spy waited for a CPU for"
"""What py-spy could not do on time it does in a burst, and a burst mostly sees one and the same stack."""

_SLOWEST_HZ = 10
_SHORTEST_PIECE_NS = NS_PER_S // 2
"""A py-spy that is behind looks again and again without a pause, and the target hardly runs. It is then ended, and the
rest of the recording made at a lower rate, unless that is no longer worth it."""

_BEGAN = b"Sampling process"
_BEHIND = re.compile(rb"([\d.]+)s behind in sampling")
_TOTALS = re.compile(rb"Samples: (\d+) Errors: (\d+)")
_UNSUPPORTED = re.compile(r"Unsupported version of Python|[Ff]ailed to find python version|interpreter")


class PySpyRecorder(Recorder):
    """Samples one process with py-spy, which tells what it saw only when it ends: there is only one window.

    To be used from the main thread: py-spy ends when the thread that started it does.

    Args:
        options: What to record.
        stop: The user's say while py-spy gets into the target.

    Raises (`watch`, `poll` and `finish`):
        TargetError: The target ended before anything was recorded.
        TargetPermissionError: py-spy may not look inside it.
        NotPossibleError: py-spy is missing, does not know this interpreter, or the target is frozen.
        InterruptedEarly: `stop` came before anything was recorded.
    """

    kind = "cpu"
    has_windows = False

    def __init__(self, options: CpuOptions, stop: Stop) -> None:
        super().__init__()
        self._options = self._slowed = options
        self._stop = stop
        self._pieces: list[_Piece] = []
        self._is_over = False

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

    def finish(self) -> Recording:
        """All that was recorded."""
        failure: list[str] = []
        try:
            self._end_piece()
        except PprofpyError as error:
            if not self._pieces:
                raise  # else what came before is worth keeping
            if not isinstance(error, InterruptedEarly):
                failure.append(f"The recording ended early: {error.message}.")
        profile = merge([piece.profile for piece in self._pieces])
        notes = _notes(self._options, self._slowed, profile.duration_ns, self._pieces, self._target)
        if not (self._options.idle or self._options.gil or self._options.subprocesses):
            notes += _doubt(profile.total(1), sum(piece.cpu_ns for piece in self._pieces))
        profile.collection = replace(profile.collection, notes=(*notes, *failure))
        return Recording(self.kind, profile)

    def _start(self) -> bool:
        """Start py-spy; False if it does not get in, or the user has had enough of waiting."""
        self._spy = self.owned.enter_context(_PySpy(self._target, replace(self._slowed, duration_ns=self._left_ns())))
        self._spy.wait_until_it_samples(self._stop)
        return not (self._spy.never_began or self._spy.stopped_by_user)

    def _left_ns(self) -> int | None:
        done_ns = time.time_ns() - self._pieces[0].began_ns if self._pieces else 0
        return self._options.duration_ns and max(self._options.duration_ns - done_ns, 1)

    def _end_piece(self) -> None:
        """Have py-spy end, and take what it got."""
        spy, target = self._spy, self._target
        if self._pieces and self._pieces[-1].began_ns == spy.began_unix_ns:
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
        profile.collection = _collection(self._engine, target, self._slowed, spy)
        behind_s = max((float(match[1]) for match in _BEHIND.finditer(spy.messages)), default=0.0)
        cpu_ns = spy.cpu_ns_at_end - spy.cpu_ns_at_start
        self._pieces.append(_Piece(profile, spy.began_unix_ns, cpu_ns, spy.starved_ns, behind_s))


@dataclass(frozen=True, slots=True)
class _Piece:
    """What one run of py-spy recorded.

    Attributes:
        profile: Its samples.
        began_ns: When it began, Unix time.
        cpu_ns: The CPU time that the kernel charged the target meanwhile.
        starved_ns: How long py-spy waited for a CPU.
        behind_s: How far it fell behind its schedule.
    """

    profile: Profile
    began_ns: int
    cpu_ns: int
    starved_ns: int
    behind_s: float


def _gap_ns(pieces: Sequence[_Piece]) -> int:
    """How long nothing was recorded between the first piece and the end of the last one."""
    whole_ns = pieces[-1].began_ns + pieces[-1].profile.duration_ns - pieces[0].began_ns
    return max(whole_ns - sum(piece.profile.duration_ns for piece in pieces), 0)


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
        self.looks = 0
        self.starved_ns = self._starved_before_ns = 0
        self.cpu_ns_at_start = self.cpu_ns_at_end = -1
        self.lost_looks = False
        self.complaints = b""
        self._target_was_stopped = _is_stopped(target)
        self.stopped_by_user = self.fell_behind = self.never_began = False
        try:
            self._process = program.start(
                self._arguments(), self._environment(), self._messages, log_end, [self._profile]
            )
        except BaseException:
            self._close()
            raise
        finally:
            os.close(log_end)

    def __enter__(self) -> _PySpy:
        return self

    def __exit__(self, *_: object) -> None:
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
        while self._process.poll() is None and not self._began_ns and time.monotonic() < deadline:
            if stop.wait(_POLL_S / 10):
                self.stopped_by_user = True
                return
            self._read_log()
            self._note_beginning()
        self.never_began = not self._began_ns and self._process.poll() is None

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

    def end(self) -> None:
        """Have py-spy let go of the target and end; by force only if it does not answer."""
        if self._process.poll() is None:
            self._note_beginning()
            self._ended_ns = time.monotonic_ns()
            self._process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + _PATIENCE_S + 10 / self._options.rate_hz
            while self._process.poll() is None and time.monotonic() < deadline:
                self._read_log()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(_POLL_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
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


def _collection(engine: str, target: Target, options: CpuOptions, spy: _PySpy) -> Collection:
    asked = round(options.rate_hz * spy.duration_ns / NS_PER_S)
    got = spy.looks if spy.looks and not spy.lost_looks else -1
    totals = _TOTALS.search(spy.messages)
    return Collection(
        engine=engine,
        target=str(target),
        asked=asked,
        got=got,
        late=-1 if got < 0 else _missed(asked, got),
        errors=int(totals[2]) if totals else -1,
    )


def _missed(asked: int, got: int) -> int:
    """How many looks fell out. py-spy draws its intervals at random, so a shortfall within chance is none."""
    return asked - got if asked - got > 4 * math.sqrt(asked) else 0


def _doubt(sampled_ns: int, counted_ns: int) -> list[str]:
    """A note if the samples contradict the kernel's own account of the process's CPU time.

    py-spy tells running threads from waiting ones by their state; its own looks wake them, so it can be wrong.
    """
    if abs(sampled_ns - counted_ns) <= max(0.2 * max(sampled_ns, counted_ns), NS_PER_S / 5):
        return []
    reason = "waiting, also for a CPU, was taken for running" if sampled_ns > counted_ns else "running was missed"
    sampled, counted = format_duration(sampled_ns), format_duration(counted_ns)
    return [f"The samples add up to {sampled}, but the kernel counted {counted} of CPU time: {reason}."]


def _notes(
    options: CpuOptions, slowed: CpuOptions, duration_ns: int, pieces: Sequence[_Piece], target: Target
) -> list[str]:
    """What a reader of the profile should keep in mind."""
    notes = []
    if options.gil:
        notes.append("Only threads that held the interpreter lock were counted.")
    elif options.idle:
        notes.append("Waiting threads were counted too: this is wall-clock time.")
    else:
        notes.append("Threads waiting for the interpreter lock may have been counted as running.")
    if options.nonblocking:
        notes.append("The target was not paused while its stacks were read: some may be torn.")
    if slowed.rate_hz < options.rate_hz:
        notes.append(
            f"py-spy could not keep up with {options.rate_hz} Hz; it was slowed to {slowed.rate_hz} Hz "
            f"to spare the target, and saw nothing for {format_duration(_gap_ns(pieces))} meanwhile."
        )
    if behind_s := pieces[-1].behind_s:
        notes.append(f"py-spy was up to {behind_s:.1f} s behind its schedule.")
    starved = sum(piece.starved_ns for piece in pieces) / max(duration_ns, 1)
    if starved > STARVED_SHARE:
        notes.append(f"{STARVED_NOTE} {starved:.0%} of the time: its samples came in bursts, shares are rough.")
    if not target.is_alive():
        notes.append("The target ended during the recording.")
    return notes


def _explain(spy: _PySpy, target: Target) -> PprofpyError:
    """Why py-spy gave us no profile."""
    said = (spy.complaints + spy.messages).decode("utf-8", "replace")
    if spy.never_began:
        return NotPossibleError(
            f"py-spy did not begin to sample {target} in {_ENTRY_S:.0f} s",
            "a frozen process lets nobody in, and thousands of threads take long; --engine bpf waits for neither",
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
