"""Stop pprofpy at each single step of an attach: before and after each call that touches the target."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pprofpy.collectors.attach import run
from pprofpy.collectors.attach.ptrace import Tracee, WritableMemory
from pprofpy.target import Target, open_target

_TOUCHING = ((Tracee, "_ptrace"), (WritableMemory, "read"), (WritableMemory, "write"))


@contextmanager
def at_step(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` once, at this step, counted from when a thread is first traced: before, nothing is done to it."""
    originals = [getattr(owner, name) for owner, name in _TOUCHING]
    step = 0

    def count(owner: type) -> None:
        nonlocal step
        step += bool(step or owner is Tracee)
        if step == number:
            act()

    def counted(owner: type, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count(owner)
            result = original(*arguments)
            count(owner)
            return result

        return call

    for (owner, name), original in zip(_TOUCHING, originals, strict=True):
        setattr(owner, name, counted(owner, original))
    try:
        yield
    finally:
        for (owner, name), original in zip(_TOUCHING, originals, strict=True):
            setattr(owner, name, original)


def die_at_each_step(target: Target) -> int:
    """Have children of ours attach, and kill each (-9) one step later than the last; how many were killed.

    Only for a process of one thread.
    """
    number = 1
    while True:
        child = os.fork()
        if not child:
            try:
                with at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                    run(target, "result = 'alive'")
            finally:
                os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            return number - 1
        number += 1


def stop_at_each_step(target: Target) -> tuple[int, int]:
    """Have children of ours attach, each in a job of its own, and get a Ctrl-Z one step later than the last.

    Only for a process of one thread.

    Returns:
        At how many steps a child was stopped, and at how many of these the target was, too.
    """
    number, stopped, harmed = 1, 0, 0
    while True:
        child = os.fork()
        if not child:
            os.setpgid(0, 0)
            reached = False

            def stop() -> None:
                nonlocal reached
                reached = True
                os.kill(os.getpid(), signal.SIGTSTP)

            try:
                with at_step(number, stop):
                    run(target, "result = 'alive'")
            finally:
                os._exit(not reached)
        status = os.waitpid(child, os.WUNTRACED)[1]
        while os.WIFSTOPPED(status):
            stopped += 1
            harmed += target.state() in "tT"
            os.kill(child, signal.SIGCONT)
            status = os.waitpid(child, os.WUNTRACED)[1]
        if os.WEXITSTATUS(status):
            return stopped, harmed
        number += 1


if __name__ == "__main__":
    act_at_each_step = {"die": die_at_each_step, "stop": stop_at_each_step}[sys.argv[1]]
    print(act_at_each_step(open_target(int(sys.argv[2]))))
