"""One stopped thread of another process, by ptrace(2); and the memory of that process.

The kernel binds a tracee to the one thread of ours that seized it, and lets go of it when that thread ends: with the
signal that is at hand, out of a wait that nothing interrupts, or of its remains if it has died. So each is traced in a
thread of its own (see `trace`), and there is nothing to undo, whatever happens.

Stops are looked at with waitid(WNOWAIT) on exactly that tid, which never takes the exit status that a `Popen` waits
for; but do not call `Popen.poll()` in another thread meanwhile, it would take a stop for an exit.

Source: ptrace(2), proc_pid_mem(5).
"""

from __future__ import annotations

import _thread
import ctypes
import errno
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self, TypeVar

from pprofpy.arch.x86_64.registers import GET_REGISTERS, SET_REGISTERS, Registers
from pprofpy.system.blocking import Reading, bounded
from pprofpy.system.interrupts import Unstoppable
from pprofpy.target import procfs

_SEIZE, _INTERRUPT, _CONT, _DETACH = 0x4206, 0x4207, 7, 17
_POKETEXT, _GETSIGMASK, _SETSIGMASK = 4, 0x420A, 0x420B
_SECCOMP_GET_FILTER = 0x420C
_WALL = 0x40000000
_EVENT_STOP = 128
_WORD = 8
_LAST_ADDRESS = (1 << 63) - 1
_MOST_BYTES = 64 << 20
_STOP_PATIENCE_S = 0.25
_ENDING_S = 2.0
_SPIN_S = 0.0005
"""Stops come within this, if the processor is free; who yields on a busy machine gets it back milliseconds later."""

_Result = TypeVar("_Result")
_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


@dataclass(frozen=True, slots=True)
class TraceStop:
    """Why a thread stands still.

    Attributes:
        signal: The signal that is about to be delivered, or that stopped the whole process.
        is_event: It is about no signal's delivery: we interrupted it, or the process was stopped.
    """

    signal: int
    is_event: bool


class GoneError(Exception):
    """The thread has ended."""


class StuckError(Exception):
    """The thread does not stop: it is in the kernel, in a wait that nothing interrupts."""


def trace(tid: int, work: Callable[[Tracee], _Result]) -> _Result:
    """What `work` returns or raises, with this tracee; it is traced no longer then, and goes on."""
    with Unstoppable():
        return _trace(tid, work)


def _trace(tid: int, work: Callable[[Tracee], _Result]) -> _Result:
    tracer: list[int] = []
    reading = Reading(f"thread {tid}", lambda: work(Tracee(tid)))

    def do() -> None:
        tracer.append(_thread.get_native_id())
        reading.do()

    _thread.start_new_thread(do, ())  # a threading.Thread runs code at its end that would swallow a Ctrl-C
    try:
        return reading.result(lambda: tracer[0] if tracer else 0)
    except KeyboardInterrupt:
        reading.wait(_ENDING_S)
        raise
    finally:
        while reading.is_done and procfs.folder_of("self", tracer[0]).exists():
            time.sleep(0)  # the kernel calls it dead somewhat later, and only then lets go


