"""One recording of each kind, built by hand: the same bytes each time, with some of everything that a report shows."""

from __future__ import annotations

from dataclasses import replace

from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.gil import Block, GilRecord, GilSlice, GilThread, Hold, Wait
from pprofpy.model.heap import HeapRecording, MemoryUse, ObjectType
from pprofpy.model.latencies import Latencies
from pprofpy.model.latency import CpuSlice as Ran
from pprofpy.model.latency import Histogram, LatencyRecord, LongWait, StackWaits, ThreadWaits, Waits
from pprofpy.model.profile import Collection, Label, LabelSet, Profile, ValueType
from pprofpy.model.recording import Option, Recording
from pprofpy.model.waits import OFF_CPU_TYPES, chain
from tests.stacks import CPU_TYPES, PERIOD_NS, stack

MS, SECOND, MB = 10**6, 10**9, 1 << 20
TIME_NS = 1_700_000_000 * SECOND  # 2023-11-14 22:13:20 UTC
TARGET = "shop (pid 42, CPython 3.11.7)"
HARMFUL = "w\x1b[31mrk\u202e"
"""A name that no report may print as it is."""

PRICE = stack("main:50 > serve:20 > price:12")
RECEIPT = stack("main:50 > serve:21 > receipt:33")
LOCK = stack("main:50 > serve:22 > lock:7")


def collection(**others: int | dict[str, int] | tuple[str, ...]) -> Collection:
    return replace(Collection(engine="pprofpy 0.1.0, eBPF", target=TARGET), **others)  # type: ignore[arg-type]


def thread(name: str, tid: int, *others: Label) -> LabelSet:
    return Label("thread", name), Label("tid", tid), Label("pid", 42), *others


def finished(builder: ProfileBuilder, found: Collection, duration_ns: int = 10 * SECOND) -> Profile:
    return replace(builder.build(), time_ns=TIME_NS, duration_ns=duration_ns, collection=found)


def cpu() -> Recording:
    builder = ProfileBuilder(CPU_TYPES)
    for labels, frames, count in (
        (thread("MainThread", 42, Label("task", "serve"), Label("route", "/pay")), PRICE, 500),
        (thread("MainThread", 42, Label("task", HARMFUL), Label("route", HARMFUL)), RECEIPT, 250),
        (thread(HARMFUL, 43), PRICE, 100), (thread(HARMFUL, 43), stack(f"main:50 > {HARMFUL}:1"), 3),
    ):  # fmt: skip
        builder.add(frames, (count, count * PERIOD_NS), labels)
    profile = finished(builder, collection(asked=860, got=853, late=4, dropped=2, truncated=1, errors=3,
                                           basis=("Only threads that held the lock were counted.",)))  # fmt: skip
    shown: dict[str, Option] = {"nodecount": 25, "threads": True, "labels": "task,route"}
    return Recording("cpu", replace(profile, period_type=CPU_TYPES[1], period=PERIOD_NS), shown=shown)


def off_cpu() -> Recording:
    builder = ProfileBuilder(OFF_CPU_TYPES)
    for tid, name, state, reason, waker, frames, count, delay_ns in (
        (42, "MainThread", "sleeping", "lock", "worker (43)", chain(LOCK, PRICE), 120, 3_400 * MS),
        (42, "MainThread", "runqueue", "preempted", "", PRICE, 45, 210 * MS),
        (43, "worker", "sleeping", "socket", "irq", RECEIPT, 9, 6_100 * MS),
        (43, "worker", "disk", "file", "irq", RECEIPT, 3, 40 * MS),
        (44, HARMFUL, "sleeping", "sleep", "(still waiting)", LOCK, 1, 9_999 * MS),
    ):
        facts = [Label("state", state), Label("reason", reason), *([Label("waker", waker)] if waker else [])]
        builder.add(frames, (count, delay_ns), thread(name, tid, *facts))
    return Recording(
        "off-cpu", finished(builder, collection(losses={"hidden_switches": 3})), shown={"nodecount": 15, "wakers": True}
    )


