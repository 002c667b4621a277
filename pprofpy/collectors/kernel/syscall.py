"""The bpf(2) system call: making maps, loading programs, reading and writing entries.

Called directly, since the library that offers more brings a whole compiler into memory, which programs that were
compiled before (`bytecode.py`) do not need.

Source: man 2 bpf; union bpf_attr in <linux/bpf.h>.
"""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from functools import cache

from pprofpy.arch import system_call_number
from pprofpy.errors import exhausted

_MAP_CREATE, _LOOKUP, _UPDATE, _DELETE, _PROG_LOAD = 0, 1, 2, 3, 5
_PROG_TEST_RUN, _TEST_BYTES = 10, 80
"""What bpf(2) is told of a run: the program; everything else may be 0."""
_RAW_TRACEPOINT_OPEN, _LOOKUP_BATCH, _DELETE_BATCH, _LINK_CREATE = 17, 24, 27, 28
_NAME_BYTES = 15
_LICENSE = b"GPL\0"
_LOG_REASON, _LOG_BYTES = 4, 1 << 16
"""Only why it is refused, and statistics (BPF_LOG_STATS): the whole log is megabytes, with the reason at its end."""
_LOAD_ATTEMPTS = 4
_COUNT_AT = 32
"""Where a batch's attributes hold how many entries are asked for and, afterwards, were served."""


class RefusedError(Exception):
    """The kernel's verifier does not accept a program; the message is what it says."""


def create_map(kind: int, key_bytes: int, value_bytes: int, entries: int, flags: int, name: str) -> int:
    """Make a map that lives until its file descriptor, which is returned, is closed."""
    attributes = struct.pack("<7I16s", kind, key_bytes, value_bytes, entries, flags, 0, 0, name.encode()[:_NAME_BYTES])
    return _bpf(_MAP_CREATE, attributes)


def load_program(kind: int, instructions: bytes, name: str) -> int:
    """Load a program through the verifier; returns its file descriptor.

    Raises:
        RefusedError: The verifier finds it unsafe.
        OSError: It was not even looked at.
    """
    try:
        return _load(kind, instructions, name, None)
    except OSError:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load(kind, instructions, name, log)  # again, to hear why
        except OSError as error:
            said = log.value.decode(errors="replace").strip()
            if said and not exhausted(error.errno or 0):
                raise RefusedError(said) from error
            raise


def _load(kind: int, instructions: bytes, name: str, log: ctypes.Array[ctypes.c_char] | None) -> int:
    code, license_ = ctypes.create_string_buffer(instructions, len(instructions)), ctypes.create_string_buffer(_LICENSE)
    log_at = (_LOG_REASON, _LOG_BYTES, ctypes.addressof(log)) if log else (0, 0, 0)
    attributes = struct.pack(
        "<IIQQIIQII16s", kind, len(instructions) // 8, ctypes.addressof(code), ctypes.addressof(license_), *log_at,
        0, 0, name.encode()[:_NAME_BYTES],
    )  # fmt: skip
    for _ in range(_LOAD_ATTEMPTS):
        with suppress(BlockingIOError):  # EAGAIN: a signal came, say a Ctrl-C, before it was done
            return _bpf(_PROG_LOAD, attributes)
    return _bpf(_PROG_LOAD, attributes)


def open_raw_tracepoint(name: str, program: int) -> int:
    """Run a program at every raw tracepoint `name` until the returned file descriptor is closed."""
    text = ctypes.create_string_buffer(name.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QQ", ctypes.addressof(text), program))


def run_program(program: int) -> None:
    """Run a program of kind raw tracepoint once, by the thread that asks, without arguments. Since Linux 5.10."""
    _bpf(_PROG_TEST_RUN, struct.pack("<I", program).ljust(_TEST_BYTES, b"\0"))


def create_link(program: int, event: int, kind: int, cookie: int) -> int:
    """Attach a program to a perf event until the returned file descriptor is closed."""
    return _bpf(_LINK_CREATE, struct.pack("<IIIIQ", program, event, kind, 0, cookie))


def lookup(map_: int, key_at: int, value_at: int) -> None:
    """Copy an entry's value (of all CPUs, if the map is per-CPU) to an address."""
    _bpf(_LOOKUP, struct.pack("<QQQQ", map_, key_at, value_at, 0))


def update(map_: int, key_at: int, value_at: int, mode: int) -> None:
    """Set an entry."""
    _bpf(_UPDATE, struct.pack("<QQQQ", map_, key_at, value_at, mode))


def delete(map_: int, key_at: int) -> None:
    """Remove an entry."""
    _bpf(_DELETE, struct.pack("<QQ", map_, key_at))


def lookup_batch(map_: int, before_at: int, after_at: int, keys_at: int, values_at: int, count: int) -> tuple[int, int]:
    """Copy many entries; returns how many they are, and the error's number that ended it (0 if none)."""
    return _batch(_LOOKUP_BATCH, map_, (before_at, after_at, keys_at, values_at), count)


def delete_batch(map_: int, keys_at: int, count: int) -> tuple[int, int]:
    """Remove many entries; returns as `lookup_batch` does."""
    return _batch(_DELETE_BATCH, map_, (0, 0, keys_at, 0), count)


def _batch(command: int, map_: int, addresses: tuple[int, int, int, int], count: int) -> tuple[int, int]:
    attributes = ctypes.create_string_buffer(struct.pack("<4QIIQQ", *addresses, count, map_, 0, 0))
    failed = _system_call()(system_call_number("bpf"), command, attributes, len(attributes)) < 0
    problem = ctypes.get_errno() if failed else 0
    return struct.unpack_from("<I", attributes, _COUNT_AT)[0], problem


def _bpf(command: int, attributes: bytes) -> int:
    result: int = _system_call()(system_call_number("bpf"), command, attributes, len(attributes))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@cache
def _system_call() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).syscall
    function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_char_p, ctypes.c_long]
    function.restype = ctypes.c_long
    return function
