"""Quantities with units: parsing what users type, printing what they read. The only place that does either.

The scaling rules (1024-based bytes written kB/MB/GB; ns, us, ms, s, hrs; two decimals, `.00` dropped) are those of
`go tool pprof`, so that a table of ours can be held against one of its.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pprofpy.errors import UsageError

NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Unit:
    """One unit of a family: how it is printed, how it may be spelled, its size in the family's base unit."""

    name: str
    aliases: tuple[str, ...]
    factor: float


@dataclass(frozen=True, slots=True)
class UnitFamily:
    """Units that convert into each other, smallest first."""

    units: tuple[Unit, ...]
    default: Unit

    def find(self, spelling: str) -> Unit | None:
        """The unit that `spelling` names (any case, a plural s allowed), or None."""
        word = spelling.lower()
        if len(word) > 2:
            word = word.removesuffix("s")
        return next((unit for unit in self.units if word in unit.aliases), None)


_BYTES = tuple(
    Unit(name, aliases, 1 << (10 * power))
    for power, (name, aliases) in enumerate(
        [
            ("B", ("b", "byte")),
            ("kB", ("kb", "kbyte", "kilobyte")),
            ("MB", ("mb", "mbyte", "megabyte")),
            ("GB", ("gb", "gbyte", "gigabyte")),
            ("TB", ("tb", "tbyte", "terabyte")),
            ("PB", ("pb", "pbyte", "petabyte")),
        ]
    )
)
_TIMES = (
    Unit("ns", ("ns", "nanosecond"), 1),
    Unit("us", ("us", "μs", "µs", "microsecond"), 1_000),
    Unit("ms", ("ms", "millisecond"), 1_000_000),
    Unit("s", ("s", "sec", "second"), NS_PER_S),
    Unit("hrs", ("hour", "hr"), 3600 * NS_PER_S),
)
_FAMILIES = (UnitFamily(_BYTES, _BYTES[0]), UnitFamily(_TIMES, _TIMES[3]))
_COLUMN_FAMILIES = (
    _FAMILIES[0],
    UnitFamily(
        (*_TIMES[:4], Unit("min", ("min", "minute"), 60 * NS_PER_S), Unit("h", ("h", "hour"), 3600 * NS_PER_S)),
        _TIMES[0],
    ),
)
"""For columns of our own, in which hours of many threads stand beside seconds: pprof goes from seconds to hours."""

_PLAIN_UNITS = frozenset({"count", "sample", "unit", "minimum", "auto"})


def scale(value: int, from_unit: str, to_unit: str) -> tuple[float, str]:
    """Convert `value` to `to_unit`.

    Args:
        value: The quantity.
        from_unit: Its unit, as a profile names it ("nanoseconds", "bytes", "count").
        to_unit: A unit's name, or "auto"/"minimum" for the largest unit that keeps the number at 1 or above.

    Returns:
        The number and the unit's printed name; the name is empty where it says nothing (counts).
    """
    if value < 0:
        number, name = scale(-value, from_unit, to_unit)
        return -number, name
    for family in _FAMILIES:
        source = family.find(from_unit)
        if source is None:
            continue
        base = value * source.factor
        if to_unit in ("auto", "minimum"):
            fitting = [unit for unit in family.units if base >= unit.factor]
            target = fitting[-1] if fitting else family.default
        else:
            target = family.find(to_unit) or family.default
        return base / target.factor, target.name
    return float(value), "" if to_unit in _PLAIN_UNITS else to_unit


def format_value(value: int, from_unit: str, to_unit: str = "auto") -> str:
    """`value` for a table cell: two decimals at most, unit attached, a bare "0" for nothing."""
    number, name = scale(value, from_unit, to_unit)
    text = f"{number:.2f}".removesuffix(".00")
    return "0" if text in ("0", "-0") else text + name


def format_column(values: Sequence[int], from_unit: str) -> list[str]:
    """`values` with three significant digits, all in the one unit in which the longest text is shortest.

    So no number has more than four digits before its point, and few have many zeros behind it. A value too small for
    seven decimals is `<0.0000001s`; nothing is a bare "0".
    """
    written = [_in_unit(values, unit) for unit in _column_units(max(map(abs, values), default=0), from_unit)]
    return min(reversed(written), key=lambda texts: max(map(len, texts), default=0))


def _in_unit(values: Sequence[int], unit: Unit) -> list[str]:
    return [_three_digits(value / unit.factor, unit.name) if value else "0" for value in values]


def format_short(value: int, from_unit: str) -> str:
    """`value` with three significant digits: `915us`, `1.52ms`, a bare "0" for nothing."""
    return format_column([value], from_unit)[0]


