"""Names of C++, Rust and Cython functions as their authors wrote them, and clones of functions by the function's own
name.

The C++ library knows how to read mangled names, but a file may hold any: some lead to gigabytes of text, some ended the
library. So this happens in a process of its own, without privileges, with little memory and little time, which can do
nothing but compute, read its names and write its answers.
"""

from __future__ import annotations

import atexit
import os
import re
import select
import subprocess
import sys
import time
from contextlib import suppress
from functools import lru_cache

from pprofpy.collectors.unwind.cython import cython_name
from pprofpy.collectors.unwind.rust import rust_name
from pprofpy.system.privileges import keep_only
from pprofpy.system.sandbox import seccomp_filter

_CLONE = re.compile(r"(?:\.(?:cold|part|constprop|isra|lto_priv|localalias|llvm)(?:\.\d+)*)+$")
_MANGLED = re.compile(r"(?:_?_Z|_R)[!-~]{1,4000}")
_LONGEST_TEXT = 4_096
_ROOM_BYTES = 16 << 20
"""What the C++ library may need for one name."""
_MOST_KEPT = 8_192
_PATIENCE_S = 1.0
_MOST_DEATHS = 3
_PR_SET_SECCOMP, _FILTER = 22, 2

_HELPER = f"""
import ctypes, resource, struct, sys
library, libc = ctypes.CDLL("libstdc++.so.6"), ctypes.CDLL(None)
library.__cxa_demangle.restype = ctypes.c_void_p
with open("/proc/self/statm") as file:
    memory = int(file.read().split()[0]) * resource.getpagesize() + {_ROOM_BYTES}
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC):
    resource.setrlimit(limit, (0, 0))
if rules := {seccomp_filter()!r}:
    kept = ctypes.create_string_buffer(rules)
    libc.prctl({_PR_SET_SECCOMP}, {_FILTER}, struct.pack("@HP", len(rules) // 8, ctypes.addressof(kept)), 0, 0)
sys.stdout.buffer.write(b"ready\\n")
sys.stdout.buffer.flush()
while name := sys.stdin.buffer.readline():
    text = ctypes.c_void_p(library.__cxa_demangle(name.rstrip(), None, None, None))
    if text and libc.strnlen(text, {_LONGEST_TEXT + 1}) <= {_LONGEST_TEXT}:
        sys.stdout.buffer.write(ctypes.string_at(text.value))
    libc.free(text)
    sys.stdout.buffer.write(b"\\n")
    sys.stdout.buffer.flush()
"""


def readable(symbol: str) -> str:
    """A function's name from a symbol: `_Z3addii.cold` is `add(int, int)`, `_RNvCs1_3foo3bar` is `foo::bar`.

    What compilers split off a function, or specialise of it, counts as the function. What cannot be read, or becomes
    longer than 4 KB, stays as it is.
    """
    name = _CLONE.sub("", symbol)
    return _demangled(name) if _MANGLED.fullmatch(name) else cython_name(name) or name


@lru_cache(_MOST_KEPT)
def _demangled(name: str) -> str:
    return rust_name(name) or ("" if name.startswith("_R") else _demangler.ask(name)) or name


class _Demangler:
    """The process that reads names; started when it is first needed, given up if it dies too often."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths = 0

    def ask(self, name: str) -> str:
        """What a mangled name means; empty if it is not known."""
        try:
            process = self._process or self._start()
            if not process:
                return ""
            process.stdin.write(name.encode("ascii") + b"\n")  # type: ignore[union-attr]
            return self._answer(process).decode("utf-8", "replace")
        except (OSError, TimeoutError):
            self._deaths += 1
            self.close()
            return ""

    def _start(self) -> subprocess.Popen[bytes] | None:
        if self._deaths >= _MOST_DEATHS or not sys.executable:
            return None
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _HELPER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C is for us
            preexec_fn=lambda: keep_only(0),
        )
        self._answer(self._process, 10 * _PATIENCE_S)
        return self._process

    @staticmethod
    def _answer(process: subprocess.Popen[bytes], patience_s: float = _PATIENCE_S) -> bytes:
        """The next line.

        Raises:
            TimeoutError: It takes too long.
            OSError: The process has ended.
        """
        answer, deadline = b"", time.monotonic() + patience_s
        stream = process.stdout.fileno()  # type: ignore[union-attr]
        readable_now = select.poll()  # select() cannot take descriptors from 1024 on
        readable_now.register(stream, select.POLLIN)
        while not answer.endswith(b"\n"):
            if not readable_now.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            part = os.read(stream, _LONGEST_TEXT)
            if not part:
                raise BrokenPipeError
            answer += part
        return answer[:-1]

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process:
            process.kill()
            with process, suppress(OSError):
                process.wait()


_demangler = _Demangler()
atexit.register(_demangler.close)
