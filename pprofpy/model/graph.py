"""From a Profile to flat, cum, edges and call trees. The only place that computes them.

*flat* is what a function spent itself, *cum* what it and everything it called spent. A function that occurs several
times in one stack (recursion) counts once for that stack. The rules are those of `go tool pprof`, whose numbers ours
must equal.

Everything works on columns: a stack becomes a row of entity ids (an entity is a function, a line or a file, depending
on the granularity), and NumPy adds up.
"""

from __future__ import annotations

import posixpath
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from pprofpy.model.profile import Location, Profile
from pprofpy.model.stack_table import Ints, Mask, Stacks, offsets_of

BASE_LABEL = "pprof::base"
"""Marks samples subtracted by a difference; percentages are then shares of the base (as in `go tool pprof`)."""


class Granularity(StrEnum):
    """What a row of a table stands for."""

    FUNCTIONS = "functions"
    FILEFUNCTIONS = "filefunctions"
    LINES = "lines"
    FILES = "files"


class Entity(NamedTuple):
    """A function, line or file, with the parts that the granularity keeps; the others are empty."""

    name: str
    filename: str = ""
    line: int = 0

    def __str__(self) -> str:
        place = f"{self.filename}:{self.line}" if self.line else self.filename
        return " ".join(filter(None, (self.name, place))) or "<unknown>"


@dataclass(frozen=True, slots=True)
class Edges:
    """Who called whom, and what was spent below that call.

    Attributes:
        callers, callees: int64 indices into `Graph.entities`.
        weights: What the callee and everything below it spent when called from this caller.
        inlined: True where every such call was inlined by a compiler.
    """

    callers: Ints
    callees: Ints
    weights: Ints
    inlined: Mask

    def heavier_than(self, cutoff: int) -> Edges:
        """The edges that carry at least `cutoff`."""
        kept = np.abs(self.weights) >= cutoff
        return Edges(self.callers[kept], self.callees[kept], self.weights[kept], self.inlined[kept])


