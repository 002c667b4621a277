"""The two ways to see a heap from inside: sampled allocations, and tracemalloc's traces."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from pprofpy import __version__
from pprofpy.collectors.heapagent import samples, traced_blocks
from pprofpy.collectors.heapagent.frames import Frames
from pprofpy.collectors.heapagent.link import LONG_S, Agent
from pprofpy.errors import NotPossibleError
from pprofpy.model.profile import Collection, Profile, ValueType
from pprofpy.text import counted
from pprofpy.units import format_short

NO_SAMPLER = "the sampler was not compiled when pprofpy was installed"
NO_LOCK = "the sampler needs an interpreter with a global lock"
_SPACE = ValueType("space", "bytes")
_PROGRESS_PERIOD_S = 0.2
_WORTH_A_NOTE = 0.05


Progress = Callable[[int, int], None]


class Engine(Protocol):
    """Something that sees a heap.

    Attributes:
        since: From when on, in words.
    """

    since: str

    def start(self) -> None:
        """Begin to see."""

    def read(self, *, collect: bool) -> Profile:
        """What there is now; `collect`: without what the garbage collector would free."""

    def last_words(self) -> Profile | None:
        """What the target left in the control file when it ended; None if it left nothing."""

    def stop(self) -> None:
        """See no more; the target is as it was."""


class Sampling:
    """Allocations sampled by sampler/sampler.c: cheap, all four sample types, estimates.

    Args:
        session: The opened agent.
        sample_bytes: On average, so many bytes lie between two samples.
        frames: At most so many frames of each stack.
    """

    DEFAULT_FRAMES = 64
    since = "since attach"

    def __init__(self, session: Agent, sample_bytes: int, frames: int) -> None:
        self._session = session
        self._sample_bytes = sample_bytes
        self._frames = frames or self.DEFAULT_FRAMES
        self._names = Frames(session.target.root, session.target.pid)
        self._threads: dict[int, tuple[int, str]] = {}
        self._notes: list[str] = []

    def start(self) -> None:
        """Load the library if it is not there yet, and switch it on."""
        if not self._session.has_lock:
            raise NotPossibleError(NO_LOCK, "use --engine tracemalloc, which needs no library in the process")
        library = self._session.library()
        if library is None:
            raise NotPossibleError(NO_SAMPLER, "install gcc and pprofpy again, or use --engine tracemalloc")
        sent = f"bytes.fromhex({library.hex()!r})"
        call = f"start_sampling({sent}, {float(self._sample_bytes)}, {self._frames})"
        (are_arrays_counted,) = self._session.call(call, bool)
        if not are_arrays_counted:
            self._notes.append("The data of NumPy's arrays are not in it: this version of NumPy is not known.")
        self._note_threads()

    def read(self, *, collect: bool) -> Profile:
        """The samples so far."""
        reading = samples.SamplerTables.of(self._session.say(f"read_sampler({collect})"))
        self._note_threads()
        return self._profile(reading)

    def last_words(self) -> Profile | None:
        """The samples at the target's orderly end."""
        pieces = self._session.last_words()
        return self._profile(samples.SamplerTables.of(pieces)) if pieces else None

    def stop(self) -> None:
        """Take the hooks out."""
        self._session.call("stop_sampling()")

    def _note_threads(self) -> None:
        self._threads |= {thread.inner_tid: (thread.tid, thread.name) for thread in self._session.target.threads()}

    def _profile(self, reading: samples.SamplerTables) -> Profile:
        profile = samples.to_profile(reading, self._names, self._threads)
        counts = reading.counts
        lost = counts.lost_live + counts.lost_stacks + counts.busy
        notes = list(self._notes)
        if (share := samples.share_outside(profile)) >= _WORTH_A_NOTE:
            notes.append(
                f"{share:.0%} of what was allocated is {samples.OUTSIDE_PYTHON}: by threads that ran no Python "
                "function, or ran one in an interpreter that another thread had made (up to Python 3.10)."
            )
        if not reading.is_hooked:
            notes.append("Something in the program replaced the allocators meanwhile: this is only a part.")
        losses = {
            "heap_blocks_full": counts.lost_live,
            "heap_stacks_full": counts.lost_stacks,
            "heap_busy": counts.busy,
        }
        profile.period_type, profile.period = _SPACE, self._sample_bytes
        profile.collection = Collection(
            engine=f"pprofpy {__version__}, sampled allocations",
            target=f"{self._session.target}, {self.since}",
            got=counts.samples,
            dropped=lost,
            truncated=counts.truncated,
            losses=losses,
            notes=tuple(notes),
            basis=(f"One sample in {self._sample_bytes:,} bytes on average: values are estimates.",),
        )
        return profile


