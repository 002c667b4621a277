"""Threads that did not run once: most of a big program's pool. Views fold them into one, recordings keep each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from pprofpy.model.profile import Function, Label, LabelSet, Line, Location, Profile
from pprofpy.model.stack_table import Mask, Stacks, offsets_of
from pprofpy.model.waits import OFF_CPU, STILL_WAITING
from pprofpy.text import counted

_SLACK_NS = 100_000
"""A recording's clocks and a thread's may differ by less than this."""

IDLE = "did not run"


@dataclass(frozen=True, slots=True)
class Sleepers:
    """The threads of a profile that did not run once.

    Attributes:
        rows: The profile's samples that are theirs.
        threads: How many they are.
        time_ns: How long they waited, all together.
    """

    rows: Mask
    threads: int
    time_ns: int


def find_sleepers(profile: Profile) -> Sleepers | None:
    """Find the threads that waited from the beginning of a recording to its end.

    Returns:
        None where there is nothing to fold: fewer than two, or nobody else (what they wait in is the answer then), or a
        recording that does not know.
    """
    units = [kind.unit for kind in profile.sample_types]
    if "nanoseconds" not in units or not profile.duration_ns or not len(profile):
        return None
    times_ns = profile.values[:, units.index("nanoseconds")]
    facts = [{label.key: label.value for label in labels} for labels in profile.label_sets]
    numbers: dict[tuple[object, object], int] = {}
    threads = np.array([numbers.setdefault((one.get("pid"), one.get("tid")), len(numbers)) for one in facts])
    waits = np.array([bool(one.get("tid")) and _waits_on(one) for one in facts])[profile.sample_labels]
    thread = threads[profile.sample_labels]
    slept_ns, awake = np.zeros(len(numbers), np.int64), np.zeros(len(numbers), np.bool_)
    np.add.at(slept_ns, thread, times_ns)
    awake[thread[~waits]] = True
    asleep = ~awake & (slept_ns >= profile.duration_ns - _SLACK_NS)
    rows = asleep[thread]
    if asleep.sum() < 2 or rows.all():
        return None
    return Sleepers(rows, int(asleep.sum()), int(times_ns[rows].sum()))


def fold_sleepers(profile: Profile) -> Profile:
    """Return the profile with all threads that did not run as one; sums stay what they are."""
    sleepers = find_sleepers(profile)
    if sleepers is None:
        return profile
    who = in_words(sleepers)
    place = Location((Line(len(profile.functions)),))
    stacks = profile.stacks
    folded: dict[LabelSet, int] = {labels: number for number, labels in enumerate(profile.label_sets)}
    moved = np.arange(len(profile.label_sets))
    for number in np.unique(profile.sample_labels[sleepers.rows]).tolist():
        moved[number] = folded.setdefault(_of_all(profile.label_sets[number], sleepers.threads), len(folded))
    return replace(
        profile,
        functions=[*profile.functions, Function(f"[{who}]")],
        locations=[*profile.locations, place],
        stacks=Stacks(offsets_of(np.append(stacks.depths, 1)), np.append(stacks.locations, len(profile.locations))),
        label_sets=list(folded),
        sample_stacks=np.where(sleepers.rows, len(stacks), profile.sample_stacks),
        sample_labels=np.where(sleepers.rows, moved[profile.sample_labels], profile.sample_labels),
    ).compact()


def in_words(sleepers: Sleepers) -> str:
    """`16 threads did not run`."""
    return f"{counted(sleepers.threads, 'thread')} {IDLE}"


def _waits_on(facts: dict[str, str | int]) -> bool:
    """Return True for a wait that may have no end. `off-cpu` says how waits ended; `cpu --idle` does not."""
    return facts.get("waker") == STILL_WAITING or facts.get("state") == OFF_CPU


def _of_all(labels: LabelSet, threads: int) -> LabelSet:
    """The labels of a sample of one sleeper as those of all: what they waited for differs."""
    kept = tuple(label for label in labels if label.key in ("state", "pid"))
    return Label("thread", IDLE), Label("tid", 0), Label("threads", threads), *kept
