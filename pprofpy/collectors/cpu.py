"""Where a process spends CPU time: what can be asked for, and the engines that can answer.

`bpf` walks stacks inside the kernel: it never stops the target, costs it least, and counts CPU time that was really
spent. `py-spy` reads them from outside and works nearly everywhere. `auto` takes the first that can answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.errors import (
    InterruptedEarly,
    NoLockError,
    NotPossibleError,
    NotStartedError,
    PprofpyError,
    TargetError,
    UsageError,
)
from pprofpy.session import Recorder, Stop
from pprofpy.target import Target, Watched

if TYPE_CHECKING:
    from pprofpy.collectors.sampling.cpu import CpuRecorder

ENGINES = ("bpf", "py-spy")
"""The engines, best first."""


class CpuEngines:
    """Chooses the engine for one CPU recording, and the next one if that is refused.

    Args:
        engine: One of ENGINES, or "auto".
        options: What to record.
        say: Told which engine is used, and why.

    Raises:
        UsageError: The options make no sense, or not with this engine.
    """

    def __init__(self, engine: str, options: CpuOptions, say: Callable[[str], object]) -> None:
        options.check()
        self._engine = engine
        self._options = options
        self._say = say
        self._prepared: CpuRecorder | None = None
        self._refusal = ""
        if engine == "py-spy" and (contradiction := _beyond_pyspy(options)):
            raise contradiction

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the profile on the choice of the engine."""
        return (f"The engine is py-spy, since {self._refusal}.",) if self._refusal else ()

    def prepare(self) -> None:
        """Prepare the kernel engine, which takes a while and needs no target.

        Raises:
            NotPossibleError: The engine that was asked for cannot work here.
        """
        if self._prepared or self._refusal or self._engine == "py-spy":
            return
        recorder = _bpf_recorder(self._options)
        try:
            self._prepared = recorder.__enter__()
        except PprofpyError as error:
            self.refuse(error)

    def start(self, watched: Watched, stop: Stop) -> Recorder:
        """Start a recorder that watches the process.

        Args:
            watched: The process; or several, with the kernel engine.
            stop: The user's say while it is being started.

        Raises:
            TargetError: The target ended before anything was recorded.
            NotPossibleError: A tool or privilege is missing.
            InterruptedEarly: `stop` came first.
        """
        self.prepare()
        if self._prepared:
            try:
                self._prepared.watch_all(watched)
            except PprofpyError as error:
                self.refuse(error)
            else:
                self._say("engine: eBPF, which does not stop the process")
                return self._prepared
        target = self._for_pyspy(watched)
        if self._refusal:
            self._say(f"engine: py-spy, since {self._refusal}")
        from pprofpy.collectors.pyspy.recorder import PySpyRecorder

        recorder = PySpyRecorder(self._options, stop)
        try:
            recorder.watch(target)
        except BaseException:
            recorder.close()
            raise
        return recorder

    def _for_pyspy(self, watched: Watched) -> Target:
        """The one process that py-spy can record.

        Raises:
            NotPossibleError: There are several.
        """
        if isinstance(watched, Target):
            return watched
        why = f", and the kernel engine cannot do it: {self._refusal}" if self._refusal else ""
        each = "".join(f"\n    pprofpy cpu --pid {one.pid} --subprocesses" for one in watched.members)
        raise NotPossibleError(
            f"py-spy records one process with its children, not {watched}{why}",
            f"record each by itself, at the same time if you like:{each}",
        )

    def refuse(self, error: PprofpyError) -> None:
        """Remember why the kernel engine cannot do it; the next `start` takes another one.

        Raises:
            PprofpyError: `error` itself, if no other engine may.
        """
        is_final = self._engine == "bpf" or (not self._prepared and bool(self._refusal)) or self._engine == "py-spy"
        is_for_all = isinstance(error, TargetError | InterruptedEarly | NotStartedError | NoLockError)
        if is_final or is_for_all or _beyond_pyspy(self._options):
            raise error
        self._refusal = error.message
        self.close()

    def close(self) -> None:
        """Remove all programs from the kernel."""
        if self._prepared:
            self._prepared.close()
            self._prepared = None

    def __enter__(self) -> CpuEngines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _beyond_pyspy(options: CpuOptions) -> UsageError | None:
    """Return why py-spy cannot record this; None if it can."""
    if options.kernel_stacks:
        return UsageError("py-spy cannot see the kernel's side", "use --engine bpf, or leave --kernel-stacks out")
    if options.labels.variables:
        return UsageError("py-spy cannot read context variables", "use --engine bpf, or leave --label out")
    if options.native and options.nonblocking:
        words = "py-spy must pause the target for --native, which --nonblocking forbids"
        return UsageError(words, "use --engine bpf, or leave one of them out")
    return None


def _bpf_recorder(options: CpuOptions) -> CpuRecorder:
    from pprofpy.collectors.sampling.cpu import CpuRecorderOptions

    return _kind_of_recorder(options)(
        CpuRecorderOptions(
            rate_hz=options.rate_hz,
            gil=options.gil,
            children=options.subprocesses,
            kernel_stacks=options.kernel_stacks,
            labels=options.labels,
        )
    )


def _kind_of_recorder(options: CpuOptions) -> type[CpuRecorder]:
    """Imports no more than that one needs: the unwinder alone is a tenth of what a short recording takes."""
    if options.native:
        from pprofpy.collectors.sampling.native import NativeRecorder, NativeWallRecorder

        return NativeWallRecorder if options.idle else NativeRecorder
    if options.idle:
        from pprofpy.collectors.sampling.wall import WallRecorder

        return WallRecorder
    from pprofpy.collectors.sampling.cpu import CpuRecorder

    return CpuRecorder