class Tracee:
    """A thread that we trace, from the making of this object to `detach()`. It may run or be stopped.

    Raises (the constructor, and all methods):
        OSError: EPERM: somebody else traces it, or we may not.
        GoneError: There is no such thread any more.
    """

    def __init__(self, tid: int) -> None:
        self.tid = tid
        self._ptrace(_SEIZE)

    def halt(self) -> TraceStop:
        """Stop it, unless a signal comes first.

        Raises:
            StuckError: It did not stop in time.
        """
        self._ptrace(_INTERRUPT)
        if stop := self.wait(_STOP_PATIENCE_S):
            return stop
        raise StuckError

    def wait(self, timeout_s: float) -> TraceStop | None:
        """Its next stop, or None after `timeout_s`. Does not sleep: the target stands still meanwhile."""
        impatient = time.monotonic() + _SPIN_S
        deadline = impatient - _SPIN_S + timeout_s
        while True:
            status = self._look()
            if status is not None:
                if status.si_code not in (os.CLD_TRAPPED, os.CLD_STOPPED):
                    raise GoneError
                return TraceStop(status.si_status & 0xFF, status.si_status >> 8 == _EVENT_STOP)
            now = time.monotonic()
            if now > deadline:
                return None
            if now > impatient:
                os.sched_yield()

    def _look(self) -> os.waitid_result | None:
        """Its stop or its end, if it came to one; left there for others to see."""
        try:
            return os.waitid(os.P_PID, self.tid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT | _WALL)
        except ChildProcessError:
            raise GoneError from None

    def registers(self) -> Registers:
        """What it would go on with."""
        registers = Registers()
        self._ptrace(GET_REGISTERS, 0, ctypes.addressof(registers))
        return registers

    def set_registers(self, registers: Registers) -> None:
        """All of them at once: the only step that changes what the thread will do."""
        self._ptrace(SET_REGISTERS, 0, ctypes.addressof(registers))

    def signal_mask(self) -> int:
        """The signals that it blocks; bit 0 is signal 1."""
        mask = ctypes.c_uint64()
        self._ptrace(_GETSIGMASK, _WORD, ctypes.addressof(mask))
        return mask.value

    def set_signal_mask(self, mask: int) -> None:
        """The signals to block from now on."""
        value = ctypes.c_uint64(mask)
        self._ptrace(_SETSIGMASK, _WORD, ctypes.addressof(value))

    def poke(self, address: int, content: bytes) -> None:
        """Write whole words where the target itself could not write: into its own copy of a page of code."""
        for start in range(0, len(content), _WORD):
            self._ptrace(_POKETEXT, address + start, int.from_bytes(content[start : start + _WORD], "little"))

    def resume(self, signal_number: int = 0) -> None:
        """Let it run on, with a signal or without."""
        self._ptrace(_CONT, 0, signal_number)

    def detach(self, signal_number: int = 0) -> None:
        """Let it go, from a stop."""
        self._ptrace(_DETACH, 0, signal_number)

    def filters(self) -> list[bytes]:
        """The seccomp filters that it is under, each a classic BPF program (struct sock_filter).

        Raises:
            OSError: EACCES: only CAP_SYS_ADMIN may ask. EINVAL, EIO: this kernel does not tell.
        """
        found: list[bytes] = []
        while True:
            try:
                length = self._ptrace(_SECCOMP_GET_FILTER, len(found), 0)
            except FileNotFoundError:
                return found
            program = ctypes.create_string_buffer(length * _WORD)
            self._ptrace(_SECCOMP_GET_FILTER, len(found), ctypes.addressof(program))
            found.append(program.raw)

    def _ptrace(self, request: int, address: int = 0, data: int = 0) -> int:
        result = _libc.ptrace(request, self.tid, address, data)
        if result == -1:
            number = ctypes.get_errno()
            if number == errno.ESRCH:
                raise GoneError
            raise OSError(number, os.strerror(number))
        return int(result)


class WritableMemory:
    """The memory of a process, reached without stopping it.

    It is the one that the process has now. Once it executes another program there is nothing to reach any more: what is
    meant for the old program never gets into the new one.

    Raises (all methods):
        OSError: EACCES: we may not. EIO: nothing is mapped there, or there are no such addresses. ETIMEDOUT: it does
            not answer.
        GoneError: The process has ended, or has executed another program.
    """

    def __init__(self, pid: int) -> None:
        self._file = os.open(procfs.folder_of(pid) / "mem", os.O_RDWR | os.O_CLOEXEC)
        self._subject = f"process {pid}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes from `address` on."""
        _check_address(address, length)
        content = bounded(self._subject, lambda: os.pread(self._file, length, address))
        _check_done(len(content), length)
        return content

    def write(self, address: int, content: bytes) -> None:
        """Put `content` at `address`."""
        _check_address(address, len(content))
        _check_done(bounded(self._subject, lambda: os.pwrite(self._file, content, address)), len(content))

    def word(self, address: int) -> int:
        """The 64 bits there."""
        return int.from_bytes(self.read(address, _WORD), "little")

    def set_word(self, address: int, value: int) -> None:
        """Put 64 bits there."""
        self.write(address, value.to_bytes(_WORD, "little"))


def _check_address(address: int, length: int) -> None:
    """Addresses often come from the target itself: what no program has is not there. So is too much at once."""
    if not (0 <= address <= _LAST_ADDRESS and 0 <= length <= _MOST_BYTES):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def _check_done(done: int, length: int) -> None:
    if done < length:
        if not done:
            raise GoneError
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def mask_of(*numbers: int) -> int:
    """The signals as a bit set."""
    return sum(1 << (number - 1) for number in numbers)


SYNCHRONOUS = mask_of(signal.SIGTRAP, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGSYS)
"""Signals that a thread sends itself by what it does. Blocking them would not help it."""
