"""Windows of one recording become one recording: sums add up, nothing is counted twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pprofpy.errors import UsageError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.gil import MOST_SLICES, Block, GilRecord, GilSlice, GilThread, Hold, Wait, merge_gil
from pprofpy.model.heap import HeapRecording, MemoryUse, merge_heap
from pprofpy.model.latencies import Latencies, merge_latencies
from pprofpy.model.latency import Histogram, LatencyRecord, LongWait, StackWaits, ThreadWaits, Waits
from pprofpy.model.merge import merge_recordings
from pprofpy.model.profile import Collection, Frame, Function, Label, LabelSet, Profile, Stack, ValueType
from pprofpy.model.recording import Recording
from tests.stacks import PERIOD_NS, profile_of

WORK: Stack = (Frame(Function("shop.work")),)
OTHER: Stack = (Frame(Function("shop.other")),)


def cpu_profile(samples: int) -> Profile:
    builder = ProfileBuilder([ValueType("samples", "count")])
    builder.add(WORK, (samples,))
    profile = builder.build()
    profile.time_ns, profile.duration_ns, profile.period_type = 1000 * samples, 10, ValueType("cpu", "nanoseconds")
    profile.collection = Collection(engine="eBPF", target="shop", asked=10, got=9, notes=("wall-clock time",))
    return profile


def gil_window(number: int, slices: int = 1) -> GilRecord:
    return GilRecord(
        threads=(GilThread(1, 2, "w", wait_count=1, wait_ns=10, wait_max_ns=number, held_on_ns=5),),
        waits=(Wait(2, WORK, 1, 10, number), Wait(2, OTHER, number, 1, 1)),
        holds=(Hold(2, WORK, 3, 2),),
        blocks=(Block(2, WORK, 3, OTHER, 7),),
        slices=tuple(GilSlice(at, at + 1, 1, 2) for at in range(slices)),
        time_ns=1_000_000 + 1000 * number,
        duration_ns=1000,
        collection=Collection(engine="e", dropped=1),
    )


def latency_window(start_ns: int, waits_ns: list[int], waiting_ns: int) -> LatencyRecord:
    woken = Waits(len(waits_ns), sum(waits_ns), max(waits_ns), start_ns + max(waits_ns), Histogram.of(waits_ns))
    thread = ThreadWaits(1, 2, "w", woken, Waits(), 1, waiting_ns, "python")
    stacks = (StackWaits(1, 2, "w", False, WORK, (), len(waits_ns), sum(waits_ns), max(waits_ns)),)
    return LatencyRecord((thread,), start_ns, start_ns + 7, 1000, stacks=stacks, collection=Collection(dropped=1))


def test_profiles_add_up() -> None:
    merged = merge_recordings(
        [Recording("cpu", cpu_profile(1)), Recording("cpu", cpu_profile(2), shown={"threads": True})]
    )

    assert merged.profile.values.tolist() == [[3]]
    assert (merged.profile.time_ns, merged.profile.duration_ns) == (1000, 20)
    assert (merged.profile.collection.asked, merged.profile.collection.notes) == (20, ("wall-clock time",))
    assert dict(merged.shown) == {"threads": True}


def test_gil_windows_add_up() -> None:
    merged = merge_gil([gil_window(0), gil_window(1), gil_window(2)])

    (thread,) = merged.threads
    assert (thread.wait_count, thread.wait_ns, thread.wait_max_ns, thread.held_on_ns) == (3, 30, 2, 15)
    assert merged.waits == (Wait(2, WORK, 3, 30, 2), Wait(2, OTHER, 3, 3, 1))
    assert merged.holds == (Hold(2, WORK, 9, 6),)
    assert merged.blocks == (Block(2, WORK, 3, OTHER, 21),)
    assert [one.start_ns for one in merged.slices] == [0, 1000, 2000]
    assert (merged.time_ns, merged.duration_ns, merged.collection.dropped) == (1_000_000, 3000, 3)


def test_the_time_line_stays_as_short_as_that_of_a_short_recording() -> None:
    windows = [gil_window(number, slices=200) for number in range(10)]

    merged = merge_gil(windows)
    exact = merge_gil(windows, keep_slices=True)

    assert MOST_SLICES / 2 < len(merged.slices) <= MOST_SLICES
    assert len(exact.slices) == 2000
    assert sum(one.held_ns for one in merged.slices) == sum(one.held_ns for one in exact.slices) == 2000
    assert (merged.slices[0].start_ns, merged.slices[-1].end_ns) == (0, 9200)


def test_latencies_add_up_and_the_last_window_says_who_still_waits() -> None:
    windows = [latency_window(0, [10, 20], 5), latency_window(1000, [500], 0)]

    merged = merge_latencies([Latencies(window) for window in windows]).record

    (thread,) = merged.threads
    assert (thread.woken.count, thread.woken.total_ns, thread.woken.max_ns, thread.woken.max_at_ns) == (
        3,
        530,
        500,
        1500,
    )
    assert thread.woken.histogram.total == 3
    assert (thread.migrations, thread.waiting_ns, thread.comm) == (2, 0, "python")
    assert merged.stacks == (StackWaits(1, 2, "w", False, WORK, (), 3, 530, 500),)
    assert (merged.start_ns, merged.duration_ns, merged.collection.dropped) == (0, 2000, 2)


def test_intervals_stay_where_they_were_among_the_long_waits() -> None:
    wait = LongWait(1, 1, 1, 2, "w", 0, -1, False, "irq", 0)
    interval = latency_window(0, [1], 0)
    first = Latencies(interval, (interval,), (wait, wait), 2, (1,))

    merged = merge_latencies([first, first])

    assert (len(merged.intervals), len(merged.long_waits), merged.long_wait_count) == (2, 4, 4)
    assert merged.shown_before == (1, 3)


def heap_profile(**sizes: int) -> Profile:
    builder = ProfileBuilder([ValueType("inuse_space", "bytes")])
    for name, size in sizes.items():
        builder.add([Frame(Function(name))], (size,))
    return builder.build()


def test_of_heaps_the_last_window_is_the_whole_and_snapshots_follow_each_other() -> None:
    first = HeapRecording.of([(1, heap_profile(a=1)), (2, heap_profile(a=2))])
    second = HeapRecording.of([(3, heap_profile(a=3, b=1))])
    second.memory = MemoryUse(rss=7)

    merged = merge_heap([first, second])

    assert merged.profile.values.tolist() == [[3], [1]]
    assert merged.snapshots.times_ns == [1, 2, 3]
    assert {stack[0].function.name: sizes for stack, sizes in merged.snapshots.sizes_bytes.items()} == {
        "a": [1, 2, 3],
        "b": [0, 0, 1],
    }
    assert (merged.memory.rss, merged.first) == (7, first.first)


@pytest.mark.parametrize("kind", ["gil", "heap", "sched-latency", "cpu"])
def test_one_window_is_the_recording_itself(kind: str) -> None:
    only = Recording(kind, cpu_profile(1))

    assert merge_recordings([only]) is only


def test_every_kind_goes_through_its_tables() -> None:
    gil = merge_recordings([gil_window(0).to_recording({"by_interval": True}), gil_window(1).to_recording({})])
    heap = merge_recordings([HeapRecording.of([(n, heap_profile(a=n))]).to_recording({}) for n in (1, 2)])
    waits = merge_recordings([Latencies(latency_window(n, [n + 1], 0)).to_recording({}) for n in (0, 1)])

    assert GilRecord.from_recording(gil).threads[0].wait_ns == 20
    assert len(HeapRecording.from_recording(heap).snapshots) == 2
    assert Latencies.from_recording(waits).record.threads[0].woken.count == 2


def test_windows_of_different_commands_are_refused() -> None:
    with pytest.raises(UsageError, match="cpu, gil"):
        merge_recordings([Recording("cpu", cpu_profile(1)), replace(gil_window(0).to_recording({}))])


def test_a_thread_with_several_names_has_its_last_one_in_the_whole() -> None:
    def window(stacks: dict[tuple[str, LabelSet], int]) -> Recording:
        return Recording("cpu", profile_of(stacks))

    def worker(name: str, tid: int = 7) -> LabelSet:
        return Label("thread", name), Label("tid", tid)

    whole = merge_recordings(
        [
            window({("main > red", worker("red")): 1, ("main > red", worker("red, blue")): 2, ("main", ()): 5}),
            window({("main > red", worker("red, blue")): 4, ("main > red", worker("other", 8)): 1}),
        ]
    ).profile

    assert {sample.labels: sample.values[1] // PERIOD_NS for sample in whole.samples()} == {
        worker("red, blue"): 7,
        worker("other", 8): 1,
        (): 5,
    }


def test_functions_of_one_name_are_told_apart_by_where_they_begin() -> None:
    def window(*starts: int) -> Recording:
        builder = ProfileBuilder((ValueType("samples", "count"),))
        for start in starts:
            builder.add((Frame(Function("app.run", "run", "app.py", start), start + 1),), (1,))
        builder.add((Frame(Function("app.other", "other", "app.py", 5), 6),), (1,))
        builder.add((Frame(Function("app.run", "run", "another.py", 9), 10),), (1,))
        return Recording("cpu", builder.build())

    def names(recording: Recording) -> list[str]:
        return sorted(f"{one.name} {one.filename}" for one in recording.profile.functions)

    alone = merge_recordings([window(10)])
    assert names(alone) == ["app.other app.py", "app.run another.py", "app.run app.py"]
    both = merge_recordings([alone, window(20)])
    assert names(both) == ["app.other app.py", "app.run another.py", "app.run:10 app.py", "app.run:20 app.py"]
    assert names(merge_recordings([both, window(10), window(30)])) == [
        "app.other app.py", "app.run another.py", "app.run:10 app.py", "app.run:20 app.py", "app.run:30 app.py",
    ]  # fmt: skip
