"""What the recorders share that have a program in the kernel."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from pprofpy.collectors.kernel.program import Program, load
from pprofpy.model.profile import Collection
from pprofpy.session import Recorder

_DRAIN_NS = 500_000_000


class KernelRecorder(Recorder):
    """A recorder with one program in the kernel, which sums up there what is moved out twice a second.

    Attributes:
        program: The program, once it is loaded.
    """

    program: Program

    def __init__(self) -> None:
        super().__init__()
        self._drained_ns = 0
        self._collected_before = Collection()

    def load(
        self,
        source: str,
        constants: Mapping[str, int],
        layouts: Mapping[str, np.dtype[Any]],
        parameters: Mapping[str, int] | None = None,
    ) -> Program:
        """Load the program; it is taken out of the kernel when the recorder is closed. See `loader.load`."""
        self.program = load(source, constants, layouts, parameters)
        self.owned.callback(self.program.close)
        return self.program

    def poll(self) -> None:
        """Take in what is new, and twice a second what the kernel has summed up."""
        self.take_new()
        now_ns = time.monotonic_ns()
        if now_ns - self._drained_ns >= _DRAIN_NS:
            self._drained_ns = now_ns
            self.drain()

    def take_new(self) -> None:
        """Take in what the kernel must not keep for long, such as new stacks."""

    def drain(self) -> None:
        """Move finished entries out of the kernel's tables, so that they stay small."""

    def collected(self) -> Collection:
        """How the whole recording came about so far; counts from its beginning on."""
        raise NotImplementedError

    def collected_since(self) -> Collection:
        """The same of this window alone. The next call tells of the next window."""
        now, before = self.collected(), self._collected_before
        self._collected_before = now
        return now.since(before)
