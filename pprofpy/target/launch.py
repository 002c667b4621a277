"""Starting a command in order to profile it, as a shell would: its terminal, its signals, its exit status."""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from pprofpy.errors import InterruptedEarly, TargetError
from pprofpy.system import interrupts
from pprofpy.system.interrupts import end_at_once, handle_once
from pprofpy.target import procfs
from pprofpy.target.process import Target, descendants_of, open_target
from pprofpy.target.usage import ancestors
from pprofpy.text import printable

_PATIENCE_S = 10.0
"""How long a wrapper script may take until it has started Python."""

_ONE_CTRL_C_S = 0.2
"""Signals that come so soon after another are the same Ctrl-C, passed on by a program that started us."""

_POLL_S = 0.005
_SURELY_WAITS_S = 1.0
"""After so long, a script that has started one Python is taken for one that starts no other."""
_PR_SET_PTRACER = 0x59616D61


class Launched:
    """A command that we started. It shares our terminal and process group: a Ctrl-C reaches it as it always does."""

    def __init__(self, command: Sequence[str]) -> None:
        try:
            self._process = subprocess.Popen(command, preexec_fn=_admit_tracer(os.getpid()))
        except OSError as error:
            script = command[0].endswith(".py")
            hint = f"run it with its interpreter: -- python {command[0]}" if script else "give the command's full path"
            raise TargetError(f"cannot start {command[0]!r}: {error.strerror or error}", hint) from error
        self._started = time.monotonic()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def python(self, interrupted: Interruption, *, with_children: bool | None = None) -> Target:
        """Wait until it has become Python (wrappers exec it), or has started Python (scripts do).

        Args:
            interrupted: The user's say meanwhile.
            with_children: Children are recorded, too: then a script that has started Pythons is the target itself.
                None: whoever asks cannot record children.

        Raises:
            TargetError: It ended before, or it is no Python program, or it has started several and one is wanted.
            InterruptedEarly: The user said so.
        """
        while time.monotonic() - self._started < _PATIENCE_S:
            if (status := self._process.poll()) is not None:
                raise TargetError(
                    f"the command ended ({status_in_words(status)}) before anything was recorded",
                    "it must be a Python program that runs for a while",
                )
            if target := self._find_python(with_children=with_children):
                return target
            if interrupted.wait(_POLL_S):
                raise InterruptedEarly("interrupted before anything was recorded")
        raise TargetError(
            "the command is not a Python program, nor did it start one", "start Python itself, as in: -- python app.py"
        )

    def _find_python(self, *, with_children: bool | None) -> Target | None:
        with suppress(TargetError):
            return open_target(self.pid)
        found = []
        for child in descendants_of(self.pid):
            with suppress(TargetError):
                found.append(open_target(child))
        if with_children:
            return open_target(self.pid, is_launcher=True) if found else None
        roots = [one for one in found if not any(other.pid in ancestors(one.pid) for other in found)]
        if len(roots) > 1:
            raise _several_started(roots)
        return roots[0] if roots and self._waits() else None

    def _waits(self) -> bool:
        """Does it wait for what it has started? Else it may start more."""
        if time.monotonic() - self._started > _SURELY_WAITS_S:
            return True
        with suppress(OSError):
            return procfs.wait_channel(self.pid) == "do_wait"
        return False

    def send(self, signal_number: int) -> None:
        """Pass a signal on; nothing happens if it has ended."""
        self._process.send_signal(signal_number)

    def is_running(self) -> bool:
        """Has it not ended yet? Collects it if it has."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait for its end; returns its status as a shell gives it (128 + n for signal n)."""
        return shell_status(self._process.wait())

    def give_up(self) -> None:
        """End a command that we started in vain, and what it has started."""
        if self.is_running():
            for child in descendants_of(self.pid):
                with suppress(OSError):
                    os.kill(child, signal.SIGTERM)
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)


class Interruption:
    """Has the user (SIGINT), or the system (SIGTERM, SIGHUP), asked us to end? Recordings poll it."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._asked_s = 0.0
        self.child: Launched | None = None

    def wait(self, timeout: float) -> bool:
        """Sleep for `timeout` seconds, or until asked to end; True if asked."""
        return self._event.wait(timeout)

    def receive(self, signal_number: int, _frame: object) -> None:
        """The signal handler: the first signal asks, a later one ends us."""
        now = time.monotonic()
        if self._event.is_set() and now - self._asked_s > _ONE_CTRL_C_S:
            end_at_once(signal_number)
        handle_once(signal_number, self.receive)
        self._asked_s = self._asked_s if self._event.is_set() else now
        interrupts.set_asked(True)
        self._event.set()
        if self.child and not (signal_number == signal.SIGINT and _terminal_is_ours()):
            self.child.send(signal_number)


@contextmanager
def interruptible() -> Iterator[Interruption]:
    """While this lasts, signals end the recording instead of the program."""
    interruption = Interruption()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else we run under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: handle_once(number, interruption.receive) for number in numbers}
    try:
        yield interruption
    finally:
        interrupts.set_asked(False)
        for number, handler in previous.items():
            signal.signal(number, handler)


def _several_started(pythons: Sequence[Target]) -> TargetError:
    lines = "".join(f"\n    {one.pid:<7}  {printable(shlex.join(one.command))}" for one in pythons)
    return TargetError(
        f"the command has started {len(pythons)} Pythons",
        f"to record them all, add --subprocesses; it has started:{lines}",
    )


def _admit_tracer(pid: int) -> Callable[[], None]:
    """Where Yama restricts ptrace to descendants (ptrace_scope 1), let `pid` and its helpers look into the child."""
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PTRACER, pid, 0, 0, 0)  # an error means no Yama, and no need


def shell_status(returncode: int) -> int:
    """A process's end as a shell reports it."""
    return 128 - returncode if returncode < 0 else returncode


def status_in_words(returncode: int) -> str:
    """A process's end for a message."""
    return f"killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exit status {returncode}"


def _terminal_is_ours() -> bool:
    """Are we in a terminal's foreground group? Then its Ctrl-C has gone to our children as well."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
