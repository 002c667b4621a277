"""What the commands share that record inside the kernel: whom they watch, how long, and the command they started."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self, TypeVar

from pprofpy.cli import confinement
from pprofpy.cli.console import remark
from pprofpy.cli.options import duration_option, subprocesses_option
from pprofpy.cli.recording import progress_bar
from pprofpy.cli.target_options import Choice, chosen_target
from pprofpy.collectors.bpf.processes import Scope
from pprofpy.errors import InterruptedEarly, TargetError, UsageError
from pprofpy.target import Target
from pprofpy.target.launch import Interruption, Launched, status_in_words
from pprofpy.target.permission import require_proc
from pprofpy.units import NS_PER_S, format_duration

DEFAULT_DURATION_NS = 30 * NS_PER_S
LONGEST_DURATION_NS = 7 * 24 * 3600 * NS_PER_S

_Command = TypeVar("_Command", bound=Callable[..., Any])
_TICK_S = 0.05
_DRAIN_NS = NS_PER_S // 2


class Recorder(Protocol):
    """A recording in the kernel, running until it is closed."""

    def watch(self, pid: int) -> None:
        """Name the process to watch."""

    def drain(self) -> None:
        """Move what has ended out of the kernel's tables."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


_Recorder = TypeVar("_Recorder", bound=Recorder)


def length_options(command: _Command) -> _Command:
    """Give a click command -d/--duration and -s/--subprocesses; it receives `duration_ns` and `subprocesses`."""
    return duration_option(subprocesses_option(command))


def duration_of(duration_ns: int | None, choice: Choice) -> int | None:
    """How long to record; None for as long as the target lives.

    Raises:
        UsageError: Too short or too long.
    """
    if duration_ns is None:
        return None if choice.command else DEFAULT_DURATION_NS
    if not 0 < duration_ns <= LONGEST_DURATION_NS:
        raise UsageError(
            f"a duration of {format_duration(duration_ns)} is out of range",
            "choose more than nothing and at most a week: -d 30, -d 500ms, -d 2m",
        )
    return duration_ns


@contextmanager
def recording(
    choice: Choice,
    subprocesses: bool,
    interruption: Interruption,
    start: Callable[[Scope], _Recorder],
    *,
    everybody: bool = True,
) -> Iterator[tuple[_Recorder, Target | None]]:
    """Start a recording of what the command line names.

    For a COMMAND the probes are in place before it starts, so that nothing of it is missed but its first milliseconds.

    Args:
        choice: The process; nobody in particular means the whole system, or else the only Python process.
        subprocesses: Its children, too.
        interruption: Ends the wait for a command to become Python.
        start: Makes the recorder.
        everybody: Can the whole system be recorded?

    Yields:
        The recorder, and the process it watches: None for the whole system.
    """
    choice.check()
    require_proc()
    if choice == Choice() and everybody:
        if subprocesses:
            raise UsageError("--subprocesses needs a process", "name it with --pid PID; without, all are watched")
        confinement.before_recording()
        with start(Scope()) as recorder:
            yield recorder, None
    elif choice.command:
        with (
            start(Scope(children=subprocesses, named_later=True)) as recorder,
            chosen_target(choice, interruption) as target,
        ):
            recorder.watch(target.pid)
            yield recorder, target
    else:
        with (
            chosen_target(choice, interruption) as target,
            start(Scope(target.pid, children=subprocesses)) as recorder,
        ):
            yield recorder, target


def run(
    recorder: Recorder,
    target: Target | None,
    duration_ns: int | None,
    interruption: Interruption,
    tick: Callable[[], object] = lambda: None,
) -> None:
    """Let a recording run until its time is over, its target has ended, or the user says so.

    Args:
        recorder: What records.
        target: Whom.
        duration_ns: How long; None for as long as the target lives.
        interruption: The user's say.
        tick: Called some 20 times a second.
    """
    who = str(target) if target else "all processes"
    length = f"for {format_duration(duration_ns)}" if duration_ns else "until it ends"
    remark(f"recording {who} {length}; Ctrl-C ends early")
    start_ns = drained_ns = time.monotonic_ns()
    with progress_bar("recording", duration_ns) as progress:
        while not interruption.wait(_TICK_S):
            tick()
            now_ns = time.monotonic_ns()
            progress(now_ns - start_ns)
            if now_ns - drained_ns >= _DRAIN_NS:
                recorder.drain()
                drained_ns = now_ns
            if (duration_ns and now_ns - start_ns >= duration_ns) or (target and not target.is_alive()):
                return


def check_began(is_empty: bool, target: Target | None, interruption: Interruption) -> None:
    """A recording in which nothing happened is fine, unless it never really began.

    Raises:
        InterruptedEarly: The user ended it before anything was recorded.
        TargetError: The target's own end did.
    """
    if is_empty and interruption.wait(0):
        raise InterruptedEarly("interrupted before anything was recorded")
    if is_empty and target and not target.is_alive():
        raise TargetError(f"process {target.pid} ended before anything was recorded", "name one that runs for a while")


def wait_for_command(child: Launched | None) -> None:
    """Wait for the command that we started, and tell how it ended if that was not well."""
    if child is None:
        return
    if child.is_running():
        remark(f"recording done; waiting for the command to end (pid {child.pid})")
    if status := child.wait():
        remark(f"the command ended: {status_in_words(128 - status if status > 128 else status)}")
