"""Traces: their order, their bridge to a profile, their files."""

import io
import json
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import tracefile
from pprofpy.model.profile import Collection
from pprofpy.model.trace import RECORD, Context, Kind, RunqueueWait, Switch, Thread, Trace, Wakeup, state_letter

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
        MAIN: Thread(MAIN, "main", True),
        WORKER: Thread(MAIN, "worker", True),
        OTHER: Thread(OTHER, "other", False),
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


def test_a_file_brings_back_what_was_written() -> None:
    again = tracefile.read(tracefile.write(trace()))
    assert again.records.tolist() == trace().records.tolist()
    assert again.threads == trace().threads
    assert (again.start_ns, again.time_ns, again.duration_ns) == (500, trace().time_ns, 10_000)
    assert again.collection == trace().collection


@given(st.binary(max_size=200))
def test_noise_is_refused_with_our_own_error(data: bytes) -> None:
    with pytest.raises(ProfileFormatError):
        tracefile.read(data)


@given(st.data())
def test_a_damaged_file_raises_our_own_error_or_nothing(data: st.DataObject) -> None:
    whole = bytearray(tracefile.write(trace()))
    for _ in range(5):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    length = data.draw(st.integers(0, len(whole)))
    for damaged in (bytes(whole), bytes(whole[:length])):
        with suppress(ProfileFormatError):
            tracefile.read(damaged)


def test_a_file_with_other_records_is_refused() -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pprofpy.json", json.dumps({"layout": [["ts_ns", "<u8"]]}))
        archive.writestr("records.bin", b"12345678")
    with pytest.raises(ProfileFormatError, match="another kind"):
        tracefile.read(buffer.getvalue())


@pytest.mark.parametrize(("state", "letter"), [(0, "R"), (1, "S"), (2, "D"), (0x402, "I"), (0x80, "X"), (0x102, "D")])
def test_states_are_written_as_ps_does(state: int, letter: str) -> None:
    assert state_letter(state) == letter
