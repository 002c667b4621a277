"""Names for what events tell by number: the paths of open files, the functions at addresses of the kernel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pprofpy.collectors.kernel.kallsyms import kernel_symbols
from pprofpy.events.log import (
    FdKey,
    Records,
    has_fd_name,
)
from pprofpy.events.printfmt import symbol_fields
from pprofpy.events.tracepoint import Columns, Tracepoint, as_text
from pprofpy.recent import Recent
from pprofpy.target import mounts

_MOST_FILES = 20_000

FD_MEMBERS = {
    "TASK_FILES": "task_struct.files",
    "FILES_FDT": "files_struct.fdt",
    "FDT_MAX_FDS": "fdtable.max_fds",
    "FDT_FD": "fdtable.fd",
    "FILE_INODE": "file.f_inode",
}
"""Members of the kernel's structs that lead from a descriptor to its file, for `struct_offsets`; see probes/fd.h."""


class FdPaths:
    """Full paths of open files, looked up while they are open and kept only if they are surely the right ones."""

    def __init__(self) -> None:
        self._known: Recent[FdKey, str] = Recent(_MOST_FILES)

    def of(self, calls: Records) -> dict[FdKey, str]:
        """The paths of files that these calls used, as far as they were not known before."""
        calls = calls[has_fd_name(calls)]
        if not len(calls):
            return {}
        keys = np.empty(len(calls), [("pid", "u4"), ("fd", "u4"), ("inode", "u8")])
        keys["pid"], keys["fd"], keys["inode"] = calls["head"]["tgid"], calls["args"][:, 0], calls["inode"]
        found = {}
        for key in map(FdKey._make, np.unique(keys).tolist()):
            if key not in self._known and (path := _path_of(key)):
                self._known[key] = found[key] = path
        return found


class AddressNames:
    """Names of the kernel addresses that some tracepoints report.

    Args:
        tracepoints: `HEAD.event` of a record is a place in here.

    Attributes:
        notes: What the recording must say of names that could not be had.
    """

    def __init__(self, tracepoints: Iterable[Tracepoint]) -> None:
        self._fields = {place: fields for place, one in enumerate(tracepoints) if (fields := symbol_fields(one))}
        self._known: set[int] = set()
        self.notes: tuple[str, ...] = ()
        if self._fields:
            kernel_symbols()  # takes a while: now, not while the kernel's buffers fill

    def of(self, records: Records) -> dict[int, str]:
        """Those in these records that were not met before."""
        found: dict[int, str] = {}
        for place, fields in self._fields.items():
            chosen = records["data"][records["head"]["event"] == place]
            if not len(chosen):
                continue
            columns = Columns(np.ascontiguousarray(chosen).view(np.uint8).reshape(len(chosen), -1))
            for one in fields:
                addresses = set(np.unique(columns.numbers(one).view(np.uint64)).tolist()) - self._known
                self._known |= addresses
                self.notes = kernel_symbols().notes
                found |= {address: kernel_symbols().name(address) for address in addresses}
        return found


def _path_of(key: FdKey) -> str:
    """The path behind a descriptor; empty if it is closed by now, or means another file."""
    try:
        path, status = mounts.descriptor(key.pid, key.fd)
    except OSError:
        return ""
    return as_text(path) if status.st_ino == key.inode else ""
