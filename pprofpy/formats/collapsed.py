"""Collapsed stacks: a line for each stack, `outermost;...;innermost value`, as flame graph scripts and py-spy have it.

The format knows neither units nor labels nor files. Written are function names and how often each stack was seen (the
first sample type that is a count, failing that the default one); threads are summed up, as py-spy's users expect.

Read are also files of two columns, base and new, as difffolded.pl writes them. Nothing marks the format, and any text
whose lines end in numbers resembles it: a file must look like stacks for the most part.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from pprofpy.errors import ProfileFormatError
from pprofpy.formats.decoding import decode_text
from pprofpy.formats.limits import BYTES_OF_FRAME, BYTES_OF_STACK, check_expansion, check_memory
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Collection, Frame, Function, Location, Mapping, Profile, ValueType

SAMPLE_TYPE = ValueType("samples", "count")
"""What the values of a file are taken for when it is read."""

BASE_AND_NEW = (ValueType("base", "count"), ValueType("new", "count"))
"""What those of a file of two columns are taken for; shown is the last one."""

MAPPING = Mapping(has_functions=True, has_filenames=True, has_line_numbers=True)
"""Frames read from a file come from a program that the file does not name."""

NO_STACK = "[no stack]"
"""Stands for samples of which no frame is known, so that the sum stays right."""

_VALUE = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_FRACTION = re.compile(r"[+-]?[0-9]*\.[0-9]*(?:[eE][+-]?[0-9]+)?", re.ASCII)
_COMMENT = re.compile(r"#(?:\s|$)")
_TWO = re.compile(r"\S\s+[+-]?[0-9]{1,19}$", re.ASCII)
_NUMBER_AT_END = re.compile(r"\s+(?=[+-]?[0-9]{1,19}$)")
_PROSE = re.compile(r"(?:\[[^\]]*\]|<[^>]*>|\([^)]*\))*[^\s(\[{<]*\s+[^\s(\[{<]")
"""Words with blanks between them, outside of brackets."""
_LINE_NUMBER = re.compile(r":(\d{1,9})\)", re.ASCII)
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_LARGEST_VALUE = 2**63 - 1


def write(profile: Profile) -> bytes:
    """Encode. In names, `;` becomes `:`, what would break a line a space, and what would not be read as one a `_`."""
    weights = np.zeros(len(profile.stacks), np.int64)
    np.add.at(weights, profile.sample_stacks, profile.values[:, _value_index(profile)])
    texts = [_location_text(profile, location) for location in profile.locations]
    values: dict[str, int] = {}
    for index in np.flatnonzero(weights).tolist():
        stack = ";".join(texts[location] for location in reversed(profile.stacks[index].tolist())) or NO_STACK
        stack = _as_stack(stack)
        values[stack] = values.get(stack, 0) + int(weights[index])
    return "".join(f"{stack} {value}\n" for stack, value in values.items()).encode("utf-8", "replace")


def _as_stack(text: str) -> str:
    """A stack that `read` takes for one: no comment, no number at its end, no prose, as a lone name with blanks is."""
    if _COMMENT.match(text):
        text = f"#_{text[2:]}"
    if not _looks_like_a_stack(text):
        text = re.sub(r"\s+", "_", text)
    if not _looks_like_a_stack(text):  # it ends as the beginning of a text does
        text += "_"
    return _NUMBER_AT_END.sub("_", text)


def read(data: bytes) -> Profile:
    """Decode. Frames that py-spy writes, `name (file:line)`, are taken apart; empty lines and `# comments` are skipped.

    Lines without a value are left out, and counted in the profile's notes.

    Raises:
        ProfileFormatError: There is no stack in it, it looks like other text, its values are fractions, or too large to
            add up.
    """
    text = decode_text(data)
    columns = _columns(text)
    builder = ProfileBuilder(BASE_AND_NEW if columns == 2 else [SAMPLE_TYPE], MAPPING)
    locations = _Locations(builder)
    total = stacks = without_value = 0
    for stack, values in _stacks(text, columns):
        if not values:
            without_value += 1
            continue
        total += max(map(abs, values))
        stacks += 1
        check_memory(len(locations) * BYTES_OF_FRAME + stacks * BYTES_OF_STACK, len(data))
        frames = [] if stack == NO_STACK else stack.split(";")
        builder.add_locations(tuple(locations[frame] for frame in reversed(frames)), values)
    if total > _LARGEST_VALUE:
        raise ProfileFormatError("the values of its stacks are too large to add up")
    profile = builder.build()
    check_expansion(profile, len(data))
    if without_value:
        profile.collection = Collection(notes=(_left_out(without_value),))
    return profile


def _lines(text: str) -> Iterator[str]:
    """Those that say something."""
    for line in io.StringIO(text, newline="\n"):
        stripped = line.strip()
        if stripped and not _COMMENT.match(stripped):
            yield stripped


def _stacks(text: str, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Each stack with its values, of which there are none if its line does not end in them."""
    for line in _lines(text):
        stack, *values = line.rsplit(maxsplit=columns)
        is_whole = len(values) == columns and all(map(_VALUE.fullmatch, values))
        yield stack, tuple(map(int, values)) if is_whole else ()


