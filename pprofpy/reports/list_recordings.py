"""What is in the profile folder: one line for each recording, newest first."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.formats.folder import Entry
from pprofpy.reports.text import name_width, shorten, write_lines
from pprofpy.units import NS_PER_S, format_duration, format_short

_KIND_WIDTH = 13


def render(entries: Sequence[Entry], folder: str, console: Console) -> None:
    """Print the table, and where the files are."""
    if not entries:
        write_lines(console, [f"No recordings in {folder}."])
        return
    heading = f"{'when':16} {'kind':{_KIND_WIDTH}} {'length':>8} {'size':>8}  file, and what was recorded"
    width = name_width(console, 2)
    total = format_short(sum(entry.size_bytes for entry in entries), "bytes")
    write_lines(console, [f"{len(entries)} recordings in {folder}, {total}", Text(heading, "bold")])
    for entry in entries:
        write_lines(console, [_line(entry), Text(f"  {shorten(_target(entry), width)}", "dim")])


def to_json(entries: Sequence[Entry], folder: str) -> dict[str, Any]:
    """The table for programs; times in nanoseconds, Unix time."""
    return {"folder": folder, "recordings": [_entry_json(entry) for entry in entries]}


def _entry_json(entry: Entry) -> dict[str, Any]:
    facts = {"path": str(entry.path), "size_bytes": entry.size_bytes, "mtime_ns": entry.mtime_ns}
    return facts | asdict(entry.summary) | {"state": entry.state}


def _line(entry: Entry) -> str:
    moment_ns = entry.summary.time_ns or entry.mtime_ns
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(moment_ns // NS_PER_S))
    length = format_duration(entry.summary.duration_ns) if entry.summary.duration_ns else entry.state or "?"
    size = format_short(entry.size_bytes, "bytes")
    name = entry.path.name
    return f"{when:16} {entry.summary.kind or '?':{_KIND_WIDTH}} {length:>8} {size:>8}  {name}"


def _target(entry: Entry) -> str:
    return entry.summary.target or "(the file does not say of what)"
