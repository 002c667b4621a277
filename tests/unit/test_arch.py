"""What differs between machines is in one package, which refuses those that it does not know."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pprofpy
from pprofpy import arch
from pprofpy.arch import arm64, x86_64
from pprofpy.arch.machine import Machine
from pprofpy.arch.x86_64.registers import Registers
from pprofpy.collectors import doctor
from pprofpy.collectors.attach import refusals
from pprofpy.collectors.kernel import program
from pprofpy.errors import NotPossibleError
from pprofpy.target import open_target
from tests.conftest import PROGRAMS, Start, interpreter

PACKAGE = Path(pprofpy.__file__).parent
HEADERS = {
    "x86_64": (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), r"#define __NR_(\w+)\s+(\d+)\n"),
    "aarch64": (Path("/usr/include/asm-generic/unistd.h"), r"#define __NR(?:3264)?_(\w+)\s+(\d+)\n"),
}
ONLY_OTHERS = {"fstatat", "sync_file_range2", "syscalls", "arch_specific_syscall"}
"""In the generic header: another name of newfstatat, what arm64 does not have, and no calls at all."""

PT_REGS = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax",
    "rcx", "rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "eflags", "rsp", "ss",
)  # fmt: skip
"""Source: the kernel's arch/x86/include/asm/ptrace.h."""

UNWOUND = ("rax", "rdx", "rcx", "rbx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)), "rip")
"""Source: System V ABI for AMD64, table 3.36."""


def on(machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, release="6.1", sysname="Linux"))
    arch.system_call_number.cache_clear()


@pytest.mark.parametrize("machine", HEADERS)
def test_numbers_of_system_calls_are_those_of_the_headers(machine: str) -> None:
    path, pattern = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"there is no {path} here")
    said = {name: int(number) for name, number in re.findall(pattern, path.read_text()) if name not in ONLY_OTHERS}
    said = {name: number for name, number in said.items() if not 403 <= number <= 423}  # of 32-bit machines
    ours = arch.MACHINES[machine]

    known = {name: number for name in said if (number := ours.system_call_number(name)) is not None}

    assert len(said) > 300
    assert known == {name: said[name] for name in known}
    assert len(said) - len(known) <= 40  # newer than the table, or what no kernel of today has


def test_arm64_has_every_call_of_the_generic_header() -> None:
    assert {name: arm64.MACHINE.system_call_number(name) for name in ("io_setup", "mmap", "futex", "bpf", "rseq")} == {
        "io_setup": 0, "mmap": 222, "futex": 98, "bpf": 280, "rseq": 293,
    }  # fmt: skip
    assert len(arm64.MACHINE.system_calls.splitlines()) == 325
    assert arm64.MACHINE.system_call_number("open") is None


def test_arguments_of_calls_are_in_the_order_of_their_machine() -> None:
    def line(machine: Machine, name: str) -> str:
        (found,) = [line for line in machine.system_calls.splitlines() if line.split()[1] == name]
        return found

    assert line(x86_64.MACHINE, "clone") == "56 clone clone:flags x:newsp p:parent_tidptr p:child_tidptr x:tls"
    assert line(arm64.MACHINE, "clone") == "220 clone clone:flags x:newsp p:parent_tidptr x:tls p:child_tidptr"
    assert line(arm64.MACHINE, "openat") == "56 openat f:dfd s:filename open_arm64:flags o:mode"


def test_registers_lie_where_the_kernel_has_them() -> None:
    machine, defines = x86_64.MACHINE, x86_64.MACHINE.kernel_defines()

    assert [field[0] for field in Registers._fields_][: len(PT_REGS)] == list(PT_REGS)
    assert [PT_REGS[place] for place in machine.pt_regs_of_unwinding] == list(UNWOUND)
    arguments = [PT_REGS[defines[f"REGISTER_ARGUMENT_{number}"]] for number in range(6)]
    assert arguments == ["rdi", "rsi", "rdx", "r10", "r8", "r9"]
    named = [PT_REGS[defines[f"REGISTER_{name}"]] for name in ("CALL", "STACK_POINTER", "MODE")]
    assert named == ["orig_rax", "rsp", "cs"]
    assert [UNWOUND[one] for one in (machine.stack_pointer, machine.program_counter)] == ["rsp", "rip"]
    assert machine.pt_regs_count == len(PT_REGS)


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


