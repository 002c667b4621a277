"""The header of every table: which profile this is, how it was recorded, and what was lost."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from pprofpy.model.profile import COUNTS, Collection, Profile, ValueType
from pprofpy.reports.losses import lines as loss_lines
from pprofpy.text import counted
from pprofpy.units import NS_PER_S, format_percent, format_value, scale

_LONGEST_FILTER = 80
_COUNT_WORDS = {"got": "taken"}


@dataclass(frozen=True, slots=True)
class Header:
    """The facts about a profile that a reader of a table needs.

    Attributes:
        file: The base name of the first mapping's file: the program.
        build_id: That file's build id.
        comments: Free text by whoever wrote the profile.
        sample_type: What the table counts.
        doc_url: Where the profile is explained.
        time_ns: When the recording began, Unix time; 0 if unknown.
        duration_ns: How long it lasted; 0 if unknown.
        total: What 100 % is, in the unit of `sample_type`.
        filters: The filters in force, by option name.
        collection: How it was recorded and what was lost.
        verbose: Tell how it was recorded also if nothing was lost.
    """

    file: str
    build_id: str
    comments: tuple[str, ...]
    sample_type: ValueType
    doc_url: str
    time_ns: int
    duration_ns: int
    total: int
    filters: dict[str, str]
    collection: Collection
    verbose: bool = False


def build(
    profile: Profile,
    value_index: int,
    total: int,
    filters: dict[str, str] | None = None,
    *,
    verbose: bool = False,
) -> Header:
    """Gather the facts.

    Args:
        profile: The profile, filtered or not.
        value_index: The sample type shown.
        total: What 100 % is.
        filters: The filters in force, by option name.
        verbose: Tell how it was recorded also if nothing was lost.
    """
    mapping = profile.mappings[0] if profile.mappings else None
    return Header(
        file=mapping.filename.rpartition("/")[2] if mapping else "",
        build_id=mapping.build_id if mapping else "",
        comments=tuple(comment for comment in profile.comments if not comment.startswith("#")),
        sample_type=profile.sample_types[value_index],
        doc_url=profile.doc_url,
        time_ns=profile.time_ns,
        duration_ns=profile.duration_ns,
        total=total,
        filters=filters or {},
        collection=profile.collection,
        verbose=verbose,
    )


def lines(header: Header, unit: str) -> list[str]:
    """The header as text: first what `go tool pprof` prints, then what was lost.

    Args:
        header: The facts.
        unit: The unit that the table below uses.
    """
    return [*_identity(header, unit), *_filters(header), *losses(header.collection, verbose=header.verbose)]


def losses(collection: Collection, *, verbose: bool = False) -> list[str]:
    """What is missing from a profile, and what a reader must know of it; perhaps nothing.

    Args:
        collection: How it was recorded.
        verbose: Tell that, too, and what the options mean for its values.
    """
    counts = [_count(name, value) for name in COUNTS if (value := getattr(collection, name)) >= 0]
    is_whole = all(getattr(collection, name) <= 0 for name in COUNTS if name not in ("asked", "got"))
    found = []
    if verbose and (collection.engine or collection.target):
        found.append("Recorded: " + ", ".join(filter(None, (collection.target, collection.engine))))
    if counts and (verbose or not is_whole):
        found.append("Samples: " + ", ".join(counts))
    basis = collection.basis if verbose else ()
    return [*found, *(f"Note: {line}" for line in (*basis, *loss_lines(collection)))]


def _count(name: str, value: int) -> str:
    """A count of a Collection in words. How many samples CPU time asks for is no promise: there may be more."""
    if name == "asked":
        return f"about {value:,} expected"
    return counted(value, "error") if name == "errors" else f"{value:,} {_COUNT_WORDS.get(name, name)}"


def to_json(header: Header) -> dict[str, Any]:
    """Return the header as data for JSON."""
    collection = asdict(header.collection)
    return {
        "file": header.file,
        "build_id": header.build_id,
        "comments": list(header.comments),
        "sample_type": header.sample_type.type,
        "unit": header.sample_type.unit,
        "doc_url": header.doc_url,
        "time_ns": header.time_ns,
        "duration_ns": header.duration_ns,
        "total": header.total,
        "filters": header.filters,
        "collection": {name: value for name, value in collection.items() if value not in (-1, "", (), {})},
    }


def _identity(header: Header, unit: str) -> list[str]:
    found = [
        header.file and f"File: {header.file}",
        header.build_id and f"Build ID: {header.build_id}",
        *header.comments,
        header.sample_type.type and f"Type: {header.sample_type.type}",
        header.doc_url and f"Doc: {header.doc_url}",
        header.time_ns and f"Time: {_local_time(header.time_ns)}",
        header.duration_ns and _duration(header, unit),
    ]
    return [line for line in found if line]


def _local_time(time_ns: int) -> str:
    """Format a time in the reader's time zone; as a number beyond the calendar's range."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(time_ns // NS_PER_S))
    except (OverflowError, ValueError, OSError):
        return f"{time_ns} ns after 1970"


def _duration(header: Header, unit: str) -> str:
    total_ns, name = scale(header.total, header.sample_type.unit, "nanoseconds")
    ratio = f"({format_percent(int(total_ns), header.duration_ns)})" if name == "ns" and total_ns else ""
    total = format_value(header.total, header.sample_type.unit, unit)
    return f"Duration: {format_value(header.duration_ns, 'ns')}, Total samples = {total} {ratio}".rstrip()


def _filters(header: Header) -> list[str]:
    texts = [f"{name.replace('-', '_')}={value}" for name, value in header.filters.items()]
    shortened = [text if len(text) <= _LONGEST_FILTER else text[:_LONGEST_FILTER] + "…" for text in texts]
    return ["Active filters:", *(f"   {text}" for text in shortened)] if texts else []
