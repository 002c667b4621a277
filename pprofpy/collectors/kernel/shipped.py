"""The programs that come compiled with this package: neither bcc nor LLVM is needed to run them.

They are made when the package is built (`scripts/compile_programs.py`), a file each, named by a digest of all that the
compiler was given: what was changed since is not found, and then compiled anew. The kernel is going to run what a file
says, so one is read only if nobody could have written it who could not have written this module as well, and if it is
whole.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pprofpy.collectors.kernel.bytecode import Bytecode
from pprofpy.collectors.kernel.cache import sealed, unsealed
from pprofpy.collectors.kernel.source import FOLDER, CompilerInput
from pprofpy.errors import PprofpyError

COMPILED = FOLDER / "compiled"
_LARGEST_BYTES = 16 << 20


class TamperedError(PprofpyError):
    """A program that is there is not what was built, or may not be."""


def file_name(unit: CompilerInput) -> str:
    """What the file with a compiled program is called."""
    return f"{unit.source.file.split('.')[0]}-{unit.digest[:32]}.json"


def shipped(unit: CompilerInput) -> Bytecode | None:
    """A compiled program; None if this package came without it.

    Raises:
        TamperedError: Somebody else may have written it, or it is damaged.
    """
    path = COMPILED / file_name(unit)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise TamperedError(f"{path} cannot be read: {error.strerror}", _HINT) from error
    with os.fdopen(descriptor, "rb") as stream:
        if reason := _distrust(os.fstat(descriptor)) or _distrust(COMPILED.lstat(), is_folder=True):
            raise TamperedError(f"{path} is not used: {reason}", _HINT)
        content = stream.read(_LARGEST_BYTES)
    try:
        return Bytecode.from_json(unsealed(path.name, content))
    except (ValueError, KeyError, TypeError) as error:
        raise TamperedError(f"{path} is not used: it is damaged, or another program's", _HINT) from error


def keep(unit: CompilerInput, bytecode: Bytecode) -> str:
    """Add a compiled program to the package; returns the file's name."""
    name = file_name(unit)
    COMPILED.mkdir(mode=0o755, exist_ok=True)
    temporary = COMPILED / f".{name}.{os.getpid()}"
    temporary.write_bytes(sealed(name, bytecode.to_json()))
    temporary.chmod(0o644)
    temporary.rename(COMPILED / name)
    return name


def is_any_shipped() -> bool:
    """Did this package come with compiled programs at all?"""
    return any(COMPILED.glob("*.json"))


_HINT = "install pprofpy again: pip install --force-reinstall pprofpy"


def _distrust(facts: os.stat_result, *, is_folder: bool = False) -> str:
    """Why one may not be what was built; empty if it is as trustworthy as this module."""
    code = Path(__file__).stat()
    if not (stat.S_ISDIR if is_folder else stat.S_ISREG)(facts.st_mode):
        return "it is no regular file"
    if facts.st_uid not in (0, os.geteuid(), code.st_uid):
        return f"it belongs to another user (uid {facts.st_uid})"
    allowed = code.st_mode & 0o020 if facts.st_gid == code.st_gid else 0
    if facts.st_mode & 0o022 & ~allowed:
        return "others may write it"
    return ""
