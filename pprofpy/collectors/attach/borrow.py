"""Make one thread of the target start another that runs our code: the few steps for which something stands still.

What must hold at every step: if we die right after it, the target goes on unharmed. So only two steps change what the
thread does, each in one system call: setting its registers to the machine code, when all that this needs has been
written where nobody looks (below the stack's red zone, and in the unused end of a page of code), and setting them
back. In between, the thread is on its own anyway: see machine.S. So we may also give up at any step, by no longer
tracing it.

Signals are never taken from the target. While it is borrowed, the thread blocks them all; they stay pending, or go to
other threads as they do when it computes. Then it must not snatch a signal to the process that has already woken the
main thread: Python's handlers run there, and only a signal that main gets itself breaks off its wait. How it ends is
therefore different:

- most threads end by themselves: they let such signals pass, unblock the rest, and begin their wait anew;
- the main thread, and one whose wait has a relative time, gets its old registers back from us, so that the kernel goes
  on with the wait or breaks it off, as signals demand. A main thread that has company is told that its wait was broken
  off: a signal may have come that others took, and it must look.
"""

from __future__ import annotations

import os
import random
import signal
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from pprofpy.arch.x86_64 import machine_code as machine
from pprofpy.arch.x86_64.registers import Registers, signed
from pprofpy.collectors.attach.borrowing import (
    EINTR,
    REPEATED,
    Borrowable,
    ProcessParts,
    can_begin_anew,
    is_broken_off,
    state_of,
)
from pprofpy.collectors.attach.ptrace import SYNCHRONOUS, GoneError, Tracee, WritableMemory, mask_of, trace
from pprofpy.target import procfs

