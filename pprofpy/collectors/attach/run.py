"""From a piece of code to its answer: what is made ready before, what is waited for after."""

from __future__ import annotations

import errno
import signal
import struct
import time
from contextlib import suppress
from dataclasses import dataclass

from pprofpy.arch.x86_64 import machine_code as machine
from pprofpy.arch.x86_64.registers import extended_state_bytes
from pprofpy.collectors.attach import refusals, seccomp
from pprofpy.collectors.attach.borrow import Load, borrow
from pprofpy.collectors.attach.borrowing import ProcessParts, candidates
from pprofpy.collectors.attach.errors import CodeError, NotAnsweredError
from pprofpy.collectors.attach.functions import find_functions
from pprofpy.collectors.attach.ptrace import GoneError, StuckError, WritableMemory, mask_of
from pprofpy.errors import ImplausibleTargetError, NotPossibleError
from pprofpy.system.blocking import BlockedError
from pprofpy.target import Target, procfs
from pprofpy.target.procfs import MappedArea
from pprofpy.text import printable

_MUSL_ATTRIBUTES = struct.pack("<QQ", 1 << 20, 8192)
"""Bytes of a stack and of its guard. Without them it would be 128 kB: little for an interpreter's compiler.

Source: struct pthread_attr_t in musl's include/alltypes.h.in, __u.__s in src/internal/pthread_impl.h.
"""
_RESERVED, _MUSL_RESERVED = mask_of(32, 33), mask_of(32, 33, 34)
"""Signals that the C library keeps: to cancel threads, to have all of them change their user; in musl, for timers."""

_IGNORED_BY_DEFAULT = (signal.SIGURG, signal.SIGWINCH, signal.SIGCHLD)
_OFTEN_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
_PAUSE_NS = 1_000_000
_PATIENCE_PAUSES = 2_000
_RETRY_S = (0.001, 0.02)
_TRACER_PATIENCE_S = 1.0
"""Another pprofpy is gone after some milliseconds, a debugger is not."""
_POLL_S = (0.0002, 0.02)
_CHUNK_BYTES = 16 << 20
_MOST_BYTES = 64 << 20
_LONGEST_KIND, _LONGEST_TRACEBACK, _LONGEST_REASON = 16, 16 << 10, 300
"""Of what the target says. Its error's reason, in characters, is part of a line for the user."""
_PAGE = 4096

_WRAPPER = """
try:
    _space = {{"__name__": "pprofpy_code", "__builtins__": __builtins__, "result": ""}}
    exec(compile({code!r}, "<pprofpy>", "exec"), _space)
    answer, kind = _space["result"], b"bytes"
    if isinstance(answer, str):
        answer, kind = answer.encode("utf-8", "surrogatepass"), b"str"
    elif type(answer) is not bytes:
        raise TypeError("result must be str or bytes, not " + type(answer).__name__)
except BaseException as _error:
    kind = b"error"
    answer = type(_error).__name__.encode("utf-8", "replace")
    try:
        answer += b": " + str(_error).encode("utf-8", "replace")
        import sys
        if sys.modules.get("traceback"):
            answer = "".join(sys.modules["traceback"].format_exception(type(_error), _error, _error.__traceback__))
            answer = answer.encode("utf-8", "replace")
    except BaseException:
        pass
    answer = answer[-{longest}:]
    _error = None
_space = None
"""
"""Loads nothing: what it imports is there. Has 21 names. A tuple of 20 would stay for good each time, in 3.11 and 3.12:
they keep those for later use, but use none of them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        result: What the code left in `result`: str or bytes; an empty str if nothing.
        way: How the code got in: "thread" is the only way so far.
        tid: The thread that was borrowed, in our pid namespace.
        stopped_us: How long it was kept from its own work, all tries together.
        attach_ms: From the call until the code's thread had been started.
        total_ms: From the call until the answer was here.
    """

    result: str | bytes
    way: str
    tid: int
    stopped_us: int
    attach_ms: float
    total_ms: float


def run(target: Target, code: str, timeout_s: float = 10.0, most_bytes: int = _MOST_BYTES) -> Answer:
    """Run `code` in the interpreter of `target`, and wait for its `result`.

    It runs once or not at all. If time is over before it has begun, it will not begin; if it has begun, it ends in its
    own time and its answer is dropped.

    Args:
        target: A CPython of 3.8 or later.
        code: Must not end the process, wait for what others hold, or call `threading.current_thread()` (which leaves a
            dummy behind before 3.12). It sees builtins, and nothing of the program's names.
        timeout_s: For everything together.
        most_bytes: The longest result that is taken.

    Raises:
        CodeError: The code raised something.
        ImplausibleTargetError: What came back is longer, or nothing that our code leaves there.
        NotAnsweredError: Time is over.
        NotPossibleError: This target cannot be entered, or we may not.
        TargetError: It has ended.
    """
    started = time.monotonic()
    deadline = started + timeout_s
    try:
        refusals.check(target)
        with WritableMemory(target.pid) as memory:
            tid, region, stopped_us = _enter(target, memory, code, deadline)
            attached = time.monotonic()
            kind, content = _Reply(memory, region, most_bytes).wait(target, deadline)
    except BlockedError as error:
        raise error.as_error() from error
    except (GoneError, ProcessLookupError, FileNotFoundError) as error:
        raise refusals.ended(target) from error
    except PermissionError as error:
        raise refusals.not_allowed(target) from error
    except OSError as error:
        if not target.is_alive():
            raise refusals.ended(target) from error
        raise ImplausibleTargetError(
            f"{target} cannot be entered: its memory is not what it should be ({error.strerror or error})", "try again"
        ) from error
    if kind == b"error":
        traceback = content[-_LONGEST_TRACEBACK:].decode("utf-8", "replace")
        reason = printable(traceback.strip().rpartition("\n")[2][:_LONGEST_REASON])
        raise CodeError(f"the code failed in {target}: {reason}", traceback)
    result = _text(content, target) if kind == b"str" else content
    now = time.monotonic()
    return Answer(result, "thread", tid, stopped_us, (attached - started) * 1e3, (now - started) * 1e3)


