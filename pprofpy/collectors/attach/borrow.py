"""Make one thread of the target start another that runs our code: the few steps for which something stands still.

What must hold at every step: if we die right after it, the target goes on unharmed. So only two steps change what the
thread does, each in one system call: setting its registers to the machine code, when all that this needs has been
written where nobody looks (below the stack's red zone, and in the unused end of a page of code), and setting them
back. In between, the thread is on its own anyway: see machine.S.

Signals are never taken from the target. One that is about to be delivered before the thread blocks them ends the try,
and is delivered as if we had not been there. Later ones stay pending until the thread has its old registers and mask
back, so the kernel itself decides what they break off.
"""

from __future__ import annotations

import signal
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from pprofpy.collectors.attach import machine_code as machine
from pprofpy.collectors.attach.borrowing import EINTR, REPEATED, Layout, State, signed, state_of
from pprofpy.collectors.attach.ptrace import SYNCHRONOUS, GoneError, Memory, Registers, Tracee, mask_of

_ALL = (1 << 64) - 1
_SETXID, _CANCEL = 33, 32
"""The C library's own signals, which must reach every thread; the new one inherits what the borrowed one blocks."""
_RED_ZONE = 128
_FRAME_BYTES = 320
_DIRECTION, _TRAP, _ALIGNMENT = 1 << 10, 1 << 8, 1 << 18
_USER_CODE_64 = 0x33
_STOP_PATIENCE_S = 0.25
_CALL_PATIENCE_S = 1.0
_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


@dataclass(frozen=True, slots=True)
class Load:
    """All that a try needs, made ready while nothing stands still.

    Attributes:
        pid: Whose thread it is.
        memory: Its memory.
        layout: Where its parts lie.
        code: Where the machine code goes.
        pthread_create: Where that function is.
        region: The content of the region.
        gate: The signal at which a tracer looks in; the target ignores it.
        caught: The signals that the target handles.
        is_alone: The target has only one thread.
        xsave_bytes: Room for the processor's extended state.
    """

    pid: int
    memory: Memory
    layout: Layout
    code: int
    pthread_create: int
    region: bytes
    gate: int
    caught: int
    is_alone: bool
    xsave_bytes: int


@dataclass(frozen=True, slots=True)
class Borrowed:
    """How a try ended.

    Attributes:
        region: Where the region is that the new thread works on; 0: this was no time to borrow this thread.
        error: What pthread_create or mmap returned, if it was not 0.
        stopped_us: How long the thread was kept from its own work.
    """

    region: int
    error: int
    stopped_us: int


