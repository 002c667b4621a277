"""Our side of the talk with the agent: calls into the target, and the control file that carries the data.

The control file lives in the target's memory and has no name. We reach it through /proc/PID/fd, in whatever namespaces
the target is, and hold a lock on it. The kernel drops that lock when we end, however that comes about: this is how the
agent notices.
"""

from __future__ import annotations

import fcntl
import hashlib
import marshal
import os
import struct
from pathlib import Path
from typing import Any, Self

from pprofpy.collectors import attach
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import PROC, Target

AGENT = Path(__file__).with_name("agent.py")
SAMPLER, MUSL_SAMPLER = Path(__file__).with_name("sampler.so"), Path(__file__).with_name("sampler_musl.so")

LONG_S = 600.0
"""For calls that depend on the size of the target's heap."""

_LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 1, 0)

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


class BusyError(NotPossibleError):
    """Another pprofpy is at it."""


class Session:
    """An opened agent in a target; at its end, everything there is stopped and given back.

    Args:
        target: The process.

    Raises:
        TargetError: It ended, or did not answer.
        TargetPermissionError: We may not look inside.
        BusyError: Another pprofpy is at it.
        NotPossibleError: It cannot be done there.

    Attributes:
        traced_frames: How many frames tracemalloc kept of each stack before we came; 0 if it did not trace.
        has_lock: Is its interpreter made for a global lock? A free-threaded one is not.
        has_glibc: Is its C library glibc? Else it is musl.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._source = AGENT.read_text()
        self._name = "_pprofpy_heap_" + hashlib.sha256(self._source.encode()).hexdigest()[:8]
        about = self.call("open_control()")
        if about["busy"]:
            raise BusyError(f"another pprofpy records the heap of process {target.pid}", "wait until it has finished")
        self.traced_frames: int = about["tracing"]
        self.has_lock: bool = about["has_lock"]
        self.has_glibc: bool = about["has_glibc"]
        self._file = _open_locked(target, about["fd"])

    def library(self) -> bytes | None:
        """The sampler's library for this target; None where it must not be loaded, or was not compiled."""
        return sampler_library(has_glibc=self.has_glibc) if self.has_lock else None

    def call(self, expression: str, timeout_s: float = 10.0) -> Any:
        """Have the agent evaluate `agent.<expression>`; returns the result.

        Raises:
            CodeError: It raised an exception.
        """
        code = _CALL.format(name=self._name, source=self._source, expression=expression)
        answer = attach.run(self.target, code, timeout_s).result
        return marshal.loads(answer if isinstance(answer, bytes) else answer.encode())  # noqa: S302 - only plain data

    def put(self, content: bytes) -> None:
        """Make `content` that of the control file."""
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, content, 0)

    def take(self) -> bytes:
        """The control file's content, which is removed from it."""
        parts, position, length = [], 0, self.length()
        while position < length and (part := os.pread(self._file, length - position, position)):
            parts.append(part)
            position += len(part)
        os.ftruncate(self._file, 0)
        return b"".join(parts)

    def length(self) -> int:
        """How long the control file's content is by now."""
        return os.fstat(self._file).st_size

    def peek(self, size: int) -> bytes:
        """The beginning of the control file's content as it is now."""
        return os.pread(self._file, size, 0)

    def close(self) -> None:
        """Let go; the agent notices within a fraction of a second."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open_locked(target: Target, descriptor: int) -> int:
    """The target's control file as an open file of our own, locked."""
    try:
        file = os.open(PROC / str(target.pid) / "fd" / str(descriptor), os.O_RDWR | os.O_CLOEXEC)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, _LOCK)
    except OSError as error:
        raise TargetError(
            f"the control file of process {target.pid} cannot be opened: {error.strerror}", "try again"
        ) from error
    return file
