"""Merge the windows of one recording, of any kind.

What only one kind needs is imported when it is merged: each command would wait for all of it otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pprofpy.errors import UsageError
from pprofpy.model import combine
from pprofpy.model.recording import Recording


def merge_recordings(windows: Sequence[Recording]) -> Recording:
    """Merge windows into one recording. A thread that had several names has its last one, which tells of all of
    them; functions of one name are told apart.

    Args:
        windows: In order of time; at least one, all of one kind.

    Raises:
        UsageError: There is none, or they are of several kinds.
        ProfileFormatError: The tables of one are damaged.
    """
    if not windows:
        raise UsageError("there is no recording to merge")
    kinds = sorted({window.kind for window in windows})
    if len(kinds) > 1:
        raise UsageError(f"recordings of different commands cannot be merged: {', '.join(kinds)}")
    merge = _MERGERS.get(kinds[0], _merge_profiles)
    merged = windows[0] if len(windows) == 1 and merge is not _merge_events else merge(windows)
    profile = combine.with_names_told_apart(combine.with_last_names(merged.profile))
    return merged if profile is merged.profile else replace(merged, profile=profile)


def _merge_profiles(windows: Sequence[Recording]) -> Recording:
    return replace(windows[-1], profile=combine.merge([window.profile for window in windows]))


def _merge_gil(windows: Sequence[Recording]) -> Recording:
    from pprofpy.model.gil import GilRecord, merge_gil

    records = [GilRecord.from_recording(window) for window in windows]
    return merge_gil(records, keep_slices=windows[-1].flag("by_interval")).to_recording(windows[-1].shown)


def _merge_latencies(windows: Sequence[Recording]) -> Recording:
    from pprofpy.model.latencies import Latencies, merge_latencies

    found = [Latencies.from_recording(window) for window in windows]
    return merge_latencies(found).to_recording(windows[-1].shown)


def _merge_heap(windows: Sequence[Recording]) -> Recording:
    from pprofpy.model.heap import HeapRecording, merge_heap

    return merge_heap([HeapRecording.from_recording(window) for window in windows]).to_recording(windows[-1].shown)


def _merge_events(windows: Sequence[Recording]) -> Recording:
    """Sums alone: the events of a window are too many to be kept."""
    return replace(_merge_profiles(windows), tables={})


_MERGERS: dict[str, Callable[[Sequence[Recording]], Recording]] = {
    "gil": _merge_gil,
    "heap": _merge_heap,
    "sched-latency": _merge_latencies,
    "trace": _merge_events,
}
"""Kind -> how its tables are merged; of the others, the profile is all there is."""
