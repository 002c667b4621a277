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
from dataclasses import asdict, dataclass
from typing import Any

from pprofpy.errors import ProfileFormatError
from pprofpy.formats import decode, format_in, pprof
from pprofpy.formats.document import LOWEST, DocumentError, brief, integer, items, members, parse, string
from pprofpy.model.profile import Frame, Function, Profile, Stack
from pprofpy.model.recording import Option, Recording
from pprofpy.model.table import Cell, Table

SCHEMA, VERSION = "pprofpy.recording", 1

_LONGEST_TARGET = 1000
_MOST_BYTES = 256 << 20


def write(recording: Recording) -> bytes:
    """Encode a recording; any reader of pprof files reads its profile."""
    extension = json.dumps(_encoded(recording), separators=(",", ":")).encode()
    return pprof.write(recording.profile, extension, json.dumps(asdict(summary_of(recording))).encode())


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
    except KeyError as error:
        raise ProfileFormatError(f"the recording is damaged: it lacks {error}", "record it again") from error
    except (DocumentError, TypeError, ValueError) as error:  # also rows of another length
        raise ProfileFormatError(f"the recording is damaged: {error}", "record it again") from error


@dataclass(frozen=True, slots=True)
class Summary:
    """What a list of recordings tells of each.

    Attributes:
        kind: The command that made it; empty if that is not known.
        target: What was recorded, in words.
        time_ns: When it began, Unix time; 0 if unknown.
        duration_ns: How long it lasted; 0 if unknown.
    """

    kind: str = ""
    target: str = ""
    time_ns: int = 0
    duration_ns: int = 0


def summary_of(recording: Recording) -> Summary:
    """Of a recording in memory."""
    profile = recording.profile
    return Summary(recording.kind, profile.collection.target[:_LONGEST_TARGET], profile.time_ns, profile.duration_ns)


def read_summary(head: bytes) -> Summary:
    """Of a file, from its first `pprof.SUMMARY_WITHIN_BYTES`; an empty one if it has none."""
    try:
        saved = members(parse(pprof.read_summary(head) or b"{}"))
        return Summary(
            string(saved.get("kind", "")),
            string(saved.get("target", "")),
            integer(saved.get("time_ns", 0)),
            integer(saved.get("duration_ns", 0)),
        )
    except (DocumentError, ProfileFormatError):
        return Summary()


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
        raise DocumentError("its tables are too large")
    document = members(parse(extension))
    if document["schema"] != SCHEMA:
        raise DocumentError("its tables are of an unknown kind")
    if document["version"] != VERSION:
        raise ProfileFormatError(
            f"the recording is of version {brief(document['version'])}; this pprofpy reads version {VERSION}",
            "read it with the pprofpy that wrote it, or a newer one; 'pprofpy top FILE' shows its profile",
        )
    return document


def _decoded(profile: Profile, document: dict[str, Any]) -> Recording:
    stacks = _stacks(document)
    tables = {
        name: _table({column: _cells(values, stacks) for column, values in members(columns).items()})
        for name, columns in members(document["tables"]).items()
    }
    return Recording(string(document["kind"]), profile, tables, dict(_options(members(document["shown"]))))


def _stacks(document: dict[str, Any]) -> list[Stack]:
    functions = [
        Function(string(name), string(system_name), string(filename), integer(line, LOWEST))
        for name, system_name, filename, line in items(document["functions"])
    ]
    frames = [
        Frame(_item(functions, at), integer(line, LOWEST), integer(column, LOWEST))
        for at, line, column in items(document["frames"])
    ]
    return [tuple(_item(frames, at) for at in items(stack)) for stack in items(document["stacks"])]


def _cells(values: Any, stacks: list[Stack]) -> list[Cell]:
    if isinstance(values, dict):
        return [_item(stacks, at) for at in items(values["stacks"])]
    return [_cell(value) for value in items(values)]


def _cell(value: Any) -> Cell:
    if type(value) in (bool, float):
        return bool(value) if type(value) is bool else float(value)
    return integer(value, LOWEST) if type(value) is int else string(value)


def _table(columns: dict[str, list[Cell]]) -> Table:
    if len({len(values) for values in columns.values()}) > 1:
        raise DocumentError("the columns of a table differ in length")
    return Table(columns)


def _options(shown: Mapping[str, Any]) -> Iterator[tuple[str, Option]]:
    for name, value in shown.items():
        yield name, value if type(value) is bool else integer(value, LOWEST) if type(value) is int else string(value)


def _item(values: list[Any], index: Any) -> Any:
    """The value at an index that a file states."""
    return values[integer(index, 0, len(values) - 1)]
