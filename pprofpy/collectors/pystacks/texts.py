"""The Python stacks of events, as text."""

from __future__ import annotations

import time

import numpy as np

from pprofpy.collectors.kernel.program import Program
from pprofpy.collectors.pystacks.processes import Processes
from pprofpy.collectors.pystacks.stacks import PythonStacks
from pprofpy.events.event_profile import frame_text
from pprofpy.events.log import Batch, Records
from pprofpy.model.profile import Frame
from pprofpy.target import open_target
from pprofpy.text import printable
from pprofpy.units import NS_PER_S

_WINDOW_NS = 10 * NS_PER_S
"""Events are spelled far sooner than this after they were numbered."""


class StackTexts:
    """The Python stacks of events, as text.

    Args:
        program: Walks them.
        children: Also those of processes that a watched one starts.
    """

    def __init__(self, program: Program, *, children: bool) -> None:
        self._stacks = PythonStacks(program, children=children)
        self._told: set[int] = {0}
        self._window_ns = time.monotonic_ns()

    def watch(self, pid: int) -> None:
        """Have the stacks of a process walked, and of what it has started if that is wanted."""
        self._stacks.watch(open_target(pid))

    @property
    def processes(self) -> Processes:
        """Whose stacks are walked."""
        return self._stacks.processes

    def number(self, heads: Records) -> None:
        """Give equal stacks of new events one number, in their HEADs."""
        self._stacks.poll()
        self._end_window()
        ids, places = np.unique(heads["stack"], return_inverse=True)
        heads["stack"] = np.array([self._stacks.number(one) for one in ids.tolist()], np.uint64)[places]
        self._stacks.make_room()

    def _end_window(self) -> None:
        """Forget, now and then; not what the batch before this one refers to: some of it may wait to be spelled."""
        now_ns = time.monotonic_ns()
        if now_ns - self._window_ns > _WINDOW_NS:
            self._window_ns = now_ns
            self._stacks.end_window()
            self._told = {number for number in self._told if self._stacks.knows(number)}

    def of(self, batch: Batch) -> dict[int, tuple[str, ...]]:
        """Those of these events that were not met before; each frame as `module.function (file:line)`."""
        numbers = np.concatenate([batch.records["head"]["stack"], batch.all_calls()["head"]["stack"]])
        new = set(np.unique(numbers).tolist()) - self._told
        self._told |= new
        return {number: tuple(map(_words, self._stacks.spelled(number))) for number in new}

    @property
    def count(self) -> int:
        """How many stacks are in memory."""
        return len(self._stacks)

    def losses(self) -> dict[str, int]:
        """Return the losses."""
        return self._stacks.losses()

    def close(self) -> None:
        """Stop walking the stacks of all processes."""
        self._stacks.close()


def _words(frame: Frame) -> str:
    return printable(frame_text(frame))
