"""Source files that somebody else names: what may be read of them, as which text, and where their functions lie.

A target or a profile can name any file, and write anything into its own. So nothing is opened for reading but a regular
file outside of the kernel's own file systems, nothing is decoded but by plain text codecs, and functions are found by a
scanner that takes linear time and no recursion, whatever the text (and whichever Python version it is written for).
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from pprofpy.system.folders import PROC_MAGIC, filesystem_type, reopen

LARGEST_BYTES = 4 << 20
"""A larger file is no source code."""

_KERNELS_OWN = {
    PROC_MAGIC: "proc", 0x62656572: "sysfs", 0x64626720: "debugfs", 0x74726163: "tracefs", 0x73636673: "securityfs",
    0xCAFE4A11: "bpf", 0x27E0EB: "cgroup", 0x63677270: "cgroup2", 0x62656570: "configfs", 0xDE5E81E4: "efivarfs",
    0xF97CFF8C: "selinuxfs", 0x6165676C: "pstore", 0x19800202: "mqueue", 0x42494E4D: "binfmt_misc", 0x6E736673: "nsfs",
}  # fmt: skip
"""`f_type` of file systems (linux/magic.h) whose files are questions to the kernel."""

_FUSE = 0x65735546

_COOKIE = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_BLANK = re.compile(rb"[ \t\f]*(?:#.*)?$")
_TEXT_CODEC = re.compile(
    r"utf-?8(-sig)?|us-ascii|ascii|latin-?1|iso-?8859-?\d+|(windows-|cp)\d{3,4}|koi8-[rut]|mac-?\w+|gb2312|gbk|gb18030"
    r"|big5(-?hkscs)?|shift-?jis|sjis|euc-?(jp|kr|cn)|iso-2022-(jp|kr)"
)
_EDITORS_LINE_END = re.compile(r"-(unix|dos|mac)$")


@dataclass(frozen=True, slots=True)
class SourceText:
    """A source file's content.

    Attributes:
        lines: Without their ends.
        mtime_ns: When it was last changed, Unix time.
    """

    lines: list[str]
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Definition:
    """A function or class.

    Attributes:
        qualified_name: As Python's `__qualname__`.
        first: The line of its first decorator, or else `line`.
        line: That of `def` or `class`.
        last: The last line of its last statement.
        outer: The qualified name and `line` of what it is defined in; ("<module>", 1) for a module.
    """

    qualified_name: str
    first: int
    line: int
    last: int
    outer: tuple[str, int]


def read_source(entry: int, *, is_ours: bool = True) -> SourceText:
    """Read a source file.

    Args:
        entry: An O_PATH descriptor of it.
        is_ours: It need not be feared that its file system never answers: another user's FUSE is not read.

    Raises:
        OSError: It is no regular file, one of the kernel's, too large, or cannot be read.
    """
    content, mtime_ns = read_regular(entry, LARGEST_BYTES, is_ours=is_ours)
    return SourceText(decoded(content), mtime_ns)


def read_regular(entry: int, most_bytes: int, *, is_ours: bool = True) -> tuple[bytes, int]:
    """Read a file that may hold source; its content, and when it was last changed. See `read_source`."""
    facts = os.fstat(entry)
    kind = filesystem_type(entry)
    if not stat.S_ISREG(facts.st_mode) or kind in _KERNELS_OWN or (kind == _FUSE and not is_ours):
        raise PermissionError("this is no source file")
    if facts.st_size > most_bytes:
        raise OSError(errno.EFBIG, "larger than any source file")
    descriptor = reopen(entry, os.O_RDONLY | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(most_bytes), facts.st_mtime_ns


def decoded(data: bytes) -> list[str]:
    """Source code as lines, by the codec that its first two lines name if that is one for text, else UTF-8."""
    text = data.decode(_codec_of(data), "replace").removeprefix("\ufeff")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


def _codec_of(data: bytes) -> str:
    for line in data[:1000].split(b"\n", 2)[:2]:
        if match := _COOKIE.match(line):
            name = _EDITORS_LINE_END.sub("", match[1].decode("ascii", "replace").lower().replace("_", "-"))
            if _TEXT_CODEC.fullmatch(name):
                try:
                    return codecs.lookup(name).name
                except LookupError:
                    break
            break
        if not _BLANK.match(line.rstrip(b"\r")):
            break
    return "utf-8"


# -- functions -----------------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r'''"""(?:[^"\\]++|\\.|"(?!""))*+(?:"""|\Z)|\'\'\'(?:[^'\\]++|\\.|'(?!\'\'))*+(?:\'\'\'|\Z)'''
    r"""|"(?:[^"\\\n]++|\\.)*+"?|'(?:[^'\\\n]++|\\.)*+'?"""
    r"""|\#[^\n]*+|(?P<open>[(\[{])|(?P<close>[)\]}])|\\\n|(?P<end>\n(?:[ \t\f]*+(?:\#[^\n]*+)?\n)*+)""",
    re.DOTALL,
)
"""Strings, comments, brackets, and ends of lines with the blank lines and comments that follow. Nothing backtracks."""

_HEAD = re.compile(r"(?:(?:async[ \t]+)?(?:def|(class))[ \t]+(\w+)|(@))")
_DEEPEST = 100
"""As many levels of indentation as Python takes."""
_LONGEST_NAME = 500
"""Each inner function's name begins with the outer ones': a long one would be there as often as there are functions."""


def definitions(lines: list[str]) -> list[Definition]:
    """The functions and classes of Python source code; inner ones before the outer one that they are in."""
    text = "\n".join(lines) + "\n"
    found: list[Definition] = []
    stack: list[tuple[int, bool, str, int, int]] = []  # indentation, is it a class, qualified name, first, line
    decorated = previous_last = 0

    def close(indentation: int) -> None:
        while stack and stack[-1][0] >= indentation:
            _, _, name, first, line = stack.pop()
            outer = (stack[-1][2], stack[-1][4]) if stack else ("<module>", 1)
            found.append(Definition(name, first, line, previous_last, outer))

    for indentation, place, first, last in _statements(text):
        close(indentation)
        head = _HEAD.match(text, place)
        if head and head[3]:
            decorated = decorated or first
        elif head and len(stack) < _DEEPEST:
            prefix = f"{stack[-1][2]}{'.' if stack[-1][1] else '.<locals>.'}" if stack else ""
            name = (prefix + head[2])[:_LONGEST_NAME]
            stack.append((indentation, bool(head[1]), name, decorated or first, first))
            decorated = 0
        else:
            decorated = 0
        previous_last = last
    close(0)
    return found


def _statements(text: str) -> Iterator[tuple[int, int, int, int]]:
    """Logical lines: indentation, where the text begins, first and last line. Not those that are blank or comments."""
    start, first, line, depth = 0, 1, 1, 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if kind == "open":
            depth += 1
        elif kind == "close":
            depth = max(depth - 1, 0)
        elif kind == "end" and not depth:
            indentation, place = _indentation(text, start)
            if text[place] not in "#\n":
                yield indentation, place, first, line
            start, line = token.end(), line + text.count("\n", *token.span())
            first = line
        else:
            line += text.count("\n", *token.span())


def _indentation(text: str, start: int) -> tuple[int, int]:
    """How far a line is indented, tabs to the next multiple of 8, and where its text begins."""
    column, place = 0, start
    while (char := text[place]) in " \t\f":
        column = column + 1 if char == " " else 0 if char == "\f" else (column // 8 + 1) * 8
        place += 1
    return column, place
