"""What is in the profile folder: one line for each recording, newest first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.formats.folder import Entry
from pprofpy.reports.columns import layout, names, numbers, quantities
from pprofpy.reports.text import name_width, shorten, write_lines
from pprofpy.text import counted
from pprofpy.units import NS_PER_S, format_duration, format_short


def render(entries: Sequence[Entry], folder: str, console: Console) -> None:
    """Print the table, and where the files are."""
    if not entries:
        write_lines(console, [f"No recordings in {folder}."])
        return
    total = format_short(sum(entry.size_bytes for entry in entries), "bytes")
    heading, *lines = layout(
        [
            names("when", map(_when, entries)),
            names("kind", (entry.summary.kind or "?" for entry in entries)),
            numbers("length", map(_length, entries)),
            quantities("size", [entry.size_bytes for entry in entries], "bytes"),
            names("file, and what was recorded", (entry.path.name for entry in entries)),
        ],
        console,
        indent=0,
    )
    write_lines(console, [f"{counted(len(entries), 'recording')} in {folder}, {total}", heading])
    width = name_width(console, 2)
    for entry, line in zip(entries, lines, strict=True):
        write_lines(console, [line, Text(f"  {shorten(_target(entry), width)}", "dim")])


def to_json(entries: Sequence[Entry], folder: str) -> dict[str, Any]:
    """The table for programs; times in nanoseconds, Unix time."""
    return {"folder": folder, "recordings": [_entry_json(entry) for entry in entries]}


def _entry_json(entry: Entry) -> dict[str, Any]:
    facts = {"path": str(entry.path), "size_bytes": entry.size_bytes, "mtime_ns": entry.mtime_ns}
    return facts | asdict(entry.summary) | {"state": entry.state}


def _when(entry: Entry) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime((entry.summary.time_ns or entry.mtime_ns) // NS_PER_S))


def _length(entry: Entry) -> str:
    return format_duration(entry.summary.duration_ns) if entry.summary.duration_ns else entry.state or "?"


def _target(entry: Entry) -> str:
    return entry.summary.target or "(the file does not say of what)"
