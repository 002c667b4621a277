"""Our side of the talk with the agent: calls into the target, and what comes back, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from pprofpy.collectors import attach
from pprofpy.collectors.heapagent import plain
from pprofpy.collectors.heapagent.control import ControlFile
from pprofpy.errors import NotPossibleError
from pprofpy.target import Target

AGENT = tuple(Path(__file__).with_name(name) for name in ("agent.py", "holders.py"))
SAMPLER, MUSL_SAMPLER = Path(__file__).with_name("sampler.so"), Path(__file__).with_name("sampler_musl.so")

SHORT_S, LONG_S = 10.0, 600.0
"""For calls that do not depend on the size of the target's heap, and for those that do."""

_MOST_ANSWER_BYTES = 1 << 20
_MOST_FRAMES = (1 << 16) - 1
"""More tracemalloc does not keep."""

_CALL = """
import sys
agent = sys.modules.get({name!r})
if agent is None:
    agent = type(sys)({name!r})
    exec(compile({source!r}, "<pprofpy>", "exec"), agent.__dict__)
    sys.modules[{name!r}] = agent
import marshal
result = marshal.dumps(agent.{expression}, 4)
"""


def sampler_library(*, has_glibc: bool = True) -> bytes | None:
    """The sampler as it was compiled when pprofpy was installed; None if that was not possible."""
    file = SAMPLER if has_glibc else MUSL_SAMPLER
    return file.read_bytes() if file.exists() else None


def agent_call(expression: str) -> str:
    """The code that has the agent, which is brought along, evaluate `agent.<expression>`."""
    source = "\n".join(file.read_text() for file in AGENT)
    name = "_pprofpy_heap_" + hashlib.sha256(source.encode()).hexdigest()[:8]
    return _CALL.format(name=name, source=source, expression=expression)


class BusyError(NotPossibleError):
    """Another pprofpy is at it."""


class Agent:
    """An opened agent in a target; at its end, everything there is stopped and given back.

    Args:
        target: The process.

    Raises (also all methods):
        TargetError: It ended, or did not answer.
        TargetPermissionError: We may not look inside.
        BusyError: Another pprofpy is at it.
        ImplausibleTargetError: What comes back is not what the agent says.
        NotPossibleError: It cannot be done there.

    Attributes:
        traced_frames: How many frames tracemalloc kept of each stack before we came; 0 if it did not trace.
        has_lock: Is its interpreter made for a global lock? A free-threaded one is not.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        about = self.call("open_control()", bool, int, int, int, bool, bool)
        is_busy, descriptor, inode, traced_frames, has_lock, has_glibc = about
        if is_busy:
            raise BusyError(f"another pprofpy records the heap of process {target.pid}", "wait until it has finished")
        self.traced_frames: int = plain.count(traced_frames, _MOST_FRAMES)
        self.has_lock: bool = has_lock
        self._has_glibc: bool = has_glibc
        self._control = ControlFile(target, descriptor, inode)

    def library(self) -> bytes | None:
        """The sampler's library for this target; None where it must not be loaded, or was not compiled."""
        return sampler_library(has_glibc=self._has_glibc) if self.has_lock else None

    def call(self, expression: str, *kinds: type, timeout_s: float = SHORT_S) -> tuple[Any, ...]:
        """Have the agent evaluate `agent.<expression>`.

        Args:
            expression: Calls one of the agent's functions.
            kinds: The types of the values that this returns, in a tuple; none if it returns nothing.
            timeout_s: How long to wait for them.

        Raises:
            CodeError: It raised an exception.
        """
        answer = attach.run(self.target, agent_call(expression), timeout_s, most_bytes=_MOST_ANSWER_BYTES).result
        if not isinstance(answer, bytes):
            raise plain.implausible("a text")
        found = plain.decode(answer)
        return plain.fields(found, *kinds) if kinds else ()

    def say(self, expression: str) -> Iterator[Any]:
        """Have the agent evaluate `agent.<expression>`, which says something; what it says, piece by piece."""
        self.call(expression, timeout_s=LONG_S)
        yield from self._control.pieces()
        self.call("drop()")

    def last_words(self) -> Iterator[Any] | None:
        """What the agent said when the target ended, piece by piece; None if it said nothing."""
        return None if self._control.is_empty() else self._control.pieces()

    def progress(self) -> tuple[int, int]:
        """How much of its task the agent has done, and how much there is; zeros as long as it does not know."""
        return self._control.progress()

    def close(self) -> None:
        """Let go; the agent notices within a fraction of a second."""
        self._control.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
