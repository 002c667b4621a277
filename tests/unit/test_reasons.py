"""Why a blocked thread waits, from what /proc says of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pprofpy.collectors.kernel.reasons import REASONS, reason_of
from pprofpy.events.syscalls import SYSCALLS
from pprofpy.target.procfs import SystemCall

NUMBERS = {call.name: number for number, call in SYSCALLS.items()}
GIL = 0x5000


def reason(name: str, first: int = 0, second: int = 0, state: str = "S", *, runs_python: bool = True) -> str:
    call = SystemCall(NUMBERS[name], (first, second), 0)
    return REASONS[reason_of(call, "self", 0, state, GIL, runs_python=runs_python)]


@pytest.mark.parametrize(
    ("call", "expected"),
    {
        "clock_nanosleep": "sleep",
        "recvfrom": "socket",
        "accept4": "socket",
        "epoll_wait": "poll",
        "wait4": "process",
        "vfork": "process",
        "openat": "file",
        "newfstatat": "file",
        "fsync": "disk",
        "munmap": "memory",
        "pause": "signal",
        "getpid": "other",
    }.items(),
)
def test_most_calls_wait_for_one_thing(call: str, expected: str) -> None:
    assert reason(call) == expected


def test_a_futex_is_the_interpreter_lock_or_a_lock_or_neither() -> None:
    assert reason("futex", GIL + 64) == "GIL"
    assert reason("futex", GIL + 4096) == "lock"
    assert reason("futex", GIL + 4096, runs_python=False) == "futex"


def test_a_call_on_a_descriptor_waits_for_what_that_stands_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    pipe, file, event = os.pipe(), os.open(tmp_path / "file", os.O_RDONLY), os.eventfd(0)
    with socket.socket() as connection:
        found = [reason("read", fd) for fd in (pipe[0], file, event, connection.fileno(), 10_000)]
    for fd in (*pipe, file, event):
        os.close(fd)
    assert found == ["pipe", "file", "event", "socket", "other"]


def test_a_file_that_cannot_be_interrupted_is_a_disk(tmp_path: Path) -> None:
    assert reason("openat", state="D") == "disk"


def test_old_pythons_sleep_by_selecting_nothing() -> None:
    assert [reason("select", 0), reason("select", 4)] == ["sleep", "poll"]
    assert [reason("poll", 0x1000, 0), reason("poll", 0x1000, 2)] == ["sleep", "poll"]


def test_without_a_call_it_is_a_page_fault_and_a_stopped_thread_is_just_that() -> None:
    assert REASONS[reason_of(SystemCall(-1, (0, 0), 0), "self", 0, "D", 0, runs_python=True)] == "page fault"
    assert REASONS[reason_of(SystemCall(0, (0, 0), 0), "self", 0, "T", 0, runs_python=True)] == "stopped"
