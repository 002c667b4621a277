"""Several profiles as one, and one with its labels in its stacks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pprofpy.errors import UsageError
from pprofpy.model.builder import ProfileBuilder
from pprofpy.model.profile import Function, Label, LabelSet, Line, Location, Profile
from pprofpy.model.stack_table import Ints, Stacks, offsets_of


def merge(profiles: Sequence[Profile]) -> Profile:
    """All samples of several profiles in one; the first gives period, types and comments.

    Sample types and their order must be equal: a profile of another kind is refused, not merged in part.

    Raises:
        UsageError: No profile, or their sample or period types differ.
    """
    if not profiles:
        raise UsageError("there is no profile to merge")
    first = profiles[0]
    for other in profiles[1:]:
        if other.sample_types != first.sample_types or other.period_type != first.period_type:
            raise UsageError(f"profiles of different kinds cannot be merged: {_kind(first)} against {_kind(other)}")
    if len(profiles) == 1:
        return first
    builder = ProfileBuilder(first.sample_types)
    stack_ids: dict[bytes, int] = {}
    label_ids: dict[LabelSet, int] = {}
    columns: list[tuple[Ints, Ints, Ints]] = []
    for profile in profiles:
        located = _intern_locations(builder, profile)
        stacks = Stacks(profile.stacks.offsets, located[profile.stacks.locations])
        stack_index = _intern_rows(stack_ids, stacks)
        label_index = np.array(
            [label_ids.setdefault(labels, len(label_ids)) for labels in profile.label_sets], np.int64
        )
        columns.append((stack_index[profile.sample_stacks], label_index[profile.sample_labels], profile.values))
    tables = builder.build()
    collection = first.collection
    for other in profiles[1:]:
        collection = collection.merge(other.collection)
    starts = [profile.time_ns for profile in profiles if profile.time_ns]
    return replace(
        first,
        functions=tables.functions,
        mappings=tables.mappings,
        locations=tables.locations,
        stacks=Stacks.of(np.frombuffer(row, np.int64) for row in stack_ids),
        label_sets=list(label_ids),
        sample_stacks=np.concatenate([stack for stack, _, _ in columns]),
        sample_labels=np.concatenate([labels for _, labels, _ in columns]),
        values=np.concatenate([values for _, _, values in columns]),
        time_ns=min(starts, default=0),
        duration_ns=sum(profile.duration_ns for profile in profiles),
        period=max(profile.period for profile in profiles),
        comments=tuple(dict.fromkeys(comment for profile in profiles for comment in profile.comments)),
        collection=collection,
    ).compact()


def with_last_names(profile: Profile) -> Profile:
    """The same samples, those of one thread (pid and tid) under its last name: it knows all that came before."""
    last: dict[tuple[object, object], Label] = {}
    threads = []
    for labels in profile.label_sets:
        facts = {label.key: label for label in labels}
        thread = (facts["pid"].value if "pid" in facts else 0, facts["tid"].value if "tid" in facts else 0)
        threads.append(thread)
        if thread[1] and "thread" in facts:
            last[thread] = facts["thread"]
    ids: dict[LabelSet, int] = {}
    index = np.array(
        [
            ids.setdefault(
                tuple(last.get(thread, label) if label.key == "thread" else label for label in labels), len(ids)
            )
            for thread, labels in zip(threads, profile.label_sets, strict=True)
        ],
        np.int64,
    )
    if list(ids) == profile.label_sets:
        return profile
    return replace(profile, label_sets=list(ids), sample_labels=index[profile.sample_labels]).compact()


def with_names_told_apart(profile: Profile) -> Profile:
    """Give functions of one name in one file that begin at different lines that line as part of their names.

    There are lambdas, redefinitions, and until Python 3.10 methods of different classes. Where there is only one, its
    name is as it is: so that versions of a program can be compared.
    """
    starts: defaultdict[tuple[str, str], set[int]] = defaultdict(set)
    plain = [function.name.removesuffix(f":{function.start_line}") for function in profile.functions]
    for name, function in zip(plain, profile.functions, strict=True):
        if function.start_line > 0:
            starts[name, function.filename].add(function.start_line)
    functions = [
        function._replace(name=f"{name}:{function.start_line}")
        if function.start_line > 0 and len(starts[name, function.filename]) > 1
        else function
        for name, function in zip(plain, profile.functions, strict=True)
    ]
    if functions == profile.functions:
        return profile
    ids: dict[Function, int] = {}
    index = [ids.setdefault(function, len(ids)) for function in functions]  # windows may have told it apart before
    locations = [
        location._replace(lines=tuple(line._replace(function=index[line.function]) for line in location.lines))
        for location in profile.locations
    ]
    return replace(profile, functions=list(ids), locations=locations)


def root_by_label(profile: Profile, key: str) -> Profile:
    """Put the value of a label below each stack's outermost frame, as a frame of its own: `thread worker-1`."""
    texts = [
        " ".join([key, *(str(label.value) for label in labels if label.key == key)]) for labels in profile.label_sets
    ]
    roots = {text: index for index, text in enumerate(dict.fromkeys(texts))}
    first_function, first_location = len(profile.functions), len(profile.locations)
    root_of_labels = np.array([first_location + roots[text] for text in texts], np.int64)
    pairs, stack_of_sample = np.unique(
        np.stack([profile.sample_stacks, root_of_labels[profile.sample_labels]]), axis=1, return_inverse=True
    )
    stacks = profile.stacks.take(pairs[0])
    return replace(
        profile,
        functions=[*profile.functions, *map(Function, roots)],
        locations=[*profile.locations, *(Location((Line(first_function + i),)) for i in range(len(roots)))],
        stacks=Stacks(offsets_of(stacks.depths + 1), np.insert(stacks.locations, stacks.offsets[1:], pairs[1])),
        sample_stacks=stack_of_sample.reshape(-1).astype(np.int64),
    )


def _kind(profile: Profile) -> str:
    return ",".join(map(str, profile.sample_types)) + (f" per {profile.period_type}" if profile.period_type else "")


def _intern_locations(builder: ProfileBuilder, profile: Profile) -> Ints:
    """Where each location of `profile` is in the builder's tables."""
    functions = [builder.function(function) for function in profile.functions]
    mappings = [builder.mapping(mapping) for mapping in profile.mappings]
    moved = (
        location._replace(
            lines=tuple(line._replace(function=functions[line.function]) for line in location.lines),
            mapping=mappings[location.mapping] if location.mapping >= 0 else -1,
        )
        for location in profile.locations
    )
    return np.array([builder.location(location) for location in moved], np.int64)


def _intern_rows(known: dict[bytes, int], stacks: Stacks) -> Ints:
    """Give equal stacks equal ids across profiles; `known` maps a stack's bytes to its id and grows."""
    data = stacks.locations.tobytes()
    edges = (stacks.offsets * 8).tolist()
    return np.array([known.setdefault(data[edges[i] : edges[i + 1]], len(known)) for i in range(len(stacks))], np.int64)