def _columns(text: str) -> int:
    """How many values each line has: 1 or 2.

    Raises:
        ProfileFormatError: These are no stacks, or their values are fractions.
    """
    seen = Counter[str]()
    for line in _lines(text):
        *before_last, last = line.rsplit(maxsplit=1)
        before = "".join(before_last)
        seen["lines"] += 1
        if before and _VALUE.fullmatch(last):
            seen["stacks"] += _looks_like_a_stack(before)
            seen["one value"] += 1
            seen["two values"] += bool(_TWO.search(before))
        elif ";" in before and _FRACTION.fullmatch(last):
            seen["fractions"] += 1
    if seen["fractions"]:
        raise ProfileFormatError(
            "its values are fractions, and collapsed stacks count whole samples", "multiply them, and round them off"
        )
    if not seen["one value"] or seen["stacks"] * 2 < seen["lines"]:
        raise ProfileFormatError(
            "this is no profile in any format that pprofpy reads",
            "it reads pprof (.pb.gz), speedscope (.json) and collapsed stacks (lines like 'main;work 42')",
        )
    return 2 if seen["two values"] == seen["one value"] else 1


def _looks_like_a_stack(text: str) -> bool:
    """Are these frames with semicolons between them, or is it one frame, which is a name and no prose?"""
    return ";" in text or not (_PROSE.match(text) or text.endswith((":", "=")))


def _left_out(lines: int) -> str:
    if lines == 1:
        return "1 line of the collapsed file had no value and was left out."
    return f"{lines} lines of the collapsed file had no value and were left out."


class _Locations(dict[str, int]):
    """Frame text -> location index, made on first use."""

    def __init__(self, builder: ProfileBuilder) -> None:
        super().__init__()
        self._builder = builder

    def __missing__(self, text: str) -> int:
        self[text] = index = self._builder.frame_location(_frame(text))
        return index


def _frame(text: str) -> Frame:
    """A frame as py-spy writes it: `name (file:line)`. In time that grows with its length: it may have megabytes.

    An absolute path may hold brackets, and begins at the first ` (/`; another name of a file holds none.
    """
    colon = text.rfind(":")
    number = _LINE_NUMBER.fullmatch(text, max(colon, 0))
    if number is None:
        return Frame(Function(text, text))
    end = _first_path(text)
    if end < 0:
        end = text.rfind(" (", 0, colon)
        if end < 1 or text[end - 1].isspace() or not _is_plain(text[end + 2 : colon]):
            return Frame(Function(text, text))
    return Frame(Function(text[:end], text[:end], text[end + 2 : colon]), int(number[1]))


def _first_path(text: str) -> int:
    """Where a name ends that is followed by an absolute path, or -1."""
    place = text.find(" (/")
    while place >= 0 and (place == 0 or text[place - 1].isspace()):
        place = text.find(" (/", place + 1)
    return place


def _is_plain(file: str) -> bool:
    return bool(file) and "(" not in file and ")" not in file


def _value_index(profile: Profile) -> int:
    counts = [index for index, value_type in enumerate(profile.sample_types) if value_type.unit == "count"]
    return counts[0] if counts else profile.value_index()


def _location_text(profile: Profile, location: Location) -> str:
    """The frames at a location, outermost first."""
    names = (_UNFIT.sub(" ", frame.function.name).strip() for frame in reversed(profile.frames_of(location)))
    return ";".join(name.replace(";", ":") or "<unknown>" for name in names)
