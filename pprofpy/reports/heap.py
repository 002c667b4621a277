"""The tables beside a heap profile: the process's memory, and the types of its objects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console

from pprofpy.model.heap import HeapRecording, MemoryUse, ObjectType
from pprofpy.reports.columns import layout, names, numbers, quantities
from pprofpy.reports.text import write_lines
from pprofpy.text import counted
from pprofpy.units import format_column, format_short


def render_memory(memory: MemoryUse, console: Console, processes: int = 1) -> None:
    """Print the memory of a process, or of several, in a few lines; unknown parts are left out."""
    write_lines(console, memory_lines(memory, processes))


def memory_lines(memory: MemoryUse, processes: int = 1) -> list[str]:
    """The memory of so many processes, Python's part and the rest."""
    if memory.rss < 0:
        return []
    rss, pss, uss = format_column([memory.rss, memory.pss, memory.uss], "bytes")
    parts = [(value, what) for value, what in _parts(memory) if value]
    sizes = format_column([value for value, _ in parts], "bytes")
    return [
        f"Memory of {'the process' if processes == 1 else f'{processes} processes'}: {rss} RSS, {pss} PSS, {uss} USS",
        *(f"{size if value > 0 else '?':>10}  {what}" for (value, what), size in zip(parts, sizes, strict=True)),
    ]


def _parts(memory: MemoryUse) -> Iterator[tuple[int, str]]:
    """What the memory consists of, in bytes; -1 for what is not known."""
    if memory.arenas >= 0:
        used = format_short(memory.small_objects, "bytes")
        yield memory.arenas, f"Python's arenas, for objects up to 512 bytes; in use: {used}"
    elif memory.malloc >= 0:
        yield -1, "Python's arenas: not known, as it traces or has none"
    if memory.malloc >= 0:
        yield memory.malloc, "malloc, in use: Python's larger objects, and C libraries"
    if memory.arenas >= 0 and memory.malloc >= 0:
        rest = memory.uss - memory.arenas - memory.malloc
        yield max(rest, 0), "the rest of USS: program data, thread stacks, freed but kept"


def render_types(types: tuple[ObjectType, ...], objects_count: int, console: Console) -> None:
    """Print the table of types."""
    title = f"By type: {counted(objects_count, 'object')} known to the garbage collector (no strings, no numbers)"
    columns = [
        quantities("own size", [row.size_bytes for row in types], "bytes"),
        numbers("objects", (row.count for row in types)),
        names("type", (row.name for row in types)),
        names("held, for example, by", (", ".join(who for who, _ in row.referrers) for row in types)),
    ]
    write_lines(console, [title, *layout(columns, console)])


def to_json(recording: HeapRecording) -> dict[str, Any]:
    """Return memory and types as data for JSON; bytes."""
    memory = {f"{name}_bytes": value for name, value in asdict(recording.memory).items() if value >= 0}
    types = [asdict(row) for row in recording.types]
    return {"memory": memory} | ({"types": types, "objects_count": recording.objects_count} if types else {})
