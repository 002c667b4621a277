"""Events recorded: in words, summed up, filtered, and in a file."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import pytest

from pprofpy.errors import ProfileFormatError
from pprofpy.events import event_profile, words
from pprofpy.events.event_profile import EventSums
from pprofpy.events.log import Batch, FdKey, summarize
from pprofpy.events.syscalls import BEGAN_UNSEEN, IS_32_BIT, NEVER_RETURNS
from pprofpy.events.words import Narrator
from pprofpy.formats import eventlog
from pprofpy.model.profile import Collection
from tests.events import LOG, batch, call, call_with_strings, switch, waking

READ, OPENAT, CLONE3, EXIT_GROUP, CLOSE = 0, 257, 435, 231, 3
BATCH = batch(
    [switch(5_000, 10, 11, 1), waking(7_000, 11, 10)],
    [
        call(2_000, READ, 500, 100, 3, 0x10, 100, fd_name=b"hosts", inode=77),
        call(6_000, READ, 2_000, -11, 3, 0x10, 100, tid=11),
    ],
    [call_with_strings(call(1_000, OPENAT, 6_500, 3, -100, 0x20), b"/etc/hosts")],
)


def texts(events: Batch) -> list[str]:
    return [f"{line.event}{line.text}" for line in Narrator(LOG).lines(events)]


def test_lines_are_in_the_order_in_which_things_were_over() -> None:
    lines = Narrator(LOG).lines(BATCH)

    assert [(line.at_ns, line.duration_ns, line.event) for line in lines] == [
        (1_000, 500, "read"),
        (4_000, -1, "sched:sched_switch"),
        (6_000, -1, "sched:sched_waking"),
        (0, 6_500, "openat"),
        (5_000, 2_000, "read"),
    ]
    assert lines[0].text == "(3<hosts>, buf=0x10, count=100) = 100"
    assert lines[1].text == "10 => 11"
    assert lines[3].text == '(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3'
    assert lines[4].text == "(3, buf=0x10, count=100) = -1 EAGAIN"
    assert (lines[4].tid, lines[4].thread) == (11, "main")


def test_a_full_path_is_used_only_for_the_very_file() -> None:
    known = replace(BATCH, fd_paths={FdKey(10, 3, 77): "/etc/hosts"})
    another = replace(BATCH, fd_paths={FdKey(10, 3, 78): "/etc/passwd"})

    assert texts(known)[0].startswith("read(3</etc/hosts>,")
    assert texts(another)[0].startswith("read(3<hosts>,")


def test_unusual_calls_say_what_they_are() -> None:
    unusual = batch(
        calls=[
            call(1, READ, 0, 5, flags=BEGAN_UNSEEN),
            call(2, CLONE3, 0, 0, flags=BEGAN_UNSEEN),
            call(3, EXIT_GROUP, 0, 0, 1, flags=NEVER_RETURNS),
            call(4, 5, 0, 0, 1, flags=IS_32_BIT),
        ]
    )

    assert texts(unusual) == [
        "read(began before the recording) = 5",
        "clone3(in the new thread) = 0",
        "exit_group(status=1) = ?",
        "i386_syscall_5(0x1, 0x0, 0x0, 0x0, 0x0, 0x0) = 0",
    ]
    assert {line.duration_ns for line in Narrator(LOG).lines(unusual)} == {-1, 0}


def test_portions_hold_the_same_lines() -> None:
    portions = [line for part in BATCH.sliced(2) for line in texts(part)]

    assert portions == texts(BATCH)


def test_filters() -> None:
    assert [line.split("(")[0] for line in texts(BATCH.where(tids=frozenset({11})))] == [
        "sched:sched_wakingpid=10",
        "read",
    ]
    assert len(BATCH.where(slower_than_ns=2_000)) == 4
    assert len(batch(calls=[call(1, READ, 9, flags=BEGAN_UNSEEN)]).where(slower_than_ns=1)) == 0


def test_sums_count_errors_and_leave_out_what_has_no_beginning() -> None:
    more = batch(calls=[call(9_000, READ, 700, -2, 3), call(9_500, READ, 0, 1, flags=BEGAN_UNSEEN)])

    sums = {(one.tid, one.event): one for one in summarize(LOG, [BATCH, more])}

    read = sums[10, "read"]
    assert (read.count, read.errors, read.total_ns, read.min_ns, read.max_ns) == (2, 1, 1_200, 500, 700)
    assert read.histogram.total == 2
    assert (sums[10, "sched:sched_switch"].count, sums[10, "sched:sched_switch"].is_call) == (1, False)
    assert set(sums) == {
        (10, "read"), (11, "read"), (10, "openat"), (10, "sched:sched_switch"), (11, "sched:sched_waking"),
    }  # fmt: skip


# -- files -----------------------------------------------------------------------------------------------------------


def saved(*batches: Batch) -> bytes:
    stream = io.BytesIO()
    writer = eventlog.EventWriter(stream, LOG)
    for one in batches:
        writer.add(one)
    writer.end(5 * 10**9, Collection(engine="test", dropped=3, notes=("lost: 3 system calls",)))
    return stream.getvalue()


def read(data: bytes) -> tuple[list[str], eventlog.EventReader]:
    reader = eventlog.EventReader(io.BytesIO(data))
    narrator = Narrator(reader.log)
    return [f"{one.event}{one.text}" for part in reader.batches() for one in narrator.lines(part)], reader


def test_a_file_brings_everything_back() -> None:
    named = replace(BATCH, fd_paths={FdKey(10, 3, 77): "/etc/hosts"}, symbols={5: "do_it"})

    lines, reader = read(saved(named, BATCH))

    assert lines == texts(named) * 2  # in order; whoever has named a file once is known from then on
    assert reader.log == LOG
    assert (reader.duration_ns, reader.collection.dropped) == (5 * 10**9, 3)


def test_a_file_of_another_machine_is_read_by_the_numbers_of_that_one() -> None:
    log = replace(LOG, machine="aarch64")
    events = batch([], [call(2_000, 63, 500, 100, 3, 0x10, 100), call(3_000, 3, flags=IS_32_BIT)], [])
    stream = io.BytesIO()
    eventlog.EventWriter(stream, log).add(events)

    reader = eventlog.EventReader(io.BytesIO(stream.getvalue()))
    lines = [f"{line.event}{line.text}" for one in reader.batches() for line in Narrator(reader.log).lines(one)]

    assert reader.log.machine == "aarch64"
    assert lines[0].startswith("read(3,")
    assert lines[1].startswith("arm_syscall_3(")
    assert {one.event for one in summarize(reader.log, [events])} == {"read", "arm_syscall_3"}


def test_a_file_of_a_machine_that_is_not_known_is_refused() -> None:
    stream = io.BytesIO()
    eventlog.EventWriter(stream, replace(LOG, machine="riscv64"))

    with pytest.raises(ProfileFormatError, match="riscv64"):
        eventlog.EventReader(io.BytesIO(stream.getvalue()))


def test_a_file_cut_short_is_readable_up_to_its_last_whole_block() -> None:
    data = saved(BATCH, BATCH)
    whole, _ = read(data)

    for size in range(len(eventlog.MAGIC), len(data)):
        try:
            lines, reader = read(data[:size])
        except ProfileFormatError as error:
            assert "what was watched" in error.message  # noqa: PT017 - cut within the first block
            continue
        assert not Counter(lines) - Counter(whole)
        assert len(lines) < len(BATCH) or lines[: len(BATCH)] == whole[: len(BATCH)]
        assert reader.duration_ns == 0
        assert "cut short" in reader.collection.notes[0]


@pytest.mark.parametrize("data", [b"", b"hello", b"PK\x03\x04", eventlog.MAGIC, eventlog.MAGIC + b"x" * 100])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(ProfileFormatError):
        read(data)


def test_a_flipped_bit_is_found_or_harmless() -> None:
    data = saved(BATCH)

    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 0x10
        try:
            read(bytes(damaged))
        except ProfileFormatError:
            continue
        # Only the lengths and letters of a block are not covered by its checksum: such a block ends the file,
        # or is one that a later version may have added.


def test_stacks_and_paths_that_nobody_meets_any_more_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_profile, "_MOST_STACKS", 10)
    monkeypatch.setattr(words, "_MOST_PATHS", 10)
    narrator, sums = Narrator(LOG), EventSums(LOG)

    for number in range(2, 200):
        calls = [call(2000 + one, READ, 1, 0, 3, stack=one, fd_name=b"short", inode=one) for one in (1, number)]
        told = {number: (f"f{number} (a.py:1)",)} | ({1: ("always (a.py:1)",)} if number == 2 else {})
        paths = {FdKey(10, 3, one): f"/long/{one}" for one in told}
        one = replace(batch(calls=calls), fd_paths=paths, stacks=told)
        lines = narrator.lines(one)
        sums.add(one)

    assert [line.stack[0].function.name for line in lines] == ["always", "f199"]
    assert ["/long/1" in lines[0].text, "/long/199" in lines[1].text] == [True, True]
    assert len(narrator._stacks._known) <= 20
    assert len(sums._stacks._known) <= 20
    assert len(narrator._paths) <= 20
