"""What a file may cost its reader: how far it may unpack, and how far its content may multiply.

Files refer to the same text, function or location again and again, so a small one can stand for terabytes. What it
would become is counted here before anything is built. Honest profiles stay far below: they name each function once,
and need at least a byte for each frame of a stack.
"""

from __future__ import annotations

import os
import zlib

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.model.profile import Profile
from pprofpy.model.stack_table import Ints

UNPACKED_BYTES_VARIABLE = "PPROFPY_MAX_UNPACKED_BYTES"
"""Environment variable: unpack files up to this many bytes, however well they are packed."""

_LARGEST_BYTES = 4 << 30
_LARGEST_RATIO = 250
_SMALL_BYTES = 16 << 20
"""A file may unpack to this, or to `_LARGEST_RATIO` times its size, but never beyond `_LARGEST_BYTES`."""

_STEP_BYTES = 1 << 20
_GZIP = 31  # zlib's name for "with a gzip header"

MEMORY_FACTOR = 20
"""A profile in memory may be so many times as large as its file."""

BYTES_OF_FRAME, BYTES_OF_STACK = 1200, 450
"""Bytes of memory that a ProfileBuilder takes at most for a function at a line, and for a sample, without names."""

_MEMORY_FLOOR_BYTES = 32 << 20
_FRAMES_FLOOR, _FRAMES_PER_BYTE = 1 << 18, 2
_NAMES_FLOOR_BYTES, _NAMES_FACTOR = 16 << 20, 10
_TEXT_FLOOR_BYTES, _TEXT_FACTOR = 64 << 20, 100


def unpacked_limit(packed_bytes: int) -> int:
    """How many bytes a compressed file of this size may unpack to."""
    chosen = os.environ.get(UNPACKED_BYTES_VARIABLE, "")
    if chosen.isascii() and chosen.isdigit() and len(chosen) < 19:
        return int(chosen)
    return min(max(_SMALL_BYTES, _LARGEST_RATIO * packed_bytes), _LARGEST_BYTES)


def too_large(limit: int) -> ProfileFormatError:
    """The error for a file that unpacks to more than its limit."""
    return ProfileFormatError(
        f"it unpacks to more than {limit} bytes, far more than a recording of its size does",
        f"if you trust it: {UNPACKED_BYTES_VARIABLE}=BYTES allows more",
    )


def gunzip(data: bytes) -> bytes:
    """Unpack gzip of one or more members; zeros may follow.

    Raises:
        ProfileFormatError: It unpacks to more than its limit.
        zlib.error, EOFError: It is damaged, or cut short.
    """
    limit = unpacked_limit(len(data))
    unpacked, rest = bytearray(), data
    while rest:
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            step = member.decompress(rest, min(_STEP_BYTES, limit + 1 - len(unpacked)))
            rest = member.unconsumed_tail
            unpacked += step
            if len(unpacked) > limit:
                raise too_large(limit)
            if not step and not rest and not member.eof:
                raise EOFError("it ends in the middle")
        rest = member.unused_data.lstrip(b"\0")
    return bytes(unpacked)


def check_memory(wanted_bytes: int, file_bytes: int) -> None:
    """Refuse a file whose entries would take far more memory than itself.

    Raises:
        ProfileFormatError: More than MEMORY_FACTOR times its size.
    """
    if wanted_bytes > max(MEMORY_FACTOR * file_bytes, _MEMORY_FLOOR_BYTES):
        raise ProfileFormatError(
            f"its {file_bytes} bytes hold so many empty entries that reading them takes {wanted_bytes >> 20} MiB",
            "no profiler writes such a file; record it again",
        )


def check_expansion(profile: Profile, file_bytes: int) -> None:
    """Refuse a profile whose stacks, written out, are out of proportion to its file.

    Args:
        profile: It refers to nothing that it does not hold.
        file_bytes: The file's size, unpacked.

    Raises:
        ProfileFormatError: Its stacks have too many frames, or its names are repeated too often.
    """
    names = np.fromiter((len(f.name) + len(f.filename) for f in profile.functions), np.int64, len(profile.functions))
    lines = np.fromiter((len(location.lines) for location in profile.locations), np.int64, len(profile.locations))
    texts = np.fromiter(
        (sum(int(names[line.function]) for line in location.lines) for location in profile.locations),
        np.int64, len(profile.locations),
    )  # fmt: skip
    _check("names of its lines", int(texts.sum()), _NAMES_FLOOR_BYTES, _NAMES_FACTOR, file_bytes)
    check_frames(_sum(np.maximum(lines, 1), profile.stacks.locations), file_bytes)
    labels = np.fromiter(
        (sum(len(label.key) + len(str(label.value)) for label in labels) for labels in profile.label_sets),
        np.int64, len(profile.label_sets),
    )  # fmt: skip
    written = _sum(texts, profile.stacks.locations) + _sum(labels, profile.sample_labels)
    _check("stacks and labels", written, _TEXT_FLOOR_BYTES, _TEXT_FACTOR, file_bytes)


def check_frames(count: int, file_bytes: int) -> None:
    """Refuse a file whose stacks, written out, have more frames than any file of its size.

    Raises:
        ProfileFormatError: They have.
    """
    _check("frames", count, _FRAMES_FLOOR, _FRAMES_PER_BYTE, file_bytes)


def _sum(weights: Ints, places: Ints) -> int:
    """The sum of `weights[places]`, without building that."""
    return int(np.dot(np.bincount(places, minlength=len(weights)).astype(np.int64), weights)) if len(weights) else 0


def _check(what: str, count: int, floor: int, factor: int, file_bytes: int) -> None:
    if count > max(floor, factor * file_bytes):
        raise ProfileFormatError(
            f"written out, the {what} would be {count} for a file of {file_bytes} bytes",
            "no profiler writes such a file; record it again",
        )
