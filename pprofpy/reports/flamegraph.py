"""Flame graph: all stacks as one picture, width by cost, in one SVG file that a browser lets you search and zoom.

The file needs nothing else, and looks right where no script runs (in an <img>, in a viewer). Frames are placed in
percent of the width, so that the picture fits any window; the script next to this module (`flamegraph.js`) adds zoom,
search and details. All names are escaped here; the script only ever handles text as text.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from xml.sax.saxutils import escape

import numpy as np

from pprofpy import __version__
from pprofpy.model.graph import CallTree, Entity, Graph, build_call_tree
from pprofpy.reports import header
from pprofpy.reports.header import Header
from pprofpy.reports.origin import INSTALLED, SOURCE, STANDARD_LIBRARY
from pprofpy.text import counted, printable, printable_lines
from pprofpy.units import format_percent, format_value

WIDTH_PX = 1200
"""The width where nothing else decides it; texts are cut for it until the script measures the window."""

ROW_PX, FONT_PX = 18, 12
_CHARACTER_PX = FONT_PX * 0.602
"""How wide a character of a monospaced font is."""

_TITLE_PX, _LINE_PX, _MARGIN_PX = 40, 16, 10
_LONGEST_NAME = 500
_LONGEST_LINE = 170
_SHADES = 4
_MOST_LEVELS = 5000
"""No browser draws a taller picture."""

_ILLEGAL_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

CATEGORIES = {
    "app": "your code",
    "lib": "installed packages",
    "std": "standard library",
    "native": "native code",
    "kernel": "kernel",
}
"""What a frame's colour tells -> its name in the legend. The frames at the root, `root`, need no explanation."""


@dataclass(frozen=True, slots=True)
class FlameOptions:
    """How to draw.

    Attributes:
        title: The picture's heading.
        root_at_top: Grow downwards ("icicle") rather than upwards.
        min_percent: Frames narrower than this share of everything are not drawn.
        unit: The unit of values; "auto" chooses for each.
        left_out: What of the profile was left out of the picture, in a sentence; empty for nothing.
    """

    title: str = "Flame graph"
    root_at_top: bool = True
    min_percent: float = 0.05
    unit: str = "auto"
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Box:
    """A frame in the picture.

    Attributes:
        entity: What it stands for; None for the root.
        level: Distance from the root.
        left, width: In shares (0 to 1) of the picture.
        value: What it and everything below it spent.
        growth: For a difference: by what share (-1 to 1) of its width it grew or shrank; else None.
    """

    entity: Entity | None
    level: int
    left: float
    width: float
    value: int
    growth: float | None


@dataclass(frozen=True, slots=True)
class FlameGraph:
    """A picture, not yet drawn.

    Attributes:
        about: The profile's header.
        boxes: The root first; each before those above it.
        hidden: How many frames were too narrow to draw.
        is_difference: Something was subtracted: widths show how much changed, colours in which direction.
        kernel: What of the frames is the kernel's: its functions have no file that would tell.
    """

    about: Header
    boxes: list[Box]
    hidden: int
    is_difference: bool
    kernel: frozenset[Entity]


def build(about: Header, graph: Graph, options: FlameOptions = FlameOptions()) -> FlameGraph:
    """Lay out the frames.

    In a difference, what grew and what shrank would cancel out. There, a frame's width is the sum of all changes below
    it, whatever their sign, and its growth is their balance.

    Args:
        about: The profile's header.
        graph: Its stacks, best in the granularity `filefunctions` or `lines`.
        options: How to draw.
    """
    tree = build_call_tree(graph, _MOST_LEVELS)
    is_difference = bool((graph.weights < 0).any())
    sized = build_call_tree(replace(graph, weights=np.abs(graph.weights)), _MOST_LEVELS) if is_difference else tree
    boxes = list(_boxes(tree, sized, options.min_percent / 100, is_difference=is_difference))
    return FlameGraph(about, boxes, len(tree) - len(boxes) if boxes else 0, is_difference, graph.kernel)


