"""The arithmetic of latency: buckets, quantiles, sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pprofpy.model.latency import (
    Histogram,
    LatencyRecord,
    ThreadWaits,
    Waits,
    bucket_edges,
    bucket_of,
    merge_waits,
    sum_by_name,
)

waits_ns = st.integers(min_value=0, max_value=10**13)


def waits(*times_ns: int, at_ns: int = 0) -> Waits:
    return Waits(len(times_ns), sum(times_ns), max(times_ns), at_ns, Histogram.of(times_ns))


@given(waits_ns)
def test_a_wait_lies_within_the_edges_of_its_bucket(wait_ns: int) -> None:
    lower, upper = bucket_edges(np.array([bucket_of(wait_ns)]))
    assert lower[0] <= wait_ns < upper[0]


@given(waits_ns)
def test_a_bucket_is_at_most_a_thirtysecond_wide(wait_ns: int) -> None:
    lower, upper = bucket_edges(np.array([bucket_of(wait_ns)]))
    assert upper[0] - lower[0] <= max(lower[0] / 32, 1)


@given(st.lists(waits_ns, min_size=1, max_size=200), st.floats(0.01, 1))
def test_a_quantile_is_within_a_bucket_of_the_true_one(times_ns: list[int], share: float) -> None:
    (ours,) = Histogram.of(times_ns).quantiles_ns([share], max(times_ns))
    true = int(np.quantile(times_ns, share, method="inverted_cdf"))
    assert abs(ours - true) <= max(true / 32, 1) + 1


def test_no_quantile_lies_above_the_longest_wait() -> None:
    assert Histogram.of([1_000_001]).quantiles_ns([0.5, 1.0], 1_000_001)[1] == 1_000_001


def test_without_waits_all_quantiles_are_0() -> None:
    assert Histogram().quantiles_ns([0.5, 0.99], 0) == [0, 0]
    assert Histogram().octaves() == []


@given(st.lists(waits_ns), st.lists(waits_ns))
def test_merging_is_counting_together_and_minus_takes_it_back(first: list[int], second: list[int]) -> None:
    merged = Histogram.of(first).merge([Histogram.of(second)])
    together, back = Histogram.of(first + second), merged.minus(Histogram.of(second))
    assert merged.indices.tolist() == together.indices.tolist()
    assert merged.counts.tolist() == together.counts.tolist()
    assert back.indices.tolist() == Histogram.of(first).indices.tolist()
    assert back.counts.tolist() == Histogram.of(first).counts.tolist()


def test_octaves_are_powers_of_two_without_gaps() -> None:
    assert Histogram.of([1024, 1500, 2047, 2048, 9000]).octaves() == [(10, 3), (11, 1), (12, 0), (13, 1)]


def test_the_longest_of_merged_waits_keeps_its_time() -> None:
    merged = merge_waits([waits(5, 10, at_ns=100), waits(7, at_ns=200)])
    assert (merged.count, merged.total_ns, merged.max_ns, merged.max_at_ns, merged.avg_ns) == (3, 22, 10, 100, 7)


def test_threads_are_summed_up_by_name() -> None:
    threads = [ThreadWaits(1, 1, "a", woken=waits(5)), ThreadWaits(2, 2, "a", preempted=waits(7), migrations=2)]
    (one,) = sum_by_name(threads)
    assert (one.pid, one.tid, one.name, one.migrations) == (0, 0, "a", 2)
    assert (one.woken.total_ns, one.preempted.total_ns) == (5, 7)


def test_a_record_becomes_a_profile_of_counts_and_times() -> None:
    threads = (ThreadWaits(10, 11, "worker", woken=waits(5, 7), preempted=waits(100)), ThreadWaits(10, 10, "main"))
    profile = LatencyRecord(threads, 0, 1_000, 2_000).to_profile()
    profile.check_valid()
    rows = {tuple(frame.function.name for frame in stack): values for stack, values, _ in profile.samples()}
    assert rows == {
        ("[woken]", "worker (11)", "main (10)"): (2, 12),
        ("[preempted]", "worker (11)", "main (10)"): (1, 100),
    }
    assert [str(kind) for kind in profile.sample_types] == ["waits/count", "runqueue/nanoseconds"]
    assert (profile.time_ns, profile.duration_ns) == (1_000, 2_000)


@pytest.mark.parametrize("wait_ns", [0, 1, 31, 32, 63, 64, 65, 10**9])
def test_buckets_rise_with_the_wait(wait_ns: int) -> None:
    assert bucket_of(wait_ns) <= bucket_of(wait_ns + 1)
