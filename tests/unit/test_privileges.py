"""What is given up, and what some kernels ask for in spite of what Linux itself does."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from pprofpy.collectors import doctor
from pprofpy.collectors.kernel import perf
from pprofpy.errors import NotPossibleError
from pprofpy.system import privileges
from pprofpy.system.privileges import PROBES, Capability

ALL = (1 << 41) - 1
ADMINISTRATOR = 1 << Capability.SYS_ADMIN


class Kernel:
    """One that lets only CAP_SYS_ADMIN watch events, or CAP_PERFMON as well."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, level: int, *, asks_for_more: bool) -> None:
        self.effective = self.permitted = ALL
        self.opened: list[int] = []
        self._asks_for_more = asks_for_more
        setting = folder / "perf_event_paranoid"
        setting.write_text(f"{level}\n")
        monkeypatch.setattr(privileges, "_PERF_LEVEL", setting)
        monkeypatch.setattr(privileges, "_sets", lambda: (self.effective, self.permitted, 0))
        monkeypatch.setattr(privileges, "_set", self._set)
        monkeypatch.setattr(privileges, "_may_open_event", self._open)
        monkeypatch.setattr(privileges, "_limit", lambda *, is_privileged: None)
        monkeypatch.setattr(privileges, "_prctl", lambda option, value: None)

    def _set(self, effective: int, permitted: int, inheritable: int) -> None:
        self.effective, self.permitted = effective, permitted

    def _open(self) -> bool:
        self.opened.append(self.effective)
        wanted = ADMINISTRATOR if self._asks_for_more else ADMINISTRATOR | 1 << Capability.PERFMON
        return bool(self.effective & wanted)


@pytest.mark.parametrize(
    ("level", "asks_for_more", "is_kept"),
    [(4, True, True), (3, True, True), (4, False, False), (2, False, False), (-1, False, False)],
)
def test_administration_is_kept_only_where_the_kernel_asks_for_it(
    level: int, asks_for_more: bool, is_kept: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kernel = Kernel(monkeypatch, tmp_path, level, asks_for_more=asks_for_more)

    privileges.give_up(privileges.RECORDING)

    assert bool(kernel.permitted & ADMINISTRATOR) is is_kept
    assert kernel.permitted >> Capability.PERFMON & 1
    assert not kernel.permitted & 1  # CAP_CHOWN
    assert not any(tried & ADMINISTRATOR for tried in kernel.opened)
    assert bool(kernel.opened) is (level > 2)


def test_whoever_watches_no_events_keeps_nothing_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch, tmp_path, 4, asks_for_more=True)

    privileges.give_up(privileges.READING)

    assert not kernel.permitted & ADMINISTRATOR
    assert kernel.opened == []


def test_a_kernel_that_asks_for_more_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kernel = Kernel(monkeypatch, tmp_path, 4, asks_for_more=True)
    kernel.effective = kernel.permitted = sum(1 << one for one in PROBES)
    monkeypatch.setattr(doctor, "has_capability", lambda number: bool(kernel.effective >> number & 1))
    monkeypatch.setattr(perf, "system_call_number", lambda name: -1)
    monkeypatch.setattr(ctypes, "get_errno", lambda: 13)

    with pytest.raises(NotPossibleError, match=r"perf_event_paranoid is 4.*CAP_SYS_ADMIN") as error:
        perf.clock_event(0, 1_000_000)

    assert error.value.exit_code == 4
    assert "perf_event_paranoid=2" in (error.value.hint or "")
    check = doctor._perf()
    assert (check.verdict, check.finding) == (
        doctor.Verdict.WARNING,
        "perf_event_paranoid 4, and this kernel then asks for CAP_SYS_ADMIN",
    )
