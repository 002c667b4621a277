"""The kernel's tracing files (names and formats of all tracepoints), even where nobody has mounted them.

Where they are not mounted we mount them for ourselves alone: a detached mount that no other process sees, that has no
place in any folder, and that goes when its file descriptor is closed. Our raw tracepoints do not need these files;
they are for looking up tracepoints and their fields.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from pprofpy.errors import NotPossibleError

_PLACES = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
# Source: the kernel's system call table (the same numbers on all architectures) and <linux/mount.h>.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_CLOEXEC = 1
_CMD_CREATE = 6


@cache
def tracing_folder() -> Path:
    """Where `events/` is to be found.

    Raises:
        NotPossibleError: It is not mounted and we may not mount it.
    """
    for place in _PLACES:
        if os.access(place / "events", os.R_OK, effective_ids=True):  # or capabilities of non-root users do not count
            return place
    return Path(f"/proc/self/fd/{_detached_mount()}")


def _detached_mount() -> int:
    """A file descriptor for the root of a tracefs that only we have."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(number: int, *arguments: int | bytes | None) -> int:
        result: int = libc.syscall(number, *arguments)
        if result < 0:
            reason = os.strerror(ctypes.get_errno())
            raise NotPossibleError(
                f"the kernel's tracing files are not mounted, and we may not mount them ({reason})",
                "as root: mount -t tracefs tracefs /sys/kernel/tracing; to read it, others need CAP_DAC_READ_SEARCH",
            )
        return result

    context = call(_FSOPEN, b"tracefs", _CLOEXEC)
    try:
        call(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return call(_FSMOUNT, context, _CLOEXEC, 0)
    finally:
        os.close(context)
