"""Every word and number of the notes: each from figures that provoke exactly that note, and no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from pprofpy.collectors.heapagent import engines, samples
from pprofpy.collectors.heapagent.samples import Counts, SamplerTables
from pprofpy.collectors.heapagent.traced_blocks import TracedBlocks
from pprofpy.collectors.pyspy import notes
from pprofpy.collectors.pyspy.notes import Piece
from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.model.profile import Collection, Profile
from pprofpy.reports.header import losses
from pprofpy.reports.losses import WORDS, lines
from pprofpy.target import Target
from tests.looks import assert_looks

SECOND = 10**9
OPTIONS = CpuOptions(rate_hz=1000)
GOOD = Piece(began_ns=0, duration_ns=10 * SECOND, sampled_ns=9 * SECOND, cpu_ns=9 * SECOND, starved_ns=0, behind_s=0)
ALIVE, ENDED = (cast(Target, SimpleNamespace(is_alive=lambda alive=alive: alive)) for alive in (True, False))


def test_all_losses_read_well_for_one_and_for_more() -> None:
    numbers = (1, 1234)
    text = [f"{name}\n" + "".join(f"    {lines(Collection(losses={name: n}))[0]}\n" for n in numbers) for name in WORDS]

    assert_looks("".join(text), "losses.txt")


# -- py-spy ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "basis", "caveats"),
    [
        (CpuOptions(), "", ["Threads waiting for the interpreter lock may have been counted as running."]),
        (CpuOptions(gil=True), "Only threads that held the interpreter lock were counted.", []),
        (CpuOptions(idle=True), "Waiting threads were counted, too: this is wall-clock time.", []),
        (
            CpuOptions(idle=True, nonblocking=True),
            "Waiting threads were counted, too: this is wall-clock time.",
            ["The target was not paused while its stacks were read: some may be torn."],
        ),
    ],
)
def test_what_options_mean_for_py_spys_samples(options: CpuOptions, basis: str, caveats: list[str]) -> None:
    assert notes.basis(options) == ((basis,) if basis else ())
    assert list(notes.on_options(options)) == caveats


@pytest.mark.parametrize(
    ("pieces", "slowed_to_hz", "target", "words"),
    [
        ([GOOD], 1000, ALIVE, []),
        ([GOOD], 1000, ENDED, ["The target ended during the recording."]),
        ([replace(GOOD, behind_s=1.26)], 1000, ALIVE, ["py-spy was up to 1.3 s behind its schedule."]),
        (
            [GOOD, replace(GOOD, began_ns=12 * SECOND)],
            250,
            ALIVE,
            [
                "py-spy could not keep up with 1000 Hz; it was slowed to 250 Hz to spare the target, and saw nothing "
                "for 2 s meanwhile."
            ],
        ),
        (
            [replace(GOOD, starved_ns=SECOND), GOOD],
            1000,
            ALIVE,
            ["py-spy waited for a CPU for 5% of the time: its samples came in bursts, shares are rough."],
        ),
        (
            [replace(GOOD, sampled_ns=16_400_000_000, cpu_ns=9_200_000_000)],
            1000,
            ALIVE,
            [
                "The samples add up to 16.4 s, but the kernel counted 9.2 s of CPU time: waiting, also for a CPU, was "
                "taken for running."
            ],
        ),
        (
            [replace(GOOD, sampled_ns=5 * SECOND)],
            1000,
            ALIVE,
            ["The samples add up to 5 s, but the kernel counted 9 s of CPU time: running was missed."],
        ),
    ],
)
def test_what_py_spys_figures_give_away(
    pieces: list[Piece], slowed_to_hz: int, target: Target, words: list[str]
) -> None:
    assert list(notes.on_pieces(OPTIONS, replace(OPTIONS, rate_hz=slowed_to_hz), pieces, target)) == words


def test_where_waiting_was_asked_for_it_is_no_doubt() -> None:
    waiting = replace(GOOD, sampled_ns=100 * SECOND)

    assert notes.on_pieces(replace(OPTIONS, idle=True), replace(OPTIONS, idle=True), [waiting], ALIVE) == ()


# -- the heap --------------------------------------------------------------------------------------------------------


class Session:
    """An agent that answers what it is told to."""

    traced_frames = 0
    has_lock = True
    target = SimpleNamespace(root=Path("/"), pid=1, threads=list, __str__=lambda self: "shop")

    def __init__(self, *answers: object) -> None:
        self._answers = answers

    def library(self) -> bytes:
        return b""

    def call(self, *_: object, **__: object) -> tuple[object, ...]:
        return self._answers


def sampled(engine: engines.Sampling, *, is_hooked: bool = True, **counts: int) -> Profile:
    nothing = dict.fromkeys(Counts.__slots__, 0)
    tables = SamplerTables(
        [], [], np.zeros(2, samples._STACK), np.zeros(0, "u4"), np.zeros(0, samples._CELL),
        Counts(**nothing | counts), is_hooked, {}, [],
    )  # fmt: skip
    return engine._profile(tables)


def sampling(*answers: object) -> engines.Sampling:
    return engines.Sampling(cast(Any, Session(*answers)), 524_288, 0)


def test_a_sampled_heap_is_an_estimate_and_no_more_is_to_be_said() -> None:
    found = sampled(sampling(), samples=7).collection

    assert found.basis == ("One sample in 524,288 bytes on average: values are estimates.",)
    assert losses(found) == []


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"lost_live": 1}, "lost: 1 sampled block that found no room: it is missing from what is in use"),
        ({"lost_live": 20}, "lost: 20 sampled blocks that found no room: they are missing from what is in use"),
        ({"lost_stacks": 3}, "lost: 3 samples whose stack found no room: there are too many different ones"),
        ({"busy": 1}, "lost: 1 sample that came while the sampler was at work"),
        ({"is_hooked": False}, "Something in the program replaced the allocators meanwhile: this is only a part."),
    ],
)
def test_what_a_sampled_heap_lacks(counts: dict[str, int], words: str) -> None:
    found = sampled(sampling(), **counts).collection  # type: ignore[arg-type]

    assert lines(found) == [words]
    assert found.dropped == sum(count for name, count in counts.items() if name != "is_hooked")


def test_arrays_that_are_not_counted_are_told() -> None:
    engine = sampling(False)
    engine.start()

    words = "The data of NumPy's arrays are not in it: this version of NumPy is not known."
    assert sampled(engine).collection.notes == (words,)


@pytest.fixture
def tracing() -> engines.Tracing:
    return engines.Tracing(cast(Any, Session()), 1, lambda text: None, lambda done, count: None)


@pytest.mark.parametrize(("lost", "words"), [(0, []), (1, ["block"]), (5000, ["blocks"])])
def test_what_tracemalloc_knows_and_lacks(lost: int, words: list[str], tracing: engines.Tracing) -> None:
    found = tracing._profile(TracedBlocks(10, 3 << 20, {}, 0, lost)).collection

    assert found.basis == (
        "Functions are named by the source files as they are now.",
        "tracemalloc itself takes 3MB to remember them.",
    )
    stack = "stack" if lost == 1 else "stacks"
    assert lines(found) == [f"lost: the {stack} of {lost:,} {w}: there are too many different ones" for w in words]


def test_functions_without_a_name_are_told(tracing: engines.Tracing) -> None:
    tracing._names._rest_s = -1

    words = "Not all functions are named: the process has too many source files, or too large ones."
    assert tracing._profile(TracedBlocks()).collection.notes == (words,)
