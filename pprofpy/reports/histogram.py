"""Histogram of waits: one bar per power of two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from pprofpy.model.latency import Histogram
from pprofpy.reports.text import write_lines
from pprofpy.units import format_share, format_short

_BAR_WIDTH = 36


@dataclass(frozen=True, slots=True)
class Bar:
    """Waits of at least `low_ns` and less than `high_ns`."""

    low_ns: int
    high_ns: int
    count: int


def build(histogram: Histogram) -> list[Bar]:
    """Return the bars, shortest waits first, without gaps; none if nothing was counted."""
    return [Bar(1 << exponent if exponent else 0, 2 << exponent, count) for exponent, count in histogram.octaves()]


def render(bars: list[Bar], console: Console) -> None:
    """Print the bars, the longest as wide as fits into 80 columns."""
    most, total = max((bar.count for bar in bars), default=0), sum(bar.count for bar in bars)
    write_lines(console, [Text(f"{'wait':>8} {'up to':>8} {'count':>10}", "bold")])
    write_lines(console, (_line(bar, most, total, _block(console)) for bar in bars))


def to_json(bars: list[Bar]) -> list[dict[str, Any]]:
    """Return the bars as data for JSON; times in nanoseconds."""
    return [{"low_ns": bar.low_ns, "high_ns": bar.high_ns, "count": bar.count} for bar in bars]


def _line(bar: Bar, most: int, total: int, block: str) -> Text:
    # What happened at all is seen, be it ever so rare.
    length = max(round(bar.count / most * _BAR_WIDTH), 1) if bar.count else 0
    return Text.assemble(
        f"{format_short(bar.low_ns, 'ns'):>8} {format_short(bar.high_ns, 'ns'):>8} {bar.count:>10} ",
        f"{format_share(bar.count, total):>6}",
        (f"  {block * length}" if length else "", "cyan"),
    )


def _block(console: Console) -> str:
    return "█" if console.encoding.lower().startswith("utf") else "#"