def format_share(value: int, total: int) -> str:
    """`value` as a share of `total`, with three significant digits and at most two decimals: `87.9%`, `<0.01%`."""
    percent = 100 * value / total if total else 0.0
    return _three_digits(percent, "%", most_decimals=2) if value and total else "0%"


def _column_units(largest: int, from_unit: str) -> list[Unit]:
    """The units in which this value has one to four digits before its point, smallest first; counts have none."""
    family = next((one for one in _COLUMN_FAMILIES if one.find(from_unit)), None)
    if family is None:
        return [Unit("" if from_unit in _PLAIN_UNITS else from_unit, (), 1)]
    source = family.find(from_unit) or family.default
    base = largest * source.factor
    fit = [unit for unit in family.units if base < 9995 * unit.factor and base >= 0.9995 * unit.factor]
    found = fit or [family.units[0] if base < family.units[-1].factor else family.units[-1]]
    return [Unit(unit.name, (), unit.factor / source.factor) for unit in found]


def _three_digits(number: float, name: str, most_decimals: int = 7) -> str:
    size = abs(number)
    least = 10.0**-most_decimals
    if size < least / 2:  # it would be shown as nothing
        return f"{'-' * (number < 0)}<{least:.{most_decimals}f}{name}"
    decimals = 0 if size >= 99.95 else 1 if size >= 9.995 else 2
    while decimals < most_decimals and size < 0.9995 * 10.0 ** (2 - decimals):
        decimals += 1
    if size >= 1000 and name:
        number = float(f"{number:.3g}")
    text = f"{number:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if decimals else text) + name


def format_percent(value: int, total: int) -> str:
    """`value` as a share of `total`, six characters wide, at least two significant digits."""
    ratio = abs(value / total) * 100 if total else 0.0
    if 99.95 <= ratio <= 100.05:
        return "  100%"
    return f"{ratio:5.2f}%" if ratio >= 1.0 else f"{ratio:5.2g}%"


def common_unit(values: list[int], total: int, unit: str) -> str:
    """The one unit in which a whole table reads best: small values still show, large ones do not drown in digits.

    Args:
        values: What the table's rows hold.
        total: What they are shares of.
        unit: The unit of both.
    """
    smallest = min((abs(value) for value in values if value), default=total) or total
    unit_of_smallest, unit_of_total = scale(smallest, unit, "auto")[1], scale(total, unit, "auto")[1]
    if unit_of_smallest != unit_of_total and smallest * 100 < total:
        # Two decimals keep a value of 0.01 visible, so the table can afford a unit a hundred times larger.
        unit_of_smallest = scale(smallest * 100, unit, "auto")[1]
    return unit_of_smallest or unit


_DURATION = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*(ns|us|µs|μs|ms|s|m|min|h|d)?")
_DURATION_FACTORS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "min": 60 * NS_PER_S,
    "h": 3600 * NS_PER_S,
    "d": 24 * 3600 * NS_PER_S,
}


def parse_duration_ns(text: str) -> int:
    """Read a duration such as `30`, `30s`, `1.5s`, `500ms`, `2m` or `1m30s`; a bare number means seconds.

    Returns:
        Nanoseconds.

    Raises:
        UsageError: `text` is not a duration.
    """
    position, total_ns = 0, 0.0
    cleaned = text.strip().lower()
    while position < len(cleaned):
        match = _DURATION.match(cleaned, position)
        if match is None or (match[2] is None and match.end() != len(cleaned)):
            break
        total_ns += float(match[1]) * _DURATION_FACTORS[match[2] or "s"]
        position = match.end()
    if not cleaned or position != len(cleaned) or total_ns > 10**18:
        raise UsageError(f"{text!r} is not a duration", "write it as 30, 30s, 500ms, 2m or 1m30s")
    return round(total_ns)


_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])i?)?b?")


def parse_bytes(text: str) -> int:
    """Read a size such as `65536`, `64k`, `64kB` or `1.5M`; as everywhere here, a k is 1024.

    Raises:
        UsageError: `text` is not a size.
    """
    match = _SIZE.fullmatch(text.strip().lower())
    if match is None:
        raise UsageError(f"{text!r} is not a size", "write it as 65536, 64k or 1M")
    power = "kmgt".index(match[2]) + 1 if match[2] else 0
    return round(float(match[1]) * (1 << 10 * power))


def format_duration(duration_ns: int) -> str:
    """A length of time in words that a tired reader takes in at once: `0.8 s`, `30 s`, `2 min 5 s`."""
    seconds = duration_ns / NS_PER_S
    if seconds < 1:
        number, name = scale(duration_ns, "ns", "auto")
        return f"{number:.3g} {name}"
    if seconds < 120:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min" + (f" {rest} s" if rest else "")
    return f"{minutes // 60} h {minutes % 60} min"
