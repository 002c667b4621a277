"""The one loop: it polls, ends windows in time, ends with the target, and loses nothing when a recorder fails."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import cast

import pytest

from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.model.profile import Profile, ValueType
from pprofpy.model.recording import Recording
from pprofpy.session import FOREVER, Recorder, Session
from pprofpy.target import ControlGroup, Group, Target, procfs
from pprofpy.units import NS_PER_S
from tests.conftest import wait_until


class Counting(Recorder):
    """Counts what is asked of it; its windows are numbered."""

    kind = "counting"

    def __init__(self, fails_at: int = 0, finishes: bool = True) -> None:
        super().__init__()
        self.calls: list[str] = []
        self._fails_at, self._finishes = fails_at, finishes

    def open(self) -> None:
        self.calls.append("open")
        self.owned.callback(self.calls.append, "closed")

    def watch(self, target: Target) -> None:
        self.calls.append("watch")

    def end_at(self, end_ns: int) -> None:
        self.end_ns = end_ns

    def poll(self) -> None:
        self.calls.append("poll")
        if self.calls.count("poll") == self._fails_at:
            raise NotPossibleError("the kernel changed its mind")

    def window(self) -> Recording:
        self.calls.append("window")
        return Recording(f"window {self.calls.count('window')}", Profile((ValueType("samples", "count"),)))

    def finish(self) -> Recording:
        self.calls.append("finish")
        if not self._finishes:
            raise TargetError("it has ended")
        return Recording("last", Profile((ValueType("samples", "count"),)))


class Clock:
    """Stops a session after so many polls, and lets time pass without waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, polls: int = 1 << 30) -> None:
        self.now_ns, self._left = 1, polls
        monkeypatch.setattr("pprofpy.session.session.time.monotonic_ns", lambda: self.now_ns)

    def wait(self, timeout: float) -> bool:
        self.now_ns += round(timeout * NS_PER_S)
        self._left -= 1
        return self._left < 0


class Mortal:
    """A target that is seen alive so many times."""

    pid = os.getpid()

    def __init__(self, times: int) -> None:
        self._left = times

    @property
    def members(self) -> tuple[Mortal, ...]:
        return (self,)

    def started_ns(self) -> int:
        return 7

    def state(self) -> str:
        return "R"

    def is_alive(self) -> bool:
        self._left -= 1
        return self._left >= 0


def kinds(session: Session) -> list[str]:
    return [window.kind for window in session.windows()]


def test_it_ends_when_the_time_is_over_and_not_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, recorder = Clock(monkeypatch), Counting()

    found = kinds(Session([recorder], clock, duration_ns=NS_PER_S + 1))

    assert found == ["last"]
    assert clock.now_ns == 1 + NS_PER_S + 1
    assert recorder.calls.count("poll") == 21


def test_it_counts_from_when_the_recording_began_and_tells_the_recorder_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, recorder = Clock(monkeypatch), Counting()
    clock.now_ns, recorder.start_ns = 3 * NS_PER_S, 2 * NS_PER_S

    kinds(Session([recorder], clock, duration_ns=4 * NS_PER_S))

    assert recorder.end_ns == clock.now_ns == 6 * NS_PER_S


def test_windows_end_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([Counting()], Clock(monkeypatch), duration_ns=3 * NS_PER_S, window_ns=NS_PER_S)

    assert kinds(session) == ["window 1", "window 2", "last"]


def test_somebody_may_say_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kinds(Session([Counting()], Clock(monkeypatch, polls=3))) == ["last"]


