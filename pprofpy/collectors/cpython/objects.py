"""Strings, code objects, threads and stacks, read from the memory of a process with the offsets of its Layout."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.cpython.versions import CALL_FROM_C, NO_CFRAME, NONE, POINTER_TAGS, Layout

_LONGEST_STRING = 4096
_LONGEST_TABLE = 1 << 20
_MOST_INTERPRETERS, _MOST_THREADS = 1_000, 32_768
_MOST_FRAMES = 5_000
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


@dataclass(frozen=True, slots=True)
class Code:
    """A code object.

    Attributes:
        name: Qualified from 3.11 on.
        filename: As its compiler was told.
        first_line: Where the function begins.
        table: Its line table.
    """

    name: str
    filename: str
    first_line: int
    table: bytes


def decode_text(raw: bytes, width: int) -> str:
    """The characters of a str, `width` bytes each; what is no text becomes U+FFFD."""
    return raw[: len(raw) // max(width, 1) * width].decode(_ENCODINGS.get(width, "latin-1"), "replace")


class ObjectReader:
    """Reads the objects of one interpreter.

    All methods raise UnreadableError where memory holds something else.
    """

    def __init__(self, memory: Memory, layout: Layout, code_type: int) -> None:
        self.memory = memory
        self.layout = layout
        self._code_type = code_type

    def string(self, address: int) -> str:
        """A str."""
        layout = self.layout
        length = self.memory.word(address + layout.object_length)
        state = self.memory.half_word(address + layout.string_state) >> layout.string_kind_shift
        kind, is_compact, is_ascii = state & 7, state >> 3 & 1, state >> 4 & 1
        if length > _LONGEST_STRING or kind not in _ENCODINGS:
            raise UnreadableError(f"no str at {address:#x}")
        start = address + (layout.string_ascii if is_ascii else layout.string_wide)
        if not is_compact:  # of a subclass
            start = self.memory.word(address + layout.string_wide)
        return decode_text(self.memory.read(start, length * kind), kind)

    def blob(self, address: int) -> bytes:
        """A bytes object."""
        length = self.memory.word(address + self.layout.object_length)
        if length > _LONGEST_TABLE:
            raise UnreadableError(f"no bytes at {address:#x}")
        return self.memory.read(address + self.layout.bytes_data, length)

    def code(self, address: int) -> Code:
        """A code object."""
        return self.code_from(self.code_head(address))

    def code_head(self, address: int) -> bytes:
        """The first bytes of a code object, as far as the layout knows them."""
        head = self.memory.read(address, self.layout.code_bytes)
        if _word(head, self.layout.object_type) != self._code_type:
            raise UnreadableError(f"no code object at {address:#x}")
        return head

    def is_code(self, address: int) -> bool:
        """Is there a code object? There may be nothing at all."""
        return self.memory.read_if_there(address + self.layout.object_type, 8) == struct.pack("<Q", self._code_type)

    def code_from(self, head: bytes) -> Code:
        """What a code object says whose first bytes are these; without its line table if that is too long."""
        layout = self.layout
        name, filename = self.names(head)
        return Code(
            name=name,
            filename=filename,
            first_line=int(struct.unpack_from("<i", head, layout.code_first_line)[0]),
            table=self._line_table(_word(head, layout.code_table)),
        )

    def _line_table(self, address: int) -> bytes:
        is_too_long = self.memory.word(address + self.layout.object_length) > _LONGEST_TABLE
        return b"" if is_too_long else self.blob(address)

    def names(self, head: bytes) -> tuple[str, str]:
        """The function's name of such a code object, and its file's."""
        return self.string(_word(head, self.layout.code_name)), self.string(_word(head, self.layout.code_file))

    def fingerprint(self, head: bytes) -> int:
        """Tells a code object from others at the same address; the same number as `python_fingerprint` in python.h."""
        layout = self.layout
        value = struct.unpack_from("<I", head, layout.code_first_line)[0]
        if layout.code_version:
            value |= struct.unpack_from("<I", head, layout.code_version)[0] << 32
        for offset in (layout.code_file, layout.code_name, layout.code_table):
            value = _mix(value, _word(head, offset))
        return int(value) >> 32

    def thread_states(self, runtime: int) -> Iterator[int]:
        """The PyThreadState of every thread, in all interpreters."""
        seen: set[int] = set()
        for interp in self.interpreters(runtime):
            for thread in self.threads(interp):
                if thread in seen or len(seen) >= _MOST_THREADS:
                    raise UnreadableError("interpreters share threads, or have too many")
                seen.add(thread)
                yield thread

    def interpreters(self, runtime: int) -> Iterator[int]:
        """Every PyInterpreterState, the main one last."""
        head = self.memory.word(runtime + self.layout.interpreters_head)
        return self._linked(head, self.layout.interp_next, _MOST_INTERPRETERS)

    def main_interpreter(self, runtime: int) -> int:
        """The main PyInterpreterState; a process that only just begins, or ends, has none."""
        for main in list(self.interpreters(runtime))[-1:]:
            return main
        raise UnreadableError("no interpreter")

    def threads(self, interp: int) -> Iterator[int]:
        """The PyThreadState of every thread in one interpreter."""
        head = self.memory.word(interp + self.layout.interp_threads)
        return self._linked(head, self.layout.thread_next, _MOST_THREADS)

    def _linked(self, address: int, next_at: int, most: int) -> Iterator[int]:
        """The members of a list, which may be anything: a forged one, or one that changes while it is read."""
        seen: set[int] = set()
        while address:
            if address in seen or len(seen) >= most:
                raise UnreadableError(f"a list at {address:#x} that leads back into itself, or does not end")
            seen.add(address)
            yield address
            address = self.memory.word(address + next_at)

    def leaf_frame(self, thread_state: int) -> int:
        """The address of a thread's innermost frame; 0 if there is none."""
        frame = self.memory.word(thread_state + self.layout.thread_frame)
        if frame and self.layout.cframe_frame != NO_CFRAME:
            frame = self.memory.word(frame + self.layout.cframe_frame)
        return frame

    def frames(self, thread_state: int) -> list[int]:
        """A thread's stack: the addresses of its code objects, leaf-first. It may change while it is read."""
        return [code for code, _ in self.places(thread_state)]

    def places(self, thread_state: int, most_frames: int = _MOST_FRAMES) -> Iterator[tuple[int, int]]:
        """A thread's stack, leaf-first: addresses of code objects, and the word that tells the current instruction."""
        places = islice(self.all_places(thread_state), most_frames)
        return ((code, instruction) for is_python, code, instruction in places if is_python)

    def all_places(self, thread_state: int) -> Iterator[tuple[bool, int, int]]:
        """The same with calls from C, which hold no code of Python's: whether it is none of them comes first."""
        layout = self.layout
        for _, raw in islice(self._raw_frames(thread_state), _MOST_FRAMES):
            is_python = layout.frame_owner == NONE or raw[layout.frame_owner] < CALL_FROM_C
            yield is_python, _word(raw, layout.frame_code) & ~POINTER_TAGS, _word(raw, layout.frame_instruction)

    def frame_addresses(self, thread_state: int) -> Iterator[int]:
        """The addresses of a thread's frames, leaf-first."""
        return (address for address, _ in islice(self._raw_frames(thread_state), _MOST_FRAMES))

    def _raw_frames(self, thread_state: int) -> Iterator[tuple[int, bytes]]:
        """A thread's frames, leaf-first: address and content."""
        layout, frame = self.layout, self.leaf_frame(thread_state)
        seen: set[int] = set()
        while frame:
            if frame in seen:
                raise UnreadableError(f"a stack at {frame:#x} that leads back into itself")
            seen.add(frame)
            raw = self.memory.read(frame, layout.frame_bytes)
            yield frame, raw
            frame = _word(raw, layout.frame_previous)


def _word(raw: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", raw, offset)[0])


def _mix(value: int, other: int) -> int:
    value = (value ^ other) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 29
