"""Traces: their order, and their bridge to a profile."""

import numpy as np
import pytest

from pprofpy.model.profile import Collection
from pprofpy.model.trace import RECORD, Context, Kind, RunqueueWait, Switch, Trace, TracedThread, Wakeup, state_letter

MAIN, WORKER, OTHER = 10, 11, 99


def trace() -> Trace:
    """The worker is woken by a timer, takes the CPU from another process after 5 us, and blocks."""
    records = np.array(
        [
            (1_000, 0, 0, WORKER, 0, Kind.WAKEUP, Context.IRQ, 0),
            (6_000, 5_000, OTHER, WORKER, 0, Kind.SWITCH, 0, 0),
            (9_000, 0, WORKER, OTHER, 0, Kind.SWITCH, 0, 1),
        ],
        RECORD,
    )
    threads = {
        MAIN: TracedThread(MAIN, "main", True),
        WORKER: TracedThread(MAIN, "worker", True),
        OTHER: TracedThread(OTHER, "other", False),
    }
    return Trace(records, threads, 500, 1_700_000_000_000_000_000, 10_000, Collection(engine="test", dropped=2))


def test_events_come_in_order_and_a_wait_before_the_switch_that_ends_it() -> None:
    assert list(trace().events()) == [
        Wakeup(1_000, 0, WORKER, 0, Context.IRQ, False),
        RunqueueWait(6_000, 0, WORKER, 5_000, False),
        Switch(6_000, 0, OTHER, WORKER, "R"),
        Switch(9_000, 0, WORKER, OTHER, "S"),
    ]


def test_the_bridge_to_a_profile_keeps_counts_and_times() -> None:
    profile = trace().to_profile()
    profile.check_valid()
    (sample,) = profile.samples()
    assert [frame.function.name for frame in sample.stack] == ["[woken]", "worker (11)", "main (10)"]
    assert sample.values == (1, 5_000)


@pytest.mark.parametrize(("state", "letter"), [(0, "R"), (1, "S"), (2, "D"), (0x402, "I"), (0x80, "X"), (0x102, "D")])
def test_states_are_written_as_ps_does(state: int, letter: str) -> None:
    assert state_letter(state) == letter
