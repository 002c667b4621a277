"""pprof's profile.proto: what we save by default, and what we read from any tool that writes it.

Source: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

import gzip
import io
import zlib
from dataclasses import replace

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.limits import check_expansion, check_memory, gunzip
from pprofpy.formats.pprof_decoder import EXTENSION_FIELD, Decoder, scan
from pprofpy.formats.pprof_encoder import Encoder
from pprofpy.formats.protowire import (
    BYTES,
    bytes_field,
    corrupt,
    fields,
)
from pprofpy.model.profile import Profile

SUMMARY_FIELD = EXTENSION_FIELD + 1

SUMMARY_WITHIN_BYTES = 16 << 10
"""A summary is found in so many bytes of a file."""

_GZIP_MAGIC = b"\x1f\x8b"
_TOO_LARGE_A_SUM = 2**63
_WRAPS = "Its values add up to more than 2^63: sums of them are wrong."


def read(data: bytes) -> Profile:
    """Decode a profile, gzipped or not.

    Raises:
        ProfileFormatError: `data` is empty, damaged, or no profile at all.
    """
    return read_extended(data)[0]


def read_extended(data: bytes) -> tuple[Profile, bytes]:
    """As `read`, with the content of the field that only we write and read; empty if there is none.

    Raises:
        ProfileFormatError: As `read`.
    """
    if not data:
        raise ProfileFormatError("the file is empty", "record the profile again")
    data = unpack(data)
    try:
        raw = scan(data)
        check_memory(raw.cost(), len(data))
        profile = Decoder(data, raw).profile()
    except (IndexError, OverflowError, ValueError) as error:
        raise corrupt(str(error)) from error
    profile.check_valid()
    check_expansion(profile, len(data))
    if np.abs(profile.values.astype(float)).sum(axis=0).max(initial=0) >= _TOO_LARGE_A_SUM:
        profile.collection = replace(profile.collection, notes=(*profile.collection.notes, _WRAPS))
    start, end = [(0, 0), *raw.messages(EXTENSION_FIELD)][-1]
    return profile, data[start:end]


def unpack(data: bytes) -> bytes:
    """The message itself, whether or not it was gzipped.

    Raises:
        ProfileFormatError: It is damaged, or unpacks to more than `limits.unpacked_limit` allows.
    """
    if not data.startswith(_GZIP_MAGIC):
        return data
    try:
        return gunzip(data)
    except (EOFError, zlib.error) as error:
        raise corrupt(f"gzip: {error}") from error


def write(profile: Profile, extension: bytes = b"", summary: bytes = b"") -> bytes:
    """Encode a profile as gzipped profile.proto. Ids run from 1, as all readers want them.

    Args:
        profile: The profile.
        extension: Kept in a field that readers of profiles skip, as the format asks them to.
        summary: The same, in the very first field: see `read_summary`.
    """
    compressed = io.BytesIO()
    # The name inside the gzip header marks the file as ours, so that we may overwrite it later.
    with gzip.GzipFile("pprofpy.pb", "wb", compresslevel=6, fileobj=compressed, mtime=0) as stream:
        if summary:
            stream.write(bytes_field(SUMMARY_FIELD, summary))
        for part in Encoder().parts(profile):
            stream.write(part)
        if extension:
            stream.write(bytes_field(EXTENSION_FIELD, extension))
    return compressed.getvalue()


def read_summary(head: bytes) -> bytes:
    """The summary that `write` put into the first field; empty if there is none.

    Args:
        head: The beginning of a file, SUMMARY_WITHIN_BYTES long or the whole of it.
    """
    try:
        unpacked = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, SUMMARY_WITHIN_BYTES)
        number, kind, start, end = next(fields(unpacked, 0, len(unpacked)))
    except (zlib.error, ProfileFormatError, StopIteration):
        return b""
    return unpacked[start:end] if (number, kind) == (SUMMARY_FIELD, BYTES) else b""
