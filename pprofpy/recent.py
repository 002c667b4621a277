"""What is known of a program that never does the same twice: what nobody has asked for in a while is forgotten."""

from __future__ import annotations

import time
from typing import Generic, TypeVar

from pprofpy.units import NS_PER_S

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

_SECONDS = 60


class Recent(Generic[_Key, _Value]):
    """Entries stay for a while after they were last set or asked for, and are gone after twice as long.

    Args:
        most: Nor are there ever more than twice as many; the last so many stay.
        seconds: How long.
    """

    def __init__(self, most: int, seconds: float = _SECONDS) -> None:
        self._most = most
        self._forget_ns = seconds * NS_PER_S
        self._entries: dict[_Key, _Value] = {}
        self._older: dict[_Key, _Value] = {}
        self._since_ns = time.monotonic_ns()

    def get(self, key: _Key) -> _Value | None:
        """Return the value of a key; None if there is none any more."""
        if key in self._entries:
            return self._entries[key]
        if key not in self._older:
            return None
        self[key] = value = self._older[key]
        return value

    def __setitem__(self, key: _Key, value: _Value) -> None:
        now_ns = time.monotonic_ns()
        if len(self._entries) >= self._most or now_ns - self._since_ns > self._forget_ns:
            self._older, self._entries, self._since_ns = self._entries, {}, now_ns
        self._entries[key] = value

    def __contains__(self, key: _Key) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self._entries.keys() | self._older.keys())