def borrow(tid: int, load: Load) -> Borrowed:
    """Try it with one thread.

    Raises:
        GoneError: It has ended.
        OSError: EPERM: it is traced already, or we may not trace it.
    """
    tracee = Tracee(tid)
    started_ns = time.perf_counter_ns()
    try:
        region, error = _Loan(tracee, load).take()
    except GoneError:
        tracee.bury()
        raise
    return Borrowed(region, error, (time.perf_counter_ns() - started_ns) // 1000)


class _Over(Exception):  # noqa: N818 - no error
    """The thread has been let go."""


class _Loan:
    """A thread, from the moment it is traced."""

    def __init__(self, tracee: Tracee, load: Load) -> None:
        self._tracee, self._load = tracee, load
        self._region = self._error = 0

    def take(self) -> tuple[int, int]:
        """Region and error; see `Borrowed`. The thread is let go in any case."""
        with suppress(_Over):
            self._halt()
            self._before = self._tracee.registers()
            self._mask = self._tracee.signal_mask()
            state = state_of(self._before, self._load.layout, bool(self._mask & self._load.caught))
            if state is None or self._before.cs != _USER_CODE_64:
                self._let_go()
            self._write_code()
            self._divert(state is State.PARKED)
            self._fill(self._until(machine.AT_FILLED))
            self._until(machine.AT_FINISH)
            self._put_back()
        return self._region, self._error

    def _halt(self) -> None:
        """Stop it, unless a signal comes first: that is delivered, and this is no time."""
        self._tracee.interrupt()
        stop = self._tracee.wait(_STOP_PATIENCE_S)
        while stop is None:  # in the kernel, in a wait that nothing interrupts: only from a stop can it be let go
            stop = self._tracee.wait(_STOP_PATIENCE_S)
        if not stop.is_event:
            self._let_go(stop.signal)
        if stop.signal != signal.SIGTRAP:  # the whole process was stopped
            self._let_go()

    def _write_code(self) -> None:
        """Put the machine code in place, once in the life of a process."""
        load = self._load
        if load.memory.read(load.code, len(machine.CODE_BYTES)) != machine.CODE_BYTES:
            self._tracee.poke(load.code, machine.CODE_BYTES)

    def _divert(self, is_parked: bool) -> None:
        """Write the frame, and send the thread to the machine code."""
        load, before = self._load, self._before
        base = before.rsp - _RED_ZONE - _FRAME_BYTES & ~63
        saved = before.copy()
        if is_parked:
            saved.rax = -EINTR & _ALL  # what it gets if we die: nothing that a signal cannot do, and no signal is missed
        mask = ~(SYNCHRONOUS | mask_of(load.gate, _SETXID, _CANCEL)) & _ALL
        words = (mask, self._mask, load.pthread_create, load.xsave_bytes, len(load.region), load.gate, 0, 0)
        self._frame = base
        load.memory.write(base, bytes(saved) + struct.pack("<8Q", *words))
        diverted = before.copy()
        diverted.rip, diverted.rsp, diverted.rbx = load.code + machine.AT_BORROW, base, base
        diverted.orig_rax = _ALL
        diverted.eflags &= ~(_DIRECTION | _TRAP | _ALIGNMENT)
        self._tracee.set_registers(diverted)
        self._tracee.resume()

    def _until(self, gate: int) -> int:
        """Wait until the thread is at a gate (or at the last one, having skipped the first); which it is."""
        deadline = time.monotonic() + _CALL_PATIENCE_S
        while True:
            stop = self._tracee.wait(deadline - time.monotonic())
            if stop is None:
                self._leave_alone()
            elif stop.is_event:
                if stop.signal in _STOPPING:
                    self._let_go()
                self._tracee.resume()
                continue
            at = self._tracee.registers().rip - self._load.code
            if stop.signal == self._load.gate and at in (gate, machine.AT_FINISH):
                return at
            if 0 <= at < machine.AT_BLOCKED:
                self._tracee.set_registers(self._before)
                self._let_go(stop.signal)
            if stop.signal in _STOPPING:
                self._let_go(stop.signal)
            self._tracee.resume(stop.signal)

    def _fill(self, gate: int) -> None:
        """Fill the region, and let the thread start another on it."""
        region = self._load.memory.word(self._frame + machine.REGION)
        if gate == machine.AT_FINISH:
            self._error = -signed(region)
            self._put_back()
        self._load.memory.write(region, self._load.region)
        self._load.memory.set_word(region + machine.READY, 1)
        self._region = region
        self._tracee.resume()

    def _put_back(self) -> NoReturn:
        """Give the thread its mask and registers back: the kernel then repeats or breaks off its call as it would have."""
        if self._region and (error := self._load.memory.word(self._frame + machine.CREATED)):
            self._error, self._region = error, 0
        before = self._before.copy()
        if self._may_have_missed_a_signal():
            before.rax, before.orig_rax = -EINTR & _ALL, _ALL
        self._tracee.set_signal_mask(self._mask)
        self._tracee.set_registers(before)
        self._let_go()

    def _may_have_missed_a_signal(self) -> bool:
        """The main thread, if others stood in for it: Python must look whether a signal came, as it would have done."""
        is_main = self._tracee.tid == self._load.pid and not self._load.is_alone
        before = self._before
        return is_main and signed(before.orig_rax) >= 0 and -signed(before.rax) in REPEATED

    def _leave_alone(self) -> NoReturn:
        """It takes too long (a lock, a busy machine): the thread finishes by itself."""
        self._tracee.interrupt()
        while (stop := self._tracee.wait(_STOP_PATIENCE_S)) is None:
            pass
        self._let_go(0 if stop.is_event or stop.signal == self._load.gate else stop.signal)

    def _let_go(self, signal_number: int = 0) -> NoReturn:
        self._tracee.detach(signal_number)
        raise _Over


__all__ = ["Borrowed", "Load", "Registers", "borrow"]