def render(flame: FlameGraph, options: FlameOptions = FlameOptions()) -> str:
    """The picture as the text of an SVG file."""
    total = flame.about.total
    heading = [_shorten(line, _LONGEST_LINE) for line in _subtitle(flame, options)]
    top = _TITLE_PX + _LINE_PX * len(heading) + _MARGIN_PX
    levels = 1 + max((box.level for box in flame.boxes), default=0)
    height = top + levels * ROW_PX + 3 * _LINE_PX
    assets = files("pprofpy.reports")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH_PX}" height="{height}" '
        f'data-generator="pprofpy {__version__}" data-total="{total}" font-size="{FONT_PX}" '
        'font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace">',
        f"<style>{escape(assets.joinpath('flamegraph.css').read_text())}</style>",
        '<rect class="paper" width="100%" height="100%"/>',
        f'<text class="heading" x="{_MARGIN_PX}" y="26">{_text(options.title)}</text>',
        *(
            f'<text class="remark" x="{_MARGIN_PX}" y="{_TITLE_PX + _LINE_PX * index + 4}">{_text(line)}</text>'
            for index, line in enumerate(heading)
        ),
        f'<g id="frames" data-top="{top}" data-row="{ROW_PX}" data-levels="{levels}">',
        *(_frame(box, flame, options, top, levels) for box in flame.boxes),
        "</g>",
        *_legend(flame, height - _LINE_PX),
        f'<text id="details" class="remark" x="{_MARGIN_PX}" y="{height - 2 * _LINE_PX + 2}"> </text>',
        f"<script>{escape(assets.joinpath('flamegraph.js').read_text())}</script>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


# -- layout --------------------------------------------------------------------------------------------------------


def _boxes(tree: CallTree, sized: CallTree, smallest: float, *, is_difference: bool) -> Iterator[Box]:
    """Walk the tree from the root, siblings by name, leaving out what is too narrow along with all above it."""
    whole = int(sized.total[0])
    if whole <= 0:
        return
    drawn = sized.total >= max(smallest * whole, 1)
    names = {index: str(tree.entities[index]) for index in set(tree.entity[drawn].tolist()) if index >= 0}
    levels: dict[int, int] = {0: 0}
    left: dict[int, float] = {0: 0.0}
    waiting = [0]
    while waiting:
        node = waiting.pop()
        entity = int(tree.entity[node])
        width = int(sized.total[node])
        yield Box(
            tree.entities[entity] if entity >= 0 else None,
            levels[node],
            left[node] / whole,
            width / whole,
            int(tree.total[node]),
            int(tree.total[node]) / width if is_difference else None,
        )
        children = [child for child in tree.children(node) if drawn[child]]
        children.sort(key=lambda child: names[int(tree.entity[child])])
        place = left.pop(node)
        for child in children:
            left[child], levels[child] = place, levels[node] + 1
            place += int(sized.total[child])
        waiting.extend(reversed(children))
        del levels[node]


# -- drawing -------------------------------------------------------------------------------------------------------


def _frame(box: Box, flame: FlameGraph, options: FlameOptions, top: int, levels: int) -> str:
    level = box.level if options.root_at_top else levels - 1 - box.level
    y = top + level * ROW_PX
    name = _shorten(box.entity.name or str(box.entity), _LONGEST_NAME) if box.entity else "all"
    room = int((box.width * WIDTH_PX - 6) / _CHARACTER_PX)
    label = name if len(name) <= room else f"{name[: room - 1]}…" if room >= 3 else ""
    kind = _growth_class(box.growth) if box.growth is not None else _colour_class(box.entity, flame.kernel)
    left, width = f"{100 * box.left:.4f}%", f"{100 * box.width:.4f}%"
    return (
        f'<g class="{kind}" tabindex="-1"><title>{_text(_details(box, name, flame, options))}</title>'
        f'<rect x="{left}" y="{y}" width="{width}" height="{ROW_PX - 1}"/>'
        f'<text x="{left}" y="{y + ROW_PX - 5}">{_text(label)}</text></g>'
    )


