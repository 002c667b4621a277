"""Run a command under strace, and tell every file that it changed: opened to write, made, renamed, removed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "open,openat,openat2,creat,truncate,ftruncate,fallocate,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "unlink,unlinkat,mkdir,mkdirat,rmdir,mknod,mknodat,chmod,fchmod,fchmodat,chown,lchown,fchown,fchownat,utimensat,"
    "setxattr,fsetxattr,lsetxattr,mount,umount2,move_mount,pivot_root,chroot"
)
_OPENS = {"open", "openat", "openat2", "creat"}
_WRITES = re.compile(r"\b(O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_TMPFILE)\b")
_CALL = re.compile(r"^\d+\s+(?P<name>\w+)\((?P<words>.*)\)\s+= (?P<result>\d+)(?:<(?P<path>.*)>)?(?: \(.*\))?$")
_BROKEN_OFF = re.compile(r"^(?P<pid>\d+)\s+(?P<begin>.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(?P<pid>\d+)\s+<\.\.\. \w+ resumed>\s*(?P<end>.*)$")
_PLACE = re.compile(r'(?:(?:AT_FDCWD|\d+)(?:<(?P<folder>(?:[^>\\]|\\.)*)>)?, )?"(?P<name>(?:[^"\\]|\\.)*)"')
_BY_DESCRIPTOR = re.compile(r"\d+<(?P<path>.*?)>(?:\(deleted\))?,?")


@dataclass(frozen=True)
class Change:
    """One system call that changed a file.

    Attributes:
        call: Its name.
        path: The file; where links led to, if it was opened.
    """

    call: str
    path: str

    def __str__(self) -> str:
        return f"{self.call} {self.path}"


def strace(log: Path) -> list[str]:
    """The words before a command that is to be watched, with all its children."""
    return ["strace", "-f", "-qq", "-y", "-s", "4096", "--signal=none", "--seccomp-bpf", "-e", CALLS, "-o", str(log)]


def changes(log: Path, folder: Path) -> list[Change]:
    """What succeeded, in order.

    Args:
        log: Of strace.
        folder: The command's working folder.
    """
    found = []
    for line in _whole_lines(log.read_text(errors="surrogateescape")):
        match = _CALL.match(line)
        if not match:
            continue
        name, words = match["name"], match["words"]
        if name in _OPENS:
            if name == "creat" or writes(words):
                found.append(Change(name, match["path"] or words))
        elif by_descriptor := _BY_DESCRIPTOR.match(words) if name.startswith("f") and name != "fchmodat" else None:
            found.append(Change(name, by_descriptor["path"]))
        else:
            found += [
                Change(name, os.path.normpath(folder / (place["folder"] or "") / place["name"]))
                for place in _PLACE.finditer(words)
            ]
    return found


def _whole_lines(text: str) -> list[str]:
    """Calls that were broken off by another thread's are put together again."""
    lines: list[str] = []
    begun: dict[str, str] = {}
    for line in text.split("\n"):
        if broken := _BROKEN_OFF.match(line):
            begun[broken["pid"]] = broken["begin"]
        elif resumed := _RESUMED.match(line):
            lines.append(f"{resumed['pid']} {begun.pop(resumed['pid'], '')}{resumed['end']}")
        else:
            lines.append(line)
    return lines


def writes(words: str) -> bool:
    """Do the words of an open ask for more than reading?"""
    return bool(_WRITES.search(_without_strings(words)))


def _without_strings(words: str) -> str:
    return re.sub(r'"(?:[^"\\]|\\.)*"|<[^>]*>', "", words)