class Tracing:
    """tracemalloc: every block in use, exactly, at a high cost to the target.

    Args:
        session: The opened agent.
        frames: How many frames of each stack it keeps.
        warn: Told what tracing costs, before it begins.
        progress: Told how many traces are done while they are fetched, and how many there are (0: not known yet).
    """

    DEFAULT_FRAMES = 1

    def __init__(self, session: Agent, frames: int, warn: Callable[[str], None], progress: Progress) -> None:
        self._session = session
        self._frames = session.traced_frames or frames or self.DEFAULT_FRAMES
        self.since = "since it began to trace, before the attach" if session.traced_frames else Sampling.since
        self._warn = warn
        self._progress = progress
        self._names = Frames(session.target.root, session.target.pid)

    def start(self) -> None:
        """Trace from now on; a target that traces already is left as it is."""
        library = self._session.library() or b""  # for what it knows of allocators
        self._session.call(f"prepare_tracing(bytes.fromhex({library.hex()!r}))")
        if not self._session.traced_frames:
            plain, traced = self._session.call(f"cost_of_tracing({self._frames})", int, int)
            self._warn(
                f"tracemalloc slows the process: an allocation of 100 bytes takes {plain} ns here, "
                f"traced {traced} ns, and each block in use needs memory to be remembered"
            )
        self._session.call(f"start_tracing({self._frames})")

    def read(self, *, collect: bool) -> Profile:
        """All traced blocks in use."""
        with _Watch(self._session, self._progress):
            found = traced_blocks.TracedBlocks.of(self._session.say(f"read_traces({collect})"))
        return self._profile(found)

    def last_words(self) -> Profile | None:
        """What was in use at the target's orderly end."""
        pieces = self._session.last_words()
        return self._profile(traced_blocks.TracedBlocks.of(pieces)) if pieces else None

    def stop(self) -> None:
        """Stop tracing, if it was we who started it."""
        self._session.call("end()", timeout_s=LONG_S)

    def _profile(self, found: traced_blocks.TracedBlocks) -> Profile:
        profile = traced_blocks.to_profile(found, self._names)
        profile.period_type, profile.period = _SPACE, 1
        notes = []
        if self._names.is_incomplete():
            notes.append("Not all functions are named: the process has too many source files, or too large ones.")
        profile.collection = Collection(
            engine=f"tracemalloc, {counted(self._frames, 'frame')}",
            target=f"{self._session.target}, {self.since}",
            got=found.count,
            dropped=found.lost_stacks,
            truncated=found.truncated,
            losses={"traced_stacks_full": found.lost_stacks},
            notes=tuple(notes),
            basis=(
                "Functions are named by the source files as they are now.",
                f"tracemalloc itself takes {format_short(found.tracer_bytes, 'bytes')} to remember them.",
            ),
        )
        return profile


class _Watch:
    """While it lasts, tells how far the fetching of a snapshot has come."""

    def __init__(self, session: Agent, progress: Progress) -> None:
        self._session = session
        self._progress = progress
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(_PROGRESS_PERIOD_S):
            self._progress(*self._session.progress())

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def choose(
    name: str, session: Agent, sample_bytes: int, frames: int, warn: Callable[[str], None],
    progress: Progress,
) -> Engine:  # fmt: skip
    """The engine that was asked for; `auto`: the target's own traces if it traces, else the sampler if it is there."""
    if name == "auto":
        can_sample = session.library() is not None
        name = "sampling" if can_sample and not session.traced_frames else "tracemalloc"
        if not can_sample and not session.traced_frames:
            reason = NO_SAMPLER if session.has_lock else NO_LOCK
            warn(f"{reason}: using tracemalloc")
    if name == "sampling":
        return Sampling(session, sample_bytes, frames)
    return Tracing(session, frames, warn, progress)