def gil() -> Recording:
    record = GilRecord(
        threads=(
            GilThread(42, 42, "MainThread", 900, 4_100 * MS, 25 * MS, 300 * MS, 20 * MS, 340 * MS, 7 * MS),
            GilThread(42, 43, HARMFUL, 12, 600 * MS, 80 * MS, 5_200 * MS, 800 * MS, 5_900 * MS),
            GilThread(42, -1, "Thread-*", held_on_ns=1),
        ),
        waits=(Wait(42, LOCK, 890, 4_000 * MS, 25 * MS), Wait(43, RECEIPT, 12, 600 * MS, 80 * MS)),
        holds=(Hold(43, PRICE, 5_200 * MS, 800 * MS), Hold(42, LOCK, 300 * MS, 20 * MS)),
        blocks=(Block(43, PRICE, 42, LOCK, 3_900 * MS), Block(42, LOCK, 43, RECEIPT, 500 * MS)),
        slices=tuple(GilSlice(i * SECOND, (i + 1) * SECOND, (i % 4) * SECOND // 4, i * 90 * MS) for i in range(10)),
        time_ns=TIME_NS,
        duration_ns=10 * SECOND,
        collection=collection(asked=997, got=990, losses={"hidden_switches": 1}),
    )
    return record.to_recording({"nodecount": 10, "by_interval": True})


def sched_latency() -> Recording:
    def waits(*times_us: int, at_s: int = 1) -> Waits:
        times_ns = [one * 1000 for one in times_us]
        return Waits(len(times_ns), sum(times_ns), max(times_ns), at_s * SECOND, Histogram.of(times_ns))

    threads = (
        ThreadWaits(42, 42, "MainThread", waits(3, 5, 9, 700, at_s=2), waits(4_000, 24_000, at_s=4), 3),
        ThreadWaits(42, 43, HARMFUL, waits(12), Waits(), 0, 90 * MS, "python"),
    )
    by_stack = (
        StackWaits(42, 42, "MainThread", True, PRICE, (), 2, 28 * MS, 24 * MS),
        StackWaits(42, 42, "MainThread", False, LOCK, RECEIPT, 4, 717_000, 700_000),
    )
    ran = (Ran(77, 77, "compiler", 20 * MS), Ran(78, 77, HARMFUL, 3 * MS))
    long = LongWait(4 * SECOND, 24 * MS, 42, 42, "MainThread", 1, 0, True, "", 0, MS, PRICE, ran=ran)
    whole = LatencyRecord(threads, SECOND, TIME_NS, 10 * SECOND, False, collection(losses={"long_waits": 2}), by_stack)
    half = LatencyRecord(threads[:1], SECOND, TIME_NS, 5 * SECOND, False, collection())
    return Latencies(whole, (half,), (long,), 1, (1,)).to_recording({"nodecount": 20})


def heap() -> Recording:
    names = {"alloc_objects": "count", "alloc_space": "bytes", "inuse_objects": "count", "inuse_space": "bytes"}
    types = [ValueType(name, unit) for name, unit in names.items()]

    def snapshot(price_mb: int) -> Profile:
        builder = ProfileBuilder(types)
        builder.add(PRICE, (900, 90 * MB, 10 * price_mb, price_mb * MB))
        builder.add(RECEIPT, (300, 3 * MB, 100, MB))
        return finished(builder, collection(got=1200, basis=("Values are estimates.",)))

    record = HeapRecording.of([(second * SECOND, snapshot(second)) for second in (2, 4, 6, 8)])
    record.memory = MemoryUse(96 * MB, 90 * MB, 88 * MB, 40 * MB, 31 * MB, 22 * MB)
    record.types = (
        ObjectType("dict", 70_000, 20 * MB, (("shop.SHOP.orders[].__dict__", 2), ("shop.CACHE[]", 1))),
        ObjectType(f"shop.{HARMFUL}", 900, MB),
    )
    record.objects_count = 123_456
    return record.to_recording({"nodecount": 10, "sample_index": "inuse_space"})


def events() -> Recording:
    builder = ProfileBuilder((ValueType("events", "count"), ValueType("bytes", "bytes")))
    builder.add(PRICE, (300, 300 * 4096), thread("MainThread", 42))
    builder.add(RECEIPT, (50, 50 * 65536), thread(HARMFUL, 43))
    return Recording("events", finished(builder, collection(dropped=7)), shown={"nodecount": 25})


RECORDINGS = {
    "cpu": cpu(),
    "off-cpu": off_cpu(),
    "gil": gil(),
    "sched-latency": sched_latency(),
    "heap": heap(),
    "events": events(),
}
"""By command. Each module of `pprofpy.cli` that records and can print again has one."""
