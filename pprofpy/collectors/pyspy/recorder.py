"""Recording with py-spy: a run of it for each window, at a lower rate where it falls behind, and what each one got."""

from __future__ import annotations

import re
import time
from dataclasses import replace

from pprofpy.collectors.pyspy import executable
from pprofpy.collectors.pyspy.child import BEHIND, SLOWEST_HZ, PySpy
from pprofpy.collectors.pyspy.convert import convert, empty
from pprofpy.collectors.pyspy.known_pythons import knowledge
from pprofpy.collectors.pyspy.notes import Piece, basis, missed, on_options, on_pieces
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import InterruptedEarly, NotPossibleError, PprofpyError, TargetError
from pprofpy.model.combine import merge
from pprofpy.model.profile import Collection, Profile
from pprofpy.model.recording import Recording
from pprofpy.session import Recorder, Stop
from pprofpy.target import Target, permission_error
from pprofpy.target.freezer import refuse_frozen, refuse_stopped
from pprofpy.units import NS_PER_S

_SHORTEST_PIECE_NS = NS_PER_S // 2
"""A py-spy that is behind samples again and again without a pause, and the target hardly runs. It is then ended, and
the rest of the recording made at a lower rate, unless that is no longer worth it."""

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
        NotPossibleError: py-spy is missing, does not know this interpreter, or the target is stopped or frozen.
        InterruptedEarly: `stop` came before anything was recorded.
    """

    kind = "cpu"

    def __init__(self, options: CpuOptions, stop: Stop) -> None:
        super().__init__()
        self._options = self._slowed = options
        self._stop = stop
        self._pieces: list[Piece] = []
        self._profiles: list[Profile] = []
        self._running: list[PySpy] = []
        self._is_over = False
        self.owned.callback(self._dismiss_all)

    _spy: PySpy

    def watch(self, target: Target) -> None:
        """Start py-spy, and wait until it samples."""
        refuse_frozen(target)
        self._refuse_stopped(target)
        self._target = target
        self._engine = executable.version()
        self._tids = _outer_tids(target)
        if not self._start():
            self._end_piece()

    def _refuse_stopped(self, target: Target) -> None:
        """Refuse what py-spy cannot pause, since it stands still already."""
        if not self._options.nonblocking:
            refuse_stopped(target)

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
        profile.collection = replace(profile.collection, notes=notes, basis=basis(self._options))
        return Recording(self.kind, profile)

    def _start(self) -> bool:
        """Start py-spy; False if it does not get in, or the user has had enough of waiting."""
        self._spy = self._launched()
        self._spy.wait_until_it_samples(self._stop)
        return not (self._spy.never_began or self._spy.stopped_by_user)

    def _launched(self) -> PySpy:
        spy = PySpy(self._target, replace(self._slowed, duration_ns=self._left_ns()))
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
            self._refuse_stopped(target)
            raise _explain(spy, target)
        profile = convert(document, self._slowed, target, self._tids | _outer_tids(target))
        profile.time_ns, profile.duration_ns = spy.began_unix_ns, spy.duration_ns
        profile.collection = _collection(self._engine, target, self._slowed, spy, len(profile))
        behind_s = max((float(match[1]) for match in BEHIND.finditer(spy.messages)), default=0.0)
        cpu_ns = spy.cpu_ns_at_end - spy.cpu_ns_at_start
        times_ns = spy.began_unix_ns, spy.duration_ns, profile.total(1), cpu_ns, spy.starved_ns
        self._pieces.append(Piece(*times_ns, behind_s))
        self._profiles.append(profile)
        spy.dismiss()


def _slower(rate_hz: int) -> int:
    """The rate to go on with where `rate_hz` was too much."""
    return max(rate_hz // 4, min(rate_hz, SLOWEST_HZ))


def _collection(engine: str, target: Target, options: CpuOptions, spy: PySpy, samples: int) -> Collection:
    asked = round(options.rate_hz * spy.duration_ns / NS_PER_S)
    got = spy.sample_count if (spy.sample_count or not samples) and not spy.lost_samples else -1
    totals = _TOTALS.search(spy.messages)
    return Collection(
        engine=engine,
        target=str(target),
        asked=asked,
        got=got,
        late=-1 if got < 0 else missed(asked, got),
        errors=int(totals[2]) if totals else -1,
    )


def _explain(spy: PySpy, target: Target) -> PprofpyError:
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
            f"{knowledge()}; see what is possible: pprofpy doctor --pid {target.pid}",
        )
    return PprofpyError(
        f"py-spy failed: {reason or said.strip()[-200:] or 'no message'}",
        f"see what is possible: pprofpy doctor --pid {target.pid}",
    )


def _outer_tids(target: Target) -> dict[int, int]:
    """For a target in another pid namespace: thread ids there -> here."""
    return {thread.inner_tid: thread.tid for thread in target.threads() if thread.inner_tid != thread.tid}
