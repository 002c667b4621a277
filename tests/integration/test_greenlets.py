"""Greenlets swap pieces of the C stack, and Python's frames with them: no stack is ever shown that has parts of two."""

from __future__ import annotations

from collections import Counter

import pytest

from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.collectors.sampling.native import NativeRecorder
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, PYTHONS, Start, beside_others, interpreter, with_package
from tests.cpu import poll_until, recorder

pytestmark = beside_others

ENOUGH = 2_000


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", [CpuRecorder, WallRecorder, NativeRecorder], ids=["cpu", "idle", "native"])
def test_no_stack_has_parts_of_two_greenlets(start: Start, version: str, kind: type[CpuRecorder]) -> None:
    python = interpreter(version)
    environment = with_package(version, "greenlet")
    process = start(python, str(PROGRAMS / "greenlets.py"), env=environment)
    sides: Counter[tuple[str, ...]] = Counter()
    with recorder(10_000, kind) as recording:
        recording.watch(open_target(process.pid))

        def is_enough() -> bool:
            for sample in recording.window().profile.samples():
                names = [frame.function.system_name.rpartition(".")[2] for frame in sample.stack]
                found = {name.partition("_")[0] for name in names if name.startswith(("left_", "right_"))}
                sides[tuple(sorted(found))] += sample.values[0]
            return sides.total() > ENOUGH

        poll_until(recording, is_enough)

    assert sides["left", "right"] == 0
    assert sides["left",] > 0.4 * sides.total()
    assert sides["right",] > 0.4 * sides.total()
    # In 3.11 and 3.12 no frame is known in the midst of a switch.
    assert sides[()] < (0.15 if version in ("3.11", "3.12") else 0.01) * sides.total()
