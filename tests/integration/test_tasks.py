"""Labels of samples and waits: the asyncio task, and context variables of a program that knows nothing of it."""

from __future__ import annotations

import os
import re
import signal
from collections import Counter
from collections.abc import Iterable

import pytest

from pprofpy.collectors.gil import GilOptions, GilRecorder
from pprofpy.collectors.kernel.label_options import LabelOptions
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.collectors.off_cpu import OffCpuOptions, OffCpuRecorder
from pprofpy.collectors.pystacks.marks import AWAITS
from pprofpy.collectors.sampling.cpu import CpuRecorder
from pprofpy.collectors.sampling.wall import WallRecorder
from pprofpy.model.label_text import from_text
from pprofpy.model.profile import Sample, Stack
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, PYTHONS, Start, interpreter, rounds_until_right, with_package
from tests.cpu import by_thread, let_run, recorder
from tests.recorders import noun

pytestmark = pytest.mark.ebpf

PROGRAM = str(PROGRAMS / "tasks.py")
LABELS = LabelOptions.of(["route=__main__:route", "number=__main__:number"])
TASKS, ROUTES = 50, 20
UNIT = re.compile(r"unit_(\d\d)")


def weight(number: int) -> int:
    return 1 + number % 5


EXPECTED = {number: 100 * weight(number) / sum(map(weight, range(TASKS))) for number in range(TASKS)}


def on_both_loops(start: Start, version: str, mode: str) -> dict[int, str]:
    """pid -> the event loop: asyncio's own, and uvloop; on one interpreter."""
    environment = with_package(version, "uvloop")
    loops = ("asyncio", "uvloop")
    return {start(interpreter(version), PROGRAM, mode, loop, env=environment).pid: loop for loop in loops}


def labels_of(sample: Sample) -> dict[str, str | int]:
    return {label.key: label.value for label in sample.labels}


def unit_of(sample: Sample) -> int | None:
    """The number of the task whose function a sample is in; None if it is in none."""
    return number_in(sample.stack)


def number_in(stack: Stack) -> int | None:
    names = (UNIT.fullmatch(frame.function.system_name.rpartition(".")[2]) for frame in stack)
    return next((int(name[1]) for name in names if name), None)


def wrong_labels(samples: Iterable[Sample]) -> list[str]:
    """Labels of another task than that whose function the sample is in."""
    wrong = []
    for sample in samples:
        number, labels = unit_of(sample), labels_of(sample)
        if number is not None:
            expected = {
                "task": f"task_{number:02}",
                "route": f"/route_{number % ROUTES:02}",
                "number": str(-number) if number % 2 else "None",
            }
            wrong += [
                f"{key} {labels[key]} in {number}" for key in expected if labels.get(key) not in (None, expected[key])
            ]
    return wrong


def shares_of(samples: Iterable[Sample], value: int) -> tuple[dict[int, float], float]:
    """Percent by task, told by the label alone, and percent without that label, of what is in the tasks' functions."""
    sums: Counter[int] = Counter()
    missing = 0
    for sample in samples:
        if unit_of(sample) is None:
            continue
        task, spent = labels_of(sample).get("task"), sample.values[value]
        if isinstance(task, str) and "route" in labels_of(sample):
            sums[int(task[-2:])] += spent
        else:
            missing += spent
    total = sums.total() + missing or 1
    return {number: 100 * spent / total for number, spent in sums.items()}, 100 * missing / total


def differences(who: str, samples: list[Sample], value: int, tolerance: float) -> list[str]:
    measured, missing = shares_of(samples, value)
    found = [
        f"{who}: task {number} {measured.get(number, 0):.2f} instead of {share:.2f}"
        for number, share in EXPECTED.items()
        if abs(measured.get(number, 0) - share) > tolerance
    ]
    return [*found, *([f"{who}: {missing:.1f} % without labels"] if missing > 0.5 else [])]


@pytest.mark.parametrize("version", PYTHONS)
@pytest.mark.parametrize("kind", [CpuRecorder, WallRecorder], ids=["cpu", "idle"])
def test_each_sample_bears_its_task_and_its_context(start: Start, version: str, kind: type[CpuRecorder]) -> None:
    processes = on_both_loops(start, version, "cpu")
    found: dict[int, list[Sample]] = {pid: [] for pid in processes}
    with recorder(10_000, kind, labels=LABELS) as recording:
        for pid in processes:
            recording.watch(open_target(pid))

        def measure() -> list[str]:
            let_run(recording, 0.7)
            new = by_thread(recording.window().profile)
            wrong = []
            for pid, loop in processes.items():
                found[pid] += new[pid]
                assert wrong_labels(new[pid]) == [], loop
                wrong += differences(loop, found[pid], 0, tolerance=1)
            return wrong

        rounds_until_right(measure, rounds=60)


