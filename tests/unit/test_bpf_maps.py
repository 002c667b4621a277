"""Maps of the kernel as arrays: whole, in as few calls as it takes, and a refusal is asked for once."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from pprofpy.collectors.kernel import maps, syscall
from pprofpy.collectors.kernel.maps import MapTable
from pprofpy.errors import PprofpyError
from tests.fake_kernel import FakeKernel

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY = 1, 2, 5, 6
KEY = np.dtype([("pid", "u4"), ("tid", "u4")])
VALUE = np.dtype([("count", "u4"), ("error", "u2")], align=False)
U4, U8 = np.dtype("u4"), np.dtype("u8")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel(monkeypatch)


def make(
    kernel: FakeKernel, kind: int = HASH, key: np.dtype = KEY, value: np.dtype = U8, entries: int = 1000
) -> MapTable:
    return MapTable(kernel.create_map(kind, key.itemsize, value.itemsize, entries, 0, "m"), key, value)


def filled(kernel: FakeKernel, count: int) -> MapTable:
    table = make(kernel)
    for number in range(count):
        table.put((number, number + 1), number * 1000)
    return table


def test_where_a_call_serves_nothing_for_want_of_room_more_is_offered(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All entries that hash to one place come at once, or not at all."""
    table, serve = filled(kernel, 100), kernel.lookup_batch
    monkeypatch.setattr(maps, "_AT_ONCE", 4)
    monkeypatch.setattr(syscall, "lookup_batch", lambda *given: (0, errno.ENOSPC) if given[-1] < 100 else serve(*given))

    keys, _ = table.items()

    assert len(keys) == len(set(keys.tolist())) == 100


@pytest.mark.parametrize("batch", [1, 7, 100, 101, 1000])
def test_a_map_is_read_whole_however_much_a_call_serves(batch: int, kernel: FakeKernel) -> None:
    table, kernel.batch = filled(kernel, 100), batch

    keys, values = table.items()

    assert keys["tid"].tolist() == list(range(1, 101))
    assert values.tolist() == list(range(0, 100_000, 1000))
    assert kernel.calls["lookup_batch"] == -(-100 // batch)


def test_an_empty_map_has_no_entries(kernel: FakeKernel) -> None:
    keys, values = make(kernel).items()

    assert (len(keys), len(values)) == (0, 0)


@pytest.mark.parametrize("kind", [PERCPU_HASH, PERCPU_ARRAY])
def test_on_a_machine_with_one_cpu_values_of_each_cpu_have_a_column_too(
    kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = FakeKernel(monkeypatch, cpus=1)
    table = make(kernel, kind, U4, VALUE, entries=2)
    (one,) = kernel.maps.values()
    one.content = {
        bytes([number, 0, 0, 0]): np.array([(number, 9)], VALUE).tobytes() + b"\xff\xff" for number in (0, 1)
    }

    keys, values = table.items()

    assert keys.tolist() == [0, 1]
    assert values["count"].tolist() == [[0], [1]]
    assert table.get(1)["error"].tolist() == [9]


def test_values_of_each_cpu_are_apart_and_without_what_fills_them_up(kernel: FakeKernel) -> None:
    table = make(kernel, PERCPU_HASH, U4, VALUE)
    (one,) = kernel.maps.values()
    rows = [np.array([pair], VALUE).tobytes() + b"\xff\xff" for pair in ((1, 2), (3, 4), (5, 6), (7, 8))]
    one.content = {b"\1\0\0\0": rows[0] + rows[1], b"\2\0\0\0": rows[2] + rows[3]}

    keys, values = table.items()

    assert keys.tolist() == [1, 2]
    assert values["count"].tolist() == [[1, 3], [5, 7]]
    assert values["error"].tolist() == [[2, 4], [6, 8]]


@pytest.mark.parametrize(("kind", "copies"), [(ARRAY, 1), (PERCPU_ARRAY, 2)])
def test_an_array_has_all_its_places(kind: int, copies: int, kernel: FakeKernel) -> None:
    table = make(kernel, kind, U4, U8, entries=3)
    (one,) = kernel.maps.values()
    one.content = {bytes([place, 0, 0, 0]): bytes([place + 1, *bytes(7)]) * copies for place in range(3)}

    keys, values = table.items()

    assert keys.tolist() == [0, 1, 2]
    assert values.reshape(3, copies)[:, -1].tolist() == [1, 2, 3]


def test_entries_of_another_size_are_refused(kernel: FakeKernel) -> None:
    descriptor = kernel.create_map(HASH, 8, 16, 10, 0, "m")

    with pytest.raises(PprofpyError, match=r"entries of \(8, 16\) bytes, not \(8, 8\)"):
        MapTable(descriptor, KEY, U8)


def test_an_entry_that_is_there_stays_what_it_was(kernel: FakeKernel) -> None:
    table = make(kernel)

    assert table.put_new((1, 2), 7)
    assert not table.put_new((1, 2), 8)
    assert table.get((1, 2)) == 7  # type: ignore[arg-type]


def test_a_full_map_counts_what_finds_no_room(kernel: FakeKernel) -> None:
    table = make(kernel, entries=1)
    table.put((1, 1), 1)

    assert not table.put_new((1, 1), 2)
    assert table.refused == 0
    table.put((2, 2), 2)
    assert table.put_new((3, 3), 2), "there is none: it was not there before"
    assert table.refused == 2
    assert table.items()[0].tolist() == [(1, 1)]


@pytest.mark.parametrize("gone", [[], [0], [99], [3, 4, 50], list(range(100))], ids=str)
def test_many_entries_go_at_once_though_some_are_gone_already(gone: list[int], kernel: FakeKernel) -> None:
    table = filled(kernel, 100)
    keys, _ = table.items()
    table.delete(keys[gone])
    table.put((1000, 1000), 1)  # came meanwhile

    table.clear(keys)

    assert table.items()[0].tolist() == [(1000, 1000)]
    assert kernel.calls["delete_batch"] <= len(gone) + 1


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, errno.ENOMEM])
def test_a_refusal_is_an_error_of_ours_and_is_not_asked_for_again(code: int, kernel: FakeKernel) -> None:
    table = filled(kernel, 10)
    kernel.calls.clear()
    kernel.refusals = dict.fromkeys(("lookup", "update", "lookup_batch"), code)

    for action in (table.items, lambda: table.get((1, 2)), lambda: table.put((1, 2), 3)):  # type: ignore[arg-type]
        with pytest.raises(PprofpyError, match="a kernel map could not be"):
            action()

    assert kernel.calls == {"lookup": 1, "update": 1, "lookup_batch": 1}


def test_what_cannot_be_taken_out_does_not_keep_us_for_ever(kernel: FakeKernel) -> None:
    table = filled(kernel, 10)
    keys, _ = table.items()
    kernel.refusals["delete_batch"] = errno.EPERM

    table.clear(keys)

    assert kernel.calls["delete_batch"] <= len(keys)
