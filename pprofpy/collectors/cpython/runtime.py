"""Finding the CPython in a process: where its `_PyRuntime` is, and the layout of what hangs on it.

The file is read through the mapping itself (/proc/PID/map_files), so that containers, chroots and replaced files do
not matter. What is not known for certain is refused: nothing is guessed.
"""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pprofpy.collectors.cpython.elf import ElfFile, NotElfError, read_elf
from pprofpy.collectors.cpython.layouts import DEBUG_OFFSETS_BYTES, LAYOUTS, Layout, is_free_threaded, layout_of
from pprofpy.collectors.cpython.memory import Memory, UnreadableError
from pprofpy.collectors.cpython.objects import Reader
from pprofpy.errors import NotPossibleError, TargetError
from pprofpy.target import Target, open_target

_SYMBOLS = ("_PyRuntime", "PyCode_Type", "Py_Version")
_ALPHA, _BETA = 0xA, 0xB
_ATTEMPTS, _PATIENCE_S = 100, 2.0
_elf_files: dict[tuple[int, ...], ElfFile] = {}


@dataclass(frozen=True, slots=True)
class Runtime:
    """The interpreter of one process.

    Attributes:
        pid: The process.
        version: (major, minor).
        address: Of its `_PyRuntime`.
        code_type: The address of `PyCode_Type`.
        layout: Where things lie.
        root: The process's root folder, as reached from here.
    """

    pid: int
    version: tuple[int, int]
    address: int
    code_type: int
    layout: Layout
    root: Path

    def reader(self) -> Reader:
        """Reads its objects."""
        return Reader(Memory(self.pid), self.layout, self.code_type)

    @property
    def gil(self) -> int:
        """The address of its GIL; 0 if each interpreter has its own."""
        return self.address + self.layout.runtime_gil if self.layout.runtime_gil else 0

    def main_gil(self) -> int:
        """The address of the main interpreter's GIL, in any version; 0 if there is none yet.

        Raises:
            TargetError: The process has ended.
        """
        if self.gil:
            return self.gil
        reader, interp, last = self.reader(), 0, 0
        with suppress(UnreadableError):
            interp = reader.memory.word(self.address + self.layout.interpreters_head)
            while interp:
                last, interp = interp, reader.memory.word(interp + self.layout.interp_next)
            return reader.memory.word(last + self.layout.interp_gil) if last else 0
        return 0


def find_runtime(target: Target) -> Runtime:
    """The interpreter of a process. One that is just starting is given a moment to build its structures.

    Raises:
        NotPossibleError: It is none that can be read safely; the message says why.
        TargetError: The process has ended.
        TargetPermissionError: We may not look inside it.
    """
    deadline = time.monotonic() + (_PATIENCE_S if target.age_s() < _PATIENCE_S else 0)
    while True:
        try:
            runtime = _look(target)
            check(target, runtime)
            return runtime
        except NotPossibleError as error:
            if not target.is_alive():
                raise TargetError(f"process {target.pid} has ended") from error
            if time.monotonic() > deadline:
                raise
        time.sleep(0.002)
        target = open_target(target.pid)  # its library may not have been there before


def _look(target: Target) -> Runtime:
    if target.interpreter.implementation != "CPython":
        raise _unsupported(target, f"{target.interpreter.implementation} is not CPython")
    elf, bias = _mapped_elf(target)
    missing = [name for name in _SYMBOLS[:2] if name not in elf.symbols]
    if missing:
        raise _unsupported(target, f"{target.interpreter.path} does not tell where {missing[0]} is")
    memory = Memory(target.pid)
    address = elf.symbols["_PyRuntime"] + bias
    try:
        version = _version(target, memory, elf.symbols.get("Py_Version"), bias)
        raw = memory.read(address, DEBUG_OFFSETS_BYTES)
    except UnreadableError as error:
        raise _unsupported(target, f"its memory does not look like CPython's ({error})") from error
    layout = layout_of(version, raw)
    if layout is None:
        known = f"{_text(min(LAYOUTS))} to {_text(max(LAYOUTS))}"
        raise _unsupported(target, f"the layout of Python {_text(version)} is not known, only those of {known}")
    if version >= (3, 13) and is_free_threaded(raw):
        raise _unsupported(target, "it is a free-threaded build, whose structures differ")
    return Runtime(target.pid, version, address, elf.symbols["PyCode_Type"] + bias, layout, target.root)


def check(target: Target, runtime: Runtime) -> None:
    """Read stacks: every frame of one must lead to a real code object with a name and a file.

    Raises:
        NotPossibleError: The structures are not where they should be.
    """
    reader, problem = runtime.reader(), "no thread of it was found"
    for _ in range(_ATTEMPTS):  # the process runs meanwhile: what is torn now is whole another time
        try:
            threads = list(reader.thread_states(runtime.address))
        except UnreadableError as error:
            problem = str(error)
            continue
        for thread in threads:
            try:
                names = [reader.code(code).name for code in reader.frames(thread)]
            except UnreadableError as error:
                problem = str(error)
                continue
            if names:
                return
            problem = "no thread of it runs Python code"
    raise _unsupported(
        target, f"its structures are not where those of Python {_text(runtime.version)} should be ({problem})"
    )


def _mapped_elf(target: Target) -> tuple[ElfFile, int]:
    """The file that holds the interpreter, and where it lies."""
    folder = Path(f"/proc/{target.pid}")
    try:
        lines = (folder / "maps").read_bytes().decode("utf-8", "replace").split("\n")
    except OSError as error:
        raise TargetError(f"process {target.pid} ended just now") from error
    for line in lines:
        fields = line.split(maxsplit=5)
        if len(fields) < 6 or fields[5].removesuffix(" (deleted)").replace("\\012", "\n") != target.interpreter.path:
            continue
        start, end = (int(part, 16) for part in fields[0].split("-"))
        for path in (folder / "map_files" / f"{start:x}-{end:x}", Path(f"{target.root}{target.interpreter.path}")):
            with suppress(OSError, NotElfError):
                elf = _cached_elf(path)
                return elf, elf.headers.bias(start, int(fields[2], 16))
    raise _unsupported(target, f"{target.interpreter.path} cannot be read")


def _cached_elf(path: Path) -> ElfFile:
    status = path.stat()
    key = status.st_dev, status.st_ino, status.st_mtime_ns
    if key not in _elf_files:
        _elf_files[key] = read_elf(path, _SYMBOLS)
    return _elf_files[key]


def _version(target: Target, memory: Memory, symbol: int | None, bias: int) -> tuple[int, int]:
    """The exact version; only what has been released counts, since layouts change until then."""
    if symbol is not None:
        number = memory.half_word(symbol + bias)
        major, minor, level = number >> 24, number >> 16 & 0xFF, number >> 4 & 0xF
        if level in (_ALPHA, _BETA):
            raise _unsupported(target, "it is a version from before its release")
        return major, minor
    match = re.match(r"(\d+)\.(\d+)(?:\.\d+)?(\w*)", target.interpreter.version)
    if match is None:
        raise _unsupported(target, "its version cannot be told")
    if match[3].startswith(("a", "b")):
        raise _unsupported(target, "it is a version from before its release")
    return int(match[1]), int(match[2])


def _text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _unsupported(target: Target, why: str) -> NotPossibleError:
    return NotPossibleError(
        f"the stacks of process {target.pid} ({target.interpreter}) cannot be read in the kernel: {why}",
        "pprofpy cpu --engine py-spy may know it",
    )
