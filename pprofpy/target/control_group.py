"""Control groups: which processes are in one, found by its path or by the id of a container.

Paths are those of /proc/PID/cgroup, as our own cgroup namespace shows them. A group whose folder we reach lists its
processes there. Where we reach none (in a container, the groups of other containers have none), /proc tells.

Source: man 7 cgroups; cgroup-v2.rst and cgroup-v1/cgroups.rst in the kernel's admin guide.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pprofpy.errors import TargetError, UsageError
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import mounts, procfs
from pprofpy.text import printable

_MOUNT = re.compile(rb"^(\d{1,10}) \d{1,10} \d+:\d+ (\S+) (\S+) [^\n]* - (cgroup2?) \S+ (\S+)$", re.MULTILINE)
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_CONTAINER = re.compile(r"(?:.*[-:])?([0-9a-f]{64})(?:\.scope)?")
"""The name of a container's group: the id, perhaps as `docker-ID.scope`, `x.slice:cri-containerd:ID`."""
_ID = re.compile(r"(?:[a-z0-9-]+://)?([0-9a-f]{4,64})")
"""An id or its beginning, perhaps as Kubernetes writes it: `containerd://ID`."""
_SHORT, _MOST_SHOWN = 12, 10


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """A control group, with those below it.

    Attributes:
        title: What users call it: `control group /a/b`, `container 0123456789ab`.
        controllers: Those of its hierarchy, as in /proc/PID/cgroup; empty for version 2.
        path: Its path in the hierarchy.
        folder: Where its files are; None if it is not mounted where we are.
    """

    title: str
    controllers: str
    path: str
    folder: Path | None

    def __str__(self) -> str:
        return printable(self.title)

    def pids(self) -> set[int]:
        """The processes that are in it now, but for ourselves; those that our pid namespace does not show are left out.

        An empty set may also mean that it was removed.
        """
        found = _listed(self.folder) if self.folder else _seen(self.controllers, self.path)
        return found - {0, os.getpid()}


class _Hierarchy(NamedTuple):
    """A mount of a tree of control groups.

    Attributes:
        number: The mount's.
        controllers: As in /proc/PID/cgroup.
        root: The path of the group that is mounted.
        folder: Where it is mounted.
    """

    number: int
    controllers: str
    root: str
    folder: str


def find_control_group(text: str) -> ControlGroup:
    """Find a group by its path: of its folder, or as /proc/PID/cgroup has it.

    Raises:
        TargetError: There is none, or the path leads elsewhere.
    """
    trees = _hierarchies()
    places = [text, *(f"{one.folder}/{text.lstrip('/')}" for one in trees)]
    found, is_elsewhere = [], False
    for place in places:
        with suppress(OSError, ValueError):
            number, folder = _resolved(place)
            tree = next((one for one in trees if one.number == number), None)
            if tree:
                path = tree.root.rstrip("/") + folder.removeprefix(tree.folder) or "/"
                found.append(ControlGroup(f"control group {path}", tree.controllers, path, Path(folder)))
            is_elsewhere = is_elsewhere or not tree
    found += [] if found else _by_process(text)
    if found:
        return next((one for one in found if one.pids()), found[0])
    if is_elsewhere:
        raise TargetError(
            f"{printable(text)} is not a control group: no cgroup file system has it",
            "give a folder below /sys/fs/cgroup, or a path from /proc/PID/cgroup",
        )
    raise TargetError(
        f"there is no control group {printable(text)}", "list them: systemd-cgls, or cat /proc/PID/cgroup"
    )


def find_container(text: str) -> ControlGroup:
    """Find the group of a container by its id, or by the id's beginning.

    Raises:
        UsageError: That is no id.
        TargetError: No process is in such a container, or the beginning fits several.
    """
    given = _ID.fullmatch(text)
    if not given:
        raise UsageError(
            f"{printable(text)!r} is no container's id", "an id has 4 to 64 of 0-9 and a-f: docker ps, crictl ps"
        )
    groups = _containers()
    matching = {one: places for one, places in groups.items() if one.startswith(given[1])}
    if not matching:
        running = f"those with processes here: {_short(groups)}" if groups else "no process here is in a container"
        raise TargetError(f"no process is in a container {given[1][:_SHORT]}", running)
    if len(matching) > 1:
        raise TargetError(
            f"{len(matching)} containers have an id that begins with {given[1]}", f"choose one: {_short(matching)}"
        )
    ((name, places),) = matching.items()
    return _of_container(name, places)


def container_ids() -> list[str]:
    """The ids of the containers whose processes we see."""
    return sorted(_containers())


