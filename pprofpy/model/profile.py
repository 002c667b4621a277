"""The nouns of profiling: ValueType, Function, Frame, Location, Label, Stack, Sample and the Profile that holds them.

A Profile is unordered and mergeable. It is stored in columns (as profile.proto is): interned tables of functions,
locations, stacks and label sets, and one row per sample of integer ids and values. A million samples are then a few
NumPy arrays, not a few million objects. `Profile.samples()` gives the friendly row-wise view for code that wants it.

Stacks are leaf-first everywhere: index 0 is the function that was running.

Source: https://github.com/google/pprof/blob/main/proto/profile.proto
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from pprofpy.errors import ProfileFormatError, UsageError
from pprofpy.model.losses import Losses, added, since
from pprofpy.model.stack_table import Ints, Mask, Stacks


class ValueType(NamedTuple):
    """What a column of values counts, and in which unit: `cpu/nanoseconds`."""

    type: str
    unit: str

    def __str__(self) -> str:
        return f"{self.type}/{self.unit}"


class Function(NamedTuple):
    """A function. `name` is what tables show (`module.qualname` for Python); `system_name` the bare one."""

    name: str
    system_name: str = ""
    filename: str = ""
    start_line: int = 0


class Frame(NamedTuple):
    """A function at a line: one entry of a call stack."""

    function: Function
    line: int = 0
    column: int = 0


class Mapping(NamedTuple):
    """A file mapped into the target's memory; `[python]` stands for everything the interpreter ran."""

    filename: str = ""
    start: int = 0
    limit: int = 0
    offset: int = 0
    build_id: str = ""
    has_functions: bool = False
    has_filenames: bool = False
    has_line_numbers: bool = False
    has_inline_frames: bool = False


PYTHON_MAPPING = Mapping("[python]", has_functions=True, has_filenames=True, has_line_numbers=True)
KERNEL_MAPPING = Mapping("[kernel]", has_functions=True)


class Line(NamedTuple):
    """A Frame whose function is an index into `Profile.functions`."""

    function: int
    line: int = 0
    column: int = 0


class Location(NamedTuple):
    """A place in a program: an address, and the frames there (more than one where calls were inlined; leaf-first).

    `mapping` is an index into `Profile.mappings`, or -1.
    """

    lines: tuple[Line, ...]
    mapping: int = -1
    address: int = 0
    is_folded: bool = False


class Label(NamedTuple):
    """A fact about a sample, such as `thread=MainThread` or `tid=42`; numbers may have a unit."""

    key: str
    value: str | int
    unit: str = ""


LabelSet = tuple[Label, ...]
Stack = tuple[Frame, ...]


class Sample(NamedTuple):
    """One row of a profile, spelled out: its stack (leaf-first), one value per sample type, its labels."""

    stack: Stack
    values: tuple[int, ...]
    labels: LabelSet = ()


COUNTS = ("asked", "got", "late", "dropped", "truncated", "errors")
"""The numbers of a Collection, in the order in which views show them."""


@dataclass(frozen=True, slots=True)
class Collection:
    """How a profile came about, and what was lost on the way. Loss is data: every view shows it.

    Counts of -1 mean "the engine cannot know". Saved in the pprof file as a comment.

    Attributes:
        engine: What took the samples, with its version.
        target: The process in words.
        asked: How many samples were due.
        got: How many samples were taken.
        late: How many were skipped because the engine fell behind.
        dropped: Samples taken but lost before they were counted.
        truncated: Stacks whose root side was cut off.
        errors: Samples whose stack could not be read.
        losses: What could not be had, by name; `reports/losses.py` puts it into words.
        notes: What a reader must know of the profile, each a sentence.
        basis: What its values are by the options that were given, each a sentence: no loss.
        started_ns: When the process started, Unix time in nanoseconds; of several, the first.
    """

    engine: str = ""
    target: str = ""
    asked: int = -1
    got: int = -1
    late: int = -1
    dropped: int = -1
    truncated: int = -1
    errors: int = -1
    losses: Losses = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    basis: tuple[str, ...] = ()
    started_ns: int = -1

    def since(self, earlier: Collection) -> Collection:
        """Return the increase of the counts since `earlier`, a state of the same recording."""
        counts = {
            name: getattr(self, name) - max(getattr(earlier, name), 0) for name in COUNTS if getattr(self, name) >= 0
        }
        return replace(self, losses=since(self.losses, earlier.losses), **counts)

    def merge(self, other: Collection) -> Collection:
        """Both recordings as one: counts add up where both are known."""
        if other == Collection():
            return self
        if self == Collection():
            return other

        def add(mine: int, theirs: int) -> int:
            return -1 if -1 in (mine, theirs) else mine + theirs

        def join(mine: str, theirs: str) -> str:
            known = mine.split(", ") if mine else []
            return ", ".join([*known, *(part for part in theirs.split(", ") if part and part not in known)])

        counts = {name: add(getattr(self, name), getattr(other, name)) for name in COUNTS}
        return replace(
            self,
            engine=join(self.engine, other.engine),
            target=join(self.target, other.target),
            started_ns=min((one.started_ns for one in (self, other) if one.started_ns >= 0), default=-1),
            losses=added(self.losses, other.losses),
            notes=tuple(dict.fromkeys(self.notes + other.notes)),
            basis=tuple(dict.fromkeys(self.basis + other.basis)),
            **counts,
        )