def rehearse(target: Target) -> None:
    """Do all that `run` does before it enters a process, for its main thread.

    Raises:
        NotPossibleError: It cannot be entered, or we may not.
        TargetError: It has ended.
    """
    try:
        refusals.check(target)
        with WritableMemory(target.pid) as memory:
            _prepare(target, memory, "")
            objection = seccomp.objection(target.pid)
    except BlockedError as error:
        raise error.as_error() from error
    except PermissionError as error:
        raise refusals.not_allowed(target) from error
    except StuckError as error:
        raise NotPossibleError(f"{target} is in the kernel, in a wait that nothing interrupts", "try again") from error
    except (GoneError, OSError) as error:
        raise refusals.ended(target) from error
    if objection:
        raise refusals.filtered(target, objection)


def _text(content: bytes, target: Target) -> str:
    try:
        return content.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise _implausible(target, "no text") from None


def _implausible(target: Target, what: str) -> ImplausibleTargetError:
    return ImplausibleTargetError(
        f"the answer of {target} makes no sense ({what}): something in it changes what our code does",
        "do not trust what this process says of itself; record it from outside: pprofpy cpu",
    )


# -- before: nothing stands still ------------------------------------------------------------------------------------


def _prepare(target: Target, memory: WritableMemory, code: str) -> Load:
    pid = target.pid
    mapped, status = procfs.mappings(pid), procfs.status(pid)
    functions = find_functions(target, memory, mapped)
    caught, ignored = status.caught_signals, status.ignored_signals
    xsave_bytes = extended_state_bytes()
    return Load(
        pid=pid,
        memory=memory,
        layout=ProcessParts(
            mapped, tuple((one.start, one.end) for one in functions.interpreter if one.is_code), xsave_bytes + 1024
        ),
        code=_place(memory, mapped, functions.interpreter + functions.libraries),
        pthread_create=functions.pthread_create,
        region=_region(functions.calls, code, _MUSL_ATTRIBUTES if functions.is_musl else b""),
        gate=_gate(caught, ignored),
        caught=caught,
        reserved=_MUSL_RESERVED if functions.is_musl else _RESERVED,
        is_alone=status.thread_count == 1,
        xsave_bytes=xsave_bytes,
    )


def _place(memory: WritableMemory, mapped: list[MappedArea], files: tuple[MappedArea, ...]) -> int:
    """Where the machine code goes, or lies already: the unused last bytes of a page of code.

    The vdso is the first choice: it is in every process and its last bytes are empty. Such a page is the process's own;
    what is written there is never changed or removed, since a thread may still run in it.
    """
    vdso = [mapping for mapping in mapped if mapping.name == "[vdso]"]
    for mapping in (*vdso, *files):
        if "x" in mapping.permissions and mapping.permissions.endswith("p"):
            place = mapping.end - len(machine.CODE_BYTES)
            there = memory.read(place - 16, len(machine.CODE_BYTES) + 16)
            pairs = zip(there, bytes(16) + machine.CODE_BYTES, strict=True)
            if all(old in (0, new) for old, new in pairs):
                return place
    raise NotPossibleError("there is no room for code in this process", "this is new to us: please report it")


def _gate(caught: int, ignored: int) -> int:
    """A signal that the target ignores. If it catches them all, one that a program expects at any time."""
    for number in _IGNORED_BY_DEFAULT:
        if not mask_of(number) & caught:
            return number
    for number in _OFTEN_IGNORED:
        if mask_of(number) & ignored:
            return number
    return signal.SIGWINCH


