"""`trace --duration` is perf's, the shortest call to show; `-d` says how long to record."""

from __future__ import annotations

import pytest

from pprofpy.cli.trace import slower_than_ns
from pprofpy.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ns"),
    [("10", 10_000_000), (".5", 500_000), ("500us", 500_000), ("9s", 9 * 10**9), ("15000", 15 * 10**9)],
)
def test_a_bare_number_is_milliseconds(text: str, ns: int) -> None:
    assert slower_than_ns(text) == ns


@pytest.mark.parametrize(("text", "milliseconds"), [("30s", 30_000), ("10s", 10_000), ("1m30s", 90_000)])
def test_the_length_of_a_recording_is_refused_and_both_ways_out_are_named(text: str, milliseconds: int) -> None:
    with pytest.raises(UsageError) as refusal:
        slower_than_ns(text)

    assert f"calls that take {text} or longer" in refusal.value.message
    assert f"-d {text};" in refusal.value.hint
    assert slower_than_ns(refusal.value.hint.rpartition("--duration ")[2]) == milliseconds * 1_000_000
