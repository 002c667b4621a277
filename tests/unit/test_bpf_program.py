"""A program in the kernel: whole or not at all, loaded once, taken out whatever happened; refusals are not repeated."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pprofpy.collectors.kernel import perf, program, syscall
from pprofpy.collectors.kernel.bytecode import Bytecode, MapShape
from pprofpy.collectors.kernel.program import Program, whole_or_nothing
from pprofpy.errors import NotPossibleError
from tests.fake_kernel import FakeKernel

CODE = Bytecode(
    {"on_switch": bytes(16), "on_wake": bytes(16)},
    tuple(MapShape(name, 1, 4, 8, 16, 0) for name in ("threads", "sums", "lost")),
)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> FakeKernel:
    return FakeKernel(monkeypatch)


@pytest.fixture(autouse=True)
def _nothing_stays_open() -> Iterator[None]:
    before = open_files()
    yield
    assert open_files() <= before  # others may be collected meanwhile


def open_files() -> set[str]:
    """Of /dev/null, as which the fake kernel's maps and programs appear."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and os.path.realpath(link) == os.devnull:
            found.add(link.name)
    return found


def loaded() -> Program:
    return Program(CODE, "switch.bpf.c")


def test_a_function_is_loaded_once_for_all_its_tracepoints(kernel: FakeKernel) -> None:
    with loaded() as found:
        for tracepoint in ("sched_switch", "sched_wakeup", "sched_waking"):
            found.attach_raw(tracepoint, "on_switch")
        found.attach_raw("sched_process_exit", "on_wake")

    assert kernel.loaded == ["on_switch", "on_wake"]
    assert kernel.calls["open_raw_tracepoint"] == 4


def test_it_can_be_stopped_before_its_maps_go_and_closed_twice(kernel: FakeKernel) -> None:
    found, before = loaded(), open_files()
    found.attach_raw("sched_switch", "on_switch")

    found.detach()
    stopped = open_files()
    found.close()
    found.close()

    assert len(stopped) == len(before) + 1  # the function; the attachment is gone


def test_a_map_that_is_refused_takes_those_before_it_along(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    made = kernel.create_map

    def only_two(*shape: int | str) -> int:
        if kernel.calls["create_map"] == 2:
            kernel.refusals["create_map"] = errno.ENOMEM
        return made(*shape)  # type: ignore[arg-type]

    monkeypatch.setattr(syscall, "create_map", only_two)

    with pytest.raises(NotPossibleError, match="not enough memory"):
        loaded()

    assert kernel.calls["create_map"] == 3


def test_where_tables_count_as_locked_memory_the_limit_is_raised_once(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 5.11."""
    raised: list[int] = []
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: raised.append(what))
    kernel.refusals["create_map"] = errno.EPERM

    with pytest.raises(NotPossibleError, match="let us make tables"):
        loaded()

    assert raised == [resource.RLIMIT_MEMLOCK]
    assert kernel.calls["create_map"] == 2


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOENT, "no tracepoint sched_switch"), (errno.EPERM, "not permitted"), (errno.EINVAL, "Invalid argument")],
)
def test_a_tracepoint_that_is_refused_is_named_and_not_asked_for_again(
    code: int, words: str, kernel: FakeKernel
) -> None:
    kernel.refusals["open_raw_tracepoint"] = code

    with loaded() as found, pytest.raises(NotPossibleError, match=words):
        found.attach_raw("sched_switch", "on_switch")

    assert kernel.calls["open_raw_tracepoint"] == 1


def test_what_the_verifier_refuses_is_loaded_a_second_time_only_to_hear_why(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def refuse(command: int, attributes: bytes) -> int:
        asked.append(command)
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(syscall, "_bpf", refuse)

    with pytest.raises(PermissionError):
        syscall.load_program(17, bytes(16), "on_switch")

    assert asked == [5, 5]


@pytest.mark.parametrize(("signals", "loads"), [(1, True), (3, True), (100, False)])
def test_a_load_that_signals_interrupt_is_tried_again_but_not_for_ever(
    signals: int, loads: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def interrupted(command: int, attributes: bytes) -> int:
        asked.append(command)
        if len(asked) <= signals:
            raise BlockingIOError(errno.EAGAIN, "a signal came")
        return 77

    monkeypatch.setattr(syscall, "_bpf", interrupted)

    if loads:
        assert syscall.load_program(17, bytes(16), "on_switch") == 77
    else:
        with pytest.raises(BlockingIOError):
            syscall.load_program(17, bytes(16), "on_switch")
    assert len(asked) <= 10


@pytest.mark.parametrize("step", ["clock_event", "run_at_event"])
def test_a_clock_that_is_refused_on_one_cpu_is_left_on_none(
    step: str, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = events_of(monkeypatch, refused=step)

    with loaded() as found, pytest.raises(NotPossibleError, match=step):
        found.attach_clock("on_switch", 10_000_000)

    assert len(opened) >= 1


@pytest.mark.parametrize("step", ["software_event", "link_perf_event", "start_event"])
def test_a_software_event_that_is_refused_on_one_cpu_is_left_on_none(
    step: str, kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = events_of(monkeypatch, refused=step)

    with loaded() as found, pytest.raises(NotPossibleError, match=step):
        found.attach_software_event(9, "on_switch", 1)

    assert len(opened) >= 1


def events_of(monkeypatch: pytest.MonkeyPatch, refused: str) -> list[int]:
    """Three CPUs, on the second of which one step is refused; the descriptors that were opened."""
    monkeypatch.setattr(program, "online_cpus", lambda: [0, 1, 2])
    opened: list[int] = []

    def do(step: str) -> Callable[..., int]:
        calls = iter(range(3))

        def done(*_: int, **__: int) -> int:
            if next(calls) == 1 and step == refused:
                raise NotPossibleError(f"{step} is refused")
            if step in ("clock_event", "software_event", "link_perf_event"):
                opened.append(os.open(os.devnull, os.O_RDONLY))
                return opened[-1]
            return 0

        return done

    for step in ("clock_event", "run_at_event", "software_event", "link_perf_event", "start_event"):
        monkeypatch.setattr(program, step, do(step))
    return opened


def test_a_refused_perf_event_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Refusing:
        def syscall(self, *words: object) -> int:
            asked.append(1)
            ctypes.set_errno(errno.EACCES)
            return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: Refusing())

    with pytest.raises(NotPossibleError, match="let us watch its events"):
        perf.clock_event(0, 10_000_000)

    assert asked == [1]


def test_what_could_not_be_built_whole_is_taken_out_again(kernel: FakeKernel) -> None:
    class Recorder:
        @whole_or_nothing
        def __init__(self) -> None:
            self._program = loaded()
            self._program.attach_raw("sched_switch", "on_switch")
            raise NotPossibleError("the second one is refused")

    with pytest.raises(NotPossibleError, match="the second one"):
        Recorder()


def test_events_that_the_kernel_skipped_are_summed_up_over_all_functions(
    kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with loaded() as found:
        skipped = {found.load_function("on_switch"): 3, found.load_function("on_wake"): 4}
        monkeypatch.setattr(program, "kernel_facts", lambda one: {"recursion_misses": skipped[one]})

        assert found.missed() == 7
