"""Landlock: a process says for itself, for good, where it may still write. Root, too, is held to it.

What is open already stays open. The kernel checks whatever is opened, made, renamed or removed by path or by folder;
modes and owners of files it does not check: `sandbox.VIEWING` leaves those out.

Source: man 7 landlock; <linux/landlock.h>. The numbers of its system calls are the same on all machines.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _REMOVE_DIR, _REMOVE_FILE = 1 << 0, 1 << 1, 1 << 4, 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15

_CHANGES = (
    _EXECUTE | _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE
    | _MAKE_CHAR | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _MAKE_BLOCK | _MAKE_SYM
)  # fmt: skip
_CHANGES_SINCE = {2: _REFER, 3: _TRUNCATE, 5: _IOCTL_DEVICE}
"""Version of Landlock -> what it checks in addition."""

_NETWORK_SINCE, _NETWORK = 4, 0b11  # bind and connect, by TCP
_SCOPE_SINCE, _SCOPE = 6, 0b11  # abstract sockets of others, signals to others

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """The version of Landlock that this kernel has; 0 without any."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_RULESET_VERSION)))


def allow_changes(folders: Iterable[int], files: Iterable[int]) -> int:
    """Let this thread, and what it starts, change these folders' files and write to these files; nothing else.

    It needs `no_new_privs`. Reading is not restricted. Where the kernel knows less, less is restricted.

    Args:
        folders: Descriptors. Below them, files can be made, written, renamed and removed.
        files: Descriptors of files, pipes and devices, to be opened for writing again.

    Returns:
        The version of Landlock; 0 if there is none, and nothing has changed.

    Raises:
        OSError: It cannot be done, although there is one.
    """
    known = version()
    if not known:
        return 0
    handled = _CHANGES | sum(bits for since, bits in _CHANGES_SINCE.items() if known >= since)
    rules = _checked(_libc.syscall(_CREATE_RULESET, *_ruleset(known, handled), 0))
    try:
        for folder in folders:
            _add(rules, folder, handled & (_WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _TRUNCATE))
        for file in files:
            _add(rules, file, handled & (_WRITE_FILE | _TRUNCATE))
        _checked(_libc.syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return known


def _ruleset(known: int, handled: int) -> tuple[bytes, ctypes.c_size_t]:
    """A `struct landlock_ruleset_attr`, as long as the kernel knows it, and its size."""
    words = [handled]
    if known >= _NETWORK_SINCE:
        words.append(_NETWORK)
    if known >= _SCOPE_SINCE:
        words.append(_SCOPE)
    content = struct.pack(f"={len(words)}Q", *words)
    return content, ctypes.c_size_t(len(content))


def _add(rules: int, place: int, allowed: int) -> None:
    rule = struct.pack("=Qi", allowed, place)
    _checked(_libc.syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return result
