"""Known answers on other kernels: programs that know what they do are recorded in an emulated machine (tests/guest.py),
and the recordings are judged here.

    python -m tests.kernel_truth steps ARCHITECTURE > steps.json
    python -m tests.kernel_truth VERSION ARCHITECTURE RELEASE SAID

The bounds are wide: emulated, a machine takes 20 to 50 times as long, and does one thing at a time.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from pprofpy.collectors.unwind.wholestack import UNKNOWN
from pprofpy.events.log import summarize
from pprofpy.formats import eventlog, recording
from pprofpy.model.gil import GilRecord
from pprofpy.model.recording import Recording
from pprofpy.units import NS_PER_S
from tests.cpu import shares
from tests.integration.test_cpu_known_answers import SHARES, shares_of
from tests.integration.test_events_profile import by_function
from tests.integration.test_off_cpu_python import (
    ENDED_BY,
    WAITS,
    Account,
    mistaken_reason,
    mistaken_timers,
    mistaken_waker,
    waits_of,
)
from tests.kernel_report import RESULTS, Results, write_page
from tests.recorders import latency_record

CPU_TOLERANCE = 3
"""Percentage points: that of the tests on this machine."""

NATIVE_TOLERANCE = 6
GIL_SECONDS = 5
TIME_TOLERANCE = 0.1
"""Of a program's own account of its times."""

NATIVE = {
    "by_plain": (25, ["plain"]),
    "by_caller": (20, ["callee", "caller"]),
    "by_recursive": (15, ["plain", *["recursive"] * 20]),
    "by_growing": (10, ["plain", "growing"]),
    "by_aligned": (10, ["plain", "aligned"]),
}
"""Functions of native.py: their share in percent, and the native functions that run in them, innermost first."""


class Step:
    """A program, how it is recorded, and what must come out of it."""

    def __init__(self, program: list[str], record: str, judge: Callable[[Any, Any], tuple[str, bool]]) -> None:
        self.program, self.record, self.judge = program, record, judge

    @property
    def is_log(self) -> bool:
        return self.record.startswith("trace")

    def about(self, name: str) -> dict[str, Any]:
        begins = self.program[0] not in ("burn.py", "native.py", "sleeper.py")
        program = [f"/programs/{self.program[0]}", *self.program[1:]]
        suffix = ".trace" if self.is_log else ".pb.gz"
        return {"name": name, "program": program, "record": self.record.split(), "begins": begins, "suffix": suffix}


def judge_shares(found: Recording, _: Any) -> tuple[str, bool]:
    measured = shares_of(found.profile)
    text = "/".join(f"{share:g}" for share in measured.values())
    wrong = any(abs(measured[name] - share) > CPU_TOLERANCE for name, share in SHARES.items())
    return f"{text} of 50/30/15/5 %", not wrong


def judge_native(found: Recording, _: Any) -> tuple[str, bool]:
    """Each function has its share, and all stacks that could be followed to their end are what the program does."""
    samples = list(found.profile.samples())
    measured, total = shares(samples, "cum"), sum(sample.values[0] for sample in samples)
    is_right, whole, followed = True, 0, 0
    for function, (share, chain) in NATIVE.items():
        is_right &= abs(measured.get(function, 0) - share) <= NATIVE_TOLERANCE
        for sample in samples:
            names = [frame.function.system_name or frame.function.name for frame in sample.stack]
            if function in names and chain[0] in names and UNKNOWN[0].function.name not in names:
                followed += sample.values[0]
                whole += sample.values[0] * any(names[at : at + len(chain)] == chain for at in range(len(names)))
    text = "/".join(f"{measured.get(function, 0):.0f}" for function in NATIVE) + " of 25/20/15/10/10 %"
    text += (
        f"; {100 * followed / total:.0f} % of all stacks lead to native.c, {100 * whole / followed:.1f} % of them right"
    )
    return text, is_right and whole > 0.99 * followed and followed > 0.2 * total