def _of_container(name: str, places: set[tuple[str, str]]) -> ControlGroup:
    """The group of a container, preferably that of version 2.

    Raises:
        TargetError: There are several: anybody may call a group so who may make one.
    """
    controllers = min(one for one, _ in places)
    paths = sorted(path for one, path in places if one == controllers)
    if len(paths) > 1:
        listed = "".join(f"\n    --cgroup {printable(path)}" for path in paths[:_MOST_SHOWN])
        raise TargetError(f"several control groups are called after container {name[:_SHORT]}", f"choose one:{listed}")
    return ControlGroup(f"container {name[:_SHORT]}", controllers, paths[0], _folder_of(controllers, paths[0]))


def _folder_of(controllers: str, path: str) -> Path | None:
    for tree in _hierarchies():
        if tree.controllers == controllers and _is_below(path, tree.root):
            with suppress(OSError, ValueError):
                number, folder = _resolved(tree.folder + path.removeprefix(tree.root.rstrip("/")))
                return Path(folder) if number == tree.number else None
    return None


def _containers() -> dict[str, set[tuple[str, str]]]:
    """Id -> (controllers, path) of each container that a process is in, also of one within another."""
    found: dict[str, set[tuple[str, str]]] = {}
    for _, controllers, path in _memberships():
        names = path.split("/")
        for place, name in enumerate(names):
            called = _CONTAINER.fullmatch(name)
            if called and "conmon" not in name:  # Podman's and CRI-O's monitor of the container
                found.setdefault(called[1], set()).add((controllers, "/".join(names[: place + 1])))
    return found


def _short(names: dict[str, set[tuple[str, str]]]) -> str:
    """The first of these ids, as long as it takes to tell them apart."""
    shown = sorted(names)
    length = _SHORT
    while length < len(shown[0]) and len({one[:length] for one in shown}) < len(shown):
        length += 4
    more = [f"and {len(shown) - _MOST_SHOWN} more"] if len(shown) > _MOST_SHOWN else []
    return ", ".join([one[:length] for one in shown[:_MOST_SHOWN]] + more)


# -- the processes of a group -----------------------------------------------------------------------------------------


def _listed(folder: Path) -> set[int]:
    """As the folders of a group and of those below it list them; nothing of those that are removed meanwhile.

    A threaded group lists none: its processes are listed by the group above that is their domain.
    """
    found: set[int] = set()
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        with suppress(OSError):
            found.update(map(int, Path(place, "cgroup.procs").read_bytes().split()))
        with suppress(OSError), os.scandir(place) as entries:
            waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
    return found


def _seen(controllers: str, group: str) -> set[int]:
    """As each process itself is said to be in it, by /proc."""
    return {pid for pid, kind, path in _memberships() if kind == controllers and _is_below(path, group)}


def _by_process(text: str) -> list[ControlGroup]:
    """The groups with such a path that a process is in, although we reach no folder of theirs."""
    path = "/" + text.strip("/")
    kinds = {kind for _, kind, one in _memberships() if _is_below(one, path)}
    return [ControlGroup(f"control group {path}", kind, path, None) for kind in sorted(kinds)]


def _memberships() -> Iterator[tuple[int, str, str]]:
    """(pid, controllers, path) of each process and hierarchy."""
    for pid in procfs.pids():
        with suppress(OSError):
            for controllers, path in procfs.control_groups(pid):
                yield pid, controllers, path


def _is_below(path: str, group: str) -> bool:
    """Is it this group, or one below? `/..` is above the root of our namespace."""
    above, ups = group.count("/.."), path.count("/..")
    if group in ("/", "/.." * above):
        return ups <= above
    return path == group or path.startswith(group + "/")


# -- where they are mounted -------------------------------------------------------------------------------------------


def _hierarchies() -> list[_Hierarchy]:
    """Where control groups are mounted, version 2 first."""
    kinds = [controllers for controllers, _ in procfs.control_groups("self")]
    found = []
    for number, root, folder, kind, options in _MOUNT.findall(procfs.mounts("self")):
        words = set(os.fsdecode(options).split(","))
        named = kinds if kind == b"cgroup" else [""]
        of_it = [one for one in named if one in kinds and words.issuperset(filter(None, one.split(",")))]
        if of_it:
            found.append(_Hierarchy(int(number), of_it[0], _plain(root), _plain(folder)))
    return sorted(found, key=lambda one: one.controllers)


def _plain(name: bytes) -> str:
    """A name in /proc/self/mountinfo, where spaces are written as `\\040`."""
    return os.fsdecode(_ESCAPE.sub(lambda code: bytes([int(code[1], 8)]), name))


def _resolved(path: str) -> tuple[int, str]:
    """The number of the mount that a folder is on, and its path without symbolic links.

    Raises:
        OSError, ValueError: There is no such folder.
        PprofpyError: Its file system does not answer.
    """

    def resolve() -> tuple[int, str]:
        descriptor = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return mounts.of_own(descriptor), os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a number
        finally:
            os.close(descriptor)

    try:
        return bounded(f"the file system of {printable(path)}", resolve)
    except BlockedError as error:
        raise error.as_error() from error
