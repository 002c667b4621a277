"""Native and Python functions in the order of their calls: Python -> C -> Python ..."""

from __future__ import annotations

from collections.abc import Sequence

from pprofpy.collectors.unwind.cython import is_glue
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.collectors.unwind.plumbing import PLUMBING, is_beginning
from pprofpy.collectors.unwind.stackcopy import Chain, Ending
from pprofpy.model.profile import PYTHON_MAPPING, Frame, Function, Mapping

PlacedFrame = tuple[Frame, Mapping]
"""A function, and the file that it is in."""

UNKNOWN: PlacedFrame = Frame(Function("[unknown native functions]")), PYTHON_MAPPING
"""Stands for the part of a native stack that could not be followed; native functions below it are missing, too."""


def merged(python: Sequence[Frame], chain: Chain, functions: Sequence[NativeFunction]) -> list[PlacedFrame]:
    """A whole stack, leaf-first.

    Args:
        python: Its Python functions, leaf-first.
        chain: Its native functions.
        functions: What the chain's numbers mean.
    """
    found: list[PlacedFrame] = []
    run: list[NativeFunction] = []
    interpreter, placed, groups = "", 0, iter(chain.groups)
    for number in chain.functions:
        if number >= 0:
            run.append(functions[number])
            continue
        interpreter, size = functions[~number].path, next(groups, 0)
        if placed + size > len(python):
            return [*found, *shown(run, interpreter, is_leaf=not found), UNKNOWN, *_placed(python[placed:])]
        found += shown(run, interpreter, is_leaf=not found)
        found += _placed(python[placed : placed + size])
        placed, run = placed + size, []
    if chain.ending == Ending.AT_START and placed:
        run = _above_beginning(run, interpreter)
    if not (chain.ending == Ending.UNPLACED and placed):
        found += shown(run, interpreter, is_leaf=not found)
    return [*found, *([] if chain.is_whole else [UNKNOWN]), *_placed(python[placed:])]


def without_native(python: Sequence[Frame]) -> list[PlacedFrame]:
    """A stack whose native functions are not known."""
    return [UNKNOWN, *_placed(python)]


def _placed(python: Sequence[Frame]) -> list[PlacedFrame]:
    return [(frame, PYTHON_MAPPING) for frame in python]


def shown(run: Sequence[NativeFunction], interpreter: str, *, is_leaf: bool) -> list[PlacedFrame]:
    """What is shown of native functions that call each other, leaf-first.

    Args:
        run: All of them.
        interpreter: The file of the interpreter that has called them.
        is_leaf: The first one is what the sample is in.
    """
    found: list[PlacedFrame] = []
    for number, function in enumerate(run):
        if not _tells(function, interpreter) and not (is_leaf and number == 0):
            continue
        frame = _frame(function)
        if function.name or not found or found[-1] != frame:
            found.append(frame)  # a library stands for all functions in a row whose names it does not tell
    return found


def _tells(function: NativeFunction, interpreter: str) -> bool:
    """Does a function tell anything where it only calls another one?"""
    if not function.name:
        return function.path != interpreter
    return function.name not in PLUMBING and not is_glue(function.symbol)


def _above_beginning(run: list[NativeFunction], interpreter: str) -> list[NativeFunction]:
    """Without what lies below the first Python function in any program; a program with Python inside is left."""
    while run and is_beginning(run[-1].name, run[-1].path):
        run = run[:-1]
    return [function for function in run if function.path != interpreter]


def _frame(function: NativeFunction) -> PlacedFrame:
    """As py-spy's native functions are shown.

    The mapping's name is in brackets: with a path to a real ELF file, `go tool pprof` would disassemble that file.
    """
    library = f"[{function.path.rpartition('/')[2].strip('[]')}]"
    mapping = Mapping(library, has_functions=True, has_filenames=True, has_line_numbers=True)
    if not function.name:
        return Frame(Function(library, library, function.path)), mapping
    return Frame(Function(function.name, function.symbol, function.path)), mapping
