"""Pids and thresholds are put into a program as it is loaded: what is compiled once serves every process."""

from __future__ import annotations

import os
import struct

import pytest

from pprofpy.collectors.kernel.bytecode import PARAMETER, Bytecode, put_in_parameters, values_of
from pprofpy.collectors.kernel.source import CompilerInput, ProbeSource
from pprofpy.collectors.programs import units
from tests.kernel_programs import VARIANTS, as_loaded, compiled, source_of


def load_64_bits(value: int, source: int = 0) -> bytes:
    return struct.pack("<BBhI", 0x18, 1 | source << 4, 0, value & 0xFFFFFFFF) + struct.pack("<II", 0, value >> 32)


def test_values_are_put_in_by_place() -> None:
    code = load_64_bits(PARAMETER) + load_64_bits(77) + load_64_bits(PARAMETER + 1)

    assert put_in_parameters(code, [4242, 1 << 40]) == load_64_bits(4242) + load_64_bits(77) + load_64_bits(1 << 40)


def test_what_looks_alike_is_left_alone() -> None:
    code = load_64_bits(PARAMETER + 2) + load_64_bits(PARAMETER, source=1) + load_64_bits(PARAMETER & 0xFFFFFFFF)

    assert put_in_parameters(code, [1, 2]) == code


def test_negative_values_are_put_in_as_twos_complement() -> None:
    assert put_in_parameters(load_64_bits(PARAMETER), [-8]) == load_64_bits((1 << 64) - 8)


@pytest.mark.parametrize("values", [{"TGID": 1}, {"TGID": 1, "TRACE": 1, "TRACED": 1}])
def test_every_parameter_that_occurs_has_a_value_and_no_other(values: dict[str, int]) -> None:
    code = load_64_bits(PARAMETER) + load_64_bits(PARAMETER + 2)
    with pytest.raises(ValueError, match="TRACE"):
        values_of(Bytecode({"on_switch": code}, (), ("TRACE", "TID", "TGID")), values)


def test_one_of_another_variant_needs_none() -> None:
    bytecode = Bytecode({"on_switch": load_64_bits(PARAMETER + 1)}, (), ("TRACE", "TGID"))

    assert values_of(bytecode, {"TGID": 7}) == [0, 7]


def test_parameters_are_named_in_the_source() -> None:
    unit = CompilerInput.of(ProbeSource("cpu.bpf.c"), iterators=False)

    assert unit.parameters == tuple(dict.fromkeys(unit.parameters))
    assert {"GIL_ONLY", "KERNEL_STACKS", "TASK_PID"} <= set(unit.parameters)
    assert all(unit.text.count(f"#define {name} ") == 1 for name in unit.parameters)


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_command_loads_comes_with_the_package(variant: str) -> None:
    built = {unit.digest for unit in units()}

    for iterators in (True, False):
        assert CompilerInput.of(source_of(variant), iterators=iterators).digest in built


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", ["off-cpu", "sched-latency", "trace", "trace -s", "trace --stacks"])
def test_the_process_that_is_watched_is_in_the_code_that_is_loaded(variant: str) -> None:
    found = compiled(variant)

    loaded = as_loaded(found).values()
    assert any(load_64_bits(os.getpid())[4:] in code for code in loaded)
    assert not any(struct.pack("<I", PARAMETER >> 32) in code[12::16] for code in loaded)
