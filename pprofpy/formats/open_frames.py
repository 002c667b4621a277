"""From frames that open and close to weighted stacks, in time and memory that grow with the events, not with depth."""

from __future__ import annotations

from collections.abc import Iterator

_ROOT = 0


class OpenFrames:
    """The stack of frames that are open, and how long each stack was so.

    Stacks are the nodes of a tree, so that a step costs the same at any depth.
    """

    def __init__(self) -> None:
        self._node = _ROOT
        self._children: dict[tuple[int, int], int] = {}
        self._parents, self._frames, self._depths, self._weights = [_ROOT], [-1], [0], [0]

    def stay(self, weight: int) -> None:
        """Add to the weight of the stack that is open now."""
        self._weights[self._node] += weight

    def open(self, frame: int) -> None:
        """Call a frame from the innermost one."""
        key = (self._node, frame)
        node = self._children.get(key)
        if node is None:
            node = self._children[key] = len(self._parents)
            self._parents.append(self._node)
            self._frames.append(frame)
            self._depths.append(self._depths[self._node] + 1)
            self._weights.append(0)
        self._node = node

    def close(self, frame: int) -> bool:
        """Return from a frame; False, and nothing done, if it is not the innermost one."""
        if self._frames[self._node] != frame:
            return False
        self._node = self._parents[self._node]
        return True

    def frame_count(self) -> int:
        """How many frames `stacks` gives, all stacks together."""
        return sum(depth for depth, weight in zip(self._depths, self._weights, strict=True) if weight)

    def stacks(self) -> Iterator[tuple[tuple[int, ...], int]]:
        """Each stack that weighs something, innermost frame first, with its weight."""
        for node, weight in enumerate(self._weights):
            if weight:
                yield self._path(node), weight

    def _path(self, node: int) -> tuple[int, ...]:
        frames = []
        while node != _ROOT:
            frames.append(self._frames[node])
            node = self._parents[node]
        return tuple(frames)
