"""The tables beside a heap profile: the process's memory, and the types of its objects."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.heap import HeapRecording, MemoryUse, ObjectType
from pprofpy.reports.text import name_width, shorten, write_lines
from pprofpy.text import printable
from pprofpy.units import format_short

_TYPE_WIDTH = 34
_REFERRERS_AT = 21 + _TYPE_WIDTH


def render_memory(memory: MemoryUse, console: Console) -> None:
    """Print the process's memory in a few lines; unknown parts are left out."""
    write_lines(console, memory_lines(memory))


def memory_lines(memory: MemoryUse) -> list[str]:
    """The process's memory, Python's part and the rest."""
    if memory.rss < 0:
        return []
    rss, pss, uss = (format_short(value, "bytes") for value in (memory.rss, memory.pss, memory.uss))
    lines = [f"Memory of the process: {rss} RSS, {pss} PSS, {uss} USS"]
    if memory.arenas >= 0:
        arenas, used = format_short(memory.arenas, "bytes"), format_short(memory.small_objects, "bytes")
        lines.append(f"{arenas:>10}  Python's arenas, for objects up to 512 bytes; in use: {used}")
    elif memory.malloc >= 0:
        lines.append(f"{'?':>10}  Python's arenas: not known, as it traces or has none")
    if memory.malloc >= 0:
        malloc = format_short(memory.malloc, "bytes")
        lines.append(f"{malloc:>10}  malloc, in use: Python's larger objects, and C libraries")
    if memory.arenas >= 0 and memory.malloc >= 0 and (rest := memory.uss - memory.arenas - memory.malloc) > 0:
        lines.append(f"{format_short(rest, 'bytes'):>10}  the rest of USS: program data, thread stacks, freed but kept")
    return lines


def render_types(types: tuple[ObjectType, ...], objects_count: int, console: Console) -> None:
    """Print the table of types."""
    title = f"By type: {objects_count} objects known to the garbage collector (no strings, no numbers)"
    heading = f"{'own size':>8} {'objects':>9}  {'type':{_TYPE_WIDTH}} mostly referred to by"
    write_lines(console, [title, Text(heading, "bold")])
    width = name_width(console, _REFERRERS_AT)
    write_lines(console, [_type_line(row, width) for row in types])


def to_json(recording: HeapRecording) -> dict[str, Any]:
    """Return memory and types as data for JSON; bytes."""
    memory = {f"{name}_bytes": value for name, value in asdict(recording.memory).items() if value >= 0}
    types = [asdict(row) for row in recording.types]
    return {"memory": memory} | ({"types": types, "objects_count": recording.objects_count} if types else {})


def _type_line(row: ObjectType, width: int) -> str:
    name = shorten(row.name, _TYPE_WIDTH)
    referrers = _as_many_as_fit([printable(who) for who, _ in row.referrers], width)
    return f"{format_short(row.size_bytes, 'bytes'):>8} {row.count:>9}  {name:{_TYPE_WIDTH}} {referrers}".rstrip()


def _as_many_as_fit(names: list[str], width: int) -> str:
    text = shorten(names[0], width) if names else ""
    for name in names[1:]:
        if len(text) + 2 + len(name) > width:
            break
        text += f", {name}"
    return text
