"""Control groups are found by path and by container id, whatever they are called; nothing else is taken for one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pprofpy.errors import TargetError, UsageError
from pprofpy.target import control_group, mounts, procfs
from pprofpy.target.control_group import find_container, find_control_group

ONE, TWO = "4f2a91c07b3e" + "0" * 52, "4f2a91c07b3e" + "0" * 51 + "1"
OTHER = "abcdef" * 10 + "0123"

Groups = Callable[[dict[int, list[tuple[str, str]]]], None]


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Tells of processes that are in such groups; no hierarchy is mounted."""

    def pretend(memberships: dict[int, list[tuple[str, str]]]) -> None:
        monkeypatch.setattr(procfs, "pids", lambda: sorted(memberships))
        monkeypatch.setattr(procfs, "control_groups", lambda pid: [] if pid == "self" else memberships[pid])

    return pretend


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for a mounted hierarchy of version 2, in which one group has two processes."""
    descriptor = os.open(tmp_path, os.O_PATH)
    number = mounts.of_own(descriptor)
    os.close(descriptor)
    folder = tmp_path / "a tree"
    group = folder / "system.slice" / "app.service"
    (group / "below").mkdir(parents=True)
    (group / "cgroup.procs").write_text(f"11\n0\n{os.getpid()}\n")
    (group / "below" / "cgroup.procs").write_text("12\n")
    place = str(folder).replace(" ", "\\040")
    lines = (
        f"23 1 0:5 / /proc rw - proc proc rw\n{number} 1 0:26 / {place} rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    monkeypatch.setattr(procfs, "mounts", lambda pid: lines.encode())
    monkeypatch.setattr(procfs, "control_groups", lambda pid: [("", "/")])
    return folder


def test_a_path_may_be_that_of_the_folder_or_that_in_proc(tree: Path) -> None:
    for path in (str(tree / "system.slice" / "app.service"), "/system.slice/app.service", "system.slice/app.service/"):
        found = find_control_group(path)

        assert str(found) == "control group /system.slice/app.service"
        assert found.pids() == {11, 12}, "those below it too, but neither ourselves nor those that we do not see"


def test_a_symbolic_link_is_as_good_as_where_it_leads(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tree / "system.slice")

    assert find_control_group(str(tmp_path / "link")).path == "/system.slice"


@pytest.mark.parametrize("path", ["/proc", "/proc/self/..", "/dev/null", "../../../../../proc"])
def test_what_lies_elsewhere_is_no_control_group(path: str, tree: Path) -> None:
    with pytest.raises(TargetError, match=r"is not a control group|there is no control group") as raised:
        find_control_group(path)

    assert "/proc/PID/cgroup" in raised.value.hint


def test_a_group_that_is_gone_is_told_so_harmlessly(tree: Path) -> None:
    with pytest.raises(TargetError, match=r"there is no control group /gone\\x1b\[2J"):
        find_control_group("/gone\x1b[2J")


def test_what_is_removed_after_it_was_found_has_no_process(tree: Path) -> None:
    found = find_control_group("/system.slice/app.service")
    (tree / "system.slice").rename(tree / "moved")

    assert found.pids() == set()


def test_a_group_without_a_folder_here_has_the_processes_that_say_so(groups: Groups) -> None:
    groups(
        {
            1: [("cpu", "/"), ("", "/../pod/app")],
            2: [("cpu", "/"), ("", "/../pod/app/below")],
            3: [("cpu", "/"), ("", "/../pod/application")],
            4: [("cpu", "/"), ("", "/")],
            5: [("cpu", "/"), ("", "/../../pod/app")],
        }
    )

    assert find_control_group("/../pod/app").pids() == {1, 2}
    assert find_control_group("/..").pids() == {1, 2, 3, 4}, "what is above the namespace's root holds that, too"
    with pytest.raises(TargetError, match="there is no control group /pod"):
        find_control_group("/pod")


@pytest.mark.parametrize(
    "path",
    [
        f"/docker/{ONE}",
        f"/system.slice/docker-{ONE}.scope",
        f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12.slice/cri-containerd-{ONE}.scope",
        f"/kubepods/besteffort/pod3e2f/{ONE}",
        f"/system.slice/containerd.service/kubepods-pod12.slice:cri-containerd:{ONE}",
        f"/kubepods.slice/crio-{ONE}.scope",
        f"/machine.slice/libpod-{ONE}.scope",
        f"/../cri-containerd-{ONE}.scope",
    ],
)
def test_a_container_is_found_by_its_id_in_every_form(path: str, groups: Groups) -> None:
    monitor = path.replace("crio-", "crio-conmon-").replace("libpod-", "libpod-conmon-")
    others = {9: [("", "/other")], 10: [("", monitor)] if monitor != path else []}
    groups({7: [("", path)], 8: [("", f"{path}/init")], **others})

    for words in (ONE, ONE[:4], ONE[:12], f"containerd://{ONE}"):
        found = find_container(words)
        assert found.pids() == {7, 8}
        assert str(found) == "container 4f2a91c07b3e"
    assert control_group.container_ids() == [ONE]


def test_version_2_counts_where_a_container_is_in_several_hierarchies(groups: Groups) -> None:
    groups({7: [("cpu", f"/docker/{ONE}"), ("", f"/docker/{ONE}")], 8: [("cpu", f"/docker/{ONE}"), ("", "/")]})

    assert find_container(ONE).pids() == {7}


def test_of_a_container_in_another_each_has_its_own(groups: Groups) -> None:
    groups({7: [("", f"/docker/{ONE}")], 8: [("", f"/docker/{ONE}/docker/{OTHER}")]})

    assert find_container(ONE[:8]).pids() == {7, 8}
    assert find_container(OTHER[:8]).pids() == {8}


def test_a_beginning_that_fits_several_is_refused_with_those(groups: Groups) -> None:
    groups({7: [("", f"/docker/{ONE}")], 8: [("", f"/docker/{TWO}")], 9: [("", f"/docker/{OTHER}")]})

    with pytest.raises(TargetError, match="2 containers have an id that begins with 4f2a91c07b3e") as raised:
        find_container("4f2a91c07b3e")

    assert raised.value.hint == f"choose one: {ONE}, {TWO}"


def test_a_group_that_only_bears_a_container_s_name_makes_it_ambiguous(groups: Groups) -> None:
    groups({7: [("", f"/docker/{ONE}")], 8: [("", f"/user.slice/docker-{ONE}.scope")]})

    with pytest.raises(TargetError, match="several control groups are called after container 4f2a91c07b3e") as raised:
        find_container(ONE)

    assert raised.value.hint.split("\n    --cgroup ")[1:] == [f"/docker/{ONE}", f"/user.slice/docker-{ONE}.scope"]


@pytest.mark.parametrize("words", ["", "web", "4f2", "../4f2a", "4F2A91C0", ONE + "0", "4f2a\n"])
def test_what_is_no_id_is_refused(words: str, groups: Groups) -> None:
    groups({})
    with pytest.raises(UsageError, match="is no container's id"):
        find_container(words)


def test_an_id_that_nobody_has_is_answered_with_those_that_somebody_has(groups: Groups) -> None:
    groups({7: [("", f"/docker/{ONE}")], 9: [("", "/system.slice")]})

    with pytest.raises(TargetError, match="no process is in a container 0123") as raised:
        find_container("0123")

    assert raised.value.hint == "those with processes here: 4f2a91c07b3e"
