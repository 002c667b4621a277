"""What the kernel's refusals mean, in words: recorded logs of verifiers, and error numbers."""

from __future__ import annotations

import errno
import os
import platform

import pytest

from pprofpy.collectors.kernel.bytecode import helpers_in
from pprofpy.collectors.kernel.refusals import HELPERS, reason_in, refused, refused_program
from tests.kernel_programs import VARIANTS, as_loaded, compiled

TOO_FAR = """\
invalid access to map value, value_size=8784 off=8788 size=4
R6 min value is outside of the allowed memory range
verification time 3548723 usec
stack depth 176
processed 300738 insns (limit 1000000) max_states_per_insn 47 total_states 3303 peak_states 2528 mark_read 982
"""
"""Linux 6.1, log level 4."""

WHOLE_LOG = """\
0: R1=ctx(off=0,imm=0) R10=fp0
; u64 now = bpf_ktime_get_ns(), stack = 0;
0: (bf) r6 = r1                       ; R1=ctx(off=0,imm=0) R6_w=ctx(off=0,imm=0)
1: (85) call unknown#9999
invalid func unknown#9999
processed 2 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0
"""
NO_COOKIE = (
    "unknown func bpf_get_attach_cookie#174\nprocessed 5 insns (limit 1000000) max_states_per_insn 0 total_states 0"
)
NO_TASK_5_10 = "unknown func unknown#158\nverification time 22 usec\nstack depth 0\nprocessed 1 insns (limit 1000000)"
NO_ATOMICS_5_10 = "BPF_STX uses reserved fields\nprocessed 0 insns (limit 1000000)"
NO_REGISTERS_6_13 = "program of this type cannot use helper bpf_task_pt_regs#175\nprocessed 9 insns (limit 1000000)"
TOO_LONG = """\
BPF program is too large. Processed 1000001 insn
verification time 1502193 usec
stack depth 272
processed 1000001 insns (limit 1000000) max_states_per_insn 52 total_states 20123 peak_states 3213 mark_read 900
"""


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "6.1.0-50-cloud-amd64")


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("log", "words"),
    [
        (NO_COOKIE, "this takes Linux 5.15 or newer: Linux 6.1.0-50-cloud-amd64 does not offer bpf_get_attach_cookie"),
        (
            NO_TASK_5_10,
            "this takes Linux 5.11 or newer: Linux 6.1.0-50-cloud-amd64 does not offer bpf_get_current_task",
        ),
        (NO_REGISTERS_6_13, "does not offer bpf_task_pt_regs"),
        (WHOLE_LOG, "does not offer helper 9999"),
        (TOO_LONG, "the kernel gives up on checking on_clock of cpu.bpf.c"),
        (TOO_FAR, "off=8788 size=4; R6 min value is outside of the allowed memory range"),
    ],
)
def test_a_refused_program_has_a_reason_in_words(log: str, words: str) -> None:
    error = refused_program("on_clock", "cpu.bpf.c", log)

    assert words in error.message
    assert error.exit_code == 4
    assert "processed" not in error.message
    assert "py-spy" in error.hint


def test_an_old_kernel_is_told_which_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.10.0-33-amd64")

    assert "Linux 5.15 or newer" in refused_program("on_clock", "cpu.bpf.c", TOO_FAR).hint
    assert "Linux 5.15 or newer" in refused("make a table", OSError(errno.EINVAL, "")).hint


@pytest.mark.parametrize(
    ("log", "helpers", "words"),
    [
        (NO_TASK_5_10, {1, 158, 175}, "5.15 or newer: Linux 5.10.0-33-amd64 does not offer bpf_get_current_task_btf, "
         "bpf_task_pt_regs here"),
        (NO_TASK_5_10, set(), "5.11 or newer: Linux 5.10.0-33-amd64 does not offer bpf_get_current_task_btf here"),
        (NO_ATOMICS_5_10, {1, 5}, "5.12 or newer: Linux 5.10.0-33-amd64 does not offer atomic operations that give a"),
        (NO_ATOMICS_5_10, {174}, "5.15 or newer"),
    ],
)  # fmt: skip
def test_all_that_an_old_kernel_lacks_is_named(
    log: str, helpers: set[int], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.10.0-33-amd64")

    error = refused_program("on_clock", "cpu.bpf.c", log, helpers)

    assert words in error.message
    assert error.exit_code == 4


def test_helpers_are_named_only_where_one_of_them_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "release", lambda: "5.14.0-503.el9.x86_64")

    assert "off=8788" in refused_program("on_clock", "cpu.bpf.c", TOO_FAR, {174, 175}).message


def test_the_reason_in_a_whole_log_stands_at_its_end() -> None:
    noise = "".join(f"{number}: (b7) r1 = 0  ; R1_w=0\nfrom 3 to 9: R0=0\n" for number in range(1000))

    assert reason_in(noise + TOO_FAR) == (
        "invalid access to map value, value_size=8784 off=8788 size=4; "
        "R6 min value is outside of the allowed memory range"
    )
    assert reason_in("processed 3 insns") == "it does not say why"


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        (errno.EMFILE, "we may not open more files", "ulimit -n"),
        (errno.ENFILE, "too many files", "fs.file-max"),
        (errno.ENOMEM, "not enough memory", "ulimit -v"),
        (errno.EAGAIN, "locked memory", "ulimit -l"),
        (errno.EPERM, "Operation not permitted", "CAP_BPF"),
        (errno.EACCES, "Permission denied", "CAP_PERFMON"),
        (errno.EBUSY, "resource busy", "report"),
    ],
)
def test_an_error_number_has_its_remedy(code: int, words: str, remedy: str) -> None:
    error = refused("run a program at the tracepoint sched_switch", OSError(code, os.strerror(code)))

    assert error.message.startswith("the kernel does not run a program at the tracepoint sched_switch")
    assert words in error.message
    assert remedy in error.hint
    assert error.exit_code == 4


@pytest.mark.ebpf(needs="compiler")
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_version_of_every_function_of_the_kernel_that_is_called_is_known(variant: str) -> None:
    called = set().union(*map(helpers_in, as_loaded(compiled(variant)).values()))

    assert called
    assert called <= HELPERS.keys()