_ALL = (1 << 64) - 1
_FRAME_BYTES = 320
_LEAVING_S = 0.25
_CALL_PATIENCE_S = 1.0
_PASSING_S = 0.05
_PAUSE_NS = 100_000
_MOST_STOPS, _BETWEEN_STOPS_S = 64, (50e-6, 250e-6)
"""Of one try, and the time in which the thread runs between two of them: random, not in step with what it does."""
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
        reserved: The C library's own signals, which must reach every thread: the new one inherits what is blocked.
        is_alone: The target has only one thread.
        xsave_bytes: Room for the processor's extended state.
    """

    pid: int
    memory: WritableMemory
    layout: ProcessParts
    code: int
    pthread_create: int
    region: bytes
    gate: int
    caught: int
    reserved: int
    is_alone: bool
    xsave_bytes: int


@dataclass(frozen=True, slots=True)
class Borrowed:
    """How a try ended.

    Attributes:
        region: Where the region is that the new thread works on; 0: this was no time to borrow this thread.
        error: What mmap returned, if it failed.
        stopped_us: How long the thread was kept from its own work.
    """

    region: int
    error: int
    stopped_us: int


def borrow(tid: int, load: Load) -> Borrowed:
    """Try it with one thread.

    Raises:
        GoneError: It has ended.
        StuckError: It cannot be stopped now.
        OSError: EPERM: it is traced already, or we may not trace it.
    """
    loan = _Loan(load)
    try:
        return trace(tid, loan.take)
    except KeyboardInterrupt:
        loan.cancel()
        raise


class _Over(Exception):  # noqa: N818 - no error
    """The thread has been let go."""


class _Loan:
    """A thread, from the moment it is traced until it is let go."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._region = self._error = self._mask = 0
        self._stopped_at = self._stopped_ns = 0

    def take(self, tracee: Tracee) -> Borrowed:
        """Borrow it; it goes on in any case."""
        self._tracee = tracee
        with suppress(_Over):
            state = self._stop_to_borrow()
            self._write_code()
            look_in = self._divert(state)
            self._fill(self._until(machine.AT_FILLED))
            if not look_in:
                self._leave()
            self._until(machine.AT_FINISH)
            self._put_back()
        self._stopped_ns += time.perf_counter_ns() - self._stopped_at
        return Borrowed(self._region, self._error, self._stopped_ns // 1000)

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        with suppress(OSError, GoneError):
            if self._region:
                self._load.memory.set_word(self._region + machine.CANCEL, 1)

    def _stop_to_borrow(self) -> Borrowable:
        """Stop it where it may be borrowed.

        A running thread that makes system calls all the while is nearly always stopped at the end of one. It goes on,
        and is stopped again a moment later.
        """
        stops = 0
        while True:
            self._stopped_at = time.perf_counter_ns()
            self._halt()
            self._before = self._tracee.registers()
            self._mask = self._tracee.signal_mask()
            state = state_of(self._before, self._load.layout, bool(self._mask & self._load.caught))
            if state is not None:
                return state
            stops += 1
            if stops == _MOST_STOPS or is_broken_off(self._before):
                self._let_go()
            self._tracee.resume()
            self._stopped_ns += time.perf_counter_ns() - self._stopped_at
            time.sleep(random.uniform(*_BETWEEN_STOPS_S))  # noqa: S311 - no secret

    def _halt(self) -> None:
        """Stop it, unless a signal comes first: that is delivered, and this is no time."""
        stop = self._tracee.halt()
        if not stop.is_event:
            self._let_go(stop.signal)
        if stop.signal != signal.SIGTRAP:  # the whole process was stopped
            self._let_go()

    def _write_code(self) -> None:
        """Put the machine code in place, once in the life of a process."""
        load = self._load
        if load.memory.read(load.code, len(machine.CODE_BYTES)) != machine.CODE_BYTES:
            self._tracee.poke(load.code, machine.CODE_BYTES)

    def _divert(self, state: Borrowable) -> bool:
        """Write the frame, and send the thread to the machine code. Returns whether to look in at the end."""
        load, before = self._load, self._before
        saved = before.copy()
        look_in = state is Borrowable.PARKED and not self._begins_anew(saved)
        if look_in:
            # What it gets if we die: nothing that a signal cannot do, and no signal is missed.
            saved.set_error(EINTR)
        base = before.frame_below(_FRAME_BYTES)
        mask = ~(SYNCHRONOUS | load.reserved | mask_of(load.gate)) & _ALL
        words = (
            mask,
            self._mask,
            load.pthread_create,
            load.xsave_bytes,
            len(load.region),
            load.gate,
            0,
            _ALL,
            look_in,
            0,
            0,
            _PAUSE_NS,
        )
        self._frame = base
        load.memory.write(base, bytes(saved) + struct.pack("<12Q", *words))
        self._tracee.set_registers(before.diverted(load.code + machine.AT_BORROW, base))
        self._tracee.set_signal_mask(mask)
        self._tracee.resume()
        return look_in

    def _begins_anew(self, saved: Registers) -> bool:
        """Let a wait begin anew, where that makes no difference."""
        if self._tracee.tid == self._load.pid:
            return False
        if -saved.result in REPEATED:
            if not can_begin_anew(saved.system_call, *saved.arguments):
                return False
            saved.begin_call_anew()
        return True

    def _until(self, gate: int) -> int:
        """Wait until the thread is at a gate (or at the last one, having skipped the first); which it is."""
        deadline = time.monotonic() + _CALL_PATIENCE_S
        while True:
            stop = self._tracee.wait(deadline - time.monotonic())
            if stop is None:
                raise _Over  # a lock, a busy machine: it ends by itself
            at = self._tracee.registers().instruction_pointer - self._load.code
            if stop.signal == self._load.gate and at in (gate, machine.AT_FINISH):
                return at
            if stop.signal in _STOPPING:
                self._let_go(0 if stop.is_event else stop.signal)
            self._tracee.resume(0 if stop.is_event else stop.signal)

    def _fill(self, gate: int) -> None:
        """Fill the region: the thread then starts another on it."""
        region = self._load.memory.word(self._frame + machine.REGION)
        if gate == machine.AT_FINISH:
            self._error = -signed(region)
            self._put_back()
        self._load.memory.write(region, self._load.region)
        self._load.memory.set_word(region + machine.READY, 1)
        self._region = region

    def _leave(self) -> NoReturn:
        """Let it go on by itself, and see how long that takes."""
        self._tracee.detach()
        deadline = time.monotonic() + _LEAVING_S
        with suppress(OSError, GoneError):
            while self._load.memory.word(self._frame + machine.CREATED) == _ALL and time.monotonic() < deadline:
                os.sched_yield()
        raise _Over

    def _put_back(self) -> NoReturn:
        """Give the thread its mask and registers back: the kernel then goes on with its call, or breaks it off."""
        before = self._before.copy()
        if self._may_have_missed_a_signal():
            before.end_call(EINTR)
        self._let_signals_pass()
        self._tracee.set_signal_mask(self._mask)
        self._tracee.set_registers(before)
        self._tracee.detach()
        raise _Over

    def _may_have_missed_a_signal(self) -> bool:
        """The main thread, if others stood in for it: Python must look whether a signal came, as it would have done."""
        is_main = self._tracee.tid == self._load.pid and not self._load.is_alone
        return is_main and -self._before.result in REPEATED

    def _let_go(self, signal_number: int = 0) -> NoReturn:
        self._let_signals_pass()
        self._tracee.detach(signal_number)
        raise _Over

    def _let_signals_pass(self) -> None:
        """A signal to the process is on its way to the main thread: this one, woken too, must not snatch it."""
        if self._tracee.tid == self._load.pid:
            return
        deadline = time.monotonic() + _PASSING_S
        while time.monotonic() < deadline and procfs.status(self._load.pid).pending_signals & ~self._mask:
            os.sched_yield()