def judge_idle(found: Recording, _: Any) -> tuple[str, bool]:
    profile = found.profile
    waited = sum(
        values[-1]
        for stack, values, _ in profile.samples()
        if any("wait_for_ever" in one.function.name for one in stack)
    )
    share = 100 * waited / max(1, profile.duration_ns)
    return f"asleep {share:.1f} of 100 %", abs(share - 100) < 5


def judge_waits(found: Recording, own: Any) -> tuple[str, bool]:
    pid = next(label.value for _, _, labels in found.profile.samples() for label in labels if label.key == "pid")
    account = Account(own, waits_of(found.profile, int(pid)), 0)
    ratios = {name: account.time_ns(name) / own_ns for name, own_ns in own["off_cpu_ns"].items() if own_ns > 10**7}
    waited = {function: reason for function, reason in WAITS.items() if function in ratios}
    mistakes = [text for function, reason in waited.items() if (text := mistaken_reason(account, function, reason))]
    ended = {function: waker for function, waker in ENDED_BY.items() if function in ratios}
    mistakes += [text for function, waker in ended.items() if (text := mistaken_waker(account, function, waker))]
    mistakes += mistaken_timers(account)
    worst = max(ratios.values(), key=lambda ratio: abs(ratio - 1))
    text = f"times {min(ratios.values()):.3f} to {max(ratios.values()):.3f} of {len(ratios)} functions' own clocks"
    told = mistakes or ["reasons, wakers and timers right"]
    return "; ".join([text, *told]), abs(worst - 1) < TIME_TOLERANCE and not mistakes


def judge_gil(found: Recording, own: Any) -> tuple[str, bool]:
    """Two threads that compute: one has the lock or waits for the other to take it, each half of the time."""
    record = GilRecord.from_recording(found)
    threads = [record.by_tid()[worker["tid"]] for worker in own]
    held = [one.held_ns + one.handover_ns for one in threads]
    waits = [wait for wait in record.waits if wait.tid in [worker["tid"] for worker in own]]
    computing = sum(wait.total_ns for wait in waits if any("compute" in frame.function.name for frame in wait.stack))
    share, place = 100 * held[0] / sum(held), 100 * computing / sum(wait.total_ns for wait in waits)
    total = 100 * sum(held) / (GIL_SECONDS * NS_PER_S)
    text = f"held or handed over {total:.0f} % of the time, {share:.0f} of 50 % by one of two threads"
    text += f"; {place:.0f} % of waits in `compute`"
    return text, 85 < total < 115 and abs(share - 50) < 10 and place > 90


def judge_queue(found: Recording, own: Any) -> tuple[str, bool]:
    waits = max((one.waits for one in latency_record(found).threads), key=lambda one: one.total_ns)
    times, counts = waits.total_ns / own["waited_ns"], waits.count / own["count"]
    return f"times {times:.3f}, counts {counts:.3f} of the kernel's own", max(abs(times - 1), abs(counts - 1)) < 0.2


def judge_calls(found: eventlog.EventReader, _: Any) -> tuple[str, bool]:
    counts, errors = Counter[str](), Counter[str]()
    for one in summarize(found.log, found.batches()):
        counts[one.event] += one.count
        errors[one.event] += one.errors
    numbers = counts["getppid"], counts["clock_nanosleep"], errors["openat"]
    text = f"{numbers[0]} getppid, {numbers[1]} clock_nanosleep, {numbers[2]} openat that failed of 1000, 5, 4"
    return text, numbers == (1000, 5, 4)


def judge_events(found: Recording, _: Any) -> tuple[str, bool]:
    writes, faults = by_function(found.profile, "write"), by_function(found.profile, "page-faults")
    numbers = writes["events.write_often"], writes["events.write_much"], faults["events.touch_pages"]
    text = f"{numbers[0]} and {numbers[1]} writes, {numbers[2]} page faults of 300, 50, 400"
    return text, numbers[:2] == (300, 50) and 400 <= numbers[2] <= 405


