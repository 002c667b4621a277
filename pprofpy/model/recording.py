"""Recording: a profile and the tables of one command. It holds all that the command prints and saves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from pprofpy.errors import ProfileFormatError
from pprofpy.model.profile import Profile
from pprofpy.model.table import Table

Option = int | str | bool

_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True)
class Recording:
    """The result of a recording command.

    Attributes:
        kind: The command's name, as in `off-cpu`; empty for a profile that another program wrote.
        profile: The samples, with the time, the length, and how they were collected.
        tables: What a profile cannot hold, by name.
        shown: The options that shape what the command prints: `nodecount`, `threads`, ...
    """

    kind: str
    profile: Profile
    tables: Mapping[str, Table] = field(default_factory=dict)
    shown: Mapping[str, Option] = field(default_factory=dict)

    def number(self, option: str, default: int) -> int:
        """Return a numeric option; `default` if the recording lacks it."""
        value = self.shown.get(option, default)
        return value if type(value) is int else default

    def flag(self, option: str) -> bool:
        """Return True if this option is on."""
        return self.shown.get(option) is True

    def text(self, option: str, default: str = "") -> str:
        """Return a text option; `default` if the recording lacks it."""
        value = self.shown.get(option, default)
        return value if isinstance(value, str) else default

    def rows(self, name: str, kind: type[_Row]) -> list[_Row]:
        """Return the rows of a table as instances of a dataclass.

        Raises:
            ProfileFormatError: The table is missing, or has other columns.
        """
        if name not in self.tables:
            raise ProfileFormatError(
                f"this recording of {self.kind or 'another program'} has no table {name!r}",
                "record it again with this version of pprofpy",
            )
        return self.tables[name].rows(kind)

    def row(self, name: str, kind: type[_Row]) -> _Row:
        """Return the only row of a table.

        Raises:
            ProfileFormatError: The table is missing, or has not exactly one row.
        """
        rows = self.rows(name, kind)
        if len(rows) != 1:
            raise ProfileFormatError(f"the recording is damaged: table {name!r} has {len(rows)} rows instead of one")
        return rows[0]
