"""Whether the interpreter of a process has a lock (GIL) to be watched. A free-threaded build can switch its own on.

Source: `enabled` of struct _gil_runtime_state, Include/internal/pycore_gil.h; PEP 703; the documentation of PYTHON_GIL.
"""

from __future__ import annotations

from contextlib import suppress

from pprofpy.collectors.cpython.memory import UnreadableError
from pprofpy.collectors.cpython.runtime import Runtime
from pprofpy.collectors.cpython.versions import spelled
from pprofpy.errors import NoLockError, PprofpyError


def runs_with_lock(runtime: Runtime) -> bool:
    """Does an interpreter run with a lock just now?

    Raises:
        TargetError: The process has ended.
        ImplausibleTargetError: It does not let itself be read.
    """
    if not runtime.is_free_threaded:
        return True
    reader, layout = runtime.reader(), runtime.layout
    with suppress(UnreadableError):
        locks = [reader.memory.word(one + layout.interp_gil) for one in reader.interpreters(runtime.address)]
        return any(reader.memory.half_word(lock + layout.gil_enabled) for lock in locks if lock)
    return False


def require_lock(runtime: Runtime) -> None:
    """Refuse an interpreter without a lock, and one whose lock may be another than those we know.

    Raises:
        NoLockError: It is such a one.
        TargetError: The process has ended.
    """
    if runtime.is_new:
        raise NoLockError(
            f"the interpreter lock of process {runtime.pid} cannot be watched: that of Python "
            f"{spelled(runtime.version)} is not known",
            "'pprofpy cpu' and 'pprofpy off-cpu' work without it",
        )
    if not runs_with_lock(runtime):
        raise NoLockError(
            f"process {runtime.pid} ({runtime.image.interpreter}) runs without an interpreter lock: it is a "
            "free-threaded build, and nothing waits for one",
            "'pprofpy off-cpu' shows what its threads wait for; PYTHON_GIL=1 would switch the lock on",
        )


def lock_note(runtime: Runtime) -> str:
    """What a reader should know of the lock of a free-threaded build; empty for others."""
    if not runtime.is_free_threaded:
        return ""
    build = f"Process {runtime.pid} runs a free-threaded build"
    with suppress(PprofpyError):
        if not runs_with_lock(runtime):
            return f"{build}: its interpreter lock has been switched off, and nothing waits for it since."
    return f"{build}: its interpreter lock is on since PYTHON_GIL, -X gil or an extension module has asked for it."