STEPS = {
    "cpu": Step(["burn.py"], "cpu --engine bpf -r 200 -d 20 -p PID", judge_shares),
    "cpu --native": Step(
        ["native.py", "/programs/libnative.so"], "cpu --engine bpf --native -r 100 -d 20 -p PID", judge_native
    ),
    "cpu --idle": Step(["sleeper.py"], "cpu --engine bpf --idle -d 5 -p PID", judge_idle),
    "off-cpu --wakers": Step(["waits.py"], "off-cpu --wakers -d 20 -p PID", judge_waits),
    "gil": Step(["gil.py", str(GIL_SECONDS), "compute", "compute"], "gil -d 20 -p PID", judge_gil),
    "sched-latency": Step(["queued.py", "3"], "sched-latency -d 20 -p PID", judge_queue),
    "trace": Step(["syscalls.py"], "trace -d 20 -p PID", judge_calls),
    "events": Step(["events.py"], "events -e write,page-faults -d 15 -p PID", judge_events),
}
REFUSED = {"arm64": {"heap": "heap needs to run code in the process, which pprofpy does on x86-64 only so far"}}
"""Architecture -> command -> what pprofpy says of it there."""


def refused_step(name: str) -> dict[str, Any]:
    """A command that is to be refused."""
    return Step(["burn.py"], f"{name} -d 1 -p PID", lambda found, own: ("", False)).about(name)


def judged_refusal(said: dict[str, Any], message: str) -> tuple[str, bool]:
    """Whether a command was refused, in the words that it should be."""
    return f"refused: {message}", said["status"] == 4 and message in said["said"]


def judged(name: str, said: dict[str, Any]) -> tuple[str, bool]:
    """What came out of a step, and whether that is right."""
    if said["status"]:
        last = [line for line in said["said"].splitlines() if line.strip()][-2:]
        return f"ended with status {said['status']}: {' '.join(last)}", False
    step, content = STEPS[name], base64.b64decode(said["file"])
    own = json.loads(said["program"]) if said["program"].startswith(("{", "[")) else None
    found = eventlog.EventReader(io.BytesIO(content)) if step.is_log else recording.read(content)
    return step.judge(found, own)


def steps(architecture: str) -> list[dict[str, Any]]:
    """What the guest is to do."""
    return [*(step.about(name) for name, step in STEPS.items()), *map(refused_step, REFUSED.get(architecture, {}))]


def truths(architecture: str, said: str) -> dict[str, dict[str, Any]]:
    """Command -> what came out, and whether it is right.

    Args:
        architecture: The guest's.
        said: All that it wrote to its console.
    """
    lines = [line.removeprefix("guest: ") for line in said.splitlines() if line.startswith("guest: {")]
    answers = {one["name"]: one for one in map(json.loads, lines)}
    found = {name: judged(name, answers[name]) if name in answers else ("did not run", False) for name in STEPS}
    for name, message in REFUSED.get(architecture, {}).items():
        found[name] = judged_refusal(answers[name], message) if name in answers else ("did not run", False)
    return {name: {"said": text, "is_right": is_right} for name, (text, is_right) in found.items()}


def main(version: str, architecture: str, release: str = "", said: str = "") -> int:
    if version == "steps":
        print(json.dumps(steps(architecture)))
        return 0
    results: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found, today = truths(architecture, Path(said).read_text()), date.today().isoformat()
    for name, one in found.items():
        print(f"kernels: {name}: {'right' if one['is_right'] else 'WRONG'}: {one['said']}")
    key = f"{version} {architecture}"
    results.setdefault(key, {"release": release, "date": today, "variants": {}})
    results[key] |= {"truths": found, "truths_release": release, "truths_date": today}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    write_page(results)
    return 0 if all(one["is_right"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
