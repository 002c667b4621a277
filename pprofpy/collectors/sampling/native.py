"""CPU samples with the native functions that the leaf-most Python function has called."""

from __future__ import annotations

from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.collectors.sampling.intervals import UNKNOWN as HIDDEN_STATE
from pprofpy.collectors.sampling.intervals import Place
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.collectors.unwind.copies import NATIVE_LAYOUTS, UNKNOWN, NativeFrame, NativeSample, NativeStacks


class NativeRecorder(CpuRecorder):
    """A recording as CpuRecorder makes it, with native functions on top of Python's.

    Samples are not summed up in the kernel: each comes with a copy of the thread's stack. Those that find no room are.
    """

    source = CpuRecorder.source.plus(NATIVE_LAYOUTS, NATIVE=1)

    def open(self) -> None:
        """As CpuRecorder does."""
        super().open()
        self._natives = NativeStacks(self.program)
        self.owned.callback(self._natives.close)

    # -- while it runs ---------------------------------------------------------------------------------------------

    def take_new(self) -> None:
        """As CpuRecorder does."""
        arrived = self._natives.arrived()
        super().take_new()
        self._natives.poll(self.stacks.runtimes, arrived)

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
        native = self._natives.frames(sample.chain)
        found = self._joined(sample.python_stack, sample.kernel_stack, native)
        if self.stacks.has(sample.python_stack):  # else it may be known next time
            self._locations[place] = found
        return found

    def _locate(self, stack: int, kernel_stack: int) -> tuple[int, ...]:
        """Of a sample whose native stack has found no room."""
        return self._joined(stack, kernel_stack, [UNKNOWN])

    def _joined(self, stack: int, kernel_stack: int, native: list[NativeFrame]) -> tuple[int, ...]:
        return self._interned(*self._frames_of(stack, kernel_stack), native)

    # -- at its end ------------------------------------------------------------------------------------------------

    def _take_rest(self, end_ns: int) -> None:
        self._natives.poll(self.stacks.runtimes, self._natives.arrived())
        super()._take_rest(end_ns)

    def _native_losses(self) -> dict[str, int]:
        return self._natives.losses()


class NativeWallRecorder(WallRecorder, NativeRecorder):
    """A recording as WallRecorder makes it, with native functions on top of Python's.

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
        return self._joined(stack, kernel_stack, [] if stack == HIDDEN_STATE else [UNKNOWN])
