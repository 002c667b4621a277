"""The nouns of a heap recording beside its profile: where a process's memory is, and which types its objects have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

from pprofpy.errors import ProfileFormatError
from pprofpy.model.combine import merge
from pprofpy.model.profile import Label, Profile, Stack
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Table


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """A process's memory as the kernel counts it, and as the allocators in it do. Bytes; -1 where it is not known.

    Attributes:
        rss: In memory, shared pages counted whole.
        pss: In memory, shared pages counted by share.
        uss: In memory and nobody else's: what the process's end would free.
        arenas: Reserved by Python for objects up to 512 bytes.
        small_objects: Of the arenas, in use.
        malloc: Given out by C's malloc: Python's larger objects, and all that C libraries keep.
    """

    rss: int = -1
    pss: int = -1
    uss: int = -1
    arenas: int = -1
    small_objects: int = -1
    malloc: int = -1


@dataclass(frozen=True, slots=True)
class ObjectType:
    """All objects of one type that the garbage collector knows.

    Attributes:
        name: As in `dict` or `shop.Order`.
        count, size_bytes: How many, and their own size without what they refer to.
        referrers: What holds some of them, as `shop.SHOP.orders[]`, and how many of these few.
    """

    name: str
    count: int
    size_bytes: int
    referrers: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class Snapshots:
    """What was in use at several moments of one recording.

    Attributes:
        times_ns: When each was taken, since the start.
        sizes_bytes: Stack (leaf-first) -> bytes in use at each snapshot.
    """

    times_ns: list[int] = field(default_factory=list)
    sizes_bytes: dict[Stack, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times_ns)

    def add(self, time_ns: int, profile: Profile) -> None:
        """Append a snapshot, taken `time_ns` after the start; the profile has `inuse_space`."""
        column = profile.value_index("inuse_space")
        for sizes in self.sizes_bytes.values():
            sizes.append(0)
        for stack, values, _ in profile.samples():
            sizes = self.sizes_bytes.setdefault(stack, [0] * (len(self) + 1))
            sizes[-1] += values[column]
        self.times_ns.append(time_ns)

    def extend(self, later: Snapshots) -> None:
        """Append those of another one."""
        for stack in {**self.sizes_bytes, **later.sizes_bytes}:  # in order
            known = self.sizes_bytes.get(stack, [0] * len(self))
            self.sizes_bytes[stack] = known + later.sizes_bytes.get(stack, [0] * len(later))
        self.times_ns += later.times_ns


@dataclass(slots=True)
class HeapRecording:
    """What a recording of a heap has found.

    Attributes:
        profile: What is in use at the end, and what was allocated meanwhile if the engine can know.
        snapshots: What was in use at each snapshot, the last one included.
        first: The profile of the first snapshot, if there are several.
        memory: The process's memory at the end; of several processes, the sum.
        processes: How many there are.
        types: Biggest first; empty unless asked for.
        objects_count: All objects that the garbage collector knows; 0 unless types were asked for.
    """

    profile: Profile
    snapshots: Snapshots = field(default_factory=Snapshots)
    first: Profile | None = None
    memory: MemoryUse = field(default_factory=MemoryUse)
    processes: int = 1
    types: tuple[ObjectType, ...] = ()
    objects_count: int = 0

    @classmethod
    def of(cls, snapshots: Sequence[tuple[int, Profile]]) -> HeapRecording:
        """Sum up snapshots, at least one: (nanoseconds since the start, profile with `inuse_space`)."""
        found = cls(snapshots[-1][1], first=snapshots[0][1] if len(snapshots) > 1 else None)
        for time_ns, profile in snapshots:
            found.snapshots.add(time_ns, profile)
        return found

    def to_recording(self, shown: Mapping[str, Option]) -> Recording:
        """All of it but `first`, to be saved; `shown`: the options of the command that shape what it prints."""
        several = len(self.snapshots) > 1
        tables = {
            "memory": Table.of(MemoryUse, [self.memory]),
            "types": Table.of(_TypeRow, [_TypeRow(one.name, one.count, one.size_bytes) for one in self.types]),
            "referrers": Table.of(_ReferrerRow, _referrer_rows(self.types)),
            "objects": Table.of(_Objects, [_Objects(self.objects_count)]),
            "snapshots": Table.of(_SnapshotRow, map(_SnapshotRow, self.snapshots.times_ns)),
            "in_use": Table.of(_SizeRow, _size_rows(self.snapshots) if several else ()),
        }
        if self.processes > 1:
            tables["processes"] = Table.of(_Processes, [_Processes(self.processes)])
        return Recording("heap", self.profile, tables, shown)

    @classmethod
    def from_recording(cls, recording: Recording) -> HeapRecording:
        """Inverse of `to_recording`.

        Raises:
            ProfileFormatError: The recording is another one, or damaged.
        """
        referrers: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
        for one in recording.rows("referrers", _ReferrerRow):
            referrers[one.type_index].append((one.name, one.count))
        rows = recording.rows("types", _TypeRow)
        types = [ObjectType(row.name, row.count, row.size_bytes, tuple(referrers[i])) for i, row in enumerate(rows)]
        return cls(
            recording.profile,
            _snapshots_of(recording),
            memory=recording.row("memory", MemoryUse),
            processes=recording.row("processes", _Processes).count if "processes" in recording.tables else 1,
            types=tuple(types),
            objects_count=recording.row("objects", _Objects).count,
        )


def merge_heap(windows: Sequence[HeapRecording]) -> HeapRecording:
    """Several windows of one recording as one; in order of time, at least one.

    Each window's profile holds all since the beginning: the last one is the whole. Snapshots follow each other.
    """
    snapshots = Snapshots()
    for window in windows:
        snapshots.extend(window.snapshots)
    return replace(windows[-1], snapshots=snapshots, first=windows[0].first)


def merge_processes(
    living: Mapping[int, HeapRecording], ended: Mapping[int, Profile], older: Sequence[Profile] = ()
) -> HeapRecording:
    """The heaps of several processes as one; at least one. Samples get a label `pid`.

    Args:
        living: By pid.
        ended: Of those that are over: what was allocated there, see `freed`.
        older: The same, of those that are no longer told apart.
    """
    profiles = [_of_process(pid, one.profile) for pid, one in living.items()]
    profiles += [*(_of_process(pid, profile) for pid, profile in ended.items()), *older]
    memory = _sum_of([one.memory for one in living.values()])
    return HeapRecording(at_once(profiles), memory=memory, processes=len(living))


def _of_process(pid: int, profile: Profile) -> Profile:
    return replace(profile, label_sets=[(*labels, Label("pid", pid)) for labels in profile.label_sets])


def at_once(profiles: Sequence[Profile]) -> Profile:
    """Profiles of the same time as one; at least one."""
    merged = merge(profiles)
    return replace(merged, duration_ns=max(one.duration_ns for one in profiles))


def freed(profile: Profile) -> Profile:
    """The same allocations, none of which is in use any more."""
    values = profile.values.copy()
    for index, kind in enumerate(profile.sample_types):
        if kind.type.startswith("inuse"):
            values[:, index] = 0
    return replace(profile, values=values, collection=replace(profile.collection, target=""))


def _sum_of(all_memory: Sequence[MemoryUse]) -> MemoryUse:
    """What is not known of one is not known of all."""
    columns = zip(*(astuple(one) for one in all_memory), strict=True)
    return MemoryUse(*(-1 if min(column) < 0 else sum(column) for column in columns))


# -- rows of tables --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _TypeRow:
    name: str
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class _ReferrerRow:
    type_index: int
    name: str
    count: int


@dataclass(frozen=True, slots=True)
class _Objects:
    count: int


@dataclass(frozen=True, slots=True)
class _Processes:
    count: int


@dataclass(frozen=True, slots=True)
class _SnapshotRow:
    time_ns: int


@dataclass(frozen=True, slots=True)
class _SizeRow:
    stack: Stack
    snapshot: int
    size_bytes: int


def _referrer_rows(types: Iterable[ObjectType]) -> list[_ReferrerRow]:
    return [_ReferrerRow(index, *referrer) for index, one in enumerate(types) for referrer in one.referrers]


def _size_rows(snapshots: Snapshots) -> list[_SizeRow]:
    return [
        _SizeRow(stack, index, size)
        for stack, sizes in snapshots.sizes_bytes.items()
        for index, size in enumerate(sizes)
        if size
    ]


def _snapshots_of(recording: Recording) -> Snapshots:
    snapshots = Snapshots([one.time_ns for one in recording.rows("snapshots", _SnapshotRow)])
    for one in recording.rows("in_use", _SizeRow):
        if not 0 <= one.snapshot < len(snapshots):
            raise ProfileFormatError("the recording is damaged: it counts a snapshot that it does not have")
        snapshots.sizes_bytes.setdefault(one.stack, [0] * len(snapshots))[one.snapshot] = one.size_bytes
    return snapshots
