"""Unwinding tables and names of native functions, held against what binutils read from the same files."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from pprofpy.collectors.unwind.cfi import Rule, RuleKind
from pprofpy.collectors.unwind.codemap import CodeMap, Images
from pprofpy.collectors.unwind.demangle import readable
from pprofpy.collectors.unwind.dwarf import CfiError, evaluate
from pprofpy.collectors.unwind.image import Image
from pprofpy.elf import NotElfError
from pprofpy.target.named_files import NamedFiles

REGISTERS = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "ra")

needs_binutils = pytest.mark.skipif(not shutil.which("readelf"), reason="binutils are not installed")
needs_compiler = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")


def mapped(name: str) -> Path:
    """The largest file of such a name that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    found = [Path(line.split(maxsplit=5)[5]) for line in lines if re.search(rf"/(?:{name})[^/]*$", line)]
    return max(found, key=lambda path: path.stat().st_size)


def image_of(path: Path) -> Image:
    return Image(str(path), NamedFiles(Path("/")).open(str(path)))


# -- tables --------------------------------------------------------------------------------------------------------


@needs_binutils
@pytest.mark.parametrize("name", ["libc[.]so", "libpython3[.]\\d+|python3", "ld-linux", "libm[.]so"])
def test_every_row_is_what_readelf_reads(name: str) -> None:
    try:
        path = mapped(name)
    except ValueError:
        pytest.skip(f"this Python has no {name}")
    image = image_of(path)

    rows = list(rows_of_readelf(path))
    different = [
        (hex(address), said, text) for address, said in rows if (text := in_words(image, address, said)) != said
    ]

    assert len(rows) > 100
    assert different == []


@needs_binutils
@needs_compiler
def test_so_are_those_of_frames_that_compilers_describe_by_expressions(native_library: Path) -> None:
    image = image_of(native_library)

    rows = list(rows_of_readelf(native_library))

    assert any(said["CFA"] == "exp" for _, said in rows)
    assert all(in_words(image, address, said) == said for address, said in rows)


