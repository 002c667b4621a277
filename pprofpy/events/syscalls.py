"""System calls: which there are, what their arguments mean, and a call in words.

    openat(AT_FDCWD, "/etc/hostname", O_RDONLY|O_CLOEXEC) = 3
    read(3</etc/hostname>, buf=0x7f55a3b2c6d0, count=4096) = -1 EAGAIN

What speaks for itself (paths, descriptors, names of flags) stands alone; bare numbers and addresses have their names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pprofpy import arch
from pprofpy.events.constants import NAMES, error_name
from pprofpy.text import printable

STRING_BYTES = 256
MAX_SYSCALLS = 512
UNREADABLE = b"\xff\0"
"""In the place of a string that the kernel could not read."""

NEVER_RETURNS, BEGAN_UNSEEN, IS_32_BIT, HAS_FD_NAME = 1, 2, 4, 8
"""How a recorded call deviates from a plain one. Source: CALL_* in collectors/probes/trace.bpf.c."""

_ALIASES = {
    "newstat": "stat",
    "newfstat": "fstat",
    "newlstat": "lstat",
    "newuname": "uname",
    "sendfile64": "sendfile",
    "umount": "umount2",
    "fstatat": "newfstatat",
    "fstatat64": "newfstatat",
    "pread": "pread64",
    "pwrite": "pwrite64",
    "send": "sendto",
    "recv": "recvfrom",
}
"""Names from the C library and from other places -> names in our tables."""

_ADDRESS_RESULTS = frozenset({"mmap", "brk", "mremap", "shmat"})
MAX_ERRNO = 4095
"""Results from -4095 to -1 are errors."""


class Argument(NamedTuple):
    """One argument: its kind is explained in `arch/x86_64/system_calls.py`."""

    kind: str
    name: str


class Syscall(NamedTuple):
    """A system call; `arguments` is None if nobody knows them."""

    number: int
    name: str
    arguments: tuple[Argument, ...] | None

    @property
    def string_mask(self) -> int:
        """A bit for each argument that is a string, two at most."""
        places = [place for place, argument in enumerate(self.arguments or ()) if argument.kind == "s"]
        return sum(1 << place for place in places[:2])

    @property
    def begins_with_fd(self) -> bool:
        """Is its first argument a file descriptor?"""
        return bool(self.arguments) and self.arguments[0].kind == "f"  # type: ignore[index]


def _parse(line: str) -> Syscall:
    number, name, *words = line.split()
    if words == ["?"]:
        return Syscall(int(number), name, None)
    return Syscall(int(number), name, tuple(Argument(*word.split(":")) for word in words))


@cache
def syscalls_of(machine: str) -> Mapping[int, Syscall]:
    """All system calls of a machine, by number.

    Args:
        machine: As the kernel calls it. x86-64 stands for those that are not known: nothing is recorded there.
    """
    return {call.number: call for call in map(_parse, arch.of(machine).system_calls.splitlines())}


SYSCALLS = syscalls_of(arch.machine())
"""Those of this machine."""


def syscall(number: int, machine: str) -> Syscall:
    """A system call of a machine by its number, also one that is newer than this program."""
    return syscalls_of(machine).get(number) or Syscall(number, f"syscall_{number}", None)


def canonical_name(name: str) -> str:
    """The name in our tables of a system call that is called otherwise elsewhere."""
    return _ALIASES.get(name, name)


def quoted(content: bytes) -> str:
    """A string from a target, in quotes, safe to print; `…` if only its beginning was recorded."""
    text, _, _ = content.partition(b"\0")
    escaped = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').decode("utf-8", "backslashreplace")
    return f'"{printable(escaped)}"' + ("…" if len(text) >= STRING_BYTES - 1 else "")


def result_in_words(call: Syscall, result: int, flags: int = 0) -> str:
    """What a call returned: a number, an address, or an error's name."""
    if flags & NEVER_RETURNS:
        return "?"
    if -MAX_ERRNO <= result < 0:
        return f"-1 {error_name(-result)}"
    return f"{result & _U64:#x}" if call.name in _ADDRESS_RESULTS else str(result)


_U64 = (1 << 64) - 1


def _signed(bits: int) -> Callable[[int], str]:
    top, mask = 1 << (bits - 1), (1 << bits) - 1
    return lambda value: str(((value & mask) ^ top) - top)


_PLAIN: dict[str, Callable[[int], str]] = {
    "p": hex,
    "d": _signed(32),
    "u": lambda value: str(value & 0xFFFFFFFF),
    "l": _signed(64),
    "z": str,
    "x": lambda value: f"{value:#x}" if value else "0",
    "o": lambda value: f"{value & 0xFFFFFFFF:#o}" if value & 0xFFFFFFFF else "0",
}


def fd_in_words(value: int, name: str = "") -> str:
    """A file descriptor, with what it stands for."""
    number = _signed(32)(value)
    if number == "-100":
        return "AT_FDCWD"
    return f"{number}<{name}>" if name else number


def arguments_in_words(
    call: Syscall, registers: NDArray[np.uint64], strings: Sequence[Sequence[bytes]], fd_names: Sequence[str]
) -> list[str]:
    """The arguments of many calls of one kind.

    Args:
        call: Which call.
        registers: (n, 6).
        strings: For each string argument, in order: what it held in each of the n calls.
        fd_names: n: what the first argument stands for, if it is a file descriptor; "" if unknown.
    """
    if call.arguments is None:
        return [", ".join(f"{value:#x}" for value in row) for row in registers.tolist()]
    if not call.arguments:
        return [""] * len(registers)
    contents = iter(strings)
    columns = []
    for place, (kind, name) in enumerate(call.arguments):
        values = registers[:, place].tolist()
        if kind == "s":
            columns.append(_strings(name, values, next(contents, None)))
        elif kind == "f" and not place:
            columns.append([fd_in_words(value, fd) for value, fd in zip(values, fd_names, strict=True)])
        elif kind == "o" and call.arguments[place - 1].kind.startswith("open"):
            columns.append(_modes(values, registers[:, place - 1].tolist()))
        else:
            columns.append(_words(kind, name, values))
    return [", ".join(filter(None, row)) for row in zip(*columns, strict=True)]


def _words(kind: str, name: str, values: list[int]) -> list[str]:
    if kind == "f":
        return [fd_in_words(value) for value in values]
    in_words = NAMES.get(kind)
    if in_words:
        known = {value: in_words(value) for value in set(values)}
        return [known[value] for value in values]
    show, prefix = _PLAIN[kind], f"{name}="
    if kind == "p":
        return [prefix + show(value) if value else "" for value in values]  # what is absent need not be said
    return [prefix + show(value) for value in values]


def _strings(name: str, values: list[int], contents: Sequence[bytes] | None) -> list[str]:
    if contents is None:
        return _words("p", name, values)
    return [
        quoted(content) if value and content[:2] != UNREADABLE else f"{name}={value:#x}" if value else "NULL"
        for value, content in zip(values, contents, strict=True)
    ]


def _modes(values: list[int], flags: list[int]) -> list[str]:
    """A mode means something only to a call that creates a file."""
    return [_PLAIN["o"](value) if flag & _CREATES else "" for value, flag in zip(values, flags, strict=True)]


_CREATES = 0o100 | 0x400000
"""O_CREAT, and the bit that tells O_TMPFILE from O_DIRECTORY."""
