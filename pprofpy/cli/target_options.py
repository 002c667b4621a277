"""Choosing what to record: --pid, --name, --cgroup, --container, `-- COMMAND`, or the only Python process there is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import click

from pprofpy import target as targets
from pprofpy.cli import completion, confinement
from pprofpy.cli.console import remark
from pprofpy.errors import PprofpyError, UsageError
from pprofpy.target import Target, Watched
from pprofpy.target.launch import Interruption, Launched
from pprofpy.target.permission import require_proc

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Choice:
    """How the command line names the target: by at most one of these.

    Attributes:
        pid: --pid.
        name: --name.
        command: What stands after `--`.
        children: --subprocesses; None where a command does not have it. It names nothing.
        cgroup: --cgroup.
        container: --container.
    """

    pid: int | None = None
    name: str = ""
    command: tuple[str, ...] = ()
    children: bool | None = field(default=None, compare=False)
    cgroup: str = ""
    container: str = ""

    @classmethod
    def of(cls, options: dict[str, Any], *, children: bool | None = None) -> Choice:
        """What `target_options`, and perhaps `group_options`, have handed to a command; takes it out of the options."""
        names = ("pid", "name", "command", "cgroup", "container")
        return cls(**{name: options.pop(name) for name in names if name in options}, children=children)

    @property
    def is_group(self) -> bool:
        """Does it name a control group? What its processes start is recorded in any case."""
        return bool(self.cgroup or self.container)

    def check(self) -> None:
        """Refuse more than one way to name the target.

        Raises:
            UsageError: More than one was used, or a pid was given as a COMMAND.
        """
        given = {
            "--pid": self.pid is not None,
            "--name": bool(self.name),
            "--cgroup": bool(self.cgroup),
            "--container": bool(self.container),
            "a command": bool(self.command),
        }
        if sum(given.values()) > 1:
            *first, last = (way for way, is_given in given.items() if is_given)
            raise UsageError(f"{', '.join(first)} and {last} exclude each other", "give one of them")
        if len(self.command) == 1 and self.command[0].isdigit():
            raise UsageError(
                f"{self.command[0]!r} is not a command", f"to record a process, write --pid {self.command[0]}"
            )


def target_options(command: _Command) -> _Command:
    """Give a click command -p/--pid, --name and `-- COMMAND`; it receives `pid`, `name` and `command`."""
    decorated: Any = click.argument("command", metavar="[-- COMMAND ARGS...]", nargs=-1, type=click.UNPROCESSED)(
        command
    )
    decorated = click.option(
        "--name", metavar="REGEX", default="", help="Record the process whose command line matches."
    )(decorated)
    pid: Any = click.option(
        "-p", "--pid", type=int, metavar="PID", help="Record this process.", shell_complete=completion.pids
    )
    return pid(decorated)  # type: ignore[no-any-return]


def group_options(command: _Command) -> _Command:
    """Give a click command --cgroup and --container; it receives `cgroup` and `container`."""
    container = click.option(
        "--container", metavar="ID", default="", shell_complete=completion.containers,
        help="Record all processes of this container (an id, or its beginning).",
    )  # fmt: skip
    cgroup = click.option(
        "--cgroup", metavar="PATH", default="", shell_complete=completion.folders,
        help="Record all processes of this control group and of those below it.",
    )  # fmt: skip
    return cgroup(container(command))


@contextmanager
def chosen(choice: Choice, interruption: Interruption) -> Iterator[Watched]:
    """Find what the user named. Start a COMMAND; end it again if it cannot be recorded.

    Raises:
        UsageError: The choice contradicts itself.
        TargetError: No process matches, or several do.
        TargetPermissionError: The process may not be inspected.
        NotPossibleError: /proc is not mounted.
    """
    choice.check()
    require_proc()
    if not choice.command:
        confinement.before_recording()
        yield _running(choice)
        return
    launched = interruption.child = Launched(choice.command)
    confinement.before_recording()
    try:
        yield launched.python(interruption, with_children=choice.children)
    except PprofpyError:
        launched.give_up()
        raise


def _running(choice: Choice) -> Watched:
    if choice.cgroup:
        return targets.all_in(targets.find_control_group(choice.cgroup))
    if choice.container:
        return targets.all_in(targets.find_container(choice.container))
    if choice.pid is not None:
        return targets.open_target(choice.pid)
    if choice.name and choice.children:
        return targets.all_by_name(choice.name)
    if choice.name:
        return targets.find_by_name(choice.name, with_children=choice.children)
    candidates = targets.python_processes()
    if len(candidates) > 1 and sys.stdin.isatty() and sys.stderr.isatty():
        return _pick(candidates)
    return targets.the_only_one(candidates, with_children=choice.children)


def _pick(candidates: list[Target]) -> Target:
    """Ask which process to record; the answer is its number in the list or its pid."""
    for number, candidate in enumerate(candidates, 1):
        remark(f"{number:>4}) {targets.summary(candidate)}")
    answers = {str(number): candidate for number, candidate in enumerate(candidates, 1)}
    answers |= {str(candidate.pid): candidate for candidate in candidates if str(candidate.pid) not in answers}
    answer = click.prompt("Which process?", type=click.Choice(list(answers)), show_choices=False, err=True)
    return answers[answer]
