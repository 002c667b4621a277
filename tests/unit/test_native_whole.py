"""Native and Python functions in the order of their calls, on stacks made by hand."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping

import pytest

from pprofpy.arch import here
from pprofpy.budget import Budget
from pprofpy.collectors.unwind.cfi import Rule, RuleKind, UnwindRow
from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.collectors.unwind.stackcopy import Chain, Ending, StackCopy
from pprofpy.collectors.unwind.unwinder import LOOP, Unwinder
from pprofpy.collectors.unwind.wholestack import UNKNOWN, merged
from pprofpy.model.profile import Frame, Function

PYTHON, LIBC, EXTENSION = "/usr/bin/python3.12", "/lib/libc.so.6", "/site/_shop.so"
UNKNOWN_NAME = UNKNOWN[0].function.name
FUNCTIONS = {
    "loop": NativeFunction(LOOP, LOOP, PYTHON),
    "nameless": NativeFunction("", "", PYTHON),
    "list_sort": NativeFunction("list_sort", "list_sort", PYTHON),
    "vectorcall": NativeFunction("_PyObject_Vectorcall", "_PyObject_Vectorcall", PYTHON),
    "Py_RunMain": NativeFunction("Py_RunMain", "Py_RunMain", PYTHON),
    "main": NativeFunction("main", "main", PYTHON),
    "libc": NativeFunction("", "", LIBC),
    "start": NativeFunction("__libc_start_main", "__libc_start_main", LIBC),
    "serve": NativeFunction("serve", "serve", "/opt/server"),
    "own main": NativeFunction("main", "main", "/opt/server"),
    "total": NativeFunction("shop.total", "__pyx_pf_4shop_total", EXTENSION),
    "total's wrapper": NativeFunction("shop.total", "__pyx_pw_4shop_1total", EXTENSION),
}
TABLE, NUMBERS = list(FUNCTIONS.values()), {name: number for number, name in enumerate(FUNCTIONS)}


def shown(python: str, chain: str, *groups: int, ending: Ending = Ending.AT_START) -> list[str]:
    """A stack, leaf-first; `>` in a chain is an evaluation loop."""
    frames = [Frame(Function(name)) for name in python.split()]
    numbers = tuple(~NUMBERS["loop"] if one == ">" else NUMBERS[one] for one in chain.split(", ") if one)
    return [frame.function.name for frame, _ in merged(frames, Chain(numbers, groups, ending), TABLE)]


def test_python_functions_lie_where_their_loops_are() -> None:
    assert shown("key <module>", "list_sort, >, list_sort, >, start", 1, 1) == [
        "list_sort",
        "key",
        "list_sort",
        "<module>",
    ]
    assert shown("inner key <module>", ">, list_sort, >, start", 2, 1) == ["inner", "key", "list_sort", "<module>"]


def test_how_the_interpreter_calls_is_shown_only_where_the_sample_is_in_it() -> None:
    called = "vectorcall, nameless, list_sort, vectorcall"

    assert shown("key <module>", f">, {called}, >, start", 1, 1) == ["key", "list_sort", "<module>"]
    assert shown("key", f"{called}, >, start", 1) == ["_PyObject_Vectorcall", "list_sort", "key"]
    assert shown("key", "nameless, nameless, vectorcall, >, start", 1) == ["[python3.12]", "key"]


def test_how_programs_begin_is_not_shown_but_a_program_with_python_inside_is() -> None:
    assert shown("<module>", ">, nameless, Py_RunMain, main, libc, start", 1) == ["<module>"]
    assert shown("handle", ">, vectorcall, nameless, serve, own main, libc, start", 1) == ["handle", "serve", "main"]


def test_a_thread_without_python_shows_how_it_began() -> None:
    assert shown("", "serve, libc, start") == ["serve", "[libc.so.6]", "__libc_start_main"]


def test_what_cython_adds_around_a_function_is_not_shown() -> None:
    assert shown("f <module>", ">, vectorcall, total, total's wrapper, >, start", 1, 1) == [
        "f",
        "shop.total",
        "<module>",
    ]


@pytest.mark.parametrize("ending", [Ending.CUT, Ending.NO_TABLE, Ending.BROKEN, Ending.TOO_LONG])
def test_what_could_not_be_followed_is_marked_where_it_is(ending: Ending) -> None:
    assert shown("key <module>", "serve", ending=ending) == ["serve", UNKNOWN_NAME, "key", "<module>"]
    assert shown("key <module>", ">, list_sort, serve", 1, ending=ending) == [
        "key", "list_sort", "serve", UNKNOWN_NAME, "<module>",
    ]  # fmt: skip


def test_python_functions_without_a_loop_are_below_the_mark() -> None:
    found = shown("key sorts <module>", ">, list_sort, serve, start", 1, ending=Ending.UNPLACED)

    assert found == ["key", UNKNOWN_NAME, "sorts", "<module>"]


def test_a_python_stack_that_was_lost_has_no_native_functions_between() -> None:
    assert shown("[unreadable]", "list_sort, >, list_sort, >, start", 2, 1) == [
        "list_sort",
        UNKNOWN_NAME,
        "[unreadable]",
    ]


# -- following -----------------------------------------------------------------------------------------------------


class Code:
    """Functions of 256 bytes each, with frames of 32 bytes: the return address on top, a saved rbp below it."""

    def __init__(self, names: list[str], rows: Mapping[str, UnwindRow | None]) -> None:
        self.names, self.rows, self.asked = names, rows, 0

    def refresh(self) -> bool:
        return False

    def find(self, address: int) -> tuple[Code, int] | None:
        return (self, 0) if 0x100 <= address < 0x100 * (len(self.names) + 1) else None

    def function(self, address: int) -> NativeFunction:
        return FUNCTIONS[self.names[(address >> 8) - 1]]

    def row(self, address: int, budget: Budget) -> UnwindRow | None:
        self.asked += 1
        return self.rows.get(self.names[(address >> 8) - 1], ROW)

    def code(self, address: int) -> bytes:
        return b""


RBP, RSP, RIP = 6, here().stack_pointer, here().program_counter
SAVED = ((RBP, Rule(RuleKind.SAVED_AT, -16)), (RIP, Rule(RuleKind.SAVED_AT, -8)))
ROW, BY_POINTER = UnwindRow(RSP, 32, saved=SAVED), UnwindRow(RBP, 16, saved=SAVED)
START = UnwindRow(RSP, 32, saved=((RIP, Rule(RuleKind.UNDEFINED)),))
NAMES = ["loop", "list_sort", "vectorcall", "serve", "start"]
STACK = 0x10000

needs_x86 = pytest.mark.skipif(here().name != "x86_64", reason="these stacks are those of x86-64")


class Stack:
    """A stack that is followed again and again. Each frame has 32 bytes; the leaf's is the first."""

    def __init__(self, rows: Mapping[str, UnwindRow | None] | None = None, *, by_name: bool = False) -> None:
        self.functions: list[NativeFunction] = []
        self.code = Code(NAMES, {"start": START, **(rows or {})})
        self.unwinder = Unwinder(self.code, self.functions, {}, loops_by_name=by_name)  # type: ignore[arg-type]

    def follow(self, chain: str, loops: tuple[int, ...], python: int = 2, **options: int) -> tuple[list[str], Ending]:
        """Names, leaf-first; loops are `>`."""
        found = self.chain(chain, loops, python, **options)
        return [">" if one < 0 else self.functions[one].name for one in found.functions], found.ending

    def chain(self, chain: str, loops: tuple[int, ...], python: int = 2, **options: int) -> Chain:
        """Follow a stack.

        Args:
            chain: Function, leaf-first.
            loops: In which frames evaluation loops are said to be.
            python: How many Python functions they run, one each.
            options: `rbp`; `saved`, what all frames have saved of it, not each its caller's; `local`, another word of
                each frame; `marks`.
        """
        names = chain.split(", ")
        addresses = [0x100 * NAMES.index(name) + 0x180 for name in names]
        words: list[int] = []
        for number, caller in enumerate([*addresses[1:], 0]):
            pointer = options.get("saved", STACK + 32 * (number + 1) + 16)
            words += [options.get("local", 0), 0, pointer, caller]
        registers = [0] * 17
        registers[RSP], registers[RIP], registers[RBP] = STACK, addresses[0], options.get("rbp", STACK + 16)
        places = tuple(STACK + 32 * place + 8 for place in loops)
        copy = StackCopy(
            tuple(registers),
            STACK,
            struct.pack(f"<{len(words)}Q", *words),
            loops=places,
            groups=(1,) * len(loops),
            python_frames=python,
            marks=options.get("marks", 0),
        )
        return self.unwinder.follow(copy, Budget("a stack", steps=1 << 20, seconds=10))


