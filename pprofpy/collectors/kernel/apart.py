"""Run something in a child process: what it takes up ends with it, and so does the harm if it crashes.

LLVM takes 100 MB that it never gives back, and ends the process that it is in where memory runs out. The child is a
fork: a new program would have lost capabilities that were given to this process only.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import warnings
from collections.abc import Callable
from typing import NoReturn

from pprofpy import errors
from pprofpy.errors import NotPossibleError, PprofpyError, exhausted


def in_child(work: Callable[[], str]) -> str:
    """What a function returns, or our own error that it raises.

    Raises:
        NotPossibleError: The child did not live to tell.
        PprofpyError: As `work` raises it.
    """
    try:
        reading, writing = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # threads of NumPy's: the child does not use them
            child = os.fork()
    except OSError as error:
        raise exhausted(error.errno or 0) or NotPossibleError(f"no process can be started: {error.strerror}") from error
    if not child:
        _be_child(work, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as stream:
            said = stream.read()
    except BaseException:
        os.kill(child, signal.SIGKILL)
        raise
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise _crashed(status)
    kind, *rest = json.loads(said)
    if kind == "":
        return str(rest[0])
    raise getattr(errors, kind)(*rest)


def _be_child(work: Callable[[], str], writing: int) -> NoReturn:
    """Never returns: whatever happens, this process goes no further."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to both: our parent decides what comes of it
        try:
            answer = ["", work()]
        except PprofpyError as error:
            answer = [type(error).__name__, error.message, error.hint]
        except MemoryError:
            answer = ["NotPossibleError", *_out_of_memory()]
        with os.fdopen(writing, "wb") as stream:
            stream.write(json.dumps(answer).encode())
        status = 0
    finally:
        os._exit(status)


def _crashed(status: int) -> NotPossibleError:
    """LLVM aborts where it gets no memory; the kernel kills what takes too much of it."""
    if status in (-signal.SIGABRT, -signal.SIGKILL, -signal.SIGSEGV, -signal.SIGBUS, 1):
        message, hint = _out_of_memory()
        return NotPossibleError(f"the compiler did not come to its end: {message}", hint)
    return NotPossibleError(f"the compiler ended with status {status}", "run it again")


def _out_of_memory() -> tuple[str, str]:
    return "there is not enough memory", "free some, or raise the limit on it: of this container, or by ulimit -v"
