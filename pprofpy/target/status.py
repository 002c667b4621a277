"""What /proc/PID/status says. It is read by `procfs`."""

from __future__ import annotations

from pprofpy.arch.x86_64 import THREAD_FEATURES
from pprofpy.text import text_of


class MalformedError(OSError):
    """The kernel's answer is not as we know it."""


class Status:
    """What /proc/PID/status says, each field parsed when it is asked for.

    All attributes raise MalformedError where the kernel does not say it, unless a default is mentioned.
    """

    def __init__(self, content: bytes) -> None:
        self._content = b"\n" + content

    @property
    def name(self) -> str:
        """The thread's name, in which the kernel writes a line's end as two characters."""
        return text_of(self._word(b"Name", default=b""))

    @property
    def state(self) -> str:
        """R, S, D, T, ..."""
        return chr(self._word(b"State")[0])

    @property
    def pid(self) -> int:
        """The process that the thread belongs to."""
        return self._number(b"Tgid")

    @property
    def parent(self) -> int:
        """The process that started it, or adopted it; 0 if that is none of ours."""
        return self._number(b"PPid")

    @property
    def tracer(self) -> int:
        """The thread that traces it; 0 if none does."""
        return self._number(b"TracerPid")

    @property
    def user(self) -> int:
        """The effective user id."""
        return self._number(b"Uid", place=1)

    @property
    def inner_id(self) -> int:
        """Its own number for itself, in the innermost pid namespace; ours where the kernel does not say."""
        return self._number(b"NSpid" if b"\nNSpid:" in self._content else b"Pid", place=-1)

    @property
    def seccomp(self) -> int:
        """0: no filter, 1: strict, 2: filters; 0 where the kernel knows no filters."""
        return self._number(b"Seccomp") if b"\nSeccomp:" in self._content else 0

    @property
    def pending_signals(self) -> int:
        """The signals that wait for any thread of the process, a bit each."""
        return self._number(b"ShdPnd", base=16)

    @property
    def caught_signals(self) -> int:
        """Those that the program handles, a bit each."""
        return self._number(b"SigCgt", base=16)

    @property
    def ignored_signals(self) -> int:
        """Those that the program ignores, a bit each."""
        return self._number(b"SigIgn", base=16)

    @property
    def thread_count(self) -> int:
        """How many threads the process has."""
        return self._number(b"Threads")

    @property
    def capabilities(self) -> int:
        """Those in effect, a bit each."""
        return self._number(b"CapEff", base=16)

    @property
    def cpu_features(self) -> frozenset[str]:
        """What the processor does for this thread, as `shstk`; empty where the kernel does not say."""
        return frozenset(self._word(THREAD_FEATURES, default=b"").decode("ascii", "replace").split(" "))

    def _word(self, key: bytes, default: bytes | None = None) -> bytes:
        begin = self._content.find(b"\n" + key + b":")
        value = default
        if begin >= 0:
            begin += len(key) + 2
            value = self._content[begin : self._content.find(b"\n", begin)].strip(b" \t")
        if value is None or (value == b"" and default is None):
            raise MalformedError(f"/proc/PID/status has no {key.decode()}")
        return value

    def _number(self, key: bytes, place: int = 0, base: int = 10) -> int:
        words = self._word(key).split()
        try:
            return int(words[place], base)
        except (ValueError, IndexError):
            raise MalformedError(f"/proc/PID/status has no number as {key.decode()}") from None
