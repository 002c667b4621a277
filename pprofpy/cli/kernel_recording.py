"""Shared code of the commands that record inside the kernel: target, length, and the COMMAND that was started."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pprofpy.cli import confinement
from pprofpy.cli.console import remark
from pprofpy.cli.options import duration_option, subprocesses_option, window_option
from pprofpy.cli.record import Length, named, print_costs, record, spooled
from pprofpy.cli.saving import progress_bar
from pprofpy.cli.target_options import Choice, chosen
from pprofpy.collectors.kernel.scope import Scope
from pprofpy.errors import InterruptedEarly, TargetError, UsageError
from pprofpy.formats.spool import Spool
from pprofpy.model.recording import Option, Recording
from pprofpy.session import Recorder
from pprofpy.target import Group, Target, Watched, procfs
from pprofpy.target.launch import Interruption, Launched, interruptible, status_in_words
from pprofpy.target.permission import require_proc
from pprofpy.units import NS_PER_S, format_duration

DEFAULT_DURATION_NS = 30 * NS_PER_S
LONGEST_DURATION_NS = 7 * 24 * 3600 * NS_PER_S

_Command = TypeVar("_Command", bound=Callable[..., Any])


_Recorder = TypeVar("_Recorder", bound=Recorder)


def length_options(command: _Command) -> _Command:
    """Give a click command -d/--duration, --window and -s/--subprocesses.

    It receives `duration_ns`, `window_ns` and `subprocesses`.
    """
    return duration_option(window_option(subprocesses_option(command)))


def everybody() -> str:
    """Return whom a recording without a target is of."""
    return "all processes" if procfs.is_host_pid_namespace() else "all processes of this pid namespace"


def duration_of(duration_ns: int | None, choice: Choice) -> int | None:
    """Return how long to record, in nanoseconds; None for as long as the target lives.

    Raises:
        UsageError: Too short or too long.
    """
    if duration_ns is None:
        return None if choice.command else DEFAULT_DURATION_NS
    if not 0 < duration_ns <= LONGEST_DURATION_NS:
        raise UsageError(
            f"a duration of {format_duration(duration_ns)} is out of range",
            "choose more than 0 and at most a week: -d 30, -d 500ms, -d 2m",
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
) -> Iterator[tuple[_Recorder, Watched | None]]:
    """Start a recording of what the command line names.

    For a COMMAND the probes are in place before it starts, so that nothing of it is missed but its first milliseconds.

    Args:
        choice: The process; an empty choice means the whole system (`everybody`) or the only Python process.
        subprocesses: Record its children, too.
        interruption: Ends the wait for a command to become Python.
        start: Makes the recorder.
        everybody: Record the whole system if no process is named.

    Yields:
        The recorder, and what it watches: None for the whole system.

    Raises:
        UsageError: The options contradict each other.
        TargetError: There is no such process.
        NotPossibleError: It cannot be recorded here.
    """
    choice.check()
    require_proc()
    subprocesses = subprocesses or choice.is_group
    if choice == Choice() and everybody:
        if subprocesses:
            raise UsageError(
                "--subprocesses needs a process", "name it with --pid PID; without one, all processes are recorded"
            )
        confinement.before_recording()
        with start(Scope()) as recorder:
            yield recorder, None
    elif choice.command:
        with (
            start(Scope(children=subprocesses, named_later=True)) as recorder,
            chosen(choice, interruption) as target,
        ):
            recorder.watch_all(target)
            yield recorder, target
    else:
        with (
            chosen(choice, interruption) as target,
            start(_scope(target, children=subprocesses)) as recorder,
        ):
            if isinstance(target, Group):
                recorder.watch_all(target)
            yield recorder, target


def _scope(target: Watched, *, children: bool) -> Scope:
    if isinstance(target, Target):
        return Scope(target.pid, children=children)
    return Scope(children=children, several=True)


def run(
    recorder: Recorder,
    target: Watched | None,
    windows: Spool,
    shown: Mapping[str, Option],
    length: Length,
    interruption: Interruption,
    on_poll: Callable[[], object] = lambda: None,
    on_window: Callable[[Recording], Recording] = lambda window: window,
) -> Recording:
    """Run a recording until its time is over, its target has ended, or the user interrupts it.

    Args:
        recorder: The recorder, watching the target.
        target: The process; None for the whole system.
        windows: Takes each window as it ends.
        shown: The options that shape what the command prints.
        length: The length of the recording and of a window.
        interruption: Ends the recording when the user presses Ctrl-C.
        on_poll: Called about 20 times per second.
        on_window: Maps each window to the one that is kept.
    """
    who = str(target) if target else everybody()
    how_long = f"for {format_duration(length.duration_ns)}" if length.duration_ns else "until it ends"
    remark(f"recording {who} {how_long}; Ctrl-C ends early")
    with progress_bar("recording", length.duration_ns) as progress:

        def polled(elapsed_ns: int) -> None:
            progress(elapsed_ns)
            on_poll()

        def kept(window: Recording) -> Recording:
            return on_window(named(window, target))

        return record([recorder], windows, shown, length, interruption, target, polled, kept)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a command records in the kernel.

    Attributes:
        kind: The command's name.
        choice: The process that the command line names.
        subprocesses: Record its children, too.
        length: The length of the recording and of a window.
        shown: The options that shape what the command prints.
        verbose: Say what the recording takes up.
        everybody: Record the whole system if no process is named.
    """

    kind: str
    choice: Choice
    subprocesses: bool
    length: Length
    shown: Mapping[str, Option]
    verbose: bool
    everybody: bool = True