WHOLE = "list_sort, loop, list_sort, vectorcall, loop, start"
FOUND = ["list_sort", ">", "list_sort", "_PyObject_Vectorcall", ">", "__libc_start_main"]


@needs_x86
def test_loops_are_told_by_what_they_keep_on_the_stack() -> None:
    stack = Stack()

    assert stack.follow(WHOLE, (1, 4)) == (FOUND, Ending.AT_START)
    assert stack.follow(WHOLE, (1, 4), python=3) == (FOUND, Ending.UNPLACED)
    assert stack.follow(WHOLE, (1, 3))[0] == ["list_sort", ">", "list_sort", ">", LOOP, "__libc_start_main"]


@needs_x86
def test_or_by_their_name() -> None:
    stack = Stack(by_name=True)

    assert stack.follow(WHOLE, ()) == (FOUND, Ending.AT_START)
    assert stack.follow(f"loop, {WHOLE}", ())[0] == [
        LOOP,
        *FOUND,
    ]  # just entered: there is no Python function for it yet
    assert stack.follow(WHOLE, (), python=3)[1] == Ending.UNPLACED


@needs_x86
def test_what_stands_for_no_function_is_on_top_of_the_first_python_function() -> None:
    stack = Stack()

    assert stack.chain(WHOLE, (1, 4), marks=1)[1:] == ((2, 1), Ending.AT_START)


