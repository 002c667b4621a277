"""Native stacks of arm64: calls leave the return address in a register, and programs may sign it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pprofpy.arch import arm64
from pprofpy.arch.arm64.code import keeps_caller
from pprofpy.budget import Budget
from pprofpy.collectors.unwind.cfi import CfiTable, Rule, RuleKind, UnwindRow
from pprofpy.collectors.unwind.dwarf import CfiError
from pprofpy.collectors.unwind.image import NativeFunction
from pprofpy.collectors.unwind.stackcopy import Ending, StackCopy
from pprofpy.collectors.unwind.unwinder import Unwinder
from tests.conftest import PROGRAMS
from tests.unit.test_native import image_of, rows_of_readelf, rule_in_words
from tests.unit.test_native_forged import table_of

SP, PC, LR, FP = 31, 32, 30, 29
COMMON = b"\x01zR\0\x04\x78\x1e\x01\x1b\x0c\x1f\x00"
"""Version, augmentation, factors (4, -8), return address (x30), encoding; the frame is the stack pointer + 0."""

ADVANCE, NEGATE, FRAME_OF_16, SAVE_FP, SAVE_LR = b"\x41", b"\x2d", b"\x0e\x10", b"\x9d\x02", b"\x9e\x01"
SIGNED = 0x0055 << 48
"""What pointer authentication may write above the 48 bits of an address."""

COMPILER = "aarch64-linux-gnu-gcc"


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="aarch64", release="6.1", sysname="Linux"))


def row_at(table: CfiTable, address: int) -> UnwindRow:
    row = table.row(address)
    assert row
    return row


@pytest.mark.usefixtures("arm")
def test_a_function_that_signs_its_return_address_is_unwound_by_its_table() -> None:
    table = table_of(NEGATE + ADVANCE + FRAME_OF_16 + SAVE_FP + SAVE_LR, common=COMMON)

    before, within = row_at(table, 0x10000), row_at(table, 0x10004)

    assert (before.register, before.offset, before.saved) == (SP, 0, ())
    assert (within.register, within.offset) == (SP, 16)
    assert dict(within.saved) == {FP: Rule(RuleKind.SAVED_AT, -16), LR: Rule(RuleKind.SAVED_AT, -8)}


def test_elsewhere_nothing_is_signed() -> None:
    with pytest.raises(CfiError, match="0x2d"):
        table_of(NEGATE).row(0x10000)


def test_a_table_of_arm64_is_no_table_of_x86_64() -> None:
    with pytest.raises(CfiError, match="another machine"):
        table_of(b"", common=COMMON).row(0x10000)


def words(*instructions: int) -> bytes:
    return struct.pack(f"<{len(instructions)}I", *instructions)


RET, PUSH, CALL = 0xD65F03C0, 0xA9B87BFD, 0x94000010
CODE = {"clock": words(0xD53BE040, 0x8B020001, RET), "random": words(PUSH, CALL, 0xA8C87BFD, RET)}
"""Of functions without tables: mrs x0, cntvct_el0; add x1, x0, x2; ret. The other pushes x29 and x30, calls, pops."""


class Code:
    """Code of functions of 256 bytes each, and how to unwind from anywhere in each of them."""

    def __init__(self, rows: Mapping[str, UnwindRow | None]) -> None:
        self._names, self._rows = list(rows), rows

    def find(self, address: int) -> tuple[Any, int] | None:
        return (self, 0) if 0 < address >> 8 <= len(self._names) else None

    def function(self, address: int) -> NativeFunction:
        name = self._names[(address >> 8) - 1]
        return NativeFunction(name, name, "a.so")

    def row(self, address: int, budget: Budget) -> UnwindRow | None:
        return self._rows[self._names[(address >> 8) - 1]]

    def code(self, address: int) -> bytes:
        return CODE.get(self._names[(address >> 8) - 1], b"")


FRAME = UnwindRow(SP, 32, saved=((FP, Rule(RuleKind.SAVED_AT, -32)), (LR, Rule(RuleKind.SAVED_AT, -24))))
LEAF = UnwindRow(SP, 0)
START = UnwindRow(SP, 16, saved=((LR, Rule(RuleKind.UNDEFINED)),))


def followed(rows: Mapping[str, UnwindRow | None], *words: int, pc: int, lr: int = 0) -> tuple[list[str], Ending]:
    """The functions of a stack of these words."""
    registers = [0] * 33
    registers[SP], registers[PC], registers[LR] = 0x7000, pc, lr
    functions: list[NativeFunction] = []
    unwinder = Unwinder(Code(rows), functions, {})  # type: ignore[arg-type]
    content = struct.pack(f"<{len(words)}Q", *words)
    chain = unwinder.follow(StackCopy(tuple(registers), 0x7000, content), Budget("a stack", steps=1 << 20, seconds=10))
    return [functions[one].name for one in chain.functions], chain.ending


@pytest.mark.usefixtures("arm")
def test_a_leaf_returns_to_what_its_register_says_and_signatures_are_taken_off() -> None:
    rows = {"leaf": LEAF, "caller": FRAME, "start": START}

    assert followed(rows, 0, 0x340 | SIGNED, 0, 0, 0, 0, pc=0x120, lr=0x240 | SIGNED) == (
        ["leaf", "caller", "start"],
        Ending.AT_START,
    )


@pytest.mark.usefixtures("arm")
def test_who_has_called_has_saved_its_return_address() -> None:
    """The register holds that of the call: it would be taken for its own caller."""
    rows = {"leaf": LEAF, "caller": LEAF}

    assert followed(rows, 0, 0, 0, 0, pc=0x120, lr=0x240) == (["leaf", "caller"], Ending.BROKEN)


@pytest.mark.usefixtures("arm")
def test_code_without_a_table_ends_a_stack() -> None:
    assert followed({"leaf": LEAF, "plt": None}, 0, 0, pc=0x110, lr=0x220) == (["leaf", "plt"], Ending.NO_TABLE)


@pytest.mark.usefixtures("arm")
def test_a_leaf_that_moves_neither_stack_nor_link_register_needs_no_table() -> None:
    rows = {"clock": None, "random": None, "caller": FRAME, "start": START}
    stack = (0, 0x440, 0, 0, 0, 0)

    assert followed(rows, *stack, pc=0x104, lr=0x340) == (["clock", "caller", "start"], Ending.AT_START)
    assert followed(rows, *stack, pc=0x204, lr=0x340) == (["random"], Ending.NO_TABLE)
    # Who has called is no leaf
    assert followed({"leaf": LEAF, "clock": None}, *stack, pc=0x104, lr=0x240) == (["leaf", "clock"], Ending.NO_TABLE)


@pytest.mark.parametrize(
    "instruction",
    [
        0x910043FF, 0xD10043FF,  # add, sub sp, sp, #16
        0x8B2063FF,  # add sp, sp, x0
        0x9100001F,  # mov sp, x0
        0x927CEC1F,  # and sp, x0, #-16
        PUSH, 0xA8C87BFD, 0x6DBF27E8,  # stp, ldp x29, x30 and stp d8, d9 with sp moved
        0xF81F0FFE, 0xF84107FE,  # str x30, [sp, #-16]!; ldr x30, [sp], #16
        0x4C9F73E0,  # st1 {v0.16b}, [sp], #16
        CALL, 0xD63F0020, 0xD73F0821,  # bl, blr, blraa
        0xAA0003FE, 0x9000001E, 0x5280001E,  # mov x30, x0; adrp x30; mov w30, #0
        0xF940041E, 0x5800001E, 0xA9407BFD, 0x9E66001E, 0xD53BE05E,  # ldr, literal, ldp, fmov, mrs into x30
    ],
)  # fmt: skip
def test_an_instruction_that_moves_either_is_found(instruction: int) -> None:
    assert not keeps_caller(words(0xD53BE040, instruction, RET))


def test_code_that_keeps_both_is_told_and_no_code_is_not() -> None:
    harmless = (
        0xF100041F, 0xEB02003F,  # cmp x0, #1; cmp x1, x2: into the register of zeros
        0xF94007E0, 0xF90007E0, 0xA94007E0,  # ldr, str, ldp at sp, which stays
        0x8B2463E4,  # add x4, sp, x4
        0xD4000001, 0x54000040, 0xD503233F, RET,  # svc; b.eq; paciasp; ret
    )  # fmt: skip

    assert keeps_caller(words(*harmless))
    assert not keeps_caller(b"")


@pytest.mark.usefixtures("arm")
@pytest.mark.skipif(not shutil.which(COMPILER), reason=f"no {COMPILER}")
@pytest.mark.skipif(not shutil.which("readelf"), reason="binutils are not installed")
@pytest.mark.parametrize("protection", ["none", "standard"])
def test_every_row_of_a_library_is_what_readelf_reads(protection: str, tmp_path: Path) -> None:
    library = tmp_path / "libnative.so"
    flags = ["-O2", "-fomit-frame-pointer", "-shared", "-fPIC", f"-mbranch-protection={protection}"]
    subprocess.run([COMPILER, *flags, "-o", library, PROGRAMS / "native.c"], check=True)
    image, names = image_of(library), [*(f"x{number}" for number in range(31)), "sp"]

    def in_words(address: int, wanted: dict[str, str]) -> dict[str, str]:
        row = image.row(address)
        assert row
        saved = dict(row.saved)
        found = {"CFA": "exp" if row.expression else f"{names[row.register]}{row.offset:+d}"}
        for name in [one for one in wanted if one != "CFA"]:
            if name not in names and name != "ra":  # registers of vectors do not matter
                found[name] = wanted[name]
                continue
            found[name] = rule_in_words(saved.get(LR if name == "ra" else names.index(name)))
        return found

    rows = list(rows_of_readelf(library))

    assert len(rows) > 10
    assert [(address, said) for address, said in rows if in_words(address, said) != said] == []
    assert arm64.MACHINE.signs_addresses
