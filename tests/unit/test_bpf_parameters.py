"""Pids and thresholds are put into a program as it is loaded: what is compiled once serves every process."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from pprofpy.collectors.kernel import cache
from pprofpy.collectors.kernel.bytecode import PARAMETER, put_in_parameters
from tests.kernel_programs import VARIANTS, compiled, copy_kept_programs


def load_64_bits(value: int, source: int = 0) -> bytes:
    return struct.pack("<BBhI", 0x18, 1 | source << 4, 0, value & 0xFFFFFFFF) + struct.pack("<II", 0, value >> 32)


def test_values_are_put_in_by_place() -> None:
    code = load_64_bits(PARAMETER) + load_64_bits(77) + load_64_bits(PARAMETER + 1)

    assert put_in_parameters(code, [4242, 1 << 40]) == load_64_bits(4242) + load_64_bits(77) + load_64_bits(1 << 40)


def test_what_looks_alike_is_left_alone() -> None:
    code = load_64_bits(PARAMETER + 2) + load_64_bits(PARAMETER, source=1) + load_64_bits(PARAMETER & 0xFFFFFFFF)

    assert put_in_parameters(code, [1, 2]) == code


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", VARIANTS)
def test_two_processes_use_one_cache_entry(variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_kept_programs(tmp_path)  # one that was compiled for another test need not be again
    monkeypatch.setattr(cache, "cache_folder", lambda: tmp_path)
    first, kept = compiled(variant), sorted(tmp_path.iterdir())
    monkeypatch.setattr(os, "getpid", lambda: 1)

    second = compiled(variant, pid=1)

    assert any(path.name.startswith("bpf-") for path in kept)
    assert sorted(tmp_path.iterdir()) == kept
    assert second.bytecode == first.bytecode


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", ["off-cpu", "sched-latency", "trace", "trace -s", "trace --stacks"])
def test_the_process_that_is_watched_is_in_the_code_that_is_loaded(variant: str) -> None:
    found = compiled(variant, pid=1)

    assert 1 in found.parameters
    loaded = [put_in_parameters(code, found.parameters) for code in found.bytecode.functions.values()]
    assert any(load_64_bits(1)[4:] in code for code in loaded)
    assert not any(struct.pack("<I", PARAMETER >> 32) in code[12::16] for code in loaded)
