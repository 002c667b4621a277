"""Every offset that programs need, from the types of Debian's kernels: what `scripts/cut_btf.py` has cut out of them.

The expected values are what a C compiler says (`offsetof`) with the headers that bpftool makes of whole files; places
of per-CPU variables are those that bpftool prints.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pprofpy import arch
from pprofpy.collectors import trace
from pprofpy.collectors.kernel import btf, ids, reasons, scheduler, types
from pprofpy.collectors.kernel.source import ITERATOR
from pprofpy.collectors.pystacks import records
from pprofpy.errors import NotPossibleError

FOLDER = Path(__file__).parents[1] / "kernels"

EXPECTED: dict[str, dict[str, int]] = {
    "5.10.0-32-amd64": {
        "TASK_PID": 2232, "TASK_COMM": 2736, "TASK_STATE": 16, "TASK_CFS_RQ": 0, "CFS_RQ_RQ": 0,
        "PREEMPT_COUNT_FROM_RUNQUEUE": 0, "SWITCH_TELLS_STATE": 0, "TASK_FILES": 2808, "FILES_FDT": 32,
        "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 36, "INODE_MODE": 0, "INODE_SUPERBLOCK": 40,
        "SUPERBLOCK_MAGIC": 96, "TASK_STATUS": 8, "TASK_THREAD_POINTER": 5032, "FILE_DENTRY": 24,
        "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 2336, "TASK_SIGNAL": 2832, "SIGNAL_TGID": 360, "PID_DEPTH": 4, "PID_NUMBERS": 96,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 136,
    },
    "6.1.0-50-amd64": {
        "TASK_PID": 2416, "TASK_COMM": 2976, "TASK_STATE": 24, "TASK_CFS_RQ": 248, "CFS_RQ_RQ": 304,
        "PREEMPT_COUNT_FROM_RUNQUEUE": -73280, "SWITCH_TELLS_STATE": 1, "TASK_FILES": 3048, "FILES_FDT": 32,
        "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 44, "INODE_MODE": 0, "INODE_SUPERBLOCK": 40,
        "SUPERBLOCK_MAGIC": 96, "TASK_STATUS": 16, "TASK_THREAD_POINTER": 5352, "FILE_DENTRY": 24,
        "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 2520, "TASK_SIGNAL": 3072, "SIGNAL_TGID": 368, "PID_DEPTH": 4, "PID_NUMBERS": 96,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 128,
    },
    "6.12.117-amd64": {
        "TASK_PID": 2432, "TASK_COMM": 2976, "TASK_STATE": 24, "TASK_CFS_RQ": 288, "CFS_RQ_RQ": 312,
        "PREEMPT_COUNT_FROM_RUNQUEUE": -3704, "SWITCH_TELLS_STATE": 1, "TASK_FILES": 3048, "FILES_FDT": 32,
        "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 40, "TASK_FLAGS": 44, "INODE_MODE": 0, "INODE_SUPERBLOCK": 40,
        "SUPERBLOCK_MAGIC": 96, "TASK_STATUS": 16, "TASK_THREAD_POINTER": 5416, "FILE_DENTRY": 72,
        "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 2536, "TASK_SIGNAL": 3072, "SIGNAL_TGID": 360, "PID_DEPTH": 4, "PID_NUMBERS": 112,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 128,
    },
    "7.2.13-amd64": {
        "TASK_PID": 2808, "TASK_COMM": 3344, "TASK_STATE": 24, "TASK_CFS_RQ": 304, "CFS_RQ_RQ": 312,
        "PREEMPT_COUNT_FROM_RUNQUEUE": -106704, "SWITCH_TELLS_STATE": 1, "TASK_FILES": 3416, "FILES_FDT": 32,
        "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 44, "INODE_MODE": 0, "INODE_SUPERBLOCK": 40,
        "SUPERBLOCK_MAGIC": 96, "TASK_STATUS": 16, "TASK_THREAD_POINTER": 5896, "FILE_DENTRY": 72,
        "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 2912, "TASK_SIGNAL": 3448, "SIGNAL_TGID": 384, "PID_DEPTH": 4, "PID_NUMBERS": 128,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 344,
    },
    "5.10.0-32-arm64": {
        "TASK_PID": 1304, "TASK_COMM": 1752, "TASK_STATE": 24, "TASK_PREEMPT_COUNT": 16, "SWITCH_TELLS_STATE": 0,
        "TASK_FILES": 1824, "FILES_FDT": 32, "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 44,
        "INODE_MODE": 0, "INODE_SUPERBLOCK": 40, "SUPERBLOCK_MAGIC": 96, "TASK_THREAD_POINTER": 2928,
        "TASK_THREAD_PID": 1408, "TASK_SIGNAL": 1848, "SIGNAL_TGID": 360, "PID_DEPTH": 4, "PID_NUMBERS": 96,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 136, "FILE_DENTRY": 24, "DENTRY_NAME": 40, "INODE_INO": 64,
    },
    "6.1.0-50-arm64": {
        "TASK_PID": 1352, "TASK_COMM": 1912, "TASK_STATE": 24, "TASK_PREEMPT_COUNT": 8, "SWITCH_TELLS_STATE": 1,
        "TASK_FILES": 1984, "FILES_FDT": 32, "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 44,
        "INODE_MODE": 0, "INODE_SUPERBLOCK": 40, "SUPERBLOCK_MAGIC": 96,
        "TASK_THREAD_POINTER": 3120, "FILE_DENTRY": 24, "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 1456, "TASK_SIGNAL": 2008, "SIGNAL_TGID": 368, "PID_DEPTH": 4, "PID_NUMBERS": 96,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 128,
    },
    "6.12.117-arm64": {
        "TASK_PID": 1376, "TASK_COMM": 1920, "TASK_STATE": 24, "TASK_PREEMPT_COUNT": 8, "SWITCH_TELLS_STATE": 1,
        "TASK_FILES": 1992, "FILES_FDT": 32, "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 40, "TASK_FLAGS": 44,
        "INODE_MODE": 0, "INODE_SUPERBLOCK": 40, "SUPERBLOCK_MAGIC": 96,
        "TASK_THREAD_POINTER": 3136, "FILE_DENTRY": 72, "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 1480, "TASK_SIGNAL": 2016, "SIGNAL_TGID": 360, "PID_DEPTH": 4, "PID_NUMBERS": 112,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 128,
    },
    "7.2.13-arm64": {
        "TASK_PID": 1816, "TASK_COMM": 2352, "TASK_STATE": 32, "TASK_PREEMPT_COUNT": 8, "SWITCH_TELLS_STATE": 1,
        "TASK_FILES": 2424, "FILES_FDT": 32, "FDT_MAX_FDS": 0, "FDT_FD": 8, "FILE_INODE": 32, "TASK_FLAGS": 52,
        "INODE_MODE": 0, "INODE_SUPERBLOCK": 40, "SUPERBLOCK_MAGIC": 96,
        "TASK_THREAD_POINTER": 3664, "FILE_DENTRY": 72, "DENTRY_NAME": 40, "INODE_INO": 64,
        "TASK_THREAD_PID": 1920, "TASK_SIGNAL": 2456, "SIGNAL_TGID": 384, "PID_DEPTH": 4, "PID_NUMBERS": 128,
        "SIGNAL_LIVE": 4, "NAMESPACE_INODE": 344,
    },
}  # fmt: skip
"""Kernel -> name of a constant -> value."""

ITERATORS = {"6.12.117-amd64", "6.12.117-arm64", "7.2.13-amd64", "7.2.13-arm64"}
"""The kernels that have iterators (Linux 6.4)."""

PROGRAM_COUNTERS = {"x86_64": "ip", "aarch64": "pc"}
CALLS = {"x86_64": "orig_ax", "aarch64": "syscallno"}
MODES = {"x86_64": "cs", "aarch64": "pstate"}
FIRST_ARGUMENTS = {"x86_64": "di", "aarch64": "regs"}
"""Machine -> member of struct pt_regs."""

ASKED: dict[str, Callable[[], dict[str, int]]] = {
    "scheduler": scheduler.scheduler_constants,
    "reasons": reasons.reason_constants,
    "python": records._offsets,
    "files": trace._file_constants,
    "ids": lambda: ids._offsets(ids._find_inode),
}


def forget() -> None:
    """What was found out of another kernel."""
    for one in (types.kernel_types, types.loop_iterator, *ASKED.values()):
        if hasattr(one, "cache_clear"):
            one.cache_clear()


@pytest.fixture
def on_kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Be on a kernel, by the name of its file."""

    def be_on(name: str) -> None:
        release, machine = name.rsplit("-", 1)[0], {"amd64": "x86_64", "arm64": "aarch64"}[name.rsplit("-", 1)[1]]
        monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine, release=release, sysname="Linux"))
        monkeypatch.setattr(platform, "release", lambda: release)
        monkeypatch.setattr(btf, "VMLINUX", FOLDER / f"{name}.btf")
        forget()

    forget()
    yield be_on
    forget()


