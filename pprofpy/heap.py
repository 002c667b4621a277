"""The nouns of a heap recording beside its profile: where a process's memory is, and which types its objects have."""

from __future__ import annotations

from dataclasses import dataclass, field

from pprofpy.profile import Profile


@dataclass(frozen=True, slots=True)
class Memory:
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
        referrers: The types that most often refer to them, and how often among the few that were looked at.
    """

    name: str
    count: int
    size_bytes: int
    referrers: tuple[tuple[str, int], ...] = ()


@dataclass(slots=True)
class HeapRecording:
    """What a recording of a heap has found.

    Attributes:
        profile: What is in use at the end, and what was allocated meanwhile if the engine can know.
        snapshots: (nanoseconds since the start, profile) of each snapshot, the last one included.
        memory: At the end.
        types: Biggest first; empty unless asked for.
        objects_count: All objects that the garbage collector knows; 0 unless types were asked for.
    """

    profile: Profile
    snapshots: list[tuple[int, Profile]] = field(default_factory=list)
    memory: Memory = field(default_factory=Memory)
    types: tuple[ObjectType, ...] = ()
    objects_count: int = 0
