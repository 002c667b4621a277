"""Filter a Profile: select samples (focus, ignore, tags) and frames (show, hide).

The rules are those of the `go tool pprof` options with these names. Each function returns a new Profile.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pprofpy.errors import UsageError
from pprofpy.model.profile import Label, LabelSet, Location, Profile
from pprofpy.model.stack_table import Ints, Mask
from pprofpy.units import scale


@dataclass(frozen=True, slots=True)
class Filters:
    """What the user asked to see; empty strings ask for nothing.

    Attributes:
        focus: Regular expression; keep samples with a matching frame.
        ignore: Regular expression; drop samples with a matching frame.
        show: Regular expression; keep only the matching frames.
        hide: Regular expression; drop the matching frames.
        show_from: Regular expression; drop all frames above the matching one nearest to the root.
        tag_focus, tag_ignore: `key=regex`, `regex` or a range such as `bytes=4kb:1mb`; select samples by label.
    """

    focus: str = ""
    ignore: str = ""
    show: str = ""
    hide: str = ""
    show_from: str = ""
    tag_focus: str = ""
    tag_ignore: str = ""

    def active(self) -> dict[str, str]:
        """The filters in force, by option name."""
        named = {
            "focus": self.focus,
            "ignore": self.ignore,
            "show": self.show,
            "hide": self.hide,
            "show-from": self.show_from,
            "tagfocus": self.tag_focus,
            "tagignore": self.tag_ignore,
        }
        return {name: value for name, value in named.items() if value}


def apply(profile: Profile, filters: Filters) -> tuple[Profile, list[str]]:
    """All filters, samples before frames.

    Returns:
        What is left, and the option names of the filters that matched nothing (worth a warning).

    Raises:
        UsageError: An expression is not valid.
    """
    unmatched = []

    def choose(option: str, pattern: str, find: Callable[[Profile, str], Mask]) -> Mask:
        found = find(profile, pattern)
        if not found.any():
            unmatched.append(option)
        return found

    rows = np.ones(len(profile), np.bool_)
    if filters.focus:
        rows &= choose("focus", filters.focus, _samples_touching)
    if filters.ignore:
        rows &= ~choose("ignore", filters.ignore, _samples_touching)
    if filters.tag_focus:
        rows &= choose("tagfocus", filters.tag_focus, _samples_tagged)
    if filters.tag_ignore:
        rows &= ~choose("tagignore", filters.tag_ignore, _samples_tagged)
    profile = profile.select(rows)
    if filters.hide:
        profile = _keep_lines(profile, ~choose("hide", filters.hide, _lines_matching))
    if filters.show:
        profile = _keep_lines(profile, choose("show", filters.show, _lines_matching))
    if filters.show_from:
        profile = _cut_above(profile, choose("show-from", filters.show_from, _lines_matching))
    return profile, unmatched


def prune(profile: Profile) -> Profile:
    """Drop what the profile's writer marked as noise: frames matching `drop_frames`, and all that they called.

    Frames on the root side of the first ordinary one stay, so that no stack vanishes altogether.

    Source: `drop_frames`, `keep_frames` in profile.proto; Go's heap profiles hide the allocator in this way.
    """
    if not profile.drop_frames:
        return profile
    drop = _matcher_of_file(profile.drop_frames)
    keep = _matcher_of_file(profile.keep_frames) if profile.keep_frames else lambda _: False
    names = (_bare_name(function.name).encode("utf-8", "replace") for function in profile.functions)
    noise = [drop(name) and not keep(name) for name in names]
    # How many lines of each location (from the leaf side) go: none, some of the inlined ones, or all.
    doomed = [
        max((i + 1 for i, line in enumerate(location.lines) if noise[line.function]), default=0)
        for location in profile.locations
    ]
    locations = [
        location._replace(lines=location.lines[count:]) if 0 < count < len(location.lines) else location
        for location, count in zip(profile.locations, doomed, strict=True)
    ]
    touched = np.array([count > 0 for count in doomed], np.bool_)
    whole = np.array(
        [0 < count == len(loc.lines) for loc, count in zip(profile.locations, doomed, strict=True)], np.bool_
    )
    stacks = profile.stacks
    place = np.arange(len(stacks.locations), dtype=np.int64)
    at = stacks.locations
    first_ordinary = _last_place(stacks.owners()[~touched[at]], place[~touched[at]], len(stacks))
    below = touched[at] & (place < first_ordinary[stacks.owners()])
    cut = _last_place(stacks.owners()[below], place[below], len(stacks))[stacks.owners()]
    survives = (place > cut) | ((place == cut) & ~whole[at])
    return replace(profile, locations=locations, stacks=stacks.keep(survives))


_LONGEST_EXPRESSION = 4096
_EXPRESSION_BYTES = 1 << 19
"""What RE2 may spend on an expression; one that needs more is refused."""


def _matcher_of_file(expression: str) -> Callable[[bytes], bool]:
    """A regular expression that a profile brings along: RE2's, as profile.proto has it, in time linear in the name.

    Python's own would let a file of a few bytes keep us busy for ever.

    Raises:
        UsageError: It is not valid, or too complex.
    """
    import re2  # it takes a while to load, and few profiles need it

    options = re2.Options()
    options.log_errors, options.max_mem = False, _EXPRESSION_BYTES
    options.never_capture = True  # finding the groups as well takes a slower way
    try:
        if len(expression) > _LONGEST_EXPRESSION:
            raise ValueError("it is too long")
        pattern = re2.compile(expression.encode("utf-8", "replace"), options)
    except (re2.error, ValueError) as error:
        raise UsageError(f"{expression[:80]!r} is not a regular expression of RE2's: {error}") from error
    return lambda name: pattern.fullmatch(name) is not None


def compile_regex(pattern: str) -> re.Pattern[str]:
    """A user's regular expression.

    Raises:
        UsageError: It is not valid; says where.
    """
    try:
        return re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UsageError(f"{pattern!r} is not a regular expression: {error}") from error


# -- by frame ------------------------------------------------------------------------------------------------------


def _matching_functions(profile: Profile, regex: re.Pattern[str]) -> list[bool]:
    return [bool(regex.search(f.name) or regex.search(f.filename)) for f in profile.functions]


def _matching_mappings(profile: Profile, regex: re.Pattern[str]) -> list[bool]:
    """One flag per mapping and a last one, False, for locations without (their mapping is -1)."""
    return [*(bool(regex.search(mapping.filename)) for mapping in profile.mappings), False]


def _samples_touching(profile: Profile, pattern: str) -> Mask:
    """The samples with a frame whose function, file or mapping matches."""
    regex = compile_regex(pattern)
    functions, mappings = _matching_functions(profile, regex), _matching_mappings(profile, regex)
    locations = np.array(
        [mappings[loc.mapping] or any(functions[line.function] for line in loc.lines) for loc in profile.locations],
        np.bool_,
    )
    return profile.stacks.any(locations[profile.stacks.locations])[profile.sample_stacks]


def _lines_matching(profile: Profile, pattern: str) -> Mask:
    """One flag per line of every location, in order (a location without lines counts as one)."""
    regex = compile_regex(pattern)
    functions, mappings = _matching_functions(profile, regex), _matching_mappings(profile, regex)
    flags: list[bool] = []
    for location in profile.locations:
        whole = mappings[location.mapping]
        flags += [whole or functions[line.function] for line in location.lines] or [whole]
    return np.array(flags, np.bool_)


def _keep_lines(profile: Profile, kept: Mask) -> Profile:
    """Only the flagged lines; locations left without any leave their stacks, samples left without a stack go."""
    flags = iter(kept.tolist())
    locations: list[Location] = []
    alive: list[bool] = []
    for location in profile.locations:
        mine = [next(flags) for _ in location.lines or [None]]
        lines = tuple(line for line, flag in zip(location.lines, mine, strict=False) if flag)
        locations.append(location._replace(lines=lines))
        alive.append(any(mine))
    stacks = profile.stacks.keep(np.array(alive, np.bool_)[profile.stacks.locations])
    return replace(profile, locations=locations, stacks=stacks).select(stacks.depths[profile.sample_stacks] > 0)


def _cut_above(profile: Profile, matching: Mask) -> Profile:
    """Cut each stack above its matching line nearest to the root; samples without a match go."""
    flags = iter(matching.tolist())
    locations: list[Location] = []
    matched: list[bool] = []
    for location in profile.locations:
        mine = [next(flags) for _ in location.lines or [None]]
        highest = max((i for i, flag in enumerate(mine) if flag), default=-1)
        matched.append(highest >= 0)
        locations.append(location._replace(lines=location.lines[: highest + 1]) if highest >= 0 else location)
    stacks = profile.stacks
    at_match = np.array(matched, np.bool_)[stacks.locations]
    place = np.arange(len(stacks.locations), dtype=np.int64)
    top = _last_place(stacks.owners()[at_match], place[at_match], len(stacks))
    rows = (top >= 0)[profile.sample_stacks]
    kept = stacks.keep(place <= top[stacks.owners()])
    return replace(profile, locations=locations, stacks=kept).select(rows)


def _last_place(owners: Ints, places: Ints, count: int) -> Ints:
    """For each of `count` stacks the largest of its places (nearest to the root), or -1."""
    last = np.full(count, -1, np.int64)
    np.maximum.at(last, owners, places)
    return last


_CALL_SIGNATURE = re.compile(r"\(anonymous namespace\)|operator\(\)|\(")


def _bare_name(name: str) -> str:
    """A C++ name without its argument list, as `drop_frames` expressions expect it."""
    bare = name.removeprefix(".")
    for match in _CALL_SIGNATURE.finditer(bare):
        if match[0] == "(":
            return bare[: match.start()]
    return bare


# -- by label ------------------------------------------------------------------------------------------------------


def _samples_tagged(profile: Profile, expression: str) -> Mask:
    """The samples whose labels match a tag expression."""
    key, equals, wanted = expression.partition("=")
    if not equals:
        key, wanted = "", expression
    in_range = _parse_range(wanted)
    regexes = [] if in_range else [compile_regex(part) for part in wanted.split(",")]

    def matches(labels: LabelSet) -> bool:
        named = [label for label in labels if not key or label.key == key]
        if in_range:
            return any(in_range(label) for label in named)
        texts = [_tag_text(label, with_key=not key) for label in named]
        found = [any(map(regex.search, texts)) for regex in regexes]
        return any(found) if key else all(found)

    flags = np.array([matches(labels) for labels in profile.label_sets], np.bool_)
    return flags[profile.sample_labels]


def _tag_text(label: Label, *, with_key: bool) -> str:
    return f"{label.key}:{label.value}" if with_key else str(label.value)


_RANGE = re.compile(
    r"(?P<low>[+-]?\d+)?(?P<low_unit>[a-z]*)(?P<colon>:)?(?P<high>[+-]?\d+)?(?P<high_unit>[a-z]*)", re.I
)


def _parse_range(text: str) -> Callable[[Label], bool] | None:
    """A test for numeric labels: `32kb` (equal), `:64kb` (at most), `4mb:` (at least), `12kb:64mb` (between)."""
    match = _RANGE.fullmatch(text)
    if match is None or (match["low"] is None and match["high"] is None):
        return None
    low, high = match["low"], match["high"] if match["colon"] else match["low"]
    low_unit, high_unit = match["low_unit"], match["high_unit"] if match["colon"] else match["low_unit"]
    if (low is None and low_unit) or (high is None and high_unit):
        return None

    def test(label: Label) -> bool:
        if isinstance(label.value, str):
            return False
        unit = label.unit or label.key
        return (low is None or _at_least(label.value, unit, int(low), low_unit)) and (
            high is None or _at_least(-label.value, unit, -int(high), high_unit)
        )

    return test


def _at_least(value: int, unit: str, bound: int, bound_unit: str) -> bool:
    """Is `value` >= `bound`, whatever units they are in? Never, where the units do not convert."""
    bound_number, bound_name = scale(bound, bound_unit, bound_unit)
    number, name = scale(value, unit, bound_name)
    return name == bound_name and number >= bound_number
