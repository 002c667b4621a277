"""Names of kernel functions, and what a recording says where they are hidden."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pprofpy.collectors import off_cpu
from pprofpy.collectors.kernel import kallsyms
from pprofpy.collectors.kernel import names as naming
from pprofpy.collectors.kernel.kallsyms import KernelSymbols, kernel_symbols
from pprofpy.collectors.sampling import cpu
from pprofpy.collectors.scheduling import off_cpu_sums
from pprofpy.collectors.scheduling import recorder as recorder_of_switches
from pprofpy.collectors.scheduling.off_cpu_sums import OffCpuSums, What
from pprofpy.session.sums import Who
from pprofpy.system.privileges import Capability

ZEROS = b"0000000000000000 T do_futex\n0000000000000000 t schedule\n"
HIDDEN = KernelSymbols(b"", "why")


def test_an_address_has_the_name_of_the_function_around_it() -> None:
    symbols = KernelSymbols(b"ffff000000000010 T schedule\nffff000000000030 t do_futex\t[module]\n")

    assert [symbols.name(0xFFFF000000000000 + one) for one in (0x1F, 0x30, 0x8)] == [
        "schedule", "do_futex", "0xffff000000000008",
    ]  # fmt: skip
    assert symbols.notes == ()


def test_order_and_kind_of_lines_do_not_matter() -> None:
    functions = [(0xFFFFFFFF81000000 + 0x1F * number, f"function_{number:x}") for number in range(300)]
    lines = [f"{address:016x} {'tTwW'[place % 4]} {name}" for place, (address, name) in enumerate(functions)]
    lines += ["ffffffff81000001 d data", "ffffffff81000002 B more", "", "short", "0000000000000000 A absolute"]
    random.Random(7).shuffle(lines)

    symbols = KernelSymbols("\n".join([*lines, "ffffffff81000003 t unended"]).encode())

    assert [symbols.name(address + 0x1E) for address, _ in functions] == [name for _, name in functions]
    assert symbols.name(0xFFFFFFFF80000000) == "0xffffffff80000000"


@pytest.mark.parametrize(
    ("lacking", "reason"), [([Capability.SYSLOG], "CAP_SYSLOG is missing"), ([], "kernel.kptr_restrict")]
)
def test_hidden_names_leave_addresses_and_a_note_with_the_reason(
    lacking: list[Capability], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kallsyms, "lacking", lambda _: lacking)

    symbols = KernelSymbols(ZEROS)

    assert symbols.name(0xFFFF0010) == "0xffff0010"
    assert len(symbols.notes) == 1
    assert reason in symbols.notes[0]


def test_so_does_a_list_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kallsyms, "_KALLSYMS", tmp_path)
    kernel_symbols.cache_clear()
    try:
        symbols = kernel_symbols()
    finally:
        kernel_symbols.cache_clear()

    assert symbols.name(1) == "0x1"
    assert "cannot be read (Is a directory)" in symbols.notes[0]


def test_off_cpu_says_so_once_it_has_shown_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(off_cpu_sums, "kernel_symbols", lambda: HIDDEN)
    monkeypatch.setattr(recorder_of_switches, "losses", lambda *_: {})
    stacks = {0: {"addresses": np.zeros(2, np.uint64)}}
    program: Any = SimpleNamespace(table=lambda *_: stacks)
    sums = OffCpuSums(program, None, kernel_stacks=True, wakers=False)
    recorder = off_cpu.OffCpuRecorder(off_cpu.OffCpuOptions(kernel_stacks=True))
    recorder.__dict__.update(program=None, _python=None, _sums=sums)
    who, what = Who(1, 1, "thread"), What("blocked", "lock", 0, 0, "", 0)

    sums.add(who, what, (1, 1))
    sums.take()
    assert recorder.collected().notes == ()

    stacks[0] = {"addresses": np.array([0x10, 0], np.uint64)}
    sums.add(who, what, (1, 1))
    sums.take()
    assert recorder.collected().notes == HIDDEN.notes


@pytest.mark.parametrize(("table", "notes"), [(None, ()), ({}, HIDDEN.notes)])
def test_cpu_says_so_if_kernel_stacks_were_asked_for(
    table: object, notes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "kernel_symbols", lambda: HIDDEN)
    recorder = cpu.CpuRecorder(cpu.CpuRecorderOptions(kernel_stacks=table is not None))
    recorder.__dict__["_kernel_stacks"] = table
    recorder.__dict__["stacks"] = SimpleNamespace(notes=tuple)

    assert tuple(recorder._notes()) == notes


def test_trace_says_so_once_it_has_shown_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "kernel_symbols", lambda: HIDDEN)
    monkeypatch.setattr(naming, "symbol_fields", lambda _: ["field"])
    monkeypatch.setattr(naming, "Columns", lambda _: SimpleNamespace(numbers=lambda _: np.array([0x20], np.uint64)))
    names = naming.AddressNames([SimpleNamespace()])  # type: ignore[list-item]
    records = np.zeros(1, [("head", [("event", "u4")]), ("data", "u1", 8)])

    assert names.of(records[:0]) == {}
    assert names.notes == ()
    assert names.of(records) == {0x20: "0x20"}
    assert names.notes == HIDDEN.notes
