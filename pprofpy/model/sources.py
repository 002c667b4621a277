"""The source that a recording brings along: of a process that sees other files than its reader."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from pprofpy.model.recording import Recording
from pprofpy.model.table import Table

_TABLE = "sources"


@dataclass(frozen=True, slots=True)
class KeptSource:
    """A file as it was when the recording ended.

    Attributes:
        filename: As the profile has it.
        text: Its content.
        mtime_ns: When it was last changed, Unix time.
    """

    filename: str
    text: str
    mtime_ns: int


def with_sources(recording: Recording, sources: Iterable[KeptSource]) -> Recording:
    """The recording with these: no other file of those names is meant from now on."""
    return replace(recording, tables={**recording.tables, _TABLE: Table.of(KeptSource, sources)})


def sources_of(recording: Recording) -> dict[str, KeptSource] | None:
    """By name; None if the reader's own files are meant.

    Raises:
        ProfileFormatError: The table is damaged.
    """
    if _TABLE not in recording.tables:
        return None
    return {one.filename: one for one in recording.rows(_TABLE, KeptSource)}