@pytest.mark.parametrize("version", PYTHONS)
def test_each_wait_bears_its_task_and_its_context(start: Start, version: str) -> None:
    for pid, loop in on_both_loops(start, version, "wait").items():
        with OffCpuRecorder(OffCpuOptions(Scope(pid), labels=LABELS)) as recording:
            let_run(recording, 0.7)
            samples = list(noun(recording.finish()).samples())
        os.kill(pid, signal.SIGKILL)
        assert wrong_labels(samples) == [], loop
        slept = [sample for sample in samples if labels_of(sample)["state"] != "runqueue"]
        assert differences(loop, slept, 1, tolerance=1) == [], loop


@pytest.mark.parametrize("version", PYTHONS)
def test_waits_for_the_interpreter_lock_bear_the_context_of_who_waits_and_who_holds(start: Start, version: str) -> None:
    process = start(interpreter(version), PROGRAM, "threads")
    with GilRecorder(GilOptions(Scope(process.pid), labels=LABELS)) as recording:
        let_run(recording, 1.0)
        record = noun(recording.finish())
    told = Counter[str]()
    for block in record.blocks:
        for who in ("waiter", "holder"):
            number = number_in(getattr(block, f"{who}_stack"))
            labels = {label.key: label.value for label in from_text(getattr(block, f"{who}_labels"))}
            if number is not None and labels:
                assert labels["route"] == f"/route_{number:02}"
                told[who] += 1
    assert told["waiter"]
    assert told["holder"]
    keys = {label.key for sample in record.to_profile().samples() for label in sample.labels}
    assert {"route", "holder_route"} <= keys


BLOCKED = """
import asyncio, time
from contextvars import ContextVar
route = ContextVar("route")
async def main():
    route.set("/blocked")
    print("ready", flush=True)
    time.sleep(3600)
asyncio.run(main())
"""


@pytest.mark.parametrize("version", PYTHONS)
def test_a_task_that_blocks_its_thread_when_the_recording_begins_is_told(start: Start, version: str) -> None:
    process = start(interpreter(version), "-c", BLOCKED)
    wanted = LabelOptions.of(["route=__main__:route"])
    with OffCpuRecorder(OffCpuOptions(Scope(process.pid), labels=wanted)) as recording:
        let_run(recording, 0.1)
        waits = list(noun(recording.finish()).samples())
    with recorder(100, WallRecorder, labels=wanted) as recording:
        recording.watch(open_target(process.pid))
        let_run(recording, 0.1)
        samples = list(noun(recording.finish()).samples())
    for found in (waits, samples):
        assert {(labels.get("task"), labels.get("route")) for labels in map(labels_of, found)} == {("main", "/blocked")}


# -- who awaits whom -----------------------------------------------------------------------------------------------


def chains_of(samples: Iterable[Sample]) -> Counter[tuple[str, ...]]:
    """What is between `burn` and the event loop, leaf-first; asyncio's own helpers but for wait_for left out."""
    found: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        names = [frame.function.system_name.rpartition(".")[2] or frame.function.name for frame in sample.stack]
        if names[0] == "burn":
            found[tuple(names[1 : names.index("_run")])] += sample.values[0]
    return found


def chains_to_be(version: str) -> set[tuple[str, ...]]:
    """The chains of tests/programs/awaits.py; `wait_for` makes a task of its own until 3.11."""
    number, mark = tuple(map(int, version.split("."))), AWAITS.function.name
    leave = ("_aexit", "__aexit__") if number >= (3, 14) else ("__aexit__",)
    found = {
        ("leaf", mark, "by_task", mark, "main"),
        ("leaf", mark, "by_gather", mark, "main"),
        ("leaf", mark, "_wait", "wait", "by_wait", mark, "main"),
        ("leaf", *((mark,) if number < (3, 12) else ()), "wait_for", "by_wait_for", mark, "main"),
        ("leaf", mark, "by_shield", mark, "main"),
        ("leaf", "several", "by_generator", mark, "main"),
    }
    return found | ({("leaf", mark, *leave, "by_group", mark, "main")} if number >= (3, 11) else set())


@pytest.mark.parametrize("version", PYTHONS)
def test_the_tasks_that_await_the_running_one_are_below_it(start: Start, version: str) -> None:
    expected, found = chains_to_be(version), Counter[tuple[str, ...]]()
    process = start(interpreter(version), str(PROGRAMS / "awaits.py"))
    with recorder(2000, labels=LabelOptions.of([], awaiting=True)) as recording:
        recording.watch(open_target(process.pid))

        def measure() -> list[str]:
            let_run(recording, 0.5)
            found.update(chains_of(recording.window().profile.samples()))
            missing = [f"nobody was in {chain}" for chain in expected if found[chain] < 5]
            others = sum(count for chain, count in found.items() if chain not in expected)
            return missing + ([str(found)] if others > 0.01 * found.total() else [])

        rounds_until_right(measure, rounds=20)
