"""Off-CPU intervals with native functions between the Python functions that call them and that they call.

A thread's native stack is copied as it leaves its CPU. Those of threads that were blocked already are unknown, and
those of too many switches: their times are exact all the same.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pprofpy.collectors.kernel.switches import OFF_CPU
from pprofpy.collectors.off_cpu import PLACE, PYTHON_SOURCE, OffCpuRecorder
from pprofpy.collectors.pystacks.walked import WalkedStacks
from pprofpy.collectors.unwind.copies import NATIVE_LAYOUTS, NativeStacks, Switch, native_constants
from pprofpy.collectors.unwind.wholestack import without_native
from pprofpy.model.profile import Collection

_PLACE = np.dtype([*PLACE.descr, ("copied_ns", "u8")])


NATIVE_SOURCE = PYTHON_SOURCE.plus({**NATIVE_LAYOUTS, "place": _PLACE}, NATIVE=1)


class NativeOffCpuRecorder(OffCpuRecorder):
    """A recording as OffCpuRecorder makes it, with native functions, too; of a process, or a group of them."""

    python_source = NATIVE_SOURCE
    place = _PLACE
    _natives: NativeStacks

    def open_stacks(self) -> None:
        """As OffCpuRecorder does."""
        super().open_stacks()
        self._natives = NativeStacks(self.program)
        self.owned.callback(self._natives.close)

    def _values(self) -> dict[str, int]:
        return super()._values() | native_constants()

    def _poll_stacks(self, python: WalkedStacks) -> list[int]:
        arrived = self._natives.arrived()
        readable = super()._poll_stacks(python)
        self._natives.poll(python.runtimes, python.frames, arrived)
        return readable

    def _whole(self, stack: int, tid: int, copied_ns: int = 0) -> int:
        python = self._python.frames(stack) if self._python else ()
        chain = self._natives.chain_at((tid, copied_ns))
        return self._sums.number_of_whole(
            without_native(python) if chain is None else self._natives.merged(python, chain)
        )

    def _forget_others(self, tids: NDArray[Any], threads: NDArray[Any], left: NDArray[Any]) -> None:
        unfinished = zip(left["tid"].tolist(), left["copied_ns"].tolist(), strict=True)
        self._natives.forget_switches(_copied(tids, threads) | set(unfinished))
        self._natives.make_room()

    def collected(self) -> Collection:
        """As OffCpuRecorder does."""
        found = super().collected()
        return replace(found, losses={**found.losses, **self._natives.losses()})


def _copied(tids: NDArray[Any], threads: NDArray[Any]) -> set[Switch]:
    """The threads that are off their CPU and whose native stacks were copied then."""
    track = threads["track"]
    is_copied = (track["where"] == OFF_CPU) & (threads["is_copied"] == 1)
    return set(zip(tids[is_copied].tolist(), track["since_ns"][is_copied].tolist(), strict=True))
