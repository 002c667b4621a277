"""What programs at the scheduler's tracepoints (`sched.h`) must know of the running kernel, as constants."""

from __future__ import annotations

import platform
from contextlib import suppress
from functools import cache

from pprofpy.arch import here
from pprofpy.collectors.kernel.btf import Btf
from pprofpy.collectors.kernel.types import kernel_types
from pprofpy.errors import NotPossibleError

CONTEXTS = ("task", "irq", "softirq")
"""What a wake-up came from, by the number that `wakeup_context()` in `sched.h` returns."""


@cache
def scheduler_constants() -> dict[str, int]:
    """Struct offsets for `sched.h`.

    Raises:
        NotPossibleError: This kernel's scheduler looks like none that we know.
    """
    return _find_out(kernel_types())


def _find_out(types: Btf) -> dict[str, int]:
    try:
        constants = {
            "TASK_COMM": types.offset("task_struct", "comm"),
            # Until Linux 5.13 the state was called `state`; from 5.18 on the tracepoint hands it over.
            "TASK_STATE": types.offset("task_struct", "__state" if types.has("task_struct", "__state") else "state"),
        }
        if member := here().preempt_count:
            constants["TASK_PREEMPT_COUNT"] = types.offset(*member.split(".", 1))
        constants["SWITCH_TELLS_STATE"] = int(types.tracepoint_arguments("sched_switch") >= 4)
    except KeyError as error:
        raise NotPossibleError(
            f"Linux {platform.release()} has no {error.args[0]}: its scheduler is none that pprofpy knows",
            "please report it with the output of 'uname -a'",
        ) from error
    return constants if here().preempt_count else constants | _preempt_count(types)


def _preempt_count(types: Btf) -> dict[str, int]:
    """How to find a CPU's preempt_count; zeros where that is unknown: then no wake-up is known as an interrupt's."""
    try:
        distance = _preempt_count_offset(types) - types.percpu_offset("runqueues")
        return {
            "PREEMPT_COUNT_FROM_RUNQUEUE": distance,
            "TASK_CFS_RQ": types.offset("task_struct", "se.cfs_rq"),
            "CFS_RQ_RQ": types.offset("cfs_rq", "rq"),
        }
    except KeyError:
        return dict.fromkeys(("PREEMPT_COUNT_FROM_RUNQUEUE", "TASK_CFS_RQ", "CFS_RQ_RQ"), 0)


def _preempt_count_offset(types: Btf) -> int:
    """Where a CPU's preempt_count lies among its per-CPU variables.

    Raises:
        KeyError: This kernel does not say.
    """
    for variable, member in here().cpu_preempt_count:
        with suppress(KeyError):
            return types.percpu_offset(variable) + (types.offset(variable, member) if member else 0)
    raise KeyError("preempt_count")