@dataclass(frozen=True, slots=True)
class Graph:
    """Flat and cum for every entity of a profile, for one of its sample types.

    Attributes:
        entities: What the ids below stand for. Entities that no sample touches may occur, with cum 0.
        flat, cum: int64, one per entity, in the sample type's unit.
        total: What 100 % is, in the same unit.
        unit: That unit.
        rows: Every stack as entity ids, leaf-first.
        inlined: One per entry of `rows`: was it inlined into the entry after it?
        weights: int64, what each row of `rows` weighs.
        counted: Which rows have samples that weigh something, though they may cancel out.
        kernel: The entities that occur in the kernel alone.
    """

    entities: list[Entity]
    flat: Ints
    cum: Ints
    total: int
    unit: str
    rows: Stacks
    inlined: Mask
    weights: Ints
    counted: Mask
    kernel: frozenset[Entity] = frozenset()

    def touched(self) -> Ints:
        """Indices of the entities that have a value: int64, rising."""
        return np.flatnonzero((self.flat != 0) | (self.cum != 0))

    def order(self, *, by_cum: bool = False, ties_by_name: bool = True) -> list[int]:
        """Indices of the touched entities, largest first.

        Args:
            by_cum: By cum, not by flat.
            ties_by_name: Of equal ones, the first by name comes first, as in `go tool pprof`; else the one that is
                larger in the other value.
        """
        flat, cum = np.abs(self.flat).tolist(), np.abs(self.cum).tolist()
        first, second = (cum, flat) if by_cum else (flat, cum)
        names = {index: str(self.entities[index]) for index in self.touched().tolist()}
        if ties_by_name:
            return sorted(names, key=lambda index: (-first[index], names[index], -second[index]))
        return sorted(names, key=lambda index: (-first[index], -second[index], names[index]))

    def without(self, dropped: Mask) -> Graph:
        """The graph as if the flagged entities were not there: their callers call their callees.

        What a dropped entity spent itself is not handed to its caller; flat and cum of the others stay.
        """
        kept = ~dropped
        flags = kept[self.rows.locations]
        return replace(
            self,
            flat=np.where(kept, self.flat, 0),
            cum=np.where(kept, self.cum, 0),
            rows=self.rows.keep(flags),
            inlined=self.inlined[flags],
        )

    def edges(self) -> Edges:
        """All caller-callee pairs; a pair that occurs several times in one stack counts once for it."""
        count = max(len(self.entities), 1)
        pieces = [self._edges_of(first, last) for first, last in _blocks(self.rows)]
        keys = np.concatenate([_NONE, *(keys for keys, _, _ in pieces)])
        pairs = _distinct(keys)
        place = np.searchsorted(pairs, keys)
        weights = np.zeros(len(pairs), np.int64)
        np.add.at(weights, place, np.concatenate([_NONE, *(weights for _, weights, _ in pieces)]))
        inlined = np.ones(len(pairs), np.bool_)
        inlined[place[~np.concatenate([np.zeros(0, np.bool_), *(inlined for _, _, inlined in pieces)])]] = False
        return Edges(pairs // count, pairs % count, weights, inlined)

    def _edges_of(self, first: int, last: int) -> tuple[Ints, Ints, Mask]:
        """The pairs in the rows from `first` to `last`: caller * entities + callee, weight, inlined."""
        part = slice(self.rows.offsets[first], self.rows.offsets[last])
        owners, entries = self.rows.owners(first, last), self.rows.locations[part]
        adjacent = (owners[1:] == owners[:-1]) & (entries[1:] != entries[:-1]) & self.counted[owners[1:]]
        keys = entries[1:][adjacent] * max(len(self.entities), 1) + entries[:-1][adjacent]
        pairs = _distinct(keys)
        pair_of, owners, count = np.searchsorted(pairs, keys), owners[1:][adjacent], max(len(pairs), 1)
        once = _distinct(owners * count + pair_of)
        weights = np.zeros(len(pairs), np.int64)
        np.add.at(weights, once % count, self.weights[once // count])
        inlined = np.ones(len(pairs), np.bool_)
        inlined[pair_of[~self.inlined[part][:-1][adjacent]]] = False
        return pairs, weights, inlined


@dataclass(frozen=True, slots=True)
class CallTree:
    """All stacks as one tree, root first: what a flame graph draws.

    Node 0 is the root (everything). Nodes are numbered level by level, the children of a node next to each other.

    Attributes:
        entities: What the ids in `entity` stand for.
        entity: int64, each node's entity; -1 for the root.
        parent: int64, each node's parent; -1 for the root.
        own: int64, what a node spent itself.
        total: int64, what a node and everything below it spent.
        first_child: int64, one more than nodes: the children of i are `first_child[i]:first_child[i + 1]`.
        unit: The unit of the values.
    """

    entities: list[Entity]
    entity: Ints
    parent: Ints
    own: Ints
    total: Ints
    first_child: Ints
    unit: str

    def __len__(self) -> int:
        return len(self.entity)

    def children(self, node: int) -> range:
        """The children of `node`, callees of its entity."""
        return range(int(self.first_child[node]), int(self.first_child[node + 1]))


def build_graph(
    profile: Profile,
    value_index: int,
    granularity: Granularity = Granularity.FUNCTIONS,
    total: int | None = None,
) -> Graph:
    """Compute flat and cum.

    Args:
        profile: The samples.
        value_index: Which of its sample types.
        granularity: What counts as one entity.
        total: What 100 % is; by default everything in `profile`. Give the unfiltered profile's total for a filtered
            one, so that percentages stay shares of the whole.
    """
    entities, by_location = _entities(profile, granularity)
    rows, inlined = _expanded(profile.stacks, by_location)
    values = profile.values[:, value_index]
    weights, counted = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    np.add.at(weights, profile.sample_stacks, values)
    counted[profile.sample_stacks[values != 0]] = True
    flat, cum = np.zeros(len(entities), np.int64), np.zeros(len(entities), np.int64)
    filled = rows.depths > 0
    np.add.at(flat, rows.locations[rows.offsets[:-1][filled]], weights[filled])
    count = max(len(entities), 1)
    for first, last in _blocks(rows):
        entries = rows.locations[rows.offsets[first] : rows.offsets[last]]
        once = _distinct(rows.owners(first, last) * count + entries)
        np.add.at(cum, once % count, weights[once // count])
    unit = profile.sample_types[value_index].unit
    whole = total_of(profile, value_index) if total is None else total
    kernel = _in_kernel(profile, entities, by_location)
    return Graph(entities, flat, cum, whole, unit, rows, inlined, weights, counted, kernel)


def total_of(profile: Profile, value_index: int) -> int:
    """What 100 % means: all samples, or only the base's where a difference against a base is shown."""
    is_base = np.array([any(label.key == BASE_LABEL for label in labels) for labels in profile.label_sets])
    if is_base.any():
        base = profile.select(is_base[profile.sample_labels])
        if len(base):
            return base.total(value_index)
    return profile.total(value_index)


def build_call_tree(graph: Graph, most_levels: int = 1 << 62) -> CallTree:
    """Fold the stacks of a graph into a tree, level by level from the roots.

    Args:
        graph: The stacks.
        most_levels: Leave out what is further from the root.
    """
    rows, count = graph.rows, max(len(graph.entities), 1)
    depths, last = rows.depths, rows.offsets[1:] - 1
    active = np.flatnonzero(graph.weights)
    node_of = np.zeros(len(rows), np.int64)
    entity, parent = [np.array([-1])], [np.array([-1])]
    total = [np.array([graph.weights.sum()])]
    own = [np.array([graph.weights[depths == 0].sum()])]
    size, level = 1, 0
    while level < most_levels and len(active := active[depths[active] > level]):
        if len(active) <= _FEW:
            thin = _thin_levels(rows, graph.weights, active, node_of[active], range(level, most_levels), size)
            for column, values in zip((entity, parent, total, own), thin, strict=True):
                column.append(np.array(values, np.int64))
            size += len(thin[0])
            break
        key = node_of[active] * count + rows.locations[last[active] - level]
        nodes, node = np.unique(key, return_inverse=True)
        node = node.reshape(-1)
        level_total, level_own = np.zeros(len(nodes), np.int64), np.zeros(len(nodes), np.int64)
        np.add.at(level_total, node, graph.weights[active])
        ends = depths[active] == level + 1
        np.add.at(level_own, node[ends], graph.weights[active[ends]])
        entity.append(nodes % count)
        parent.append(nodes // count)
        total.append(level_total)
        own.append(level_own)
        node_of[active] = size + node
        size, level = size + len(nodes), level + 1
    parents = np.concatenate(parent)
    fan_out = np.bincount(parents[1:], minlength=size)
    return CallTree(
        graph.entities,
        np.concatenate(entity),
        parents,
        np.concatenate(own),
        np.concatenate(total),
        offsets_of(fan_out) + 1,
        graph.unit,
    )


_FEW = 8
"""So few stacks are followed one by one, which is faster than NumPy: a single one may be a million frames deep."""


def _thin_levels(
    rows: Stacks, weights: Ints, active: Ints, nodes: Ints, levels: range, size: int
) -> tuple[array[int], array[int], array[int], array[int]]:
    """The nodes of a few stacks on some levels: their entities, parents, totals and own values, level by level.

    Args:
        rows: All stacks.
        weights: What they weigh.
        active: Those that reach the first of `levels`.
        nodes: For each of these, its node above.
        levels: Distances from the root.
        size: How many nodes there are.
    """
    at = dict(zip(active.tolist(), nodes.tolist(), strict=True))
    paths = {stack: rows[stack].tolist() for stack in at}
    entity, parent, total, own = array("q"), array("q"), array("q"), array("q")
    for level in levels:
        if not at:
            break
        met: dict[tuple[int, int], list[int]] = {}
        for stack, node in at.items():
            met.setdefault((node, paths[stack][-1 - level]), []).append(stack)
        for number, (key, stacks) in enumerate(sorted(met.items()), size + len(entity)):
            parent.append(key[0])
            entity.append(key[1])
            total.append(int(weights[stacks].sum()))
            own.append(int(weights[[stack for stack in stacks if len(paths[stack]) == level + 1]].sum()))
            at.update(dict.fromkeys(stacks, number))
        at = {stack: node for stack, node in at.items() if len(paths[stack]) > level + 1}
    return entity, parent, total, own


def _entities(profile: Profile, granularity: Granularity) -> tuple[list[Entity], Stacks]:
    """The entities of a profile, and for each location the ids of those found there, leaf-first."""
    ids: dict[Entity, int] = {}
    clean = {function.filename: _clean_path(function.filename) for function in profile.functions}

    def entities_at(location: Location) -> list[int]:
        if not location.lines:
            return [ids.setdefault(Entity(profile.module_name(location)), len(ids))]
        found = []
        for line in location.lines:
            function = profile.functions[line.function]
            name, filename, number = function.name, clean[function.filename], line.line
            if granularity is Granularity.FUNCTIONS:
                entity = Entity(name)
            elif granularity is Granularity.FILEFUNCTIONS:
                entity = Entity(name, filename)
            elif granularity is Granularity.LINES:
                entity = Entity(name, filename, number)
            else:
                entity = Entity("", filename)
            found.append(ids.setdefault(entity, len(ids)))
        return found

    rows = Stacks.of([entities_at(location) for location in profile.locations])
    return list(ids), rows


def _in_kernel(profile: Profile, entities: list[Entity], by_location: Stacks) -> frozenset[Entity]:
    """Those found only in what is mapped as the kernel; perf's files call it `[kernel.kallsyms]`."""
    is_kernel = [mapping.filename.startswith("[kernel") for mapping in profile.mappings]
    if not any(is_kernel):
        return frozenset()
    found: tuple[set[int], set[int]] = (set(), set())
    for number, location in enumerate(profile.locations):
        inside = location.mapping >= 0 and is_kernel[location.mapping]
        found[inside].update(by_location[number].tolist())
    return frozenset(entities[index] for index in found[True] - found[False])


def _expanded(stacks: Stacks, by_location: Stacks) -> tuple[Stacks, Mask]:
    """Every stack as entity ids; and for each, was it inlined into the next?"""
    if (by_location.depths == 1).all():  # as in all that Python runs
        return Stacks(stacks.offsets, by_location.locations[stacks.locations]), np.zeros(
            len(stacks.locations), np.bool_
        )
    expanded = by_location.take(stacks.locations)
    inlined = np.ones(len(expanded.locations), np.bool_)
    inlined[expanded.offsets[1:][expanded.depths > 0] - 1] = False
    return Stacks(expanded.offsets[stacks.offsets], expanded.locations), inlined


_NONE = np.zeros(0, np.int64)
_BLOCK_ENTRIES = 1 << 17


def _blocks(rows: Stacks) -> Iterator[tuple[int, int]]:
    """Portions of rows, first and last, that sums can be computed for one by one: it bounds what that needs."""
    first = 0
    while first < len(rows):
        wanted = int(rows.offsets[first]) + _BLOCK_ENTRIES
        last = max(int(np.searchsorted(rows.offsets, wanted, side="right")) - 1, first + 1)
        yield first, last
        first = last


def _distinct(keys: Ints) -> Ints:
    """The distinct keys, ascending. On millions of integers, sorting beats the hashing of `np.unique` tenfold."""
    ordered = np.sort(keys)
    fresh = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    return ordered[fresh]


def _clean_path(path: str) -> str:
    return posixpath.normpath(path) if path else ""
