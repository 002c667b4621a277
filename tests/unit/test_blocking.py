"""Reads that block are left behind; all others behave as if nobody stood in between."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from pprofpy.system import blocking, interrupts
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target.mounts import Mount, ServedError, check, parse_served
from tests.conftest import PATIENCE_S, wait_until


@contextmanager
def blocked_pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(writer)


def test_it_returns_what_the_reading_returns() -> None:
    assert bounded("one", lambda: 42) == 42


def test_it_raises_what_the_reading_raises() -> None:
    def fail() -> None:
        raise OSError(errno.ENOENT, "nothing")

    with pytest.raises(FileNotFoundError):
        bounded("one", fail)


def test_the_thread_of_a_reading_that_failed_reads_again() -> None:
    def fail() -> None:
        raise ProcessLookupError(threading.get_ident())

    with pytest.raises(ProcessLookupError) as failed:
        bounded("a process that has ended", fail)

    assert bounded("another", threading.get_ident) == failed.value.args[0]


def test_a_reading_within_a_reading_is_done_by_the_same_thread() -> None:
    outer, inner = bounded("one", lambda: (threading.get_ident(), bounded("two", threading.get_ident)))

    assert outer == inner != threading.get_ident()


def test_one_that_blocks_is_left_behind_and_not_asked_again_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LONGEST_S", 0.2)
    with blocked_pipe() as (reader, writer):
        with pytest.raises(BlockedError, match="process 12 does not let itself be read"):
            bounded("process 12", lambda: os.read(reader, 1))
        with pytest.raises(BlockedError):
            bounded("process 12", lambda: 42)
        assert bounded("process 13", lambda: 42) == 42

        os.write(writer, b"x")

        wait_until(lambda: blocking._stuck["process 12"].is_done, "the reading ends")
        assert bounded("process 12", lambda: 42) == 42
        assert "process 12" not in blocking._slept_s
    os.close(reader)


def test_time_that_it_computes_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LONGEST_S", 0.0)
    monkeypatch.setattr(blocking, "_SHORTEST_S", 10 * blocking._SLICE_S)

    assert bounded("sums", lambda: sum(range(10_000_000))) > 0


def test_a_wish_to_end_shortens_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking, "LONGEST_S", float(PATIENCE_S))
    interrupts.set_asked(True)
    try:
        with blocked_pipe() as (reader, _), closing(os.fdopen(reader)), pytest.raises(BlockedError):
            bounded("one that is ended", lambda: os.read(reader, 1))
    finally:
        interrupts.set_asked(False)


def test_idle_readers_end_before_privileges_are_given_up() -> None:
    readers = bounded("one", threading.current_thread)

    blocking.dismiss_readers()

    wait_until(lambda: not readers.is_alive(), "the reader ends")


MOUNTS = b"""\
22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
28 27 0:40 / /home/mallory rw,user_id=7 shared:1 - fuse.sshfs me@x:/\\040a rw,user_id=1000,group_id=1000,allow_other
29 27 0:41 / /cvmfs ro - fuse cvmfs2 ro,user_id=0,group_id=0
30 27 0:42 / /odd rw - fusectl user_id=5 rw
31 27 8:1 / /stick rw - fuseblk /dev/sda1 rw,user_id=1001,group_id=0
"""


def test_file_systems_that_programs_serve_are_told_by_their_types_and_options() -> None:
    assert list(parse_served(MOUNTS)) == [
        Mount(28, os.makedev(0, 40), 1000),
        Mount(29, os.makedev(0, 41), 0),
        Mount(31, os.makedev(8, 1), 1001),
    ]


def test_what_another_user_serves_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pprofpy.target.procfs.mounts", lambda pid: MOUNTS)
    monkeypatch.setattr("os.geteuid", lambda: 1001)

    check(22, 12)
    check(29, 12)  # root's
    check(31, 12)  # ours
    with pytest.raises(ServedError, match="user 1000"):
        check(28, 12)
