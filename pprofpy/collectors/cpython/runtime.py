"""Finding the CPython in a process: which of its images is in use, where its `_PyRuntime` is, and the layout of what
hangs on it. What is not known for certain is refused: nothing is guessed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pprofpy.arch import here
from pprofpy.budget import Budget
from pprofpy.collectors.cpython.debugoffsets import TABLE_BYTES, ImplausibleLayoutError, described, is_free_threaded
from pprofpy.collectors.cpython.living import IdleImageError, NotLivingError, prove_living
from pprofpy.collectors.cpython.loaded import SYMBOLS, LoadedImage, loaded_images
from pprofpy.collectors.cpython.memory import Memory, SnapshotMemory, UnreadableError
from pprofpy.collectors.cpython.objects import ObjectReader
from pprofpy.collectors.cpython.proof import prove_walk
from pprofpy.collectors.cpython.versions import (
    Layout,
    UnknownVersionError,
    Version,
    is_new,
    spelled,
    version_like,
    version_of,
    with_mutexes_of,
)
from pprofpy.errors import NotPossibleError, NotStartedError, TargetError
from pprofpy.system.blocking import BlockedError, bounded
from pprofpy.target import Interpreter, Target, open_target

_ALPHA, _BETA = 0xA, 0xB
_ATTEMPTS, _PATIENCE_S = 100, 2.0
_SECONDS, _MOST_BYTES = 2.0, 64 << 20
"""What one task may spend on an interpreter at most, in time and in memory read."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The interpreter of one process.

    Attributes:
        pid: The process.
        version: (major, minor).
        address: Of its `_PyRuntime`.
        code_type: The address of `PyCode_Type`.
        known: Where things lie, and which forms they have.
        root: The process's root folder, as reached from here.
        image: The file that it is in, and where that is loaded.
        is_free_threaded: It is a build that can run without a GIL.
    """

    pid: int
    version: tuple[int, int]
    address: int
    code_type: int
    known: Version
    root: Path
    image: LoadedImage
    is_free_threaded: bool = False

    @property
    def layout(self) -> Layout:
        """Where things lie."""
        return self.known.layout

    @property
    def is_new(self) -> bool:
        """Is its version newer than all that are known? All that is known of it then is what its stacks prove."""
        return is_new(self.version)

    def reader(self, seconds: float = _SECONDS) -> ObjectReader:
        """Reads its objects, for one task: so long, and so much, at most."""
        return ObjectReader(Memory(self.pid, self._budget(seconds)), self.layout, self.code_type)

    def snapshot_reader(self, seconds: float = _SECONDS) -> ObjectReader:
        """The same for one pass over many objects: faster, by pages that are each read once."""
        return ObjectReader(SnapshotMemory(self.pid, self._budget(seconds)), self.layout, self.code_type)

    def _budget(self, seconds: float) -> Budget:
        return Budget(f"the interpreter of process {self.pid}", size=_MOST_BYTES, seconds=seconds)

    @property
    def gil(self) -> int:
        """The address of its GIL; 0 if each interpreter has its own."""
        return self.address + self.layout.runtime_gil if self.layout.runtime_gil else 0

    def main_gil(self) -> int:
        """The address of the main interpreter's GIL, in any version; 0 if there is none yet.

        Raises:
            TargetError: The process has ended.
            ImplausibleTargetError: It has more interpreters than can be.
        """
        if self.gil:
            return self.gil
        reader = self.reader()
        with suppress(UnreadableError):
            for main in list(reader.interpreters(self.address))[-1:]:
                return reader.memory.word(main + self.layout.interp_gil)
        return 0


def living_runtime(target: Target) -> Runtime:
    """The interpreter that is in use in a process, proved by reading alone.

    Whatever calls or writes anything in a target must take the interpreter from here: files of interpreters can be
    mapped that are not in use, and calling their functions ends the process.

    Raises:
        NotPossibleError: None is proved to be in use (a NotStartedError), or several are; the message says why.
        TargetError: The process has ended.
        TargetPermissionError: We may not look inside it.
    """
    return _patiently(target, _known)


def find_runtime(target: Target) -> Runtime:
    """The interpreter of a process, whose stacks can be read. One that is just starting is given a moment.

    Raises:
        NotPossibleError: It is none that can be read safely; the message says why.
        TargetError: The process has ended.
        TargetPermissionError: We may not look inside it.
    """
    return _patiently(target, _readable)


def _patiently(target: Target, find: Callable[[Target], Runtime]) -> Runtime:
    """Give a process that is just starting a moment to build its structures."""
    deadline = time.monotonic() + (_PATIENCE_S if target.age_s() < _PATIENCE_S else 0)
    while True:
        try:
            return bounded(f"process {target.pid}", partial(find, target))
        except BlockedError as error:
            raise error.as_error() from error
        except NotPossibleError as error:
            if not target.is_alive():
                raise TargetError(f"process {target.pid} has ended") from error
            if time.monotonic() > deadline:
                raise
        time.sleep(0.002)
        target = open_target(target.pid)  # its library may not have been there before


def _known(target: Target) -> Runtime:
    """What a walk proves is enough to read by, but not to call functions."""
    runtime = _living(target)
    if runtime.is_new:
        try:
            version_of(runtime.version)
        except UnknownVersionError as error:
            raise _unsupported(target, str(error), runtime.image.interpreter) from error
    return runtime


def _readable(target: Target) -> Runtime:
    runtime = _living(target)
    check(target, runtime)
    return runtime


def _living(target: Target) -> Runtime:
    """Try all images; exactly one must be in use."""
    if target.interpreter.implementation != "CPython":
        raise _unsupported(target, f"{target.interpreter.implementation} is not CPython")
    living: list[Runtime] = []
    problems: list[NotPossibleError] = []
    for image in loaded_images(target):
        try:
            living.append(_prove(target, image))
        except NotPossibleError as error:
            problems.append(error)
    if len(living) == 1:
        return living[0]
    if living:
        places = " and ".join(f"{one.image.interpreter.path} at {one.image.start:#x}" for one in living)
        raise _unsupported(target, f"several interpreters are in use in it: {places}")
    raise problems[0] if problems else _unsupported(target, f"{target.interpreter.path} cannot be read")


def _prove(target: Target, image: LoadedImage) -> Runtime:
    """The interpreter in one image.

    Raises:
        NotPossibleError: It is not in use, or none that we know.
    """
    missing = [name for name in SYMBOLS[:2] if name not in image.symbols]
    if missing:
        raise _unsupported(target, f"{image.interpreter.path} does not tell where {missing[0]} is", image.interpreter)
    memory, address, code_type = Memory(target.pid), image.symbols["_PyRuntime"], image.symbols["PyCode_Type"]
    try:
        version = _version(target, memory, image)
        raw = memory.read(address, TABLE_BYTES)
        known = described(version, raw)
    except UnknownVersionError as error:
        raise _unsupported(target, str(error), image.interpreter) from error
    except (UnreadableError, ImplausibleLayoutError) as error:
        why = f"its memory does not look like CPython's ({error})"
        raise _unsupported(target, why, image.interpreter) from error
    runtime = Runtime(
        pid=target.pid,
        version=version,
        address=address,
        code_type=code_type,
        known=replace(known, layout=with_mutexes_of(known.layout, here().mutex_bytes)),
        root=target.root,
        image=image,
        is_free_threaded=is_free_threaded(version, raw),
    )
    reader, problem = runtime.reader(), ""
    for _ in range(_ATTEMPTS):  # the process runs meanwhile: what is torn now is whole another time
        try:
            prove_living(reader, address, code_type)
            return runtime
        except IdleImageError as error:
            raise NotStartedError(
                f"process {target.pid} has {image.interpreter} loaded, but does not use it",
                "its children may: name one of them, or record them all by --subprocesses",
            ) from error
        except NotLivingError as error:
            raise _misplaced(target, runtime, str(error)) from error
        except UnreadableError as error:
            problem = str(error)
    raise _misplaced(target, runtime, problem)


def check(target: Target, runtime: Runtime) -> None:
    """Read stacks. If the layout is none of ours, one of them must prove it (`prove_walk`).

    A process none of whose threads runs Python code just now is fine, unless its version is new.

    Raises:
        NotPossibleError: The structures are not where they should be.
    """
    nearest = version_like(runtime.version, is_free_threaded=runtime.is_free_threaded).layout
    if not runtime.is_new and runtime.layout == with_mutexes_of(nearest, here().mutex_bytes):
        _check_names(target, runtime)
        return
    reader, problem = runtime.reader(), ""
    for _ in range(_ATTEMPTS):  # as in _prove
        try:
            if prove_walk(reader, runtime.address, nearest, is_new=runtime.is_new) or not runtime.is_new:
                return
            problem = "none of its threads runs Python"
        except UnreadableError as error:
            problem = str(error)
    raise _misplaced(target, runtime, problem)


def _check_names(target: Target, runtime: Runtime) -> None:
    """Every frame of one stack must lead to a real code object with a name and a file."""
    reader, problem = runtime.reader(), ""
    for _ in range(_ATTEMPTS):  # as in _prove
        is_idle = True
        try:
            for thread in reader.thread_states(runtime.address):
                try:
                    frames = reader.frames(thread)
                    if [reader.names(reader.code_head(code)) for code in frames]:
                        return
                except UnreadableError as error:
                    is_idle, problem = False, str(error)
        except UnreadableError as error:
            is_idle, problem = False, str(error)
        if is_idle:
            return
    raise _misplaced(target, runtime, problem)


def _version(target: Target, memory: Memory, image: LoadedImage) -> tuple[int, int]:
    """The exact version; only what has been released counts, since layouts change until then."""
    symbol = image.symbols.get("Py_Version")
    if symbol is not None:
        number = memory.half_word(symbol)
        major, minor, level = number >> 24, number >> 16 & 0xFF, number >> 4 & 0xF
        if level in (_ALPHA, _BETA):
            raise _unsupported(target, "it is a version from before its release", image.interpreter)
        return major, minor
    match = re.match(r"(\d+)\.(\d+)(?:\.\d+)?(\w*)", image.interpreter.version)
    if match is None:
        raise _unsupported(target, "its version cannot be told", image.interpreter)
    if match[3].startswith(("a", "b")):
        raise _unsupported(target, "it is a version from before its release", image.interpreter)
    return int(match[1]), int(match[2])


def _misplaced(target: Target, runtime: Runtime, problem: str) -> NotPossibleError:
    if runtime.is_new:
        why = f"Python {spelled(runtime.version)} is not known, and what it says of itself cannot be proved ({problem})"
    else:
        why = f"its structures are not where those of Python {spelled(runtime.version)} should be ({problem})"
    return _unsupported(target, why, runtime.image.interpreter)


def _unsupported(target: Target, why: str, interpreter: Interpreter | None = None) -> NotPossibleError:
    return NotPossibleError(
        f"the interpreter of process {target.pid} ({interpreter or target.interpreter}) cannot be read: {why}",
        f"pprofpy cpu --engine py-spy may know it: see pprofpy doctor --pid {target.pid}",
    )
