"""What differs between machines is in one package, which refuses those that it does not know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import pprofpy
from pprofpy import arch
from pprofpy.arch import arm64, x86_64
from pprofpy.arch.x86_64.registers import Registers
from pprofpy.arch.x86_64.system_calls import TABLE
from pprofpy.collectors import doctor
from pprofpy.collectors.attach import refusals
from pprofpy.collectors.kernel import program
from pprofpy.errors import NotPossibleError
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start, interpreter

PACKAGE = Path(pprofpy.__file__).parent
HEADERS = {
    x86_64.MACHINE: (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+) (\d+)"),
    arm64.MACHINE: (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR_(\w+) (\d+)"),
}
PT_REGS = PACKAGE / "collectors/probes/headers/include/uapi/linux/ptrace.h"
UNWOUND = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip")
"""Source: System V ABI for AMD64, table 3.36."""


def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, release="6.1", sysname="Linux"))
    arch.system_call_number.cache_clear()


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_of_system_calls_are_those_of_the_headers(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, pattern = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"there is no {path} here")
    said = {name: int(number) for name, number in re.findall(pattern, path.read_text())}
    ours = [name for _, name, *_ in map(str.split, TABLE.splitlines())] if machine == x86_64.MACHINE else ["setgroups"]
    on(machine, monkeypatch)

    compared = {name: arch.system_call_number(name) for name in ours if name in said}
    arch.system_call_number.cache_clear()

    assert len(compared) == (1 if machine == arm64.MACHINE else pytest.approx(len(said), abs=40))
    assert compared == {name: said[name] for name in compared}


def test_registers_lie_where_the_kernel_has_them() -> None:
    names = [field[0] for field in Registers._fields_]
    declared = re.search(r"unsigned long (.*?);", PT_REGS.read_text())
    assert declared

    assert [names[place] for place in x86_64.PT_REGS_OF_UNWINDING] == list(UNWOUND)
    defines = x86_64.kernel_defines()
    arguments = [names[defines[f"REGISTER_ARGUMENT_{number}"]] for number in range(6)]
    assert arguments == ["rdi", "rsi", "rdx", "r10", "r8", "r9"]
    assert (names[defines["REGISTER_CALL"]], names[defines["REGISTER_STACK_POINTER"]]) == ("orig_rax", "rsp")
    assert (UNWOUND[x86_64.STACK_POINTER], UNWOUND[x86_64.RETURN_ADDRESS]) == ("rsp", "rip")
    assert [name.removeprefix("r").removeprefix("e") for name in names[: x86_64.PT_REGS_COUNT]] == [
        name.removeprefix("r") for name in declared[1].replace("orig_ax", "orig_rax").split(", ")
    ]


def test_a_thread_is_sent_elsewhere_and_its_call_begun_anew_or_ended() -> None:
    before = Registers(rip=0x1000, rsp=0x7FFF_1234, rax=-512 & (1 << 64) - 1, orig_rax=202, eflags=0x40746, cs=0x33)

    frame = before.frame_below(320)
    diverted = before.diverted(0x5000, frame)

    assert frame <= 0x7FFF_1234 - 128 - 320
    assert frame % 64 == 0
    assert (diverted.instruction_pointer, diverted.stack_pointer, diverted.system_call) == (0x5000, frame, -1)
    assert diverted.eflags == 0x246  # neither direction, single steps nor checks of alignment
    assert (before.system_call, before.result, before.is_64_bit) == (202, -512, True)
    before.copy().end_call(4)
    assert before.result == -512
    before.begin_call_anew()
    assert (before.rax, before.rip) == (202, 0xFFE)
    before.end_call(4)
    assert (before.result, before.system_call) == (-4, -1)


@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_recorders_refuse_other_machines(machine: str, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(start(interpreter("3.12"), str(PROGRAMS / "burn.py")).pid)
    on(machine, monkeypatch)

    for refused in (program.require, lambda: refusals.check(target), lambda: arch.system_call_number("bpf")):
        with pytest.raises(NotPossibleError, match=machine):
            refused()
    arch.system_call_number.cache_clear()

    assert doctor._system().verdict is doctor.Verdict.WARNING


def test_no_other_module_knows_machines() -> None:
    """What they say of themselves, numbers of system calls, registers in ptrace."""
    known = re.compile(r"uname\(\)\.machine|\"(x86_64|aarch64)\"|fsbase|orig_rax|\b_(SYS|NR)_\w+(, \w+)* = \d")
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".c", ".h") and "arch" not in path.parts]

    assert len(files) > 100
    assert [str(path.relative_to(PACKAGE)) for path in files if known.search(path.read_text())] == []
