"""Table: rows of one shape, stored by column. A recording keeps what does not fit into its profile in tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

from pprofpy.errors import ProfileFormatError
from pprofpy.model.profile import Stack

Cell = int | float | str | bool | Stack
"""A value; a Stack is leaf-first."""

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows by column.

    Attributes:
        columns: Name -> values, one a row; all columns are equally long. A name carries its unit: `wait_ns`.
    """

    columns: dict[str, list[Cell]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def __iter__(self) -> Iterator[dict[str, Cell]]:
        """Yield the rows as dictionaries."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    @classmethod
    def of(cls, kind: type[Row], rows: Iterable[Row]) -> Table:
        """Make a table of dataclass instances whose fields are cells.

        Args:
            kind: Their class: an empty table has columns, too.
            rows: The instances.
        """
        made = list(rows)
        return cls({name: [getattr(row, name) for row in made] for name in _cell_types(kind)})

    def rows(self, kind: type[Row]) -> list[Row]:
        """Inverse of `of`: return the rows as instances of a dataclass.

        Raises:
            ProfileFormatError: A column is missing, or holds values of another type.
        """
        wanted, optional = _cell_types(kind), _added_later(kind)
        missing = [name for name in wanted if name not in self.columns]
        if lacking := [name for name in missing if name not in optional]:
            raise ProfileFormatError(f"the recording is damaged: it has no column {lacking[0]!r}")
        for name in missing:
            del wanted[name]
        for name, cell in wanted.items():
            if not all(type(value) is cell for value in self.columns[name]):
                raise ProfileFormatError(f"the recording is damaged: column {name!r} holds no {cell.__name__}")
        columns: list[list[Any]] = [self.columns[name] for name in wanted]
        return [kind(**dict(zip(wanted, values, strict=True))) for values in zip(*columns, strict=True)]


def _added_later(kind: type) -> set[str]:
    """Return the fields that recordings of earlier releases do not have: those marked so."""
    return {field.name for field in fields(kind) if field.metadata.get("added_later")}


def _cell_types(kind: type) -> dict[str, type]:
    """Return field -> type of its cells for a dataclass; stacks are tuples."""
    hints: dict[str, Any] = get_type_hints(kind)
    return {name: tuple if hint == Stack else hint for name, hint in hints.items()}
