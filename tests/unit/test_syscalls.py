"""System calls in words."""

from __future__ import annotations

import numpy as np
import pytest

from pprofpy.events.syscalls import (
    NEVER_RETURNS,
    SYSCALLS,
    UNREADABLE,
    Syscall,
    arguments_in_words,
    canonical_name,
    quoted,
    result_in_words,
    syscall,
)

BY_NAME = {call.name: call for call in SYSCALLS.values()}


def shown(call: str | Syscall, *values: int, strings: tuple[bytes, ...] = (), fd: str = "") -> str:
    registers = np.array([[value & (1 << 64) - 1 for value in values] + [0] * (6 - len(values))], np.uint64)
    known = BY_NAME[call] if isinstance(call, str) else call
    (text,) = arguments_in_words(known, registers, [[one] for one in strings], [fd])
    return text


@pytest.mark.parametrize(("name", "number"), [("read", 0), ("openat", 257), ("getppid", 110), ("futex", 202)])
def test_calls_have_the_numbers_of_x86_64(name: str, number: int) -> None:
    assert SYSCALLS[number].name == name


def test_all_calls_are_told_apart() -> None:
    assert len({call.name for call in SYSCALLS.values()}) == len(SYSCALLS) > 370
    assert all(call.string_mask.bit_count() <= 2 for call in SYSCALLS.values())


def test_a_call_newer_than_the_table_still_has_a_name() -> None:
    assert syscall(500, "x86_64") == Syscall(500, "syscall_500", None)
    assert canonical_name("newfstat") == "fstat"


def test_paths_descriptors_and_flags_stand_alone_and_the_rest_has_names() -> None:
    assert shown("openat", -100, 0x1000, 0o2000000, strings=(b"/etc/hosts\0junk",)) == (
        'AT_FDCWD, "/etc/hosts", O_RDONLY|O_CLOEXEC'
    )
    assert shown("openat", -100, 0x1000, 0o101, 0o644, strings=(b"x\0",)) == 'AT_FDCWD, "x", O_WRONLY|O_CREAT, 0o644'
    assert shown("read", 3, 0x7F00, 100, fd="/etc/hosts") == "3</etc/hosts>, buf=0x7f00, count=100"
    assert shown("mmap", 0, 4096, 3, 0x22, -1) == (
        "addr=0, len=4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, off=0"
    )
    assert shown("futex", 0x10, 0x81, 1) == "uaddr=0x10, FUTEX_WAKE|FUTEX_PRIVATE_FLAG, val=1, val3=0"
    assert shown("kill", -5, 9) == "pid=-5, SIGKILL"
    assert shown("rename", 1, 2, strings=(b"a\0", b"b\0")) == '"a", "b"'


def test_calls_of_another_machine_have_its_numbers_and_flags() -> None:
    openat, dup3, mmap = (syscall(number, "aarch64") for number in (56, 24, 222))

    assert [call.name for call in (openat, dup3, mmap)] == ["openat", "dup3", "mmap"]
    assert shown(openat, -100, 0x1000, 0x4000, strings=(b"x\0",)) == 'AT_FDCWD, "x", O_RDONLY|O_DIRECTORY'
    assert shown(openat, -100, 0x1000, 0x10041, 0o600, strings=(b"x\0",)) == (
        'AT_FDCWD, "x", O_WRONLY|O_CREAT|O_DIRECT, 0o600'
    )
    assert shown(dup3, 3, 4, 0x80000) == "3, newfd=4, O_CLOEXEC"
    assert shown(mmap, 0, 4096, 3, 0x62, -1) == (
        "addr=0, len=4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS|0x40, -1, off=0"
    )


def test_a_string_that_could_not_be_read_is_an_address() -> None:
    assert shown("chdir", 0xDEAD, strings=(UNREADABLE,)) == "filename=0xdead"
    assert shown("chdir", 0, strings=(b"\0",)) == "NULL"


def test_hostile_strings_cannot_steer_the_terminal() -> None:
    assert quoted(b'a\nb\x1b[31m"\\\0') == '"a\\nb\\x1b[31m\\"\\\\"'
    assert quoted("\u202eabc\0".encode()) == '"\\u202eabc"'
    assert quoted(b"\xff\xfe\0") == '"\\xff\\xfe"'
    assert quoted(b"x" * 255 + b"\0").endswith('x"…')


@pytest.mark.parametrize(
    ("name", "result", "words"),
    [
        ("read", 5, "5"),
        ("read", -2, "-1 ENOENT"),
        ("read", -512, "-1 ERESTARTSYS"),
        ("read", -4096, "-4096"),
        ("mmap", 0x7F0000000000, "0x7f0000000000"),
        ("mmap", -12, "-1 ENOMEM"),
    ],
)
def test_results_are_numbers_addresses_or_errors(name: str, result: int, words: str) -> None:
    assert result_in_words(BY_NAME[name], result) == words


def test_a_call_that_never_returns_has_no_result() -> None:
    assert result_in_words(BY_NAME["exit_group"], 0, NEVER_RETURNS) == "?"