def test_there_is_something_to_test() -> None:
    assert {path.stem for path in FOLDER.glob("*.btf")} == EXPECTED.keys()
    assert {name.rsplit("-", 1)[1] for name in EXPECTED} == {"amd64", "arm64"}


@pytest.mark.parametrize("kernel", EXPECTED)
def test_offsets_are_those_of_the_kernel(kernel: str, on_kernel: Callable[[str], None]) -> None:
    on_kernel(kernel)

    found = {who: ask() for who, ask in ASKED.items()}

    for who, constants in found.items():
        assert constants, who
        assert constants == {name: EXPECTED[kernel][name] for name in constants}, who
    assert {name for constants in found.values() for name in constants} == EXPECTED[kernel].keys()


@pytest.mark.parametrize("kernel", EXPECTED)
def test_iterators_are_used_where_the_kernel_has_them(kernel: str, on_kernel: Callable[[str], None]) -> None:
    on_kernel(kernel)

    assert list(types.loop_iterator()) == (list(ITERATOR) if kernel in ITERATORS else [])


@pytest.mark.parametrize("kernel", EXPECTED)
def test_registers_lie_where_the_kernel_keeps_them(kernel: str, on_kernel: Callable[[str], None]) -> None:
    on_kernel(kernel)
    machine, of = arch.here(), types.kernel_types()

    places = {
        "sp": machine.pt_regs_of_unwinding[machine.stack_pointer],
        PROGRAM_COUNTERS[machine.name]: machine.pt_regs_of_unwinding[machine.program_counter],
        CALLS[machine.name]: machine.pt_regs_call,
        MODES[machine.name]: machine.pt_regs_mode,
        FIRST_ARGUMENTS[machine.name]: machine.pt_regs_arguments[0],
    }

    assert {name: of.offset("pt_regs", name) for name in places} == {name: 8 * at for name, at in places.items()}


@pytest.mark.parametrize("kernel", EXPECTED)
def test_a_member_that_a_kernel_does_not_have_is_refused(kernel: str, on_kernel: Callable[[str], None]) -> None:
    on_kernel(kernel)

    with pytest.raises(NotPossibleError, match=r"no task_struct\.no_such_member") as error:
        types.struct_offsets({"X": "task_struct.no_such_member"}, "it is none that we know")
    assert error.value.exit_code == 4