def _no_ints() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(slots=True, repr=False)
class Profile:
    """A set of samples with everything needed to read them.

    Attributes:
        sample_types: What each column of `values` holds; at least one.
        functions: Interned functions.
        mappings: Interned mappings.
        locations: Interned locations; their lines index `functions`, their mapping `mappings`.
        stacks: Interned stacks of indices into `locations`, leaf-first.
        label_sets: Interned label sets.
        sample_stacks: int64 (n,): each sample's stack, an index into `stacks`.
        sample_labels: int64 (n,): each sample's labels, an index into `label_sets`.
        values: int64 (n, len(sample_types)), in the units of `sample_types`.
        period_type: What was counted between two samples.
        period: How much of it.
        time_ns: When the recording began, Unix time in nanoseconds; 0 if unknown.
        duration_ns: How long it lasted; 0 if unknown.
        default_sample_type: The type that views show by default; empty means the last one.
        drop_frames, keep_frames: Regular expressions of frames that the writer wants hidden (see `graph.prune`).
        comments: Free text of whoever wrote the profile.
        doc_url: Where the profile is explained.
        collection: How it was recorded and what was lost.
    """

    sample_types: tuple[ValueType, ...]
    functions: list[Function] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    locations: list[Location] = field(default_factory=list)
    stacks: Stacks = field(default_factory=lambda: Stacks(np.zeros(1, np.int64), _no_ints()))
    label_sets: list[LabelSet] = field(default_factory=lambda: [()])
    sample_stacks: Ints = field(default_factory=_no_ints)
    sample_labels: Ints = field(default_factory=_no_ints)
    values: Ints = field(default_factory=lambda: np.zeros((0, 1), np.int64))
    period_type: ValueType | None = None
    period: int = 0
    time_ns: int = 0
    duration_ns: int = 0
    default_sample_type: str = ""
    drop_frames: str = ""
    keep_frames: str = ""
    comments: tuple[str, ...] = ()
    doc_url: str = ""
    collection: Collection = field(default_factory=Collection)

    def __len__(self) -> int:
        return len(self.sample_stacks)

    def __repr__(self) -> str:
        types = ", ".join(map(str, self.sample_types))
        return f"<Profile of {len(self)} samples ({types}), {len(self.stacks)} stacks, {len(self.functions)} functions>"

    # -- reading ---------------------------------------------------------------------------------------------------

    def value_index(self, name: str = "") -> int:
        """The column of `values` that `name` means: a sample type, its index, or "" for the default.

        Raises:
            UsageError: There is no such sample type; the hint lists those there are.
        """
        if not name:
            wanted = self.default_sample_type
            names = [value_type.type for value_type in self.sample_types]
            return names.index(wanted) if wanted in names else len(names) - 1
        for index, value_type in enumerate(self.sample_types):
            if name in (value_type.type, str(value_type), str(index), f"{value_type.type}_{value_type.unit}"):
                return index
        known = ", ".join(value_type.type for value_type in self.sample_types)
        raise UsageError(f"this profile has no sample type {name!r}", f"it has: {known}")

    def frames_of(self, location: Location) -> Stack:
        """The frames at a location, leaf-first; where nothing but an address is known, a frame named after it."""
        if not location.lines:
            address = f"{location.address:016x} " if location.address else ""
            return (Frame(Function(address + self.module_name(location))),)
        return tuple(Frame(self.functions[line.function], line.line, line.column) for line in location.lines)

    def module_name(self, location: Location) -> str:
        """The binary that a location lies in, as `[libc.so.6]`; `<unknown>` if the profile does not say."""
        filename = self.mappings[location.mapping].filename if location.mapping >= 0 else ""
        return f"[{filename.rpartition('/')[2]}]" if filename else "<unknown>"

    def stack_frames(self, stack_index: int) -> Stack:
        """Stack `stack_index` as frames, leaf-first."""
        return tuple(
            frame
            for location_index in self.stacks[stack_index]
            for frame in self.frames_of(self.locations[location_index])
        )

    def samples(self) -> Iterator[Sample]:
        """All samples, row by row. Convenient, not fast: views over large profiles use the columns."""
        places = [self.frames_of(location) for location in self.locations]
        stacks: dict[int, Stack] = {}
        for stack, labels, values in zip(self.sample_stacks, self.sample_labels, self.values, strict=True):
            if stack not in stacks:
                stacks[int(stack)] = tuple(frame for place in self.stacks[stack].tolist() for frame in places[place])
            yield Sample(stacks[stack], tuple(values.tolist()), self.label_sets[labels])

    def total(self, value_index: int) -> int:
        """The sum of a column, counting what a difference took away as positive (as `go tool pprof` does)."""
        return int(np.abs(self.values[:, value_index]).sum())

    def check_valid(self) -> None:
        """Check that every id points at something and that the columns fit together.

        Raises:
            ProfileFormatError: They do not.
        """
        if not self.sample_types:
            raise ProfileFormatError("the profile names no sample type")
        if self.values.shape != (len(self), len(self.sample_types)) or len(self.sample_labels) != len(self):
            raise ProfileFormatError(
                f"the samples do not have {len(self.sample_types)} values each, as the sample types demand"
            )
        _check_ids("sample", "stack", self.sample_stacks, len(self.stacks))
        _check_ids("sample", "label set", self.sample_labels, len(self.label_sets))
        _check_ids("stack", "location", self.stacks.locations, len(self.locations))
        lines = [line.function for location in self.locations for line in location.lines]
        _check_ids("location", "function", np.asarray(lines, np.int64), len(self.functions))
        mappings = [location.mapping + 1 for location in self.locations]
        _check_ids("location", "mapping", np.asarray(mappings, np.int64), len(self.mappings) + 1)

    # -- deriving: each of these leaves the profile as it is and returns another ---------------------------------------

    def select(self, rows: Mask) -> Profile:
        """The samples whose flag is set; the tables are shared with this profile."""
        return replace(
            self,
            sample_stacks=self.sample_stacks[rows],
            sample_labels=self.sample_labels[rows],
            values=self.values[rows],
        )

    def scale(self, ratios: Sequence[float]) -> Profile:
        """Every column times its ratio (one per sample type), rounded to whole units; all-zero samples go.

        Raises:
            UsageError: The number of ratios is not that of the sample types.
        """
        if len(ratios) != len(self.sample_types):
            raise UsageError(f"{len(ratios)} ratios for {len(self.sample_types)} sample types")
        columns = [
            column if ratio == 1 else -column if ratio == -1 else np.rint(column * ratio).astype(np.int64)
            for column, ratio in zip(self.values.T, ratios, strict=True)
        ]
        scaled = replace(self, values=np.stack(columns, axis=1))
        return scaled.select((scaled.values != 0).any(axis=1))

    def compact(self) -> Profile:
        """Merge samples with equal stack and labels; drop those whose sum is zero."""
        key = self.sample_stacks * max(len(self.label_sets), 1) + self.sample_labels
        _, first, group = np.unique(key, return_index=True, return_inverse=True)
        sums = np.zeros((len(first), len(self.sample_types)), np.int64)
        np.add.at(sums, group.reshape(-1), self.values)
        merged = replace(
            self,
            sample_stacks=self.sample_stacks[first],
            sample_labels=self.sample_labels[first],
            values=sums,
        )
        return merged.select((sums != 0).any(axis=1))


def _check_ids(owner: str, kind: str, ids: Ints, count: int) -> None:
    if len(ids) and (ids.min() < 0 or ids.max() >= count):
        raise ProfileFormatError(f"a {owner} refers to a {kind} that the profile does not have")
