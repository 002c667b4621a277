"""The text of each kind of loss: one line in every report."""

from __future__ import annotations

import re

from pprofpy.model.profile import Collection

WORDS = {
    # events
    "missed_events": "lost: {} event|events that the kernel did not hand over",
    "events_full": "lost: {} event|events that found no room in the kernel's table",
    "samples_full": "lost: {} sample|samples that found no room in the kernel's table",
    "tracepoint_events": "lost: {} event|events at tracepoints",
    "syscalls": "lost: {} system call|calls",
    "syscalls_under_way": "lost: {} system call|calls that began while too many were under way",
    "summary_rows": "lost: {} thread|threads or event|events in the summary",
    "summary_durations": "lost: {} duration|durations in the summary",
    "new_threads": "lost: {} new thread|threads of the target",
    # switches
    "untracked_switches": "lost: {} switch|switches: the kernel's table of threads is full",
    "hidden_switches": "lost: {} switch|switches that the kernel did not show",
    "hidden_wake_ups": "lost: {} wait|waits after a wake-up that the kernel showed to nobody",
    "hidden_wake_ups_blocked": "lost: {} wake-up|wake-ups that the kernel did not show: "
    "the wait for a CPU that followed counts as blocked",
    "off_cpu_full": "lost: {} off-CPU interval|intervals that found no room in the kernel's table",
    "kernel_stacks_full": "lost: {} kernel stack|stacks that found no room",
    "children_full": "lost: {} child process|processes that is|are not followed: too many",
    "threads_full": "lost: {} thread|threads that found no room in the kernel's table",
    # waits for a CPU
    "histogram_full": "lost: {} wait|waits that is|are missing from the quantiles: the histogram is full",
    "long_waits": "lost: {} wait|waits above the threshold that could not be handed over in time",
    "trace_events": "lost: {} event|events that the trace lacks: it|they came faster than events could be read",
    "stacks_full": "lost: {} wait|waits that is|are missing from the stacks: the table is full",
    # the GIL
    "waits_full": "lost: {} wait|waits that found no room in the kernel's table",
    "holds_full": "lost: {} interval|intervals of holding the GIL that found no room in the kernel's table",
    "blocks_full": "lost: {} blocked interval|intervals that found no room in the kernel's table",
    "waiters_full": "lost: {} wait|waits that is|are charged to no holder: too many threads waited at once",
    # Python's stacks
    "python_unknown_threads": "{} stack|stacks whose thread has no Python thread state.",
    "python_no_function": "{} stack|stacks whose thread ran no Python function.",
    "python_unreadable": "{} stack|stacks could not be read.",
    "python_truncated": "{} stack|stacks was|were deeper than 512 frames.",
    "python_stacks_full": "{} stack|stacks found no room in the kernel's buffer.",
    "python_names_full": "{} name|names found no room in the kernel's buffer.",
    "python_interrupted": "{} stack|stacks could not be walked because an event interrupted another.",
    "python_threads_beyond": "{} stack|stacks was|were beyond a process's first 448 threads; "
    "it|they counts|count as running no Python.",
    "python_children_full": "{} child process|processes found no room: its|their stacks are missing.",
    "python_labels_full": "{} stack|stacks has|have no labels: there was no room for them.",
    "python_threads_hidden": "{} thread|threads is|are beyond a process's first 448: it|they "
    "counts|count as running no Python.",
    "python_unnamed": "{} function|functions was|were gone before it|they could be named.",
    "python_undecoded": "{} record|records of Python stacks or names was|were malformed.",
    "python_unlined": "{} line table|tables could not be read: its|their functions' samples count for the first line.",
    # the heap
    "heap_blocks_full": "lost: {} sampled block|blocks that found no room: it|they is|are missing from what is in use",
    "heap_stacks_full": "lost: {} sample|samples whose stack found no room: there are too many different ones",
    "heap_busy": "lost: {} sample|samples that came while the sampler was at work",
    "traced_stacks_full": "lost: the stack|stacks of {} block|blocks: there are too many different ones",
    # native stacks
    "native_no_tables": "{} native stack|stacks led through code without unwinding tables.",
    "native_broken": "{} native stack|stacks could not be followed.",
    "native_unplaced": "{} native stack|stacks had no place for some of its|their Python functions.",
    "native_too_long": "{} native stack|stacks led through files that take too long to read.",
    "native_cut": "{} native stack|stacks reached beyond what is copied of it|them.",
    "native_undecoded": "{} record|records of native stacks was|were malformed.",
    "native_skipped": "{} wait|waits has|have no native functions: the thread|threads switched more "
    "than 500 times a second.",
    "native_full": "{} native stack|stacks found no room in the kernel's buffer.",
}
"""Name -> words; `{}` is the number. Of `wait|waits`, the first is for one, the second for more."""

_ONE_OR_MORE = re.compile(r"([\w-]+)\|([\w-]+)")


def lines(collection: Collection) -> list[str]:
    """Return the notes on a profile and its losses, one sentence each."""
    return [*collection.notes, *(_words(name, count) for name, count in collection.losses.items() if count)]


def sentences(collection: Collection) -> list[str]:
    """Return `lines`, each with a capital first letter."""
    return [line[0].upper() + line[1:] for line in lines(collection) if line]


def _words(name: str, count: int) -> str:
    """Return a loss as text; an unknown name as it is."""
    words = WORDS.get(name, f"lost: {{}} {name}")
    return _ONE_OR_MORE.sub(r"\1" if count == 1 else r"\2", words).format(f"{count:,}")
