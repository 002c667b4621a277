"""Files in and out: one module a format, each with `read(data) -> Profile` and/or `write(profile) -> bytes`.

`FORMATS` is the explicit list. A new format is its module, one line here, and its tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePath
from typing import Protocol, cast

from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.formats.decoding import UTF_16_MARKS, decode_text
from pprofpy.formats.strangers import refuse_by_content
from pprofpy.model.profile import Profile


class Reader(Protocol):
    """A module that decodes profiles."""

    def read(self, data: bytes) -> Profile:
        """Decode; raises ProfileFormatError for anything that is not a valid profile of this format."""


class Writer(Protocol):
    """A module that encodes profiles."""

    def write(self, profile: Profile) -> bytes:
        """Encode the profile."""


@dataclass(frozen=True, slots=True)
class Format:
    """One file format: where its code is, and how its files are called (first suffix: the default)."""

    module: str
    suffixes: tuple[str, ...]
    description: str


FORMATS = {
    "pprof": Format("pprofpy.formats.pprof", (".pb.gz", ".pb", ".pprof"), "profile.proto, for any pprof tool"),
    "speedscope": Format(
        "pprofpy.formats.speedscope", (".speedscope.json", ".json"), "JSON for https://www.speedscope.app"
    ),
    "collapsed": Format(
        "pprofpy.formats.collapsed", (".collapsed", ".folded", ".txt"), "a line for each stack, for flame graph scripts"
    ),
}


_READERS = {name: one.module for name, one in FORMATS.items()} | {
    "spool": "pprofpy.formats.spool",
    "trace": "pprofpy.formats.eventlog",
}
"""What can be read: also unfinished recordings, and recorded events, which no profile can be written as."""

_MAGIC = {b"pprofpy spool ": "spool", b"pprofpy event log ": "trace"}
_JSON_OBJECT = re.compile(rb'(?:\xef\xbb\xbf)?\s*\{\s*["}]')
"""How a JSON object begins; a collapsed stack may begin with a brace, too."""
_HEAD_BYTES = 4096


def format_of(path: str, formats: dict[str, Format] = FORMATS) -> str:
    """The format that a file's name asks for.

    Raises:
        UsageError: No format has such a suffix.
    """
    name = PurePath(path).name.lower()
    for key, candidate in formats.items():
        if name.endswith(candidate.suffixes):
            return key
    known = ", ".join(f"{key} ({candidate.suffixes[0]})" for key, candidate in formats.items())
    raise UsageError(f"the name {name!r} does not say which format to write", f"give --format, or a suffix of: {known}")


def encode(profile: Profile, format_name: str) -> bytes:
    """A profile as the bytes of a file."""
    return cast(Writer, import_module(FORMATS[format_name].module)).write(profile)


def decode(data: bytes) -> Profile:
    """A profile from a file's bytes; the format is told from the content, never from the name.

    Raises:
        ProfileFormatError: It is none of the formats, or damaged.
    """
    return cast(Reader, import_module(_READERS[format_in(data)])).read(data)


def format_in(data: bytes) -> str:
    """The format that a file's content is in, if it is any.

    Raises:
        ProfileFormatError: It is empty, or of a format that we know by name only.
    """
    if not data:
        raise ProfileFormatError("the file is empty", "record the profile again")
    for magic, name in _MAGIC.items():
        if data.startswith(magic):
            return name
    refuse_by_content(data)
    head = data[:_HEAD_BYTES]
    if head.startswith(UTF_16_MARKS):
        head = decode_text(head).encode()
    if _JSON_OBJECT.match(head):
        return "speedscope"
    return "collapsed" if _looks_like_text(head) else "pprof"


def _looks_like_text(head: bytes) -> bool:
    """True for text of whole lines; a pprof file has control characters within its first bytes."""
    return not any(byte < 0x20 and byte not in b"\t\n\r" for byte in head)
