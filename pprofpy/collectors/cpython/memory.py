"""The memory of another process, read without stopping it.

Source: man 2 process_vm_readv; needs the same permission as ptrace.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from pprofpy.budget import Budget
from pprofpy.errors import TargetError, TargetPermissionError
from pprofpy.system.blocking import BlockedError, bounded

_END = 1 << 64
_PAGE = 4096
_MOST_PAGES = 8192
MOST_BYTES = 4 << 20
"""What is read at once at most: nothing of an interpreter's is larger, that we look at."""


class _Part(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


_libc = ctypes.CDLL(None, use_errno=True)


class UnreadableError(Exception):
    """There is nothing at that address, or something else than what should be there."""


class Memory:
    """The memory of process `pid`.

    Addresses and sizes may be anything that the process says: what cannot be there is refused here, for all.

    Args:
        pid: The process.
        budget: How much may be read of it, and for how long.

    All methods raise:
        UnreadableError: There is nothing at that address.
        ImplausibleTargetError: The budget is spent, or the memory does not answer.
        TargetError: The process has ended.
        TargetPermissionError: We may not look inside it.
    """

    def __init__(self, pid: int, budget: Budget | None = None) -> None:
        self.pid = pid
        self._budget = budget

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address` on."""
        if not 0 <= size <= MOST_BYTES or not 0 <= address < _END - size:
            raise UnreadableError(f"there cannot be {size} bytes at {address:#x}")
        if self._budget:
            self._budget.take(size)
        if not size:
            return b""
        try:
            content, code = bounded(f"process {self.pid}", lambda: _read(self.pid, address, size))
        except BlockedError as error:
            raise error.as_error() from error
        if len(content) == size:
            return content
        if code == errno.ESRCH:
            raise TargetError(f"process {self.pid} has ended")
        if code == errno.EPERM:
            raise TargetPermissionError(f"the kernel does not let us read the memory of process {self.pid}")
        raise UnreadableError(f"no {size} bytes at {address:#x}")

    def read_if_there(self, address: int, size: int) -> bytes:
        """`size` bytes from `address` on; none at all where not all of them are there."""
        try:
            return self.read(address, size)
        except UnreadableError:
            return b""

    def word(self, address: int) -> int:
        """A 64-bit number."""
        return int(struct.unpack("<Q", self.read(address, 8))[0])

    def half_word(self, address: int) -> int:
        """A 32-bit number."""
        return int(struct.unpack("<I", self.read(address, 4))[0])


class SnapshotMemory(Memory):
    """The same, page by page: each is as it was when something in it was first read.

    For passes over thousands of small objects, each of which would else cost a system call. What must be seen to change
    is not for it.
    """

    def __init__(self, pid: int, budget: Budget | None = None) -> None:
        super().__init__(pid, budget)
        self._pages: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        """`size` bytes from `address` on."""
        start = address & -_PAGE
        end = address - start + size
        if end > _PAGE or size < 0:
            return super().read(address, size)
        page = self._pages.get(start)
        if page is None:
            if len(self._pages) >= _MOST_PAGES:
                self._pages.clear()
            page = self._pages[start] = super().read(start, _PAGE)
        elif self._budget:
            self._budget.step()
        return page[address - start : end]


def _read(pid: int, address: int, size: int) -> tuple[bytes, int]:
    """The bytes, or none and the error's number."""
    buffer = ctypes.create_string_buffer(size)
    here, there = _Part(ctypes.addressof(buffer), size), _Part(address, size)
    got = _libc.process_vm_readv(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
    return (buffer.raw[:got], 0) if got >= 0 else (b"", ctypes.get_errno())
