"""CPU samples with native functions between the Python functions that call them and that they call."""

from __future__ import annotations

from collections.abc import Sequence

from pprofpy.collectors.sampling.cpu import NO_PYTHON, CpuRecorder
from pprofpy.collectors.sampling.intervals import UNKNOWN as HIDDEN_STATE
from pprofpy.collectors.sampling.intervals import Place
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.collectors.unwind.copies import NATIVE_LAYOUTS, NativeSample, NativeStacks, native_constants
from pprofpy.collectors.unwind.wholestack import UNKNOWN, PlacedFrame
from pprofpy.model.profile import PYTHON_MAPPING


class NativeRecorder(CpuRecorder):
    """A recording as CpuRecorder makes it, with native functions, too.

    Samples are not summed up in the kernel: each comes with a copy of the thread's stack. Those that find no room are.
    """

    source = CpuRecorder.source.plus(NATIVE_LAYOUTS, NATIVE=1)

    def open(self) -> None:
        """As CpuRecorder does."""
        super().open()
        self._natives = NativeStacks(self.program)
        self.owned.callback(self._natives.close)

    def _values(self) -> dict[str, int]:
        return super()._values() | native_constants()

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """As CpuRecorder does."""
        arrived = self._natives.arrived()
        super().take_new()
        self._poll_natives(arrived)

    def _poll_natives(self, until: int) -> None:
        self._natives.poll(self.stacks.runtimes, self.stacks.frames, until)

    def drain(self) -> None:
        """As CpuRecorder does."""
        super().drain()
        if self._natives.make_room():
            self._locations.clear()

    def _take(self) -> None:
        super()._take()
        found = self._natives.take()
        self._learn_names((sample.tgid, sample.tid) for sample in found)
        for sample, count in found.items():
            labels = self.stacks.labels(sample.python_stack)
            self._count(self._native_location(sample), labels, sample.tgid, sample.tid, count)

    def _native_location(self, sample: NativeSample) -> tuple[int, ...]:
        place = (sample.python_stack, sample.kernel_stack, sample.chain)
        if place in self._locations:
            return self._locations[place]
        kernel, python = self._frames_of(sample.python_stack, sample.kernel_stack)
        found = self._placed(kernel, self._natives.merged(python or (NO_PYTHON,), sample.chain))
        if self.stacks.has(sample.python_stack):  # else it may be known next time
            self._locations[place] = found
        return found

    def _locate(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        """Of a sample whose native stack has found no room."""
        return self._without_native(stack, kernel_stack)

    def _without_native(
        self, stack: int, kernel_stack: int, native: Sequence[PlacedFrame] = (UNKNOWN,)
    ) -> tuple[int, ...]:
        kernel, python = self._frames_of(stack, kernel_stack)
        below = [(frame, PYTHON_MAPPING) for frame in python or (NO_PYTHON,)]
        return self._placed(kernel, [*native, *below])

    # -- at its end ------------------------------------------------------------------------------------------------

    def _take_rest(self, end_ns: int) -> None:
        self._poll_natives(self._natives.arrived())
        super()._take_rest(end_ns)

    def _native_losses(self) -> dict[str, int]:
        return self._natives.losses()


class NativeWallRecorder(WallRecorder, NativeRecorder):
    """A recording as WallRecorder makes it, with native functions, too.

    A thread's native stack is copied as it leaves its CPU, and followed while it waits. Those of threads that were
    blocked already are unknown, and those of too many switches.
    """

    source = WallRecorder.source.plus(NATIVE_LAYOUTS, NATIVE=1)

    def drain(self) -> None:
        """As both do."""
        super().drain()
        self._natives.forget_switches(self._intervals.copies_in_use())

    def _interval_location(self, place: Place) -> tuple[int, ...]:
        chain = self._natives.chain_at((place.tid, place.copied_ns))
        if chain is None:
            return self._location(place.stack, place.kernel_stack)
        return self._native_location(NativeSample(place.stack, place.tid, place.pid, place.kernel_stack, chain))

    def _locate(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        return self._without_native(stack, kernel_stack, () if stack == HIDDEN_STATE else (UNKNOWN,))
