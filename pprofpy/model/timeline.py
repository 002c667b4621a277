"""What each thread did all the time: running, runnable or blocked, and why. A Trace, thread by thread.

    running                 it had a CPU
    runnable  woken         it could run: somebody or something had woken it
    runnable  preempted     it could run on, but lost its CPU
    blocked   sleeping      it waited for something (in a system call, where that was recorded: `futex`)
    blocked   uninterruptible, stopped, ...

A state is known from the recording's beginning if the first that is seen of a thread tells what it was in before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from pprofpy.model.trace import Context, RunqueueWait, Switch, Trace, TracedThread, Wakeup


class State(StrEnum):
    """What a thread is doing."""

    RUNNING = "running"
    RUNNABLE = "runnable"
    BLOCKED = "blocked"


class Span(NamedTuple):
    """A thread in one state.

    Attributes:
        tid: Who.
        start_ns, end_ns: On the monotonic clock.
        state: Running, runnable or blocked.
        why: Of blocked: sleeping, uninterruptible, ...; of runnable: woken or preempted.
        cpu: Of running: where; else -1.
        waker: Of blocked: who ended it, in words; empty if nobody did, or nobody knows.
        call: Of blocked: the system call that it happened in, if that was recorded.
        stack: Where it left its CPU, innermost function first, if that was recorded.
    """

    tid: int
    start_ns: int
    end_ns: int
    state: State
    why: str = ""
    cpu: int = -1
    waker: str = ""
    call: str = ""
    stack: tuple[str, ...] = ()

    @property
    def duration_ns(self) -> int:
        """Its length."""
        return self.end_ns - self.start_ns


class Arrow(NamedTuple):
    """One thread wakes another."""

    ts_ns: int
    waker_tid: int
    wakee_tid: int


class BlockingCall(NamedTuple):
    """A system call: why a thread may be blocked."""

    start_ns: int
    end_ns: int
    name: str
    stack: tuple[str, ...] = ()


StacksAt = Mapping[tuple[int, int], tuple[str, ...]]
"""(tid, when it left its CPU) -> its stack, innermost function first."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """All spans and arrows of a recording.

    Attributes:
        spans: By thread, in order of time, without overlap.
        arrows: In order of time.
        threads: Who is who; also wakers from elsewhere.
        start_ns, time_ns, duration_ns: When, on the monotonic clock and in Unix time.
        holes: How many events are surely missing: a thread loses a CPU that it never got, keeps one that it gets again,
            or goes on though nobody has woken it. The spans beside a hole are too long.
    """

    spans: Mapping[int, Sequence[Span]]
    arrows: Sequence[Arrow]
    threads: Mapping[int, TracedThread]
    start_ns: int
    time_ns: int
    duration_ns: int
    holes: int = 0


_BLOCKED = {
    "S": "sleeping",
    "D": "uninterruptible",
    "T": "stopped",
    "t": "traced",
    "I": "idle",
    "P": "parked",
}
_ENDED = frozenset("XZ")


def build(
    trace: Trace, calls: Mapping[int, Sequence[BlockingCall]] | None = None, stacks: StacksAt | None = None
) -> Timeline:
    """Turn events into states.

    Args:
        trace: The events.
        calls: System calls by thread, in order of time: they tell why a thread is blocked.
        stacks: Where threads left their CPUs.
    """
    tracks: dict[int, _Track] = {}
    arrows: list[Arrow] = []

    def track(tid: int) -> _Track | None:
        thread = trace.threads.get(tid)
        if not tid or (thread and not thread.watched):
            return None
        return tracks.setdefault(tid, _Track(tid, trace.start_ns))

    waits: dict[int, RunqueueWait] = {}
    for event in trace.events():
        if isinstance(event, RunqueueWait):
            waits[event.tid] = event
        elif isinstance(event, Wakeup):
            if one := track(event.tid):
                one.wake(event.ts_ns, _waker(event, trace.threads), is_new=event.is_new)
                if event.context == Context.TASK and event.waker_tid and event.waker_tid != event.tid:
                    arrows.append(Arrow(event.ts_ns, event.waker_tid, event.tid))
        else:
            if one := track(event.tid):
                one.leave(event)
            if one := track(event.next_tid):
                one.enter(event, waits.pop(event.next_tid, None))
    end_ns = trace.start_ns + trace.duration_ns
    spans = {
        tid: _explained(one.finish(end_ns), (calls or {}).get(tid, ()), stacks or {}) for tid, one in tracks.items()
    }
    has_wakeups = any(one.woken_ns for one in tracks.values())
    holes = sum(one.holes + (one.unexplained if has_wakeups else 0) for one in tracks.values())
    return Timeline(spans, arrows, trace.threads, trace.start_ns, trace.time_ns, trace.duration_ns, holes)


@dataclass(slots=True)
class _Track:
    """One thread while its events go by.

    Attributes:
        since_ns: When its present state began.
        state: What it is in; None until something is known.
        woken_ns: When it was last woken.
        entered_ns: When it last got a CPU.
        holes: How many switches are missing.
        unexplained: How often it went on without having been woken.
    """

    tid: int
    since_ns: int
    state: State | None = None
    why: str = ""
    cpu: int = -1
    waker: str = ""
    woken_ns: int = 0
    entered_ns: int = 0
    holes: int = 0
    unexplained: int = 0
    spans: list[Span] = field(default_factory=list)

    def wake(self, ts_ns: int, waker: str, *, is_new: bool) -> None:
        self.waker, self.woken_ns = waker, ts_ns
        if is_new:
            self.since_ns, self.state, self.why = ts_ns, State.RUNNABLE, "new"
        elif self.state is None:
            self._begin(State.BLOCKED, self.since_ns, "before the recording")

    def leave(self, switch: Switch) -> None:
        """It loses its CPU. One that was not seen to get it has had it from the beginning."""
        self.holes += self.state not in (None, State.RUNNING)
        self._close(State.RUNNING, self.since_ns, switch.ts_ns, cpu=switch.cpu)
        if switch.state == "R":
            self._begin(State.RUNNABLE, switch.ts_ns, "preempted")
        elif switch.state in _ENDED:
            self.state, self.since_ns = None, switch.ts_ns
        else:
            self._begin(State.BLOCKED, switch.ts_ns, _BLOCKED.get(switch.state, "blocked"))

    def enter(self, switch: Switch, wait: RunqueueWait | None) -> None:
        """It gets a CPU: what came before is blocked until it was woken, and runnable from then on."""
        now = switch.ts_ns
        runnable_ns = now - wait.wait_ns if wait else self.woken_ns if self.woken_ns > self.since_ns else now
        if self.state is State.BLOCKED:
            runnable_ns = max(runnable_ns, self.since_ns)
            self._close(State.BLOCKED, self.since_ns, runnable_ns, why=self.why, waker=self.waker)
            self._close(State.RUNNABLE, runnable_ns, now, why="woken")
        elif self.state is State.RUNNABLE:
            self._close(State.RUNNABLE, self.since_ns, now, why=self.why)
        elif wait:
            self._close(State.RUNNABLE, max(runnable_ns, self.since_ns), now, why="woken")
        self.holes += self.state is State.RUNNING
        self.unexplained += self.state is State.BLOCKED and self.woken_ns < self.entered_ns
        self.entered_ns, self.cpu = now, switch.cpu
        self._begin(State.RUNNING, now)

    def finish(self, end_ns: int) -> list[Span]:
        """The recording ends: so does the last state."""
        if self.state is State.BLOCKED and self.woken_ns > self.since_ns:
            self._close(State.BLOCKED, self.since_ns, self.woken_ns, why=self.why, waker=self.waker)
            self._close(State.RUNNABLE, self.woken_ns, end_ns, why="woken")
        elif self.state:
            self._close(self.state, self.since_ns, end_ns, why=self.why, cpu=self.cpu)
        return self.spans

    def _begin(self, state: State, ts_ns: int, why: str = "") -> None:
        self.state, self.since_ns, self.why = state, ts_ns, why
        if state is State.BLOCKED:
            self.waker = "" if self.woken_ns < ts_ns else self.waker

    def _close(self, state: State, start_ns: int, end_ns: int, why: str = "", cpu: int = -1, waker: str = "") -> None:
        if end_ns > start_ns:
            self.spans.append(Span(self.tid, start_ns, end_ns, state, why, cpu, waker))


def _waker(event: Wakeup, threads: Mapping[int, TracedThread]) -> str:
    if event.context == Context.IRQ:
        return "timer/irq"
    if event.context == Context.SOFTIRQ:
        return "softirq"
    thread = threads.get(event.waker_tid)
    return f"{thread.name} ({event.waker_tid})" if thread else f"thread {event.waker_tid}"


def _explained(spans: list[Span], calls: Iterable[BlockingCall], stacks: StacksAt) -> list[Span]:
    """Tell of each blocked span in which system call it happened, and of each without a CPU where that was left."""
    following: Iterator[BlockingCall] = iter(calls)
    call = next(following, None)
    explained = []
    for span in spans:
        while call and call.end_ns <= span.start_ns:
            call = next(following, None)
        inside = call and span.state is State.BLOCKED and call.start_ns <= span.start_ns and span.end_ns <= call.end_ns
        if call and inside:
            span = span._replace(call=call.name, stack=call.stack)
        if span.state is not State.RUNNING and (stack := stacks.get((span.tid, span.start_ns))):
            span = span._replace(stack=stack)
        explained.append(span)
    return explained
