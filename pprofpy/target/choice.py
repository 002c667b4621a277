"""Which process to profile: the one that a pattern names, those of a control group, or the only Python there is."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from pprofpy.errors import PprofpyError, TargetError, UsageError
from pprofpy.target import procfs
from pprofpy.target.control_group import ControlGroup
from pprofpy.target.group import Group, Watched
from pprofpy.target.process import Target, open_target
from pprofpy.target.usage import ancestors, usage
from pprofpy.text import printable

_LONGEST_S = 10.0
"""Time limit to inspect all processes, in seconds. A thousand take a second."""
_MOST_SHOWN, _MOST_PARENTS = 20, 5
_INDENT, _NARROWEST_LINE, _LONGEST_LINE = 14, 66, 500
"""Of the lines that tell processes apart: what stands before them, and how long they are."""


def python_processes(pattern: str = "") -> list[Target]:
    """All Python processes that we may look into, except pprofpy itself and whatever started it.

    Args:
        pattern: Only those whose command line matches this regular expression. The others are not looked into, so that
            none can delay the choice of another.

    Raises:
        TargetError: It takes too long, since there is much to read in them.
    """
    ours, regex = {os.getpid(), *ancestors()}, re.compile(pattern)
    found: list[Target] = []
    deadline = time.monotonic() + _LONGEST_S
    for pid in procfs.pids():
        if time.monotonic() > deadline:
            raise TargetError(
                f"it takes too long to tell which processes are Python; {len(found)} were found", "name one: --pid PID"
            )
        with contextlib.suppress(PprofpyError, OSError):
            command = procfs.command_line(pid)
            if pid not in ours and regex.search(" ".join(command)) and not _is_pprofpy(command):
                found.append(open_target(pid))
    return found


def find_by_name(pattern: str, *, with_children: bool | None = None) -> Target:
    """The Python process whose command line matches a regular expression (as `pgrep -f` does).

    Args:
        pattern: The expression.
        with_children: False: the hint offers to record children, too. None: whoever asks cannot record children.

    Raises:
        UsageError: `pattern` is not a regular expression.
        TargetError: None matches, or several do; the hint lists them.
    """
    matching = _matching(pattern)
    if len(matching) == 1:
        return matching[0]
    raise several(matching, f"match --name {pattern!r}", with_children=with_children, is_named=True)


def all_by_name(pattern: str) -> Watched:
    """The Python processes whose command lines match, to be recorded with their children.

    Of a process that descends from another, that one stands for both.

    Raises:
        UsageError: `pattern` is not a regular expression.
        TargetError: None matches.
    """
    roots = _Families(_matching(pattern)).roots
    return roots[0] if len(roots) == 1 else Group(tuple(roots))


def all_in(control_group: ControlGroup) -> Group:
    """All processes of a control group, Python or not.

    Those that cannot be inspected are recorded as those that enter it later: as far as the kernel alone can tell.

    Raises:
        TargetError: There is none, or it takes too long to inspect them.
        PprofpyError: None can be inspected; why the last one cannot.
    """
    pids = control_group.pids()
    if not pids:
        raise TargetError(
            f"no process is in {control_group}",
            "those of other pid namespaces are not seen: run pprofpy on the host, or where its processes are seen",
        )
    members, refusal = [], None
    deadline = time.monotonic() + _LONGEST_S
    for pid in sorted(pids):
        if time.monotonic() > deadline:
            raise TargetError(
                f"it takes too long to inspect the {len(pids)} processes of {control_group}", "choose a smaller one"
            )
        try:
            members.append(open_target(pid, is_launcher=True))
        except PprofpyError as error:
            refusal = error
    if not members and refusal:
        raise refusal
    return Group(tuple(members), control_group)


def _matching(pattern: str) -> list[Target]:
    """One at least."""
    try:
        matching = python_processes(pattern)
    except re.error as error:
        raise UsageError(
            f"--name {pattern!r} is not a regular expression: {error}", "put a backslash before ( [ . * + ?"
        ) from error
    if not matching:
        raise TargetError(
            f"no Python process matches --name {pattern!r}{_unseen()}",
            "the pattern must match the command line; list command lines with 'pgrep -af python'",
        )
    return matching


def the_only_one(candidates: list[Target], *, with_children: bool | None = None) -> Target:
    """The candidate, if there is exactly one.

    Args:
        candidates: Of which one is to be chosen.
        with_children: As for `find_by_name`; True: they will be.

    Raises:
        TargetError: There is none, or there are several; the hint lists them.
    """
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise several(candidates, "run here", with_children=with_children)
    raise TargetError(
        f"no Python process runs here{_unseen()}", "name one with --pid PID, or start one: pprofpy cpu -- COMMAND"
    )


def several(
    candidates: list[Target], what: str, *, with_children: bool | None = None, is_named: bool = False
) -> TargetError:
    """The error for a choice that we must not make for the user: whom to choose from, children below their parents."""
    families = _Families(candidates)
    lines = [f"{'  ' * depth}--pid {summary(target)}" for target, depth in families.in_order()]
    shown = lines[:_MOST_SHOWN]
    if len(lines) > len(shown):
        shown.append(f"and {len(lines) - len(shown)} more")
    if with_children is False:
        for parent, count in families.parents()[:_MOST_PARENTS]:
            children = "child" if count == 1 else f"{count} children"
            shown.append(f"--pid {parent.pid} --subprocesses: it and its {children}")
        if is_named:
            shown.append("--subprocesses beside --name: all of them and their children")
    return TargetError(
        f"{len(candidates)} Python processes {what}", "choose one:" + "".join(f"\n    {line}" for line in shown)
    )


class _Families:
    """Processes, each with those of them that it has started, directly or through others."""

    def __init__(self, members: list[Target]) -> None:
        self.roots: list[Target] = []
        self._children: dict[int, list[Target]] = {member.pid: [] for member in members}
        for member in members:
            above = next((pid for pid in ancestors(member.pid) if pid in self._children), None)
            (self.roots if above is None else self._children[above]).append(member)

    def in_order(self) -> Iterator[tuple[Target, int]]:
        """Each process before its children, with its distance from the root of its family."""
        waiting = [(root, 0) for root in reversed(self.roots)]
        while waiting:
            member, depth = waiting.pop()
            yield member, depth
            waiting += [(child, depth + 1) for child in reversed(self._children[member.pid])]

    def parents(self) -> list[tuple[Target, int]]:
        """The roots that have children, and how many descendants each has."""
        counts: list[tuple[Target, int]] = []
        for member, depth in self.in_order():
            if depth:
                counts[-1] = (counts[-1][0], counts[-1][1] + 1)
            else:
                counts.append((member, 0))
        return [(root, count) for root, count in counts if count]


def summary(target: Target) -> str:
    """One line to recognize a process by: `1234  alice  CPython 3.11.7  python worker.py  (12s of CPU time, 84MB)`."""
    command = printable(shlex.join(target.command))
    interpreter = f"{target.interpreter.implementation} {target.interpreter.version}"
    used = str(replace(usage(target.pid), descriptor_count=-1))
    first, last = f"{target.pid:<7}  {target.user}  {interpreter}  ", f"  ({used})" if used else ""
    room = _room() - len(first)
    if len(command) + len(last) <= room:
        return first + command + last
    return first + (command if len(command) <= room else command[: room - 1] + "…")


def _room() -> int:
    """The width of such a line: what is left of a terminal's, or as much as is good for anything."""
    if not sys.stderr.isatty():
        return _LONGEST_LINE
    return max(shutil.get_terminal_size().columns - _INDENT, _NARROWEST_LINE)


def _is_pprofpy(command: tuple[str, ...]) -> bool:
    """Another pprofpy: its command line holds the name that somebody looks for, but nobody means it."""
    words = command[:3]
    return any(word.rpartition("/")[2] == "pprofpy" for word in words) or words[1:] == ("-m", "pprofpy")


def _unseen() -> str:
    """A remark for those who see only their own processes."""
    return "" if os.geteuid() == 0 else " (processes of other users need sudo)"
