"""Stop pprofpy at each single step of an attach: before and after each call that touches the target."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pprofpy.collectors.attach import run
from pprofpy.collectors.attach.ptrace import Memory, Tracee
from pprofpy.target import Target, open_target

_TOUCHING = ((Tracee, "_ptrace"), (Memory, "_copy"))


@contextmanager
def at_step(number: int, act: Callable[[], None]) -> Iterator[None]:
    """Call `act` once, at this step."""
    originals = [getattr(owner, name) for owner, name in _TOUCHING]
    step = 0

    def count() -> None:
        nonlocal step
        step += 1
        if step == number:
            act()

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            count()
            result = original(*arguments)
            count()
            return result

        return call

    for (owner, name), original in zip(_TOUCHING, originals, strict=True):
        setattr(owner, name, counted(original))
    try:
        yield
    finally:
        for (owner, name), original in zip(_TOUCHING, originals, strict=True):
            setattr(owner, name, original)


def die_at_each_step(target: Target, first: int = 1, every: int = 1) -> int:
    """Have children of ours attach, and kill each (-9) one step later than the last; how many were killed.

    Only for a process of one thread.
    """
    number, killed = first, 0
    while True:
        child = os.fork()
        if not child:
            try:
                with at_step(number, lambda: os.kill(os.getpid(), signal.SIGKILL)):
                    run(target, "result = 'alive'")
            finally:
                os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(child, 0)[1]):
            return killed
        killed += 1
        number += every


if __name__ == "__main__":
    print(die_at_each_step(open_target(int(sys.argv[1])), *map(int, sys.argv[2:])))
