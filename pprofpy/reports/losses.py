"""The text of each kind of loss: one line in every report."""

from __future__ import annotations

from pprofpy.model.profile import Collection

WORDS = {
    # events
    "missed_events": "lost: {} events that the kernel did not hand over",
    "events_full": "lost: {} events that found no room in the kernel's table",
    "samples_full": "lost: {} samples that found no room in the kernel's table",
    "tracepoint_events": "lost: {} events at tracepoints",
    "syscalls": "lost: {} system calls",
    "syscalls_under_way": "lost: {} system calls that began while too many were under way",
    "summary_rows": "lost: {} threads or events in the summary",
    "summary_durations": "lost: {} durations in the summary",
    "new_threads": "lost: {} new threads of the target",
    # switches
    "untracked_switches": "lost: {} switches of threads that found no room in the kernel's table",
    "hidden_switches": "lost: {} switches that the kernel did not show",
    "hidden_wake_ups": "lost: {} waits after a wake-up that the kernel showed to nobody",
    "hidden_wake_ups_blocked": "lost: {} wake-ups that the kernel did not show: "
    "the wait for a CPU that followed counts as blocked",
    "off_cpu_full": "lost: {} off-CPU intervals that found no room in the kernel's table",
    "kernel_stacks_full": "lost: {} kernel stacks that found no room",
    "children_full": "lost: {} child processes that are not followed: too many",
    "threads_full": "lost: {} threads that found no room in the kernel's table",
    # waits for a CPU
    "histogram_full": "lost: {} waits that are missing from the quantiles: the histogram is full",
    "long_waits": "lost: {} waits above the threshold that could not be handed over in time",
    "trace_events": "lost: {} events that the trace lacks: they came faster than they could be read",
    "stacks_full": "lost: {} waits that are missing from the stacks: the table is full",
    # the GIL
    "waits_full": "lost: {} waits that found no room in the kernel's table",
    "holds_full": "lost: {} intervals of holding the GIL that found no room in the kernel's table",
    "blocks_full": "lost: {} blocked intervals that found no room in the kernel's table",
    "waiters_full": "lost: {} waits that are charged to no holder: too many threads waited at once",
    # Python's stacks
    "python_unknown_threads": "{} threads have no Python thread state.",
    "python_no_function": "{} threads ran no Python function.",
    "python_unreadable": "{} stacks could not be read.",
    "python_truncated": "{} stacks were deeper than 512 frames.",
    "python_stacks_full": "{} stacks found no room in the kernel's buffer.",
    "python_names_full": "{} names found no room in the kernel's buffer.",
    "python_interrupted": "{} stacks could not be walked because an event interrupted another.",
    "python_threads_beyond": "{} stacks were of threads beyond a process's first 512; they count as running no Python.",
    "python_threads_hidden": "{} threads are beyond a process's first 512: they count as running no Python.",
    "python_unnamed": "{} functions were gone before they could be named.",
    "python_undecoded": "{} records of Python stacks or names were malformed.",
    "python_unlined": "{} line tables could not be read: their functions' samples count for the first line.",
    # native stacks
    "native_no_tables": "{} native stacks led through code without unwinding tables.",
    "native_broken": "{} native stacks could not be followed.",
    "native_too_long": "{} native stacks led through files that take too long to read.",
    "native_cut": "{} native stacks reached beyond what is copied of them.",
    "native_undecoded": "{} records of native stacks were malformed.",
    "native_skipped": "{} waits have no native functions: their threads switched more than 500 times a second.",
    "native_full": "{} native stacks found no room in the kernel's buffer.",
}
"""Name -> words; `{}` is the number."""


def lines(collection: Collection) -> list[str]:
    """Return the notes on a profile and its losses, one sentence each."""
    return [*collection.notes, *(_words(name, count) for name, count in collection.losses.items() if count)]


def sentences(collection: Collection) -> list[str]:
    """Return `lines`, each with a capital first letter."""
    return [line[0].upper() + line[1:] for line in lines(collection) if line]


def _words(name: str, count: int) -> str:
    """Return a loss as text; an unknown name as it is."""
    return WORDS.get(name, f"lost: {{}} {name}").format(f"{count:,}")