def record_and_show(
    plan: Plan,
    start: Callable[[Scope], _Recorder],
    show: Callable[[Recording, Watched | None], None],
    *,
    is_empty: Callable[[Recording], bool] = lambda made: not len(made.profile),
    begin: Callable[[_Recorder, Watched | None], None] = lambda recorder, target: None,
    finish: Callable[[_Recorder, Recording], None] = lambda recorder, made: None,
    afterwards: Callable[[Recording], None] = lambda made: None,
    on_poll: Callable[[_Recorder], object] = lambda recorder: None,
    on_window: Callable[[_Recorder, Recording], Recording] = lambda recorder, window: window,
) -> None:
    """Record, show and keep what was recorded, and wait for the COMMAND to end.

    Args:
        plan: What to record.
        start: Makes the recorder.
        show: Shows and keeps the recording. Until it returns, the windows are in the spool.
        is_empty: Was nothing recorded?
        begin: Called when it begins, with the recorder and the process.
        finish: Called with the recorder, which is still open, and the recording.
        afterwards: Called when the recording has been kept, and the spool is gone.
        on_poll: Called about 20 times per second, with the recorder.
        on_window: Maps each window to the one that is kept; called with the recorder, too.

    Raises:
        InterruptedEarly: The user ended it before anything was recorded.
        TargetError: The target's own end did.
    """
    with interruptible() as interruption:
        try:
            with ExitStack() as spool:
                with recording(plan.choice, plan.subprocesses, interruption, start, everybody=plan.everybody) as (
                    recorder,
                    target,
                ):
                    windows = spool.enter_context(spooled(plan.kind, target))
                    begin(recorder, target)
                    made = run(
                        recorder, target, windows, plan.shown, plan.length, interruption,
                        partial(on_poll, recorder), partial(on_window, recorder),
                    )  # fmt: skip
                    if plan.verbose:
                        print_costs(recorder)
                    finish(recorder, made)
                check_began(is_empty(made), target, interruption)
                show(made, target)
            afterwards(made)
        finally:
            wait_for_command(interruption.child)


def check_began(is_empty: bool, target: Watched | None, interruption: Interruption) -> None:
    """Refuse an empty recording that ended before it could record anything.

    Raises:
        InterruptedEarly: The user ended it before anything was recorded.
        TargetError: The target's own end did.
    """
    if is_empty and interruption.wait(0):
        raise InterruptedEarly("interrupted before anything was recorded")
    if is_empty and target and not target.is_alive():
        who = f"process {target.pid}" if isinstance(target, Target) else str(target)
        raise TargetError(f"{who} ended before anything was recorded", "name one that runs for a while")


def wait_for_command(child: Launched | None) -> None:
    """Wait for the COMMAND, and report how it ended if it failed."""
    if child is None:
        return
    if child.is_running():
        remark(f"recording done; waiting for the command to end (pid {child.pid})")
    if status := child.wait():
        remark(f"the command ended: {status_in_words(128 - status if status > 128 else status)}")