def test_it_ends_with_its_target(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Counting()

    session = Session([recorder], Clock(monkeypatch), target=cast(Target, Mortal(4)), duration_ns=FOREVER)
    (last,) = session.windows()

    assert (last.kind, last.profile.collection.started_ns) == ("last", 7)
    assert recorder.calls.count("poll") == 5


class Members:
    """A control group that has these processes, poll by poll; at last none."""

    def __init__(self, *polls: set[int]) -> None:
        self._polls = list(polls)

    def pids(self) -> set[int]:
        return self._polls.pop(0) if self._polls else set()


class Following(Counting):
    """A recorder whose kernel part follows a fork by itself, to wherever that goes."""

    def __init__(self, *followed: int) -> None:
        super().__init__()
        self._followed = set(followed)

    def followed(self) -> set[int]:
        return self._followed

    def enter(self, pid: int) -> None:
        self.calls.append(f"enter {pid}")

    def leave(self, pid: int) -> None:
        self._followed.discard(pid)
        self.calls.append(f"leave {pid}")


def test_who_enters_or_leaves_a_control_group_is_told_to_the_recorders(monkeypatch: pytest.MonkeyPatch) -> None:
    own, new, gone, astray = os.getpid(), 1 << 22, (1 << 22) + 1, (1 << 22) + 2
    recorder = Following(own, astray)
    members = cast(ControlGroup, Members({own, gone}, {own, gone, new}, {own, new}))
    group = Group((cast(Target, Mortal(99)),), members)

    kinds(Session([recorder], Clock(monkeypatch), target=group, duration_ns=FOREVER))

    told = [call for call in recorder.calls if call.startswith(("enter", "leave"))]
    left_at_last = [f"leave {pid}" for pid in sorted([own, new])]
    assert told == [f"leave {astray}", f"enter {gone}", f"enter {new}", f"leave {gone}", *left_at_last]
    assert recorder.calls.count("poll") == 4, "it ends when nobody is left"


def test_a_process_whose_main_thread_has_ended_stays_until_all_have(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Following()
    child = subprocess.Popen(["true"])
    wait_until(lambda: procfs.stat(child.pid).has_ended, "it is a zombie")
    members = cast(ControlGroup, Members({os.getpid(), child.pid}, {os.getpid()}))
    group = Group((cast(Target, Mortal(99)),), members)

    kinds(Session([recorder], Clock(monkeypatch, polls=2), target=group, duration_ns=FOREVER))

    assert [call for call in recorder.calls if call.endswith(f" {child.pid}")] == [f"enter {child.pid}"]
    child.wait()


def test_several_recorders_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([Counting(), Counting()], Clock(monkeypatch), duration_ns=2 * NS_PER_S, window_ns=NS_PER_S)

    assert kinds(session) == ["window 1", "window 1", "last", "last"]


def test_what_was_recorded_before_an_error_is_yielded_before_it_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([Counting(fails_at=25)], Clock(monkeypatch), window_ns=NS_PER_S)
    found: list[str] = []

    with pytest.raises(NotPossibleError, match="changed its mind"):
        found.extend(window.kind for window in session.windows())

    assert found == ["window 1", "last"]


def test_of_two_errors_the_first_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session([Counting(fails_at=1, finishes=False)], Clock(monkeypatch))

    with pytest.raises(NotPossibleError):
        kinds(session)


def test_one_recorder_that_cannot_finish_does_not_cost_the_others_their_last_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session([Counting(finishes=False), Counting()], Clock(monkeypatch, polls=1))
    found: list[str] = []

    with pytest.raises(TargetError):
        found.extend(window.kind for window in session.windows())

    assert found == ["last"]


def test_an_event_stops_a_real_session() -> None:
    stop = threading.Event()
    stop.set()

    assert kinds(Session([Counting()], stop)) == ["last"]


def test_progress_is_told_after_each_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    kinds(Session([Counting()], Clock(monkeypatch), duration_ns=NS_PER_S // 10, on_poll=told.append))

    assert told == [NS_PER_S // 20, NS_PER_S // 10]


def test_what_a_recorder_opened_is_closed_however_it_ends() -> None:
    class Refused(Counting):
        def open(self) -> None:
            super().open()
            raise NotPossibleError("no")

    recorder, refused = Counting(), Refused()
    with recorder:
        pass
    recorder.close()
    with pytest.raises(NotPossibleError), refused:
        pass

    assert recorder.calls == refused.calls == ["open", "closed"]
