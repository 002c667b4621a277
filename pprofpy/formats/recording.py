"""Recordings in files: a pprof profile that carries a recording's tables in a field that other readers skip.

The field, number 1000 of the profile message, holds one JSON document:

    {"schema": "pprofpy.recording", "version": 1, "kind": "gil", "shown": {"nodecount": 10},
     "functions": [[name, system name, file, first line], ...], "frames": [[function, line, column], ...],
     "stacks": [[frame, ...], ...], "tables": {"waits": {"tid": [7, ...], "stack": {"stacks": [0, ...]}}}}

Stacks are leaf-first; functions, frames and stacks are named by their index. A column of stacks is an object, all
others are lists.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import decode, format_in, pprof
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Cell, Table
from pprofpy.profile import Frame, Function, Profile, Stack

SCHEMA, VERSION = "pprofpy.recording", 1

_MOST_BYTES = 256 << 20
_MOST_CELLS = 50_000_000
_INT64 = range(-(1 << 63), 1 << 63)


def write(recording: Recording) -> bytes:
    """Encode a recording; any reader of pprof files reads its profile."""
    return pprof.write(recording.profile, json.dumps(_encoded(recording), separators=(",", ":")).encode())


def read(data: bytes) -> Recording:
    """Decode a recording, or a profile of any other format: that has no kind and no tables.

    Raises:
        ProfileFormatError: It is neither, or damaged.
    """
    name = format_in(data)
    if name == "spool":
        from pprofpy.formats import spool  # which reads its windows with this module

        return spool.read_recording(data)
    return read_pprof(data) if name == "pprof" else Recording("", decode(data))


def read_pprof(data: bytes) -> Recording:
    """Decode a recording in a pprof file; see `read`."""
    profile, extension = pprof.read_extended(data)
    if not extension:
        return Recording("", profile)
    try:
        return _decoded(profile, _document(extension))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError, RecursionError, OverflowError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error


# -- writing -----------------------------------------------------------------------------------------------------------


class _Pool:
    """Numbers functions, frames and stacks, each once."""

    def __init__(self) -> None:
        self.functions: dict[Function, int] = {}
        self.frames: dict[Frame, int] = {}
        self.stacks: dict[Stack, int] = {}

    def number(self, stack: Stack) -> int:
        """A stack's index."""
        for frame in stack if stack not in self.stacks else ():
            self.functions.setdefault(frame.function, len(self.functions))
            self.frames.setdefault(frame, len(self.frames))
        return self.stacks.setdefault(stack, len(self.stacks))

    def to_json(self) -> dict[str, Any]:
        """The three tables."""
        return {
            "functions": list(self.functions),
            "frames": [[self.functions[frame.function], frame.line, frame.column] for frame in self.frames],
            "stacks": [[self.frames[frame] for frame in stack] for stack in self.stacks],
        }


def _encoded(recording: Recording) -> dict[str, Any]:
    pool = _Pool()
    tables = {
        name: {column: _column(values, pool) for column, values in table.columns.items()}
        for name, table in recording.tables.items()
    }
    head = {"schema": SCHEMA, "version": VERSION, "kind": recording.kind, "shown": dict(recording.shown)}
    return head | pool.to_json() | {"tables": tables}


def _column(values: list[Cell], pool: _Pool) -> Any:
    if values and isinstance(values[0], tuple):
        return {"stacks": [pool.number(value) for value in values if isinstance(value, tuple)]}
    return values


# -- reading -----------------------------------------------------------------------------------------------------------


def _document(extension: bytes) -> dict[str, Any]:
    if len(extension) > _MOST_BYTES:
        raise _damaged("its tables are too large")
    document = json.loads(extension)
    if not isinstance(document, dict) or document["schema"] != SCHEMA:
        raise _damaged("its tables are of an unknown kind")
    if document["version"] != VERSION:
        raise ProfileFormatError(
            f"the recording is of version {document['version']!r}; this pprofpy reads version {VERSION}",
            "read it with the pprofpy that wrote it, or a newer one; 'pprofpy top FILE' shows its profile",
        )
    return document


def _decoded(profile: Profile, document: dict[str, Any]) -> Recording:
    stacks = _stacks(document)
    tables = {
        str(name): _table({str(column): _cells(values, stacks) for column, values in columns.items()})
        for name, columns in document["tables"].items()
    }
    if sum(len(values) for table in tables.values() for values in table.columns.values()) > _MOST_CELLS:
        raise _damaged("its tables are too large")
    return Recording(_text(document["kind"]), profile, tables, dict(_options(document["shown"])))


def _stacks(document: dict[str, Any]) -> list[Stack]:
    functions = [
        Function(_text(name), _text(system_name), _text(filename), _int64(line))
        for name, system_name, filename, line in document["functions"]
    ]
    frames = [Frame(_item(functions, at), _int64(line), _int64(column)) for at, line, column in document["frames"]]
    return [tuple(_item(frames, at) for at in stack) for stack in document["stacks"]]


def _cells(values: Any, stacks: list[Stack]) -> list[Cell]:
    if isinstance(values, dict):
        return [_item(stacks, at) for at in values["stacks"]]
    if not isinstance(values, list):
        raise TypeError("a column is no list")
    for value in values:
        if type(value) is int:
            _int64(value)
        elif type(value) not in (str, bool, float):
            raise TypeError("a cell is neither number nor text")
    return values


def _table(columns: dict[str, list[Cell]]) -> Table:
    if len({len(values) for values in columns.values()}) > 1:
        raise ValueError("the columns of a table differ in length")
    return Table(columns)


def _options(shown: Mapping[str, Any]) -> Iterator[tuple[str, Option]]:
    for name, value in shown.items():
        if type(value) not in (int, str, bool):
            raise TypeError("an option is neither number nor text")
        yield str(name), value


def _item(values: list[Any], index: Any) -> Any:
    """The value at an index that a file states; negative ones do not count from the end."""
    if type(index) is not int or index < 0:
        raise IndexError("an index is no number, or negative")
    return values[index]


def _int64(value: Any) -> int:
    if type(value) is not int or value not in _INT64:
        raise ValueError("a number is out of range")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a name is no text")
    return value


def _damaged(what: str) -> ProfileFormatError:
    return ProfileFormatError(f"the recording is damaged: {what}", "record it again")
