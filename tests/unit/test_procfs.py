"""What /proc says of processes: whatever they are called and have opened, a number is the kernel's, a name one name."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pprofpy.collectors.cpython.thread_names import _outer_tids
from pprofpy.target import open_target, procfs
from pprofpy.target.procfs import MappedArea, SystemCall
from pprofpy.target.status import MalformedError, Status

PID, TID = 7, 8
STATUS = (
    b"Name:\t%s\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t3\nTracerPid:\t0\nUid:\t1\t2\t3\t4\nNSpid:\t7\t5\n"
)
ODD_LINE_ENDS = [b"\r", b"\f", b"\v", b"\x1c", b"\x1d", b"\x1e", b"\x85", "\x85".encode(), "\u2028".encode()]

Forge = Callable[..., None]


@pytest.fixture
def forge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Forge:
    """Writes files of process 7 into a /proc of our own."""
    monkeypatch.setattr(procfs, "PROC", tmp_path)
    for folder in (tmp_path / str(PID), tmp_path / str(PID) / "task" / str(TID)):
        folder.mkdir(parents=True, exist_ok=True)

    def write(**files: bytes) -> None:
        for name, content in files.items():
            (tmp_path / str(PID) / name).write_bytes(content)
            (tmp_path / str(PID) / "task" / str(TID) / name).write_bytes(content)

    return write


# -- status --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ODD_LINE_ENDS)
def test_a_name_cannot_fake_a_field(end: bytes, forge: Forge) -> None:
    forge(status=STATUS % (b"x" + end + b"NSpid:\t1" + end + b"Tgid:\t1"))

    found = procfs.status(PID)

    assert (found.inner_id, found.pid, found.parent, found.user, found.state) == (5, 7, 3, 2, "S")


def test_of_two_lines_with_one_key_the_first_counts(forge: Forge) -> None:
    forge(status=STATUS % b"x" + b"Tgid:\t1\nNSpid:\t1\n")

    assert (procfs.status(PID).pid, procfs.status(PID).inner_id) == (7, 5)


def test_the_end_of_a_key_is_no_key(forge: Forge) -> None:
    forge(status=STATUS % b"x" + b"x86_Thread_features_locked:\tshstk\n")

    assert "shstk" not in procfs.status(PID).cpu_features


def test_what_older_kernels_do_not_say_has_a_default(forge: Forge) -> None:
    forge(status=(STATUS % b"x").replace(b"NSpid", b"Other"))

    found = procfs.status(PID)

    assert (found.inner_id, found.seccomp, found.cpu_features & {"shstk"}) == (7, 0, frozenset())


@pytest.mark.parametrize("content", [b"", b"Tgid:", b"Tgid:\tx", b"Tgid:\t\xff", b"Tgid", b"\n" * 100])
def test_a_field_that_is_not_there_is_an_error_of_ours(content: bytes, forge: Forge) -> None:
    forge(status=content)

    with pytest.raises(MalformedError):
        _ = procfs.status(PID).pid


# -- stat, comm, cmdline -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [b"a) R 1", b"x\n7 (y) Z", b")", b"((", b"\xff\x00", b") Z " + b"1 " * 40 + b"("])
def test_a_name_fakes_no_state(name: bytes, forge: Forge) -> None:
    fields = b"S 3 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 4711 0 0"
    forge(stat=b"7 (%s) %s\n" % (name, fields))

    found = procfs.stat(PID)

    assert (found.state, found.started_ticks, found.cpu_ns) == ("S", 4711, 300 * 10**9 // os.sysconf("SC_CLK_TCK"))


def test_a_name_is_text_that_any_file_can_hold(forge: Forge) -> None:
    forge(comm=b"\xff\x85 a\nb\n")

    assert procfs.comm(PID, TID) == b"\xff\x85 a\nb"
    assert procfs.thread_name(PID).encode() == rb"\xff\x85 a" + b"\nb"


def test_a_command_line_is_cut_where_no_one_reads_it_any_more(forge: Forge) -> None:
    forge(cmdline=b"python\0" + b"x" * (1 << 20))

    words = procfs.command_line(PID)

    assert words[0] == "python"
    assert len(words[1]) < 17_000


@pytest.mark.parametrize(("content", "words"), [(b"", ()), (b"a", ("a",)), (b"a\0\0b\0", ("a", "", "b"))])
def test_a_command_line_is_taken_apart_at_zeros(content: bytes, words: tuple[str, ...], forge: Forge) -> None:
    forge(cmdline=content)

    assert procfs.command_line(PID) == words


def test_threads_with_every_byte_in_their_names(request: pytest.FixtureRequest) -> None:
    names = [bytes(range(start, min(start + 15, 256))) for start in range(1, 256, 15)]
    gate, ready = threading.Event(), threading.Barrier(len(names) + 1)
    request.addfinalizer(gate.set)

    def work(name: bytes) -> None:
        ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
        ready.wait()
        gate.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    ready.wait()

    found = {thread.tid: thread for thread in open_target(os.getpid()).threads()}
    raw = {thread.native_id: procfs.comm(os.getpid(), thread.native_id or 0) for thread in threads}

    gate.set()
    for thread in threads:
        thread.join()
    assert list(raw.values()) == names
    for thread in threads:
        seen = found[thread.native_id or 0]
        assert seen.inner_tid == seen.tid
        assert seen.name == raw[thread.native_id].decode("utf-8", "backslashreplace")


@pytest.mark.parametrize("end", [b"\r", b"\f", b"\x1c", "\x85".encode(), b"\xff\r"])
def test_a_live_thread_cannot_fake_its_number(end: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "namespace", lambda pid, kind: f"{kind}:[{pid}]")  # as if it were in one of its own
    done, ready = threading.Event(), threading.Event()

    def work() -> None:
        ctypes.CDLL(None).prctl(15, b"x" + end + b"NSpid:\t1", 0, 0, 0)
        ready.set()
        done.wait()

    thread = threading.Thread(target=work)
    thread.start()
    ready.wait()

    outer = _outer_tids(os.getpid())

    done.set()
    thread.join()
    assert outer[thread.native_id or 0] == thread.native_id
    assert 1 not in outer


# -- maps ----------------------------------------------------------------------------------------------------------

LINE = b"7f0000001000-7f0000002000 r-xp 00003000 fd:10 123                        %s\n"
FIRST = MappedArea(0x400000, 0x401000, "r--p", 0, os.makedev(0, 0), 0, "")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"/srv/a b", "/srv/a b"),
        (b"/srv/a\\012b", "/srv/a\nb"),
        (b"/srv/x.so (deleted)", "/srv/x.so"),
        (b"[vdso]", ""),
        (b"[anon:/srv/x]", ""),
        *((b"/srv/a" + end + b"b  ", os.fsdecode(b"/srv/a" + end + b"b  ")) for end in ODD_LINE_ENDS),
    ],
)
def test_a_mapped_file_has_the_name_that_it_has(name: bytes, path: str, forge: Forge) -> None:
    forge(maps=b"00400000-00401000 r--p 00000000 00:00 0 \n" + LINE % name)

    found = procfs.mappings(PID)

    device = os.makedev(0xFD, 0x10)
    assert found == [
        FIRST,
        MappedArea(0x7F0000001000, 0x7F0000002000, "r-xp", 0x3000, device, 123, os.fsdecode(name)),
    ]
    assert (found[1].path, found[1].is_code) == (path, True)


@pytest.mark.parametrize("content", [b"x", LINE[:-1] % b"/x", LINE % b"/x" + b"garbage\n", b"1-2 r-xp\n"])
def test_maps_of_another_form_are_an_error_of_ours(content: bytes, forge: Forge) -> None:
    forge(maps=content)

    with pytest.raises(MalformedError):
        procfs.mappings(PID)


def test_more_than_can_be_is_refused(forge: Forge, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(procfs, "_MOST_BYTES_OF_MAPS", 10_000)
    forge(maps=(LINE % b"/x") * 1000)

    with pytest.raises(MalformedError, match="more than"):
        procfs.mappings(PID)


def test_our_own_mappings_are_all_there() -> None:
    ours = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().split("\n")]

    found = {f"{one.start:08x}-{one.end:08x}": one for one in procfs.mappings("self")}

    libraries = [fields for fields in ours if len(fields) == 6 and fields[5].startswith("/") and fields[1] == "r-xp"]
    assert libraries
    for addresses, _, offset, _, inode, path in libraries:
        mapping = found[addresses]
        assert (mapping.offset, mapping.inode, mapping.path) == (int(offset, 16), int(inode), path)
        assert mapping.inode == Path(path).stat().st_ino


# -- the rest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "call"),
    [
        (b"running\n", None),
        (b"-1 0x7ffc 0x401000\n", SystemCall(-1, (0,) * 6, 0x7FFC)),
        (b"202 0x1 0x2 0x3 0x4 0x5 0x6 0x7ffc 0x401000\n", SystemCall(202, (1, 2, 3, 4, 5, 6), 0x7FFC)),
    ],
)
def test_a_system_call_is_told_in_three_ways(content: bytes, call: SystemCall | None, forge: Forge) -> None:
    forge(syscall=content)

    assert procfs.system_call(PID, TID) == call


def test_a_control_group_may_be_called_anything(forge: Forge) -> None:
    forge(cgroup=b"12:cpu,cpuacct:/a:b\x85\r0::/evil\n0::/user.slice\n")

    assert procfs.control_groups(PID) == [
        ("cpu,cpuacct", os.fsdecode(b"/a:b\x85\r0::/evil")),
        ("", "/user.slice"),
    ]


def test_sums_of_memory_are_bytes(forge: Forge) -> None:
    forge(smaps_rollup=b"00400000-7ffd ---p 00000000 00:00 0    [rollup]\nRss:   12 kB\nPrivate_Dirty:  3 kB\nOdd: x\n")

    assert procfs.memory_sums(PID) == {"Rss": 12 << 10, "Private_Dirty": 3 << 10}


def test_a_process_that_has_ended_has_no_threads(forge: Forge) -> None:
    assert procfs.tids(4711) == []
    assert not procfs.exists(4711)
    assert (procfs.pids(), procfs.tids(PID)) == ([PID], [TID])


READERS: dict[str, Callable[[int], object]] = {
    "status": lambda pid: [getattr(procfs.status(pid), name) for name in dir(Status) if name[0] != "_"],
    "stat": procfs.stat,
    "comm": procfs.thread_name,
    "cmdline": procfs.command_line,
    "maps": procfs.mappings,
    "syscall": procfs.system_call,
    "stack": procfs.kernel_stack,
    "schedstat": procfs.run_queue_ns,
    "cgroup": procfs.control_groups,
    "smaps_rollup": procfs.memory_sums,
}


@pytest.mark.parametrize("name", READERS)
@given(content=st.binary(max_size=200) | st.text("0123456789abcdefx-: /()\n\t\r\x85kB", max_size=200).map(str.encode))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_whatever_stands_there_is_a_result_or_an_error_of_ours(name: str, content: bytes, forge: Forge) -> None:
    forge(**{name: content})

    with suppress(MalformedError):
        READERS[name](PID)