def _region(calls: tuple[int, ...], code: str, attributes: bytes) -> bytes:
    """The content of the region, as machine.S lays it out; not yet marked as ready."""
    text = _WRAPPER.format(code=code, longest=_LONGEST_TRACEBACK).encode("utf-8", "surrogatepass") + b"\0"
    length = (machine.CODE + len(text) + _PAGE - 1) // _PAGE * _PAGE
    region = bytearray(machine.CODE)
    struct.pack_into("<Q", region, machine.BYTES, length)
    struct.pack_into("<QQQ", region, machine.PAUSE, 0, _PAUSE_NS, _PATIENCE_PAUSES)
    struct.pack_into(f"<{len(calls)}Q", region, machine.CALLS, *calls)
    region[machine.ANSWER_NAME : machine.ANSWER_NAME + 6] = b"answer"
    region[machine.KIND_NAME : machine.KIND_NAME + 4] = b"kind"
    region[machine.ATTRIBUTES : machine.ATTRIBUTES + len(attributes)] = attributes
    return bytes(region + text).ljust(length, b"\0")


# -- in --------------------------------------------------------------------------------------------------------------


def _enter(target: Target, memory: WritableMemory, code: str, deadline: float) -> tuple[int, int, int]:
    """Borrow one thread after the other until one starts ours: which, the region, how long all were kept."""
    stopped_us, pause_s = 0, _RETRY_S[0]
    tracer_deadline = min(deadline, time.monotonic() + _TRACER_PATIENCE_S)
    cleared: dict[int, str] = {}
    while True:
        refused: OSError | None = None
        load = _prepare(target, memory, code)
        for tid in candidates(load.pid, load.layout):
            if time.monotonic() > deadline:
                break
            try:
                if tid not in cleared:
                    cleared[tid] = seccomp.objection(tid)
                if cleared[tid]:
                    continue
                borrowed = borrow(tid, load)
            except (GoneError, StuckError):
                continue
            except PermissionError as error:
                refused = error
                continue
            stopped_us += borrowed.stopped_us
            if borrowed.error:
                raise refusals.no_thread(target, borrowed.error)
            if borrowed.region:
                return tid, borrowed.region, stopped_us
        if not target.is_alive():
            raise refusals.ended(target)
        if refused and time.monotonic() > tracer_deadline:  # its memory could be read: so somebody else has the thread
            raise refused
        if cleared and all(cleared.values()):
            raise refusals.filtered(target, next(iter(cleared.values())))
        if time.monotonic() + pause_s > deadline:
            raise NotAnsweredError(
                f"no thread of {target} came to a point where it could be borrowed",
                "try again, or give it more time: it may be in a long computation outside of Python",
            )
        time.sleep(pause_s)
        pause_s = min(pause_s * 2, _RETRY_S[1])


# -- after -----------------------------------------------------------------------------------------------------------


class _Reply:
    """What the new thread hands over, read while the target runs."""

    def __init__(self, memory: WritableMemory, region: int, most_bytes: int) -> None:
        self._memory, self._region, self._most_bytes = memory, region, most_bytes

    def wait(self, target: Target, deadline: float) -> tuple[bytes, bytes]:
        """Kind and content."""
        pause_s = _POLL_S[0]
        try:
            while (stage := self._word(machine.STAGE)) not in (machine.DONE, machine.UNREADY, machine.FAILED):
                if time.monotonic() > deadline:
                    raise self._give_up(target)
                time.sleep(pause_s)
                pause_s = min(pause_s * 1.2, _POLL_S[1])
            if stage == machine.FAILED:
                raise refusals.no_thread(target, self._word(machine.ANSWER))
            if stage == machine.UNREADY:
                self._put(machine.KEEP, 2)
                raise NotPossibleError(f"{target} starts up or ends: there is no interpreter in it now", "try again")
            kind = self._content(machine.KIND, _LONGEST_KIND, target)
            content = self._content(machine.ANSWER, self._most_bytes, target)
            self._put(machine.KEEP, 2)
        except KeyboardInterrupt:
            with suppress(OSError, GoneError):
                self._put(machine.CANCEL, 1)
            raise
        except OSError as error:
            if error.errno == errno.EIO:
                raise NotAnsweredError(f"the answer of {target} was not read in time", "try again") from error
            raise
        return kind or b"error", content

    def _give_up(self, target: Target) -> NotAnsweredError:
        self._put(machine.CANCEL, 1)
        if self._word(machine.STAGE) == machine.STARTED:
            return NotAnsweredError(
                f"{target} has not finished in time; its answer will be dropped", "give it more time"
            )
        return NotAnsweredError(
            f"the interpreter of {target} was not free in time: something holds its lock (GIL)",
            "try again; a long call into C code that keeps the lock is the usual reason",
        )

    def _content(self, slot: int, most: int, target: Target) -> bytes:
        """The bytes that a slot points to, in pieces with a sign of life after each."""
        address, length = struct.unpack("<QQ", self._memory.read(self._region + slot, 16))
        if length > most:
            self._put(machine.KEEP, 2)
            raise _implausible(target, f"{length} bytes")
        pieces = []
        for start in range(0, length, _CHUNK_BYTES):
            pieces.append(self._memory.read(address + start, min(_CHUNK_BYTES, length - start)))
            self._put(machine.KEEP, 1)
        return b"".join(pieces)

    def _word(self, offset: int) -> int:
        return self._memory.word(self._region + offset)

    def _put(self, offset: int, value: int) -> None:
        self._memory.set_word(self._region + offset, value)