def test_recorders_refuse_machines_that_are_not_known(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(start(interpreter("3.12"), str(PROGRAMS / "burn.py")).pid)
    on("riscv64", monkeypatch)

    for refused in (program.require, lambda: refusals.check(target), lambda: arch.system_call_number("bpf")):
        with pytest.raises(NotPossibleError) as error:
            refused()
        assert error.value.exit_code == 4
        assert "riscv64" in f"{error.value.message} {error.value.hint}"
    arch.system_call_number.cache_clear()

    assert doctor._system().verdict is doctor.Verdict.WARNING


def test_arm64_is_known_but_for_what_enters_a_process(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    target = open_target(start(interpreter("3.12"), str(PROGRAMS / "burn.py")).pid)
    on("aarch64", monkeypatch)

    arch.require("kernel probes work")
    assert arch.system_call_number("bpf") == 280
    arch.system_call_number.cache_clear()
    with pytest.raises(NotPossibleError, match="heap needs to run code in the process") as error:
        refusals.check(target)
    assert error.value.exit_code == 4
    assert "aarch64" in (error.value.hint or "")
    assert "sched-latency" in (error.value.hint or "")

    said = doctor._system()
    assert (said.verdict, said.needed_for) == (doctor.Verdict.WARNING, "heap")


class Arm64Thread:
    """The memory around a thread of glibc on arm64: its record, what the thread pointer points to, a list of places."""

    IDENT, LIST = 0x7000_0000_0F00, 0x5000_0000_1010

    def __init__(self, record: int, *, tid: int = 4711, places: tuple[int, ...] = (), generation: int = 1) -> None:
        self.memory: dict[int, int] = {}
        self.words(self.IDENT, [0] * (record // 8))
        self.words(self.IDENT + 208, [tid, 0])
        self.words(self.IDENT + record, [self.LIST, 0, 0, 0, 0])
        self.words(self.LIST - 16, [15, 0, generation, 0])
        self.words(self.LIST + 16, [word for place in (*places, *[0] * 15)[:15] for word in (place, 0)])

    def words(self, address: int, words: list[int]) -> None:
        self.memory |= {address + 8 * place: word for place, word in enumerate(words)}

    def read(self, address: int, size: int) -> bytes:
        places = range(address - address % 8, address + size, 8)
        if any(place not in self.memory for place in places):
            return b""
        content = b"".join(self.memory[place].to_bytes(8, "little") for place in places)
        return content[address % 8 :][:size]


@pytest.mark.parametrize("record", [0x6F0, 0x740, 0x8E0])
def test_a_thread_pointer_of_glibc_on_arm64_is_found_behind_the_threads_record(record: int) -> None:
    pointer = Arm64Thread.IDENT + record
    thread = Arm64Thread(record, places=((1 << 64) - 1, pointer + 32))
    for page in range(Arm64Thread.IDENT, Arm64Thread.IDENT + 0x1100, 8):  # to the end of its page, and of the next
        thread.memory.setdefault(page, 0)

    assert arm64.MACHINE.thread_pointer_of(Arm64Thread.IDENT, thread.read) == pointer


@pytest.mark.parametrize(
    "options",
    [
        {"places": (0x6000,)},  # a list, but of what lies elsewhere
        {"places": (Arm64Thread.IDENT + 0x740 + 32,), "tid": 0},  # a thread that has ended
        {"places": (Arm64Thread.IDENT + 0x740 + 32,), "generation": 1 << 40},
    ],
)
def test_no_thread_pointer_is_guessed(options: dict[str, Any]) -> None:
    thread = Arm64Thread(0x740, **options)
    for page in range(Arm64Thread.IDENT, Arm64Thread.IDENT + 0x1100, 8):
        thread.memory.setdefault(page, 0)

    assert arm64.MACHINE.thread_pointer_of(Arm64Thread.IDENT, thread.read) is None
    assert arm64.MACHINE.thread_pointer_of(Arm64Thread.IDENT + 8, thread.read) is None
    assert arm64.MACHINE.thread_pointer_of(0, thread.read) is None


def test_a_thread_pointer_on_x86_64_is_what_pthread_self_says() -> None:
    def read(address: int, size: int) -> bytes:
        return {0x7000: 0x7000, 0x8000: 0x7000}.get(address, 0).to_bytes(size, "little")

    assert x86_64.MACHINE.thread_pointer_of(0x7000, read) == 0x7000
    assert x86_64.MACHINE.thread_pointer_of(0x8000, read) is None


def test_no_other_module_knows_machines() -> None:
    """What they say of themselves, numbers of system calls, registers in ptrace."""
    known = re.compile(r"uname\(\)\.machine|\"(x86_64|aarch64)\"|fsbase|orig_rax|\b_(SYS|NR)_\w+(, \w+)* = \d")
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".c", ".h") and "arch" not in path.parts]

    assert len(files) > 100
    assert [str(path.relative_to(PACKAGE)) for path in files if known.search(path.read_text())] == []