def _details(box: Box, name: str, flame: FlameGraph, options: FlameOptions) -> str:
    """The tooltip: name, place, cost."""
    unit, total = flame.about.sample_type.unit, flame.about.total
    sign = "+" if box.growth is not None and box.value > 0 else ""
    value = sign + format_value(box.value, unit, options.unit)
    if unit == "count":
        value += f" {flame.about.sample_type.type}"
    lines = [name, f"{value}, {format_percent(box.value, total).strip()} of {_whole(flame)}"]
    if box.entity and box.entity.filename:
        place = f"{box.entity.filename}:{box.entity.line}" if box.entity.line else box.entity.filename
        lines.insert(1, _shorten(place, _LONGEST_NAME))
    return "\n".join(lines)


def _whole(flame: FlameGraph) -> str:
    return "the base" if flame.is_difference else "everything"


def _subtitle(flame: FlameGraph, options: FlameOptions) -> list[str]:
    """What is shown, how it was recorded, and what is missing."""
    lines = header.lines(replace(flame.about, verbose=True), options.unit)
    groups = [("Type:", "Time:", "Duration:"), ("Recorded:", "Samples:")]
    found = [" · ".join(line for line in lines if line.startswith(group)) for group in groups]
    found += [line for line in lines if line.startswith("Note:")]
    if flame.about.filters:
        found.append("Shown: " + ", ".join(f"{name} {value}" for name, value in flame.about.filters.items()))
    if options.left_out:
        found.append(options.left_out)
    if flame.is_difference:
        found.append("A difference: red grew, blue shrank; width is the sum of all changes, up and down.")
    if flame.hidden:
        verb = "is" if flame.hidden == 1 else "are"
        found.append(f"{counted(flame.hidden, 'frame')} narrower than {options.min_percent:g} % {verb} not drawn.")
    if any(box.level == _MOST_LEVELS for box in flame.boxes):
        found.append(f"Frames more than {_MOST_LEVELS} calls from the outermost one are not drawn.")
    if not flame.boxes:
        found.append("The profile holds no sample of this type: there is nothing to draw.")
    return [line for line in found if line]


def _legend(flame: FlameGraph, y: int) -> Iterator[str]:
    """Which colour stands for what; only those that occur."""
    if flame.is_difference:
        return
    x = _MARGIN_PX
    present = {_category(box.entity, flame.kernel) for box in flame.boxes}
    for category, meaning in CATEGORIES.items():
        if category in present:
            yield f'<g class="{category}0 legend"><rect x="{x}" y="{y - 10}" width="12" height="12"/></g>'
            yield f'<text class="remark" x="{x + 18}" y="{y}">{meaning}</text>'
            x += 18 + int(len(meaning) * _CHARACTER_PX) + 22


def _colour_class(entity: Entity | None, kernel: frozenset[Entity]) -> str:
    """The category, and a shade by module, so that neighbours differ and a module looks the same everywhere."""
    if entity is None:
        return "root0"
    module = entity.filename or entity.name.rpartition(".")[0]
    return f"{_category(entity, kernel)}{zlib.crc32(module.encode('utf-8', 'replace')) % _SHADES}"


def _category(entity: Entity | None, kernel: frozenset[Entity]) -> str:
    if entity in kernel:
        return "kernel"
    filename = entity.filename if entity else ""
    if entity is None or not (filename or entity.name.startswith(("[", "<", "0x"))):
        return "root"  # everything, or a thread
    if INSTALLED.search(filename):
        return "lib"
    if STANDARD_LIBRARY.search(filename):
        return "std"
    return "app" if SOURCE.search(filename) else "native"


def _growth_class(growth: float) -> str:
    """Red for growth, blue for shrinkage, stronger where more of the frame's width changed in that direction."""
    if growth == 0:
        return "same0"
    strength = min(int(abs(growth) * _SHADES), _SHADES - 1)
    return f"{'grew' if growth > 0 else 'shrank'}{strength}"


def _shorten(text: str, longest: int) -> str:
    text = printable(text)  # here, too: what is written out is longer
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _text(text: str) -> str:
    """Text for XML: markup escaped, and characters written out that XML forbids or that turn text round."""
    return escape(_ILLEGAL_IN_XML.sub("\ufffd", printable_lines(text)))