def rows_of_readelf(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Address -> how to find what, in readelf's words; of every third function, which is enough."""
    text = subprocess.run(["readelf", "-wF", path], capture_output=True, text=True, check=False).stdout
    for block in text.split("\n\n")[::3]:
        lines = block.splitlines()
        if len(lines) > 2 and " FDE " in lines[0]:
            names = lines[1].split()[1:]
            rows = [re.sub(r"\br\d+ \(", "(", line).split() for line in lines[2:]]
            # Of rows at one address, the last one holds.
            last = {int(row[0], 16): dict(zip(names, row[1:], strict=True)) for row in rows}
            yield from last.items()


def in_words(image: Image, address: int, wanted: dict[str, str]) -> dict[str, str]:
    """What we know of an address, in the same words."""
    row = image.row(address)
    if row is None:
        return {}
    saved = dict(row.saved)
    found = {"CFA": "exp" if row.expression else f"{REGISTERS[row.register]}{row.offset:+d}"}
    for name in list(wanted)[1:]:
        found[name] = rule_in_words(saved.get(REGISTERS.index(name)))
    return found


def rule_in_words(rule: Rule | None) -> str:
    match rule:
        case Rule(RuleKind.SAVED_AT, value):
            return f"c{value:+d}"
        case Rule(RuleKind.VALUE_IS, value):
            return f"v{value:+d}"
        case Rule(RuleKind.IN_REGISTER, value):
            return f"({REGISTERS[value]})"
        case Rule(RuleKind.SAVED_AT_EXPRESSION):
            return "exp"
        case Rule(RuleKind.VALUE_IS_EXPRESSION):
            return "vexp"
    return "u"


def test_the_kernels_own_code_has_tables_too() -> None:
    code = CodeMap(pid=_own_pid(), images=Images())
    assert code.refresh()
    start = next(int(line.split("-")[0], 16) for line in _own_maps() if line.endswith("[vdso]"))

    image, bias = code.find(start + 0xA00) or pytest.fail("the vdso is not found")

    assert image.path == "[vdso]"
    assert any(image.row(start - bias + offset) for offset in range(0, 8192, 64))


def test_linkage_tables_say_where_they_are_by_an_expression() -> None:
    # rsp + 8 + (8 if rip & 15 >= 11 else 0): what linkers write
    expression = bytes.fromhex("77088000 3f1a 3b2a 3324 22".replace(" ", ""))
    registers = [0] * 17
    registers[7] = 1000

    found = []
    for address in (0x1000, 0x100A, 0x100B, 0x100F):
        registers[16] = address
        found.append(evaluate(expression, registers, lambda address: 0))

    assert found == [1008, 1008, 1016, 1016]


# -- names ---------------------------------------------------------------------------------------------------------


@needs_binutils
@needs_compiler
@pytest.mark.parametrize("is_stripped", [False, True])
def test_functions_are_named_over_their_whole_length(is_stripped: bool, native_library: Path) -> None:
    if is_stripped:
        subprocess.run(["strip", native_library], check=True)
    image = image_of(native_library)
    text = subprocess.run(["nm", "-DS", native_library], capture_output=True, text=True, check=True).stdout
    symbols = re.findall(r"^(\w+) (\w+) T (\w+)$", text, re.MULTILINE)

    assert {name for _, _, name in symbols} == {
        "plain",
        "callee",
        "caller",
        "recursive",
        "growing",
        "aligned",
        "large",
        "huge",
    }
    for start, size, name in symbols:
        first, last = int(start, 16), int(start, 16) + int(size, 16) - 1
        assert [image.function(address).name for address in (first, last)] == [name, name]
        assert image.function(last + 1).name != name or any(int(other, 16) == last + 1 for other, _, _ in symbols)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("sre_ucs1_match", "sre_ucs1_match"),
        ("_PyEval_EvalFrameDefault.cold", "_PyEval_EvalFrameDefault"),
        ("insertdict.part.0.constprop.1", "insertdict"),
        ("v1.2", "v1.2"),
        ("_Znot_a_name", "_Znot_a_name"),
    ],
)
def test_clones_count_as_the_function(symbol: str, name: str) -> None:
    assert readable(symbol) == name


def test_cpp_names_are_readable_where_the_cpp_library_is_there() -> None:
    assert readable("_ZN5numpy3addEii.cold") in {"numpy::add(int, int)", "_ZN5numpy3addEii"}


# -- damage --------------------------------------------------------------------------------------------------------


@needs_compiler
def test_a_damaged_file_is_an_error_of_ours(native_library: Path, tmp_path: Path) -> None:
    content = native_library.read_bytes()
    chance = random.Random(4711)

    for round_number in range(300):
        damaged = bytearray(content)
        for _ in range(chance.choice([1, 20, 400])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        read_all(bytes(damaged[: chance.randrange(len(damaged))] if round_number % 3 == 0 else damaged))


def read_all(content: bytes) -> None:
    try:
        image = Image("damaged", content)
    except NotElfError:
        return
    for address in range(0x1000, 0x1800, 16):
        image.function(address)
        with suppress(CfiError):
            image.row(address)


def test_expressions_that_make_no_sense_are_an_error_of_ours() -> None:
    word: Callable[[int], int] = lambda address: 0  # noqa: E731
    for expression in (b"\x22", b"\xff", b"\x08", b"\x77"):
        with pytest.raises(CfiError):
            evaluate(expression, [0] * 17, word)


def test_code_that_belongs_to_no_file_has_no_image() -> None:
    code = CodeMap(_own_pid(), Images())
    code.refresh()

    assert code.find(4096) is None
    assert code.find(id(code)) is None


def _own_pid() -> int:
    return int(Path("/proc/self").readlink().name)


def _own_maps() -> list[str]:
    return Path("/proc/self/maps").read_text().splitlines()
