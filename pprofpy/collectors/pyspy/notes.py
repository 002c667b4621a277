"""What a reader of a py-spy profile must know: how much was seen, and what makes it doubtful."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pprofpy.collectors.sampling.cpu_options import CpuOptions
from pprofpy.target import Target
from pprofpy.units import NS_PER_S, format_duration

_STARVED_SHARE = 0.02
"""What py-spy could not do on time it does in a burst, and a burst mostly sees one and the same stack."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one run of py-spy recorded.

    Attributes:
        began_ns: When it began, Unix time.
        duration_ns: How long it sampled.
        sampled_ns: What its samples add up to.
        cpu_ns: The CPU time that the kernel charged the target meanwhile.
        starved_ns: How long py-spy waited for a CPU.
        behind_s: How far it fell behind its schedule.
    """

    began_ns: int
    duration_ns: int
    sampled_ns: int
    cpu_ns: int
    starved_ns: int
    behind_s: float


def missed(asked: int, got: int) -> int:
    """How many samples fell out. py-spy draws its intervals at random, so a shortfall within chance is none."""
    return asked - got if asked - got > 4 * math.sqrt(asked) else 0


def basis(options: CpuOptions) -> tuple[str, ...]:
    """What the options ask for."""
    if options.gil:
        return ("Only threads that held the interpreter lock were counted.",)
    return ("Waiting threads were counted, too: this is wall-clock time.",) if options.idle else ()


def on_options(options: CpuOptions) -> tuple[str, ...]:
    """What the options do to the samples: of each window."""
    notes = []
    if not (options.gil or options.idle):
        notes.append("Threads waiting for the interpreter lock may have been counted as running.")
    if options.nonblocking:
        notes.append("The target was not paused while its stacks were read: some may be torn.")
    return tuple(notes)


def on_pieces(options: CpuOptions, slowed: CpuOptions, pieces: Sequence[Piece], target: Target) -> tuple[str, ...]:
    """What can be said only at the end.

    Args:
        options: What was asked for.
        slowed: How it was recorded at last.
        pieces: All; at least one.
        target: The process.
    """
    notes = []
    if slowed.rate_hz < options.rate_hz:
        notes.append(
            f"py-spy could not keep up with {options.rate_hz} Hz; it was slowed to {slowed.rate_hz} Hz "
            f"to spare the target, and saw nothing for {format_duration(_gap_ns(pieces))} meanwhile."
        )
    if behind_s := pieces[-1].behind_s:
        notes.append(f"py-spy was up to {behind_s:.1f} s behind its schedule.")
    starved = sum(piece.starved_ns for piece in pieces) / max(sum(piece.duration_ns for piece in pieces), 1)
    if starved > _STARVED_SHARE:
        notes.append(
            f"py-spy waited for a CPU for {starved:.0%} of the time: its samples came in bursts, shares are rough."
        )
    if not target.is_alive():
        notes.append("The target ended during the recording.")
    if not (options.idle or options.gil or options.subprocesses):
        notes += _doubt(sum(piece.sampled_ns for piece in pieces), sum(piece.cpu_ns for piece in pieces))
    return tuple(notes)


def _gap_ns(pieces: Sequence[Piece]) -> int:
    """How long nothing was recorded between the first piece and the end of the last one."""
    whole_ns = pieces[-1].began_ns + pieces[-1].duration_ns - pieces[0].began_ns
    return max(whole_ns - sum(piece.duration_ns for piece in pieces), 0)


def _doubt(sampled_ns: int, counted_ns: int) -> list[str]:
    """A note if the samples contradict the kernel's own account of the process's CPU time.

    py-spy tells running threads from waiting ones by their state; its own samples wake them, so it can be wrong.
    """
    if abs(sampled_ns - counted_ns) <= max(0.2 * max(sampled_ns, counted_ns), NS_PER_S / 5):
        return []
    reason = "waiting, also for a CPU, was taken for running" if sampled_ns > counted_ns else "running was missed"
    sampled, counted = format_duration(sampled_ns), format_duration(counted_ns)
    return [f"The samples add up to {sampled}, but the kernel counted {counted} of CPU time: {reason}."]
