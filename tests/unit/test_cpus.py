"""Which CPUs there are, and what is said where the kernel does not tell."""

from __future__ import annotations

from pathlib import Path

import pytest

from pprofpy.collectors.kernel import cpus
from pprofpy.errors import NotPossibleError


@pytest.mark.parametrize(("text", "online"), [("0\n", [0]), ("0-3\n", [0, 1, 2, 3]), ("0-1,4,6-7\n", [0, 1, 4, 6, 7])])
def test_cpus_are_listed_in_ranges(
    text: str, online: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpus, "_FOLDER", tmp_path)
    (tmp_path / "online").write_text(text)
    (tmp_path / "possible").write_text(text)

    assert cpus.online_cpus() == online
    assert cpus.possible_cpus.__wrapped__() == online[-1] + 1


def test_without_sysfs_the_reason_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpus, "_FOLDER", tmp_path)

    for ask in (cpus.online_cpus, cpus.possible_cpus.__wrapped__):
        with pytest.raises(NotPossibleError, match="No such file") as refusal:
            ask()
        assert "mount -t sysfs" in refusal.value.hint
