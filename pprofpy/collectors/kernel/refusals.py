"""Why the kernel did not do what we asked it for, in words: error numbers and what its verifier says.

Source: man 2 bpf, man 2 perf_event_open; kernel/bpf/verifier.c; "Introduced in" of man 7 bpf-helpers and
docs.kernel.org/bpf for the versions.
"""

from __future__ import annotations

import errno
import os
import platform
import re
from collections.abc import Collection
from typing import NamedTuple

from pprofpy.errors import NotPossibleError, exhausted
from pprofpy.target import with_sudo


class Helper(NamedTuple):
    """A function (or else) that the kernel offers to programs, and the first Linux that does."""

    name: str
    since: tuple[int, int]


HELPERS = {
    1: Helper("bpf_map_lookup_elem", (3, 19)),
    2: Helper("bpf_map_update_elem", (3, 19)),
    3: Helper("bpf_map_delete_elem", (3, 19)),
    5: Helper("bpf_ktime_get_ns", (4, 1)),
    8: Helper("bpf_get_smp_processor_id", (4, 1)),
    14: Helper("bpf_get_current_pid_tgid", (4, 2)),
    16: Helper("bpf_get_current_comm", (4, 2)),
    27: Helper("bpf_get_stackid", (4, 6)),
    35: Helper("bpf_get_current_task", (4, 8)),
    112: Helper("bpf_probe_read_user", (5, 5)),
    113: Helper("bpf_probe_read_kernel", (5, 5)),
    114: Helper("bpf_probe_read_user_str", (5, 5)),
    115: Helper("bpf_probe_read_kernel_str", (5, 5)),
    130: Helper("bpf_ringbuf_output", (5, 8)),
    131: Helper("bpf_ringbuf_reserve", (5, 8)),
    132: Helper("bpf_ringbuf_submit", (5, 8)),
    158: Helper("bpf_get_current_task_btf", (5, 11)),
    174: Helper("bpf_get_attach_cookie", (5, 15)),
    175: Helper("bpf_task_pt_regs", (5, 15)),
}
"""All that our programs call, by number."""

NEWEST_NEEDED = max(helper.since for helper in HELPERS.values())
"""The Linux that every command works on; with some, older ones do."""

_INSTRUCTIONS = (("BPF_STX uses reserved fields", Helper("atomic operations that give a result", (5, 12))),)
"""What verifiers say of instructions that they do not know."""

_UNKNOWN_HELPER = re.compile(r"(?:unknown func|invalid func|cannot use helper) \S+?#(\d+)")
_TOO_LONG = re.compile(r"program is too large|too many states|The sequence of \d+ jumps is too complex")
_NOT_THE_REASON = re.compile(
    r"processed \d|verification time |stack depth |-- BEGIN|mark_precise|max_states|peak_states|"
    r"\d+: \(|R\d+=|; |func#|parent |last_idx|regs=|from \d+ to |$"
)
"""Lines of a verifier's log that tell of its work: statistics, instructions, states of registers."""


def refused(action: str, error: OSError) -> NotPossibleError:
    """What an error of the kernel's means, whatever it was asked for.

    Args:
        action: What we wanted of it: "make a table of 1024 entries". Completes "the kernel does not ...".
        error: What it answered.
    """
    code = error.errno or 0
    if running_out := exhausted(code):
        return NotPossibleError(f"the kernel does not {action}: {running_out.message}", running_out.hint)
    words = f"the kernel does not {action} ({os.strerror(code)})"
    if code in (errno.EPERM, errno.EACCES):
        return NotPossibleError(
            words,
            f"run {with_sudo()}; in a container, allow it CAP_BPF and CAP_PERFMON, and its seccomp profile bpf(2)",
        )
    if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP) and is_old():
        return NotPossibleError(words, f"it takes Linux {_text(NEWEST_NEEDED)} or newer; this is {platform.release()}")
    return NotPossibleError(words, "please report it with the output of 'uname -a'")


def refused_program(function: str, source: str, log: str, helpers: Collection[int] = ()) -> NotPossibleError:
    """Why a program is not accepted.

    Args:
        function: Its name.
        source: The file that it is from.
        log: What the verifier wrote, whole or only its end.
        helpers: The numbers of all helpers that it calls: the verifier names only the first that it does not know.
    """
    if lacking := _lacking(log, helpers):
        since, names = _text(max(one.since for one in lacking)), ", ".join(one.name for one in lacking)
        return NotPossibleError(
            f"this takes Linux {since} or newer: Linux {platform.release()} does not offer {names} here",
            "without it: pprofpy cpu --engine py-spy",
        )
    if is_old():
        return NotPossibleError(
            f"Linux {platform.release()} refuses {function} of {source}: {reason_in(log)}",
            f"it takes Linux {_text(NEWEST_NEEDED)} or newer; without it: pprofpy cpu --engine py-spy",
        )
    if _TOO_LONG.search(log):
        return NotPossibleError(
            f"the kernel gives up on checking {function} of {source}: it takes its verifier too long",
            "please report this with the output of 'uname -a'; without it: pprofpy cpu --engine py-spy",
        )
    return NotPossibleError(
        f"the kernel refuses {function} of {source}: {reason_in(log)}",
        "please report this with the output of 'uname -a'; without it: pprofpy cpu --engine py-spy",
    )


def _lacking(log: str, helpers: Collection[int]) -> list[Helper]:
    """What the kernel does not offer to a program that it refuses for that reason; empty if it is another."""
    said = [one for words, one in _INSTRUCTIONS if words in log]
    if unknown := _UNKNOWN_HELPER.search(log):
        number = int(unknown[1])
        said.append(HELPERS.get(number) or Helper(f"helper {number}", NEWEST_NEEDED))
    if not said:
        return []
    newer = [HELPERS[number] for number in sorted(helpers) if number in HELPERS and _is_newer(HELPERS[number].since)]
    return list(dict.fromkeys([*said, *newer]))


def reason_in(log: str, lines: int = 2) -> str:
    """The lines of a verifier's log that say what is wrong: they stand at its end, before the statistics."""
    said = [line.strip() for line in log.splitlines()]
    return "; ".join([line for line in said if not _NOT_THE_REASON.match(line)][-lines:]) or "it does not say why"


def is_old() -> bool:
    """Is this Linux older than what all commands work on?"""
    return _is_newer(NEWEST_NEEDED)


def _is_newer(version: tuple[int, int]) -> bool:
    """Is that version newer than what runs?"""
    running = re.match(r"(\d+)\.(\d+)", platform.release())
    return running is not None and (int(running[1]), int(running[2])) < version


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"