@needs_x86
def test_a_loop_that_is_not_met_breaks_the_stack() -> None:
    stack = Stack()

    assert stack.follow(WHOLE, (1, 4, 9))[1] == Ending.BROKEN
    assert (
        Stack({"vectorcall": UnwindRow(RBP, 0, saved=SAVED)}).follow(WHOLE, (1, 4), rbp=STACK + 32 * 5)[1]
        == Ending.BROKEN
    )


@needs_x86
def test_what_was_followed_before_is_not_followed_again() -> None:
    stack = Stack({"vectorcall": BY_POINTER})
    saved = STACK + 32 * 4 - 16
    first = stack.follow(WHOLE, (1, 4), rbp=saved, saved=saved)
    followed_first = len(stack.unwinder._places)
    stack.unwinder._places.clear()

    again = stack.follow(WHOLE, (1, 4), rbp=saved, saved=saved, local=4711)

    assert first == again == (FOUND, Ending.AT_START)
    assert len(stack.unwinder._places) < followed_first


@needs_x86
@pytest.mark.parametrize(
    ("chain", "loops", "saved"),
    [
        ("list_sort, loop, list_sort, vectorcall, serve, start", (1, 4), 0),
        ("list_sort, loop, list_sort, vectorcall, loop, start", (1, 3), 0),
        ("list_sort, loop, list_sort, vectorcall, loop, start", (1,), 0),
        ("list_sort, loop, list_sort, vectorcall, loop, start", (1, 4), 16),
    ],
)
def test_unless_something_that_matters_has_changed(chain: str, loops: tuple[int, ...], saved: int) -> None:
    """Another caller, other loops, a register by which a frame is known."""
    pointer = STACK + 32 * 4 - 16
    rows = {"vectorcall": BY_POINTER}
    remembering = Stack(rows)
    remembering.follow(WHOLE, (1, 4), rbp=pointer, saved=pointer)
    options = {"rbp": pointer + saved, "saved": pointer + saved}

    assert remembering.follow(chain, loops, **options) == Stack(rows).follow(chain, loops, **options)


@needs_x86
def test_a_remembered_way_is_never_another_than_the_one_that_is_followed() -> None:
    """On thousands of stacks that differ here and there, in what matters and in what does not."""
    chance = random.Random(4711)
    rows = {"vectorcall": BY_POINTER, "serve": BY_POINTER}
    remembering, differences, whole = Stack(rows), 0, 0
    names = [chance.choice(NAMES[:-1]) for _ in range(12)]
    for _ in range(3000):
        if chance.random() < 0.3:
            names[chance.randrange(12)] = chance.choice(NAMES[:-1])
        wrong = {chance.choice(["rbp", "saved"]): STACK + 16 * chance.randrange(30)} if chance.random() < 0.2 else {}
        loops = tuple(place for place, name in enumerate(names) if name == "loop" and chance.random() < 0.95)
        words = ", ".join([*names, "start"])

        found = remembering.chain(words, loops, len(loops), local=chance.randrange(3), **wrong)

        fresh = Stack(rows)
        fresh.functions[:], fresh.unwinder._numbers = remembering.functions, remembering.unwinder._numbers
        expected = fresh.chain(words, loops, len(loops), **wrong)
        differences += found != expected
        whole += found.is_whole
    assert differences == 0
    assert whole > 1000


@needs_x86
@pytest.mark.parametrize("loops", [(2, 4), (1, 4)])
def test_code_made_at_run_time_is_crossed_by_its_frame_pointer(loops: tuple[int, ...]) -> None:
    """But not over a loop: that would leave Python functions out."""
    names, stack = "serve, list_sort, loop, vectorcall, loop, start", Stack()
    real, stack.code.find = stack.code.find, None  # type: ignore[method-assign, assignment]
    stack.code.find = lambda address: None if address >> 8 == 4 else real(address)  # type: ignore[method-assign]

    found, ending = stack.follow(names, loops, rbp=STACK + 16)

    is_right = (found[1:], ending) == (
        ["list_sort", ">", "_PyObject_Vectorcall", ">", "__libc_start_main"],
        Ending.AT_START,
    )
    assert is_right is (loops == (2, 4))
    assert found[0] == "[code made at run time]"


# -- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("__pyx_pf_4shop_total", "shop.total"),
        ("__pyx_pw_4shop_1total", "shop.total"),
        ("__pyx_pf_4shop_4Cart_2total", "shop.Cart.total"),
        ("__pyx_f_4shop_4Cart_total", "shop.Cart.total"),
        ("__pyx_pw_7sklearn_4tree_5_tree_4Tree_9predict", "sklearn.tree._tree.Tree.predict"),
        ("__pyx_pf_4shop_2to_dict", "shop.to_dict"),
        ("__pyx_f_8pkg_dot_shop_total", "pkg.shop.total"),
        ("__pyx_gb_4shop_4items", "shop.items"),
        ("__pyx_pf_9shop", "__pyx_pf_9shop"),
        ("__pyx_pymod_exec_shop", "__pyx_pymod_exec_shop"),
    ],
)
def test_names_of_cython_are_those_of_its_source(symbol: str, name: str) -> None:
    assert readable(symbol) == name
